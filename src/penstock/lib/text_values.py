"""Changing texts where they stand in an event: splitting and replacing as Java does, without harm to other values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any

from penstock.core.batch import Body
from penstock.core.inline import Inline
from penstock.core.key import Key
from penstock.lib import regex
from penstock.lib.regex import interruptible

JAVA_BLANKS = "".join(map(chr, range(0x21)))
"""What Java's `trim` removes."""
JAVA_WHITESPACE = (
    "\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a"
    "\u2028\u2029\u205f\u3000"
)
"""What Java's `strip` removes."""

_PLAIN = re.compile(r"[A-Za-z0-9 _,:;@!%&=~\"'<>/-]+", re.ASCII)
_GROUP_NAME = re.compile(r"\{([A-Za-z][A-Za-z0-9]*)\}", re.ASCII)
_DIGITS = "0123456789"


class ReplacementError(ValueError):
    """A replacement text that fails at every match."""


def compile_change(keys: Sequence[Key], change: str, /, **names: Any) -> Inline:
    """Statements that change the texts under `keys`, in order. Absent values and those that are no text stay.

    `change` is a Python expression for what takes the place of `value`; `names` are what stands in it.
    """
    if len(keys) == 1 and len(keys[0].parts) == 1:
        return Inline(
            f"value = body.get(name)\nif type(value) is str:\n    body[name] = {change}", name=keys[0].parts[0], **names
        )
    if all(len(key.parts) == 1 for key in keys):
        return Inline(
            f"for name in keys:\n    value = body.get(name)\n    if type(value) is str:\n        body[name] = {change}",
            keys=tuple(key.parts[0] for key in keys),
            **names,
        )
    return Inline(
        f"for get, store in keys:\n    value = get(body)\n    if type(value) is str:\n        store(body, {change})",
        keys=[(key.get, compile_store(key)) for key in keys],
        **names,
    )


def compile_store(key: Key) -> Callable[[Body, object], None]:
    """A function that replaces the value that is under `key` for sure, also under names made of digits."""
    *parents, last = key.parts

    def store(body: Body, value: object) -> None:
        node = body
        for part in parents:
            node = node[part] if type(node) is dict else node[int(part)]  # type: ignore[index]
        if type(node) is dict:
            node[last] = value
        else:
            node[int(last)] = value  # type: ignore[index]

    return store


def compile_split(delimiter: str | None, expression: str | None = None) -> Callable[[str], list[str]]:
    """A function that splits at a delimiter, or where a regular expression matches.

    Empty texts at the end are left out. Raises `RegexError`.
    """
    if expression:
        return _split_by_regex(expression)
    assert delimiter, "nothing to split at"

    def split(text: str) -> list[str]:
        parts = text.split(delimiter)
        return parts if parts[-1] or len(parts) == 1 else _without_empty_end(parts)

    return split


def compile_replace(expression: str, replacement: str) -> Callable[[str], str]:
    """A function that replaces every match. `$1` and `${name}` in the replacement stand for groups, `\\$` for a dollar.

    Raises `RegexError`, and `ReplacementError` for a replacement that names no group or ends too early.
    """
    pattern = regex.compile_java(expression)
    template = _template(replacement, pattern.groups, regex.group_names(expression))
    if "\\" not in template and _PLAIN.fullmatch(expression):
        return methodcaller("replace", expression, template)
    if regex.may_prefer_nothing(regex.parse(expression)):
        return _replace_one_by_one(expression, template)
    substitute = pattern.sub

    @interruptible
    def replace(text: str) -> str:
        return substitute(template, text)

    return replace


def _replace_one_by_one(expression: str, template: str) -> Callable[[str], str]:
    find = regex.compile_finder(expression)

    @interruptible
    def replace(text: str) -> str:
        pieces: list[str] = []
        start = 0
        for found in find(text):
            pieces += (text[start : found.start()], found.expand(template))
            start = found.end()
        return "".join([*pieces, text[start:]])

    return replace


def _split_by_regex(expression: str) -> Callable[[str], list[str]]:
    pattern = regex.compile_java(expression)
    if not pattern.groups and not regex.nullable(regex.parse(expression)):
        cut = pattern.split

        @interruptible
        def split(text: str) -> list[str]:
            parts = cut(text)
            return parts if parts[-1] or len(parts) == 1 else _without_empty_end(parts)

        return split
    find = regex.compile_finder(expression)

    @interruptible
    def split_at_matches(text: str) -> list[str]:
        parts, start = [], 0
        for found in find(text):
            begin, end = found.span()
            if end == 0:  # an empty match at the beginning separates nothing
                continue
            parts.append(text[start:begin])
            start = end
        parts.append(text[start:])
        return parts if parts[-1] or len(parts) == 1 else _without_empty_end(parts)

    return split_at_matches


def _without_empty_end(parts: list[str]) -> list[str]:
    while parts and not parts[-1]:
        parts.pop()
    return parts


def _template(replacement: str, groups: int, names: dict[str, int]) -> str:
    """A Java replacement as Python has it."""
    pieces = []
    place = 0
    while place < len(replacement):
        char = replacement[place]
        place += 1
        if char == "\\":
            if place == len(replacement):
                raise ReplacementError("there is nothing behind the last backslash")
            pieces.append(_literal(replacement[place]))
            place += 1
        elif char == "$":
            number, place = _group(replacement, place, groups, names)
            pieces.append(f"\\g<{number}>")
        else:
            pieces.append(_literal(char))
    return "".join(pieces)


def _literal(char: str) -> str:
    return "\\\\" if char == "\\" else char


def _group(replacement: str, place: int, groups: int, names: dict[str, int]) -> tuple[int, int]:
    """The group that stands behind a dollar, and the place behind it."""
    named = _GROUP_NAME.match(replacement, place)
    if named is not None:
        if named[1] not in names:
            raise ReplacementError(f"there is no group {named[1]}")
        return names[named[1]], named.end()
    digit = replacement[place : place + 1]
    if not digit or digit not in _DIGITS:
        raise ReplacementError("a dollar stands for a group; write \\$ for a dollar")
    number = int(digit)
    if number > groups:
        raise ReplacementError(f"there is no group {number}")
    place += 1
    while place < len(replacement) and replacement[place] in _DIGITS:
        longer = number * 10 + int(replacement[place])
        if longer > groups:
            break
        number, place = longer, place + 1
    return number, place
