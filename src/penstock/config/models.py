"""What an options model holds at a path of its values."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from penstock.config.nodes import Path


def option_names(model: type[BaseModel]) -> list[str]:
    """The options of a model as they are written in YAML."""
    return [yaml_names(name, info)[0] for name, info in model.model_fields.items()]


def yaml_names(name: str, info: FieldInfo) -> list[str]:
    """Every name of an option in YAML, the preferred one first."""
    alias = info.validation_alias or info.alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return list(dict.fromkeys([choice for choice in choices if isinstance(choice, str)] + [name]))


def models_at(model: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    """The models that may stand at a path of the values; several where it is a union."""
    here: list[Any] = [model]
    for segment in path:
        here = [step for annotation in here for step in _step(annotation, segment)]
    return [found for annotation in here for found in _models(annotation)]


def options_at(model: type[BaseModel], path: Path) -> list[str]:
    """Options of the model at a path of the values; of all members where it is a union."""
    return list(dict.fromkeys(name for found in models_at(model, path) for name in option_names(found)))


def _step(annotation: Any, segment: str | int) -> Iterator[Any]:
    """The annotations one path segment below an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            if segment in yaml_names(name, info):
                yield info.annotation
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _step(arguments[0], segment)
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _step(argument, segment)
    elif origin is dict and isinstance(segment, str):
        yield arguments[1]
    elif origin in (list, tuple, set, frozenset) and isinstance(segment, int):
        yield arguments[0]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _models(argument)
