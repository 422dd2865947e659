"""Faults that hide behind others: pydantic asks the rules of a model only once every option of it is right, and a rule
that comes before the options ends the check of all of them.

What could not be read is left out, and the rest is asked again. A rule that looks at an option left out is not judged,
so that nothing is called wrong that may be right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError, ValidationInfo, create_model, model_validator
from pydantic_core import PydanticCustomError

from penstock.config.closest import closest
from penstock.config.models import models_at, option_names, yaml_names
from penstock.config.nodes import Path

BROKEN_RULE = frozenset(("value_error", "assertion_error"))
PLACES_MAX = 100
"""Models of one plugin that are asked again."""
_UNREADABLE = "unreadable"


def hidden(
    model: type[BaseModel], values: Any, errors: list[tuple[Path, Any]], context: Mapping[str, Any]
) -> list[tuple[Path, Any]]:
    """More errors of the values, as pydantic describes them, by their paths. `errors`: those known."""
    broken = list(dict.fromkeys(path for path, error in errors if error["type"] in BROKEN_RULE))[:PLACES_MAX]
    behind = [
        ((*path, *error["loc"]), error)
        for path in broken
        for error in _ask(_model_at(model, path), _value_at(values, path), None, context)
        if error["loc"]
    ]
    wrong: dict[Path, set[str]] = {path: set() for path in broken}
    for path, error in (*errors, *behind):
        for depth in range(len(path)):
            if path[:depth] in wrong or len(wrong) < PLACES_MAX:
                unknown = error["type"] == "extra_forbidden" and depth == len(path) - 1
                wrong.setdefault(path[:depth], set()).add(_option(model, path[: depth + 1], unknown=unknown))
    rules = [
        (path, error)
        for path, names in wrong.items()
        for error in _ask(_model_at(model, path), _value_at(values, path), frozenset(names), context)
        if not error["loc"] and error["type"] in BROKEN_RULE
    ]
    # what is missing or empty is what the broken rule is about, most likely
    return [*((path, error) for path, error in behind if not _is_empty(error)), *rules]


def _is_empty(error: Any) -> bool:
    return error["type"] == "missing" or error["input"] in (None, "")


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The only model that may stand at a path."""
    models = models_at(model, path)
    return models[0] if len(models) == 1 else None


def _option(model: type[BaseModel], path: Path, *, unknown: bool) -> str:
    """The option that stands at a path, or for which an unknown one may be a slip of the pen."""
    name = str(path[-1])
    holder = _model_at(model, path[:-1])
    if not unknown or holder is None:
        return name
    return closest(name, option_names(holder), distance_max=max(1, len(name) // 3)) or name


def _value_at(values: Any, path: Path) -> Any:
    for segment in path:
        values = values[segment]
    return values


def _ask(
    model: type[BaseModel] | None, values: Any, wrong: frozenset[str] | None, context: Mapping[str, Any]
) -> list[Any]:
    """Errors of a model without the rules that come before its options.

    `wrong`: options to leave out, together with the unknown ones, so that the rules behind the options are asked.
    """
    if model is None or not isinstance(values, dict):
        return []
    left_out: frozenset[str] = frozenset()
    if wrong is not None:
        names = {name: yaml_names(name, info) for name, info in model.model_fields.items()}
        left_out = frozenset(name for name, keys in names.items() if not wrong.isdisjoint(keys))
        known = {key for name, keys in names.items() if name not in left_out for key in keys}
        values = {key: value for key, value in values.items() if key in known}
    try:
        _part_of(model, left_out).model_validate(values, context=dict(context))
    except ValidationError as error:
        return list(error.errors(include_url=False))
    return []


@lru_cache(200)
def _part_of(model: type[BaseModel], left_out: frozenset[str]) -> type[BaseModel]:
    """The model with options that are not to be set, and of which no rule can learn anything."""
    rules: dict[str, Any] = {
        name: model_validator(mode="before")(_tolerant(rule.func))
        for name, rule in model.__pydantic_decorators__.model_validators.items()
        if rule.info.mode == "before"
    }
    fields: dict[str, Any] = {name: (Any, None) for name in left_out}
    part: type[BaseModel] = create_model(model.__name__, __base__=model, __validators__=rules, **fields)

    def read(self: object, name: str) -> Any:
        if name in left_out:
            raise PydanticCustomError(_UNREADABLE, "this option is not known")
        return object.__getattribute__(self, name)

    part.__getattribute__ = read  # type: ignore[method-assign]
    return part


def _tolerant(rule: Callable[..., Any]) -> Any:
    takes_info = len(inspect.signature(rule).parameters) > 1

    def tolerate(cls: type[BaseModel], values: Any, info: ValidationInfo) -> Any:
        try:
            return rule(values, info) if takes_info else rule(values)
        except (ValueError, AssertionError):
            return values  # this fault is known

    return classmethod(tolerate)
