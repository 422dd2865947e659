"""Values against an options model: every fault at once, in the words of Data Prepper, with the path of its value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penstock.config.closest import closest
from penstock.config.models import options_at
from penstock.config.nodes import Path
from penstock.config.references import Unresolved
from penstock.config.rules import BROKEN_RULE, hidden
from penstock.core.errors import Problem

M = TypeVar("M", bound=BaseModel)
_SHOWN_LENGTH_MAX = 120
_RETRIES_MAX = 5


@dataclass(frozen=True, slots=True)
class Subject:
    """What the options belong to, as messages call it."""

    parameter_of: str = ""
    """Put behind `Parameter "x"`: ` for plugin "grok"`."""
    root: str = ""
    """Put before the path of a parameter: `log-pipeline.`."""
    incorrect: str = ""
    """Put before a broken rule: `Plugin grok in pipeline p is configured incorrectly: `."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the options."""

    path: Path
    message: str
    suggestion: str = ""
    severity: str = "error"


@dataclass(frozen=True, slots=True)
class NestedProblem(Problem):
    """A problem of a plugin inside the options of another, before its place in the file is known."""

    location: Path = ()
    """Path from the value of the option that names the plugin."""


def check_options(
    model: type[M], values: Any, subject: Subject, context: Mapping[str, Any] | None = None
) -> tuple[M | None, list[Fault]]:
    """Make the model of plain values. None when there are faults, or when it waits for the value of a reference.

    As Jackson does, null for an option that cannot be null leaves the option out, and a boolean for a text is its
    word. `values` may be changed for that.
    """
    errors: list[Any] = []
    for _ in range(_RETRIES_MAX):
        try:
            return model.model_validate(values, context=dict(context or {})), []
        except ValidationError as error:
            errors = list(error.errors(include_url=False))
        adapted = [_adapt(values, _real_path(values, entry["loc"])[0], entry) for entry in errors]
        if not any(adapted):
            break
    located = [(_real_path(values, entry["loc"], entry["type"])[0], entry) for entry in _one_per_union(values, errors)]
    located += hidden(model, values, located, context or {})
    faults = [fault for path, entry in located for fault in _faults(model, path, entry, subject)]
    return None, list(dict.fromkeys(faults))


def dotted(path: Iterable[str | int]) -> str:
    """`entries.0.to_key`"""
    return ".".join(str(segment) for segment in path)


def _adapt(values: Any, path: Path, entry: Any) -> bool:
    """Read a value the way Jackson does, where that helps; says whether something changed."""
    if not path:
        return False
    holder = values
    for segment in path[:-1]:
        holder = holder[segment]
    last = path[-1]
    given = entry["input"]
    if entry["type"] in _NOT_ABOUT_NULL:
        return False
    if given is None and isinstance(holder, dict) and last in holder and holder[last] is None:
        del holder[last]
        return True
    if entry["type"] == "string_type" and isinstance(given, bool) and _at(holder, last) is given:
        holder[last] = str(given).lower()
        return True
    return False


def _at(holder: Any, segment: str | int) -> Any:
    try:
        return holder[segment]
    except (KeyError, IndexError, TypeError):
        return None


def _real_path(values: Any, location: tuple[str | int, ...], kind: str = "") -> tuple[Path, Path | None]:
    """The path in the values, without the marks pydantic adds for unions and keys; and where the first mark stood."""
    path: list[str | int] = []
    union: Path | None = None
    for position, segment in enumerate(location):
        inside = segment < len(values) if isinstance(values, list) and isinstance(segment, int) else False
        if inside or (isinstance(values, dict) and segment in values):
            values = values[segment]
        elif kind == "missing" and position == len(location) - 1:
            pass
        else:
            if segment != "[key]" and union is None:
                union = tuple(path)
            continue
        path.append(segment)
    return tuple(path), union


def _one_per_union(values: Any, errors: list[Any]) -> Iterator[Any]:
    """Of the failed members of a union only the one that came farthest is of interest."""
    best: dict[Path, tuple[int, list[Any]]] = {}
    for entry in errors:
        path, union = _real_path(values, entry["loc"], entry["type"])
        if union is None:
            yield entry
            continue
        depth, kept = best.get(union, (-1, []))
        if len(path) > depth:
            best[union] = (len(path), [entry])
        elif len(path) == depth and len(path) > len(union):
            kept.append(entry)
    for _, kept in best.values():
        yield from kept


def _faults(model: type[BaseModel], path: Path, entry: Any, subject: Subject) -> Iterator[Fault]:
    kind, given, context = entry["type"], entry["input"], entry.get("ctx", {})
    if isinstance(given, Unresolved):
        return  # its value is checked when it is known
    if kind == "nested_plugin":
        for problem in context["problems"]:
            inner = problem.location if isinstance(problem, NestedProblem) else ()
            yield Fault((*path, *inner), problem.message, problem.suggestion, problem.severity)
        return
    message, suggestion = _describe(kind, path, given, entry["msg"], context, subject, model)
    waits = kind in BROKEN_RULE and _has_unresolved(given)
    yield Fault(path, message, suggestion, "warning" if waits else "error")


def _describe(
    kind: str, path: Path, given: Any, text: str, context: Mapping[str, Any], subject: Subject, model: type[BaseModel]
) -> tuple[str, str]:
    """Message and suggestion of one pydantic error."""
    name = dotted(path)
    parameter = f'Parameter "{subject.root}{name}"{subject.parameter_of}'
    if kind == "extra_forbidden":
        return _unknown_option(parameter, path, model)
    if kind == "not_yet":
        return f"{parameter} is not supported yet.", f"leave {path[-1] if path else name} out"
    if kind in BROKEN_RULE:
        return subject.incorrect + str(context.get("error", text)), ""
    if kind in _RULES or kind in _SIZES:
        return f"{subject.incorrect}{name} {_rule(kind, context)}", ""
    if kind == "missing":
        return f"{subject.incorrect}{name} must not be null", f"set {name}"
    if kind == "condition":
        return f"{subject.incorrect}{path[-1] if path else ''} {text}", str(context.get("why", ""))
    if kind in ("enum", "literal_error"):
        options = re.findall(r"'((?:[^'\\]|\\.)*)'", context.get("expected", ""))
        near = closest(str(given), options)
        reason = f'Invalid value "{_shown(given)}". Valid options include [{", ".join(options)}].'
        return f"{parameter} is invalid: {reason}", f"write {near}" if near else ""
    if kind in _TYPES:
        return f"{parameter} is invalid: {_wrong_type(_TYPES[kind], given)}", ""
    return f"{parameter} is invalid: {text}", ""


def _unknown_option(parameter: str, path: Path, model: type[BaseModel]) -> tuple[str, str]:
    known = options_at(model, path[:-1])
    message = f"{parameter} does not exist. Available options include [{', '.join(known)}]."
    near = closest(str(path[-1]), known)
    if near is None:
        return message, ""
    return f'{message} Did you mean "{near}"?', f"write {near} instead of {path[-1]}"


def _rule(kind: str, context: Mapping[str, Any]) -> str:
    if kind in _RULES:
        word, key = _RULES[kind]
        return f"{word} {context.get(key, '')}".rstrip()
    low, high = context.get("min_length"), context.get("max_length")
    if low == 1 and context.get("actual_length", 0) == 0:
        return "must not be empty"
    return f"size must be between {low or 0} and {high if high is not None else 2147483647}"


_NOT_ABOUT_NULL = BROKEN_RULE | {"extra_forbidden", "missing"}
_RULES = {
    "greater_than": ("must be greater than", "gt"),
    "greater_than_equal": ("must be greater than or equal to", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be less than or equal to", "le"),
    "multiple_of": ("must be a multiple of", "multiple_of"),
    "string_pattern_mismatch": ("must match", "pattern"),
}
_SIZES = frozenset(("too_short", "too_long", "string_too_short", "string_too_long"))
_TYPES = {
    "int_parsing": "int",
    "int_type": "int",
    "int_from_float": "int",
    "int_parsing_size": "int",
    "float_parsing": "double",
    "float_type": "double",
    "bool_parsing": "boolean",
    "bool_type": "boolean",
    "string_type": "String",
    "list_type": "List",
    "tuple_type": "List",
    "set_type": "Set",
    "frozen_set_type": "Set",
    "dict_type": "Map",
    "model_type": "Map",
    "model_attributes_type": "Map",
    "decimal_parsing": "Decimal",
    "decimal_type": "Decimal",
}


def _wrong_type(name: str, given: Any) -> str:
    if isinstance(given, dict):
        return f"Cannot deserialize value of type `{name}` from Object value."
    if isinstance(given, list):
        return f"Cannot deserialize value of type `{name}` from Array value."
    if given is None:
        return f"Cannot deserialize value of type `{name}` from Null value."
    if isinstance(given, bool):
        return f"Cannot deserialize value of type `{name}` from Boolean value ({str(given).lower()})."
    if isinstance(given, int | float):
        return f"Cannot deserialize value of type `{name}` from Number value ({_shown(given)})."
    return f'Cannot deserialize value of type `{name}` from String "{_shown(given)}": not a valid `{name}` value'


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_LENGTH_MAX else text[:_SHOWN_LENGTH_MAX] + "…"


def _has_unresolved(value: Any) -> bool:
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        return any(_has_unresolved(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_unresolved(item) for item in value)
    return isinstance(value, Unresolved)
