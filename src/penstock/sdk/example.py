"""Examples: shown in the docs, run by the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """What a plugin does to events, or how it is configured."""

    title: str
    config: str
    """Options as YAML."""
    before: list[dict[str, Any]] = field(default_factory=list)
    after: list[dict[str, Any]] = field(default_factory=list)
    tags: list[list[str]] | None = None
    """Tags of the events afterwards, where the example is about them."""
    metadata: list[dict[str, Any]] | None = None
    """Attributes of the events afterwards, where the example is about them."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments for `penstock.testing.run_processor`."""


def examples_of(module: ModuleType, kind: str) -> list[Example]:
    """The examples of a plugin module; one that serves several kinds (a codec in and out) lists them by kind."""
    listed = getattr(module, "EXAMPLES", [])
    return list(listed.get(kind, ()) if isinstance(listed, dict) else listed)
