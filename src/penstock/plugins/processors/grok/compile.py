"""Grok patterns, from `%{NAME:field:type}` to a function that finds the fields in a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.lib import java_values, regex
from penstock.plugins.processors.grok import apache
from penstock.plugins.processors.grok.patterns import PATTERNS

Convert = Callable[[str], Any]

EXPANDED_CHARACTERS_MAX = 500_000
"""Longest regular expression a grok pattern may stand for."""
FAILURE_SUFFIX = "_grokfailure"
"""What is added to a key to say why its text could not be converted."""
DROPPED = "UNWANTED"
"""Captures of this name go nowhere."""

_REFERENCE = re.compile(
    r"%\{(?P<name>(?P<pattern>[A-z0-9]+)(?::(?P<field>[A-z0-9_:;,\-/\s.'@]+))?)(?:=(?P<definition>[^{}]+))?\}", re.ASCII
)
_DEFINITION_LINE = re.compile(r"([A-z0-9_]+)\s+(.*)")
_TYPES: dict[str, Convert | None] = {
    "byte": java_values.integer_reader(8),
    "short": java_values.integer_reader(16),
    "int": java_values.integer_reader(32),
    "integer": java_values.integer_reader(32),
    "long": java_values.integer_reader(64),
    "float": java_values.read_float,
    "double": java_values.read_double,
    "boolean": java_values.read_boolean,
    "string": None,
    "text": None,
}


class GrokError(ValueError):
    """A grok pattern cannot be compiled."""


@dataclass(frozen=True, slots=True)
class Field:
    """One capture of a pattern."""

    key: str
    convert: Convert | None = None
    """None for text. Raises ValueError."""


class Pattern:
    """A compiled grok pattern."""

    def __init__(
        self,
        fields: tuple[Field, ...],
        search: apache.Find,
        certain: frozenset[int],
        common: apache.CommonForm | None = None,
    ) -> None:
        self.fields = fields
        self.common = common
        """A form to be tried before `search`."""
        self.search = search
        """Like `find`, without the common form."""
        self.find = search if common is None else common.find(search, len(fields))
        """The captured texts of the first match, one place per field; None: no match.

        Those that are not converted are without surrounding quotes.
        """
        self.certain = certain
        """Places of the fields that take part in every match."""

    def captures(self, row: regex.Row, *, keep_empty: bool) -> dict[str, Any]:
        """What a match puts into an event: several values of one key become a list, absent ones are left out."""
        captured: dict[str, Any] = {}
        for field, text in zip(self.fields, row, strict=True):
            value: Any = text
            if text is None:
                if not keep_empty:
                    continue
            elif field.convert is not None:
                try:
                    value = field.convert(text)
                except ValueError as error:
                    captured[field.key + FAILURE_SUFFIX] = str(error)
                    value = unquote(text)
            if field.key not in captured:
                captured[field.key] = value
            elif isinstance(known := captured[field.key], list):
                known.append(value)
            else:
                captured[field.key] = [known, value]
        return captured


def read_definitions(lines: Iterable[str]) -> dict[str, str]:
    """The definitions in the lines of a pattern file: a name, blanks, a pattern. Other lines are no definitions."""
    found = (_DEFINITION_LINE.fullmatch(line) for line in lines)
    return clean_definitions({line[1]: line[2] for line in found if line})


def clean_definitions(definitions: Mapping[str, str]) -> dict[str, str]:
    """Definitions without surrounding blanks; empty ones define nothing."""
    pairs = ((name.strip(), pattern.strip()) for name, pattern in definitions.items())
    return {name: pattern for name, pattern in pairs if name and pattern}


def compile_pattern(pattern: str, definitions: Mapping[str, str], *, named_only: bool) -> Pattern:
    """Compile `pattern` with the library and `definitions`, which win. Raises `GrokError`.

    `named_only` leaves captures without a field name out; otherwise they are named like their pattern.
    """
    if not pattern.strip():
        raise GrokError("the pattern is empty")
    text, names = _expand(pattern, {**PATTERNS, **definitions}, named_only=named_only)
    try:
        tree = regex.parse(text)
        keys = [names.get(group.name, group.name) if group.name else None for group in regex.groups(tree)]
        kept = {
            group.number: _field(key)
            for group, key in zip(regex.groups(tree), keys, strict=True)
            if key is not None and key != DROPPED
        }
        search = regex.Search(tree, lambda group: group.number in kept)
        common = _common_form(pattern, text, names, named_only=named_only)
        find = search.find(from_start=common is None)
    except regex.RegexError as error:
        raise GrokError(str(error)) from None
    quoted = [
        place
        for place, group in enumerate(group for group in regex.groups(tree) if group.number in kept)
        if kept[group.number].convert is None and regex.can_start_with(group.item, "\"'")
    ]
    if quoted:
        find = _unquoting(find, quoted)
    order = {number: place for place, number in enumerate(kept)}
    certain = frozenset(order[group.number] for group in regex.certain_groups(tree) if group.number in order)
    return Pattern(tuple(kept.values()), find, certain, common)


def unquote(text: str) -> str:
    """The text without the quotes around it, unless the same quote stands inside too."""
    first = text[:1]
    if (first == '"' or first == "'") and text[-1] == first and first not in (inner := text[1:-1]):
        return inner
    return text


def _common_form(pattern: str, text: str, names: dict[str, str], *, named_only: bool) -> apache.CommonForm | None:
    """A faster way for the common texts of a pattern that stands for what the library says."""
    common = apache.COMMON_FORMS.get(pattern)
    if common is None or not named_only or (text, names) != _expand(pattern, PATTERNS, named_only=True):
        return None
    return common


def _expand(pattern: str, definitions: Mapping[str, str], *, named_only: bool) -> tuple[str, dict[str, str]]:
    """The regular expression behind a grok pattern, and what its groups are called."""
    known = dict(definitions)
    names: dict[str, str] = {}
    size = 0

    def expand(text: str, inside: tuple[str, ...]) -> str:
        def replace(found: re.Match[str]) -> str:
            nonlocal size
            name = found["pattern"]
            if found["definition"] is not None:
                known[name] = found["definition"]
            if name not in known:
                raise GrokError(f"No definition for key '{name}' found, aborting")
            if name in inside:
                raise GrokError(f"Deep recursion pattern compilation of {pattern}")
            size += len(known[name])
            if size > EXPANDED_CHARACTERS_MAX:
                raise GrokError(f"the pattern stands for more than {EXPANDED_CHARACTERS_MAX} characters")
            if named_only and found["field"] is None:
                return f"(?:{expand(known[name], (*inside, name))})"
            group = f"\0{len(names)}"
            names[group] = found["field"] or found["name"]
            return f"(?<{group}>{expand(known[name], (*inside, name))})"

        return _REFERENCE.sub(replace, text)

    return expand(pattern, ()), names


def _field(name: str) -> Field:
    """`key:type:format`, where `;` may stand for `:`."""
    key, *conversion = re.split("[:;]", name, maxsplit=2)
    if not conversion:
        return Field(name)
    kind = conversion[0].lower()
    if kind in ("date", "datetime"):
        try:
            return Field(key, java_values.instant_reader(conversion[1] if len(conversion) > 1 else None))
        except ValueError as error:
            raise GrokError(str(error)) from None
    if kind not in _TYPES:
        raise GrokError(f"Invalid data type :{kind}")
    return Field(key, _TYPES[kind])


def _unquoting(find: apache.Find, places: list[int]) -> apache.Find:
    """The search, with the quotes taken off the captures that can have some."""

    def find_unquoted(text: str) -> regex.Row | None:
        row = find(text)
        if row is None:
            return None
        for place in places:
            captured = row[place]
            if captured and captured[0] in "\"'":
                values = list(row)
                for each in places:
                    value = values[each]
                    values[each] = value and unquote(value)
                return tuple(values)
        return row

    return find_unquoted
