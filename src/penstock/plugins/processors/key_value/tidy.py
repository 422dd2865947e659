"""What happens to the pairs of a text before they enter the event."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from penstock import sdk
from penstock.lib.regex import compile_java
from penstock.plugins.processors.key_value.split import Pairs

_BRACKETS = re.compile(r"[\[\]()<>]")
_CASES: dict[str, Callable[[str], str]] = {
    "lowercase": str.lower,
    "uppercase": str.upper,
    "capitalize": lambda key: key[:1].upper() + key[1:],
}


def compile_tidy(
    *,
    include: frozenset[str],
    exclude: frozenset[str],
    delete_key: str | None,
    prefix: str,
    delete_value: str | None,
    strict_blanks: bool,
    transform: str,
    remove_brackets: bool,
    unique: bool,
    drop_null: bool,
    defaults: Mapping[str, Any],
) -> Callable[[Pairs], dict[str, Any]]:
    """A function from pairs to the object of keys and values.

    Keys that come several times have a list; pairs with an empty key are left out.
    """
    change_key = _joined(
        [
            _eraser(delete_key),
            (lambda key: prefix + key) if prefix else None,
            str.rstrip if strict_blanks else None,
            _CASES.get(transform),
        ]
    )
    change_value = _joined(
        [
            _eraser(delete_value),
            str.lstrip if strict_blanks else None,
            (lambda value: _BRACKETS.sub("", value)) if remove_brackets else None,
        ]
    )
    add = _add_unique if unique else _add
    defaults = {key: value for key, value in defaults.items() if key and not (drop_null and value is None)}
    has_defaults = bool(defaults)
    as_they_are = not (include or exclude or drop_null or change_key or change_value or defaults)

    def tidy(pairs: Pairs) -> dict[str, Any]:
        if as_they_are:
            simple = dict(pairs)
            if len(simple) == len(pairs):
                simple.pop("", None)
                return simple
        result: dict[str, Any] = {}
        several: set[str] = set()
        for key, value in _wanted(pairs, include, exclude, drop_null=drop_null):
            if change_key is not None:
                key = change_key(key)
                if not key:
                    continue
            if change_value is not None and type(value) is str:
                value = change_value(value)
            if key in result:
                add(result, key, value, several)
            else:
                result[key] = value
        if has_defaults:
            for key, value in defaults.items():
                if key not in result:
                    result[key] = sdk.copy_value(value)
        return result

    return tidy


def _wanted(
    pairs: Pairs, include: frozenset[str], exclude: frozenset[str], *, drop_null: bool
) -> Iterator[tuple[str, Any]]:
    for key, value in pairs:
        if key and (key in include or not include) and key not in exclude and not (drop_null and value is None):
            yield key, value


def _add(result: dict[str, Any], key: str, value: Any, several: set[str]) -> None:
    if key in several:
        result[key].append(value)
    else:
        several.add(key)
        result[key] = [result[key], value]


def _add_unique(result: dict[str, Any], key: str, value: Any, several: set[str]) -> None:
    known = result[key] if key in several else [result[key]]
    if value not in known:
        _add(result, key, value, several)


def _eraser(expression: str | None) -> Callable[[str], str] | None:
    if not expression:
        return None
    erase = compile_java(expression).sub
    return lambda text: erase("", text)


def _joined(steps: list[Callable[[str], str] | None]) -> Callable[[str], str] | None:
    """One function for all steps that are there; None for none."""
    present = [step for step in steps if step is not None]
    if len(present) < 2:
        return present[0] if present else None

    def run(text: str) -> str:
        for step in present:
            text = step(text)
        return text

    return run
