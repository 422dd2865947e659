"""What a source can tell of a pipeline as a whole, before anything is started: where source and sinks do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class SinkUse(NamedTuple):
    """A sink that gets events of the source, directly or through other pipelines."""

    pipeline: str
    position: int
    """In its pipeline, from 0."""
    name: str
    config: Any


class SourceUse(NamedTuple):
    """A source of the same kind, in this or another pipeline."""

    pipeline: str
    config: Any


class Around(NamedTuple):
    """What stands around a source."""

    sinks: Sequence[SinkUse]
    alike: Sequence[SourceUse]
    """All sources of this kind, this one too."""
    now_ms: int


class Note(NamedTuple):
    """A warning. `pipeline_notes(config, around)` of a source's module gives them."""

    message: str
    suggestion: str = ""
    path: tuple[str | int, ...] = ()
    """The option it is about."""
    sink: SinkUse | None = None
    """The sink whose option that is; None: the source."""
