"""Checked options beside the values they were made of: conditions, templates, secrets and nested plugins by path."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr

from penstock.config.models import yaml_names
from penstock.config.nodes import Path
from penstock.config.references import MASK, BadReference, parse_reference
from penstock.expr import Expression, Template
from penstock.sdk import PluginUse

_LEAVES = (Expression, Template, SecretStr)


def walk(value: Any, written: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What stands inside options, with its path in YAML. `written` are the plain values of the options."""
    if isinstance(value, _LEAVES):
        yield path, value
    elif isinstance(value, PluginUse):
        yield path, value
        if isinstance(written, dict) and written:
            name = next(iter(written))
            yield from walk(value.config, written[name], (*path, name))
    elif isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            for key in yaml_names(name, info):
                if isinstance(written, dict) and key in written:
                    yield from walk(getattr(value, name), written[key], (*path, key))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, written.get(key) if isinstance(written, dict) else None, (*path, key))
    elif isinstance(value, list | tuple):
        items = written if isinstance(written, list) else []
        for index, item in enumerate(value):
            yield from walk(item, items[index] if index < len(items) else None, (*path, index))


def definition(config: BaseModel, written: dict[str, Any]) -> dict[str, Any]:
    """The options as they were written: references as they stand, secrets masked."""
    shown = copy.deepcopy(written)
    for path, value in walk(config, written):
        if isinstance(value, SecretStr):
            _mask(shown, path)
    return shown


def _mask(shown: Any, path: Path) -> None:
    for step in path[:-1]:
        shown = shown[step]
    try:
        reference = parse_reference(str(shown[path[-1]]))
    except BadReference:
        reference = None
    if reference is None:
        shown[path[-1]] = MASK
