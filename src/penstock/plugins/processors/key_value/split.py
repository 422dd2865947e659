"""Texts to pairs: plain, with grouped values, or with nested ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from penstock import sdk
from penstock.lib.regex import compile_java

Pairs = list[tuple[str, Any]]
"""Keys and values in the order of the text; a key may come several times."""

BRACKETS = {"[": "]", "(": ")", "<": ">"}
DEPTH_MAX = 64
"""Levels of nested values; deeper ones stay text."""

_QUOTES = "\"'"
_CLOSING = {'"': '"', "'": "'", "(": ")", "[": "]", "<": ">", "{": "}"}
_GROUP = r"""(?<!\\)["']|[(\[<{]|https?://"""
_BLANKS = "".join(map(chr, range(33)))
"""What is removed around a part."""


def delimiter_units(characters: str) -> list[str]:
    """The delimiters in a text of delimiter characters, of which an escaped one is two characters long."""
    return re.findall(r"\\.|.", characters, re.DOTALL)


def compile_split(
    *,
    fields: str | None,
    field_regex: str | None,
    values: str | None,
    value_regex: str | None,
    non_match_value: Any,
    grouping: bool,
    strict: bool,
    literal: str | None,
    recursive: bool,
) -> Callable[[str], Pairs]:
    """A function from text to pairs. It raises EventError where `strict` asks for it."""
    if recursive:
        assert fields is not None and values is not None, "the rules see to it"
        nested = _Nested(fields[-1], values[-1], non_match_value)
        return lambda text: list(nested.read(text, 0).items())
    divide = _divider(values, value_regex, non_match_value)
    if grouping:
        expressions = _expression(fields, None), _expression(values, value_regex)
        return _Grouped(*expressions, divide, strict=strict, literal=literal).read
    sign = None if values is None else single_delimiter(values)
    only = None if fields is None else single_delimiter(fields)
    if only is not None and sign is not None:  # the most common case does without a call for each pair
        return lambda text: [
            (key, value) if found else (key, non_match_value)
            for part in text.split(only)
            if part
            for key, found, value in [part.partition(sign)]
        ]
    if only is not None:
        return lambda text: [divide(part) for part in text.split(only) if part]
    delimiter = re.compile(_expression(fields, field_regex))
    return lambda text: [divide(part) for part in _cut_at(delimiter, text) if part]


def _divider(characters: str | None, expression: str | None, non_match_value: Any) -> Callable[[str], tuple[str, Any]]:
    only = None if characters is None else single_delimiter(characters)
    if only is not None:

        def divide(part: str) -> tuple[str, Any]:
            key, delimiter, value = part.partition(only)
            return (key, value) if delimiter else (part, non_match_value)

        return divide
    search = re.compile(_expression(characters, expression)).search

    def divide_by_regex(part: str) -> tuple[str, Any]:
        found = search(part)
        return (part, non_match_value) if found is None else (part[: found.start()], part[found.end() :])

    return divide_by_regex


def single_delimiter(characters: str) -> str | None:
    """The one character of the delimiter; None where there are more, or none."""
    units = delimiter_units(characters)
    return units[0][-1] if len(units) == 1 and not _is_class(units[0]) else None


def _is_class(unit: str) -> bool:
    """Whether an escaped letter stands for several characters, as `\\s` does in a regular expression."""
    return len(unit) == 2 and unit[1].isalnum()


def _expression(characters: str | None, expression: str | None) -> str:
    """The source, for `re`, of an expression that matches one delimiter."""
    if expression is not None:
        return compile_java(expression).pattern
    units = delimiter_units(characters or "")
    return "|".join(compile_java(unit).pattern if _is_class(unit) else re.escape(unit[-1]) for unit in units)


def _cut_at(delimiter: re.Pattern[str], text: str) -> Iterator[str]:
    start = 0
    for found in delimiter.finditer(text):
        yield text[start : found.start()]
        start = found.end()
    yield text[start:]


class _Grouped:
    """Splits, but not inside of groups: quotes, brackets and URLs in values, and the literal quote anywhere.

    A group reaches to the first sign that closes it; what has no such sign reaches to the end of the text.
    """

    def __init__(
        self, fields: str, values: str, divide: Callable[[str], tuple[str, Any]], *, strict: bool, literal: str | None
    ) -> None:
        self._field = re.compile(fields)
        self._boundary = re.compile(f"(?P<group>{_GROUP})|(?P<field>{fields})|(?P<value>{values})")
        self._value = re.compile(values)
        self._divide = divide
        self._strict = strict
        self._literal = literal

    def read(self, text: str) -> Pairs:
        return [self._pair(part) for part in self._parts(text) if part]

    def _pair(self, part: str) -> tuple[str, Any]:
        return (part, None) if part[0] == part[-1] == self._literal else self._divide(part)

    def _parts(self, text: str) -> Iterator[str]:
        start = position = 0
        in_value = False
        while found := self._boundary.search(text, position):
            position = max(found.end(), found.start() + 1)
            ends = found.lastgroup == "field"
            end = found.start()
            if found.lastgroup == "group":
                if in_value or found[0] == self._literal:
                    end = position = self._group_end(text, found)
                    ends = text[end - 1] != " " and self._field.match(text[end - 1]) is not None
                elif delimiter := self._field.match(text, found.start()):
                    ends, position = True, max(delimiter.end(), position)
                elif delimiter := self._value.match(text, found.start()):
                    in_value, position = True, max(delimiter.end(), position)
            elif not ends:
                in_value = True
            if ends:
                yield text[start:end].strip(_BLANKS)
                start = position
                in_value = False
        yield text[start:].strip(_BLANKS)

    def _group_end(self, text: str, opening: re.Match[str]) -> int:
        """The place behind the group that begins with `opening`; for a URL that of the blank behind it."""
        closing = _CLOSING.get(opening[0], " ")
        end = text.find(closing, opening.start() + 1)
        while end > 0 and closing in _QUOTES and text[end - 1] == "\\":
            end = text.find(closing, end + 1)
        if end >= 0:
            return end if closing == " " else end + 1
        if self._strict:
            place = f"at character {opening.start()}"
            raise sdk.EventError(f"The group that begins with {opening[0]} {place} has no end", cause="group")
        return len(text)


class _Nested:
    """Splits values in brackets again."""

    def __init__(self, field: str, value: str, non_match_value: Any) -> None:
        self._field, self._value = field, value
        self._non_match_value = non_match_value

    def read(self, text: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for part in self._parts(text):
            key, delimiter, value = part.partition(self._value)
            if not delimiter or not key.strip():
                if part.strip():
                    result[part] = self._non_match_value
                continue
            value = value.lstrip(" ")
            if depth < DEPTH_MAX and len(value) > 1 and BRACKETS.get(value[0]) == value[-1]:
                result[key.rstrip()] = self.read(value[1:-1], depth + 1)
            else:
                result[key.rstrip()] = value
        return result

    def _parts(self, text: str) -> Iterator[str]:
        """The text between delimiters that stand in no bracket."""
        expected: list[str] = []
        start = 0
        for position, sign in enumerate(text):
            if expected and sign == expected[-1]:
                expected.pop()
            elif sign in BRACKETS:
                expected.append(BRACKETS[sign])
            elif sign == self._field and not expected:
                yield text[start:position]
                start = position + 1
        yield text[start:]
