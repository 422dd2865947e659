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

_GROUPS = {'"': '"', "'": "'", "(": ")", "[": "]", "<": ">", "{": "}"}
_URL = re.compile(r"https?://")


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
    if grouping:
        grouped = _Grouped(
            _expression(fields, None), _expression(values, value_regex), non_match_value, strict=strict, literal=literal
        )
        return grouped.read
    divide = _divider(values, value_regex, non_match_value)
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
    """Splits, but not inside of values that begin with a quote, a bracket or a URL scheme."""

    def __init__(self, fields: str, values: str, non_match_value: Any, *, strict: bool, literal: str | None) -> None:
        self._field = re.compile(fields)
        quote = f"|(?P<literal>(?<!\\\\){re.escape(literal)})" if literal else ""
        self._boundary = re.compile(f"(?P<field>{fields})|(?P<value>{values}){quote}")
        self._non_match_value = non_match_value
        self._strict = strict

    def read(self, text: str) -> Pairs:
        pairs: Pairs = []
        start = position = 0
        while position <= len(text):
            found = self._boundary.search(text, position)
            if found is None:
                break
            if found.lastgroup == "value":
                value_end, position = self._value_end(text, found.end())
                pairs.append((text[start : found.start()], text[found.end() : value_end]))
            else:
                self._add_lone(pairs, text[start : found.start()])
                position = found.end()
                if found.lastgroup == "literal":
                    position = self._group_end(text, found.start(), text[found.start()])
            position = max(position, found.start() + 1)
            start = position
        self._add_lone(pairs, text[start:])
        return pairs

    def _add_lone(self, pairs: Pairs, key: str) -> None:
        if key:
            pairs.append((key, self._non_match_value))

    def _value_end(self, text: str, start: int) -> tuple[int, int]:
        """Where the value ends, and where the next key begins."""
        after_group = start
        if _URL.match(text, start):
            after_group = text.find(" ", start)
            after_group = len(text) if after_group < 0 else after_group
        elif text[start : start + 1] in _GROUPS and start < len(text):
            after_group = self._group_end(text, start, _GROUPS[text[start]])
        found = self._field.search(text, after_group)
        return (len(text), len(text) + 1) if found is None else found.span()

    def _group_end(self, text: str, start: int, closing: str) -> int:
        """The place behind the group that opens at `start`; the end of the text when it is never closed."""
        opening = text[start]
        end = text.find(closing, start + 1)
        if (
            end > 0
            and text.find("\\", start, end) < 0
            and (opening == closing or text.find(opening, start + 1, end) < 0)
        ):
            return end + 1
        depth, first_closing, position = 1, -1, start + 1
        while position < len(text):
            sign = text[position]
            if sign == "\\":
                position += 1
            elif sign == closing:
                first_closing = position if first_closing < 0 else first_closing
                depth -= 1
                if depth == 0:
                    return position + 1
            elif sign == opening:
                depth += 1
            position += 1
        if first_closing >= 0:
            return first_closing + 1
        if self._strict:
            raise sdk.EventError(f"The group that begins with {opening} at character {start} has no end", cause="group")
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
                result[key.lstrip()] = self.read(value[1:-1], depth + 1)
            else:
                result[key.lstrip()] = value
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
