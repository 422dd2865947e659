"""Takes fields out of texts by the fixed texts between them: `%{date} %{level}: %{message}`.

Pieces of a pattern:

- `%{name}` goes into the event, `%{}` and `%{?name}` do not
- `%{+name}` is joined with others of that name, `%{+name/2}` in the order of the numbers
- `%{&name}` goes under the key that the field `name` holds: `%{?key}=%{&key}`
- `%{name->}` is without the blanks at its end

Blanks between two fields match the last ones of several. Where the text does not fit, the event stays as it was and
`dissectMismatch` counts it. A value that cannot be converted stays text.

Unlike in Data Prepper a pattern of a single field takes the whole text, and an empty first field is empty instead of
getting the value of the second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self, cast, get_args

from pydantic import Field, model_validator

from penstock import sdk
from penstock.lib.event_keys import Key, event_key
from penstock.lib.target_types import TargetType, compile_conversion, java_text
from penstock.lib.text_values import JAVA_BLANKS, JAVA_WHITESPACE

_Fields = dict[str, str]

PLAIN_NAMES_MAX = 1024
"""Names remembered as plain, which lead to the top of the event."""

_PIECE = re.compile(r"%\{([^}]*)\}")
_PREFIXED = re.compile(r"([+&?])([^\n\r\x85\u2028\u2029]+)")
_INDEX = re.compile(r"/([0-9]{1,9})\Z", re.ASCII)
_BLANK_RUN = re.compile(r"[ \t\n\x0b\f\r]*")
_WRONG_TYPE = (
    "target_type must be a Map<String, TargetType>. Valid options include "
    "[ 'integer', 'string', 'double', 'boolean', 'long', and 'big_decimal' ]"
)


class Config(sdk.PluginConfig):
    map: dict[sdk.Key, str]
    """Patterns by the key of the text they take apart, in order."""
    target_types: Annotated[dict[str, str], Field(default_factory=dict)]
    """Types by field: `integer`, `long`, `double`, `boolean`, `big_decimal` or `string`."""
    dissect_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    delete_source: bool = False
    """Remove a text that was taken apart."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not set(self.target_types.values()) <= set(get_args(TargetType)):
            raise ValueError(_WRONG_TYPE)
        return self


@dataclass(frozen=True, slots=True)
class Piece:
    """One `%{...}` of a pattern."""

    kind: str
    """A space for a plain field, else `+`, `?` or `&`."""
    name: str
    index: int = 0
    strips: bool = False


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    types = {name: compile_conversion(cast(TargetType, kind)) for name, kind in config.target_types.items()}
    mismatches = ctx.metrics.counter("dissectMismatch")
    steps = []
    for key, pattern in config.map.items():
        change = _change(key, Pattern(pattern), types, delete=config.delete_source, missed=mismatches.add)
        steps.append(ctx.each(change, when=config.dissect_when))
    return ctx.chain(steps)


def _change(
    key: Key, pattern: Pattern, types: dict[str, Callable[[Any], Any]], *, delete: bool, missed: Callable[[], None]
) -> sdk.EventFn:
    get, dissect, plain_names = key.get, pattern.dissect, set[str]()
    always_plain = pattern.names is not None and all(map(_is_plain, pattern.names))

    def change(body: sdk.Body) -> None:
        text = get(body)
        if text.__class__ is not str:
            if text is None or text is sdk.MISSING:
                return
            if type(text) is dict or type(text) is list:
                raise sdk.EventError(f"The value of {key} is no text", cause="type")
            text = java_text(text)
        fields = dissect(text)
        if fields is None:
            missed()
            return
        values: dict[str, Any] = fields
        if types:
            values = {name: _converted(value, types.get(name)) for name, value in fields.items()}
        if always_plain or plain_names.issuperset(values):
            body.update(values)
        else:
            _put_all(body, values, plain_names)
        if delete:
            key.delete(body)

    return change


def _is_plain(name: str) -> bool:
    """Whether the name is the key of a value at the top of the event."""
    try:
        return event_key(name).parts == (name,) and not name.isdecimal()
    except sdk.EventError:
        return False


def _put_all(body: sdk.Body, values: dict[str, Any], plain_names: set[str]) -> None:
    """Put values under their names, which are event keys, all or none; remembers plain names."""
    keys = {name: event_key(name) for name in values}
    found = {name for name in values if _is_plain(name)}
    if len(plain_names) < PLAIN_NAMES_MAX:
        plain_names |= found
    if len(found) == len(values):
        body.update(values)
        return
    trial = sdk.copy_value(body)
    for name, value in values.items():
        keys[name].put(trial, value)
    body.clear()
    body.update(trial)


def _converted(text: str, convert: Callable[[Any], Any] | None) -> Any:
    if convert is None:
        return text
    try:
        return convert(text)
    except ValueError:
        return text


class Pattern:
    """A compiled pattern."""

    def __init__(self, text: str) -> None:
        *texts, last = _PIECE.split(text)
        pieces = [_piece(inside) for inside in texts[1::2]]
        delimiters = [delimiter for delimiter in (*texts[::2], last) if delimiter]
        self._cut = _cutter(delimiters, begins_with_field=not texts[:1] or not texts[0])
        self._name_fields = _namer(pieces)
        self._count = len(pieces)
        self._strips = [place for place, piece in enumerate(pieces) if piece.strips]
        self.names = (
            None
            if any(piece.kind == "&" for piece in pieces)
            else {piece.name for piece in pieces if piece.kind in " +"}
        )
        """The names of all fields there may be; None where the text decides."""

    def dissect(self, text: str) -> _Fields | None:
        """The fields of a text; None where it does not fit."""
        values = self._cut(text)
        if values is None or len(values) > self._count or not self._count:
            return None
        for place in self._strips:
            if place < len(values):
                values[place] = values[place].rstrip(JAVA_WHITESPACE)
        return self._name_fields(values)


def _piece(inside: str) -> Piece:
    """What stands between the braces."""
    if not inside.strip(JAVA_BLANKS):
        return Piece("?", "")
    prefixed = _PREFIXED.fullmatch(inside)
    kind, name = (" ", inside) if prefixed is None else (prefixed[1], prefixed[2])
    index = _INDEX.search(name) if kind == "+" else None
    if index is not None:
        name = name[: index.start()]
    name, arrow, _ = name.partition("->")
    return Piece(kind, name, int(index[1]) if index else 0, bool(arrow))


def _cutter(delimiters: list[str], *, begins_with_field: bool) -> Callable[[str], list[str] | None]:
    """A function that cuts a text at the delimiters, each one looked for behind the one before it."""
    steps = [(delimiter, len(delimiter), not delimiter.strip(JAVA_BLANKS)) for delimiter in delimiters]

    def cut(text: str) -> list[str] | None:
        values: list[str] = []
        place = 0
        find = text.find
        for delimiter, size, is_blank in steps:
            at = find(delimiter, place)
            if at < 0:
                return None
            if is_blank and text[at + size : at + size + 1] in _BLANKS:
                at = max(at, _end_of_blanks(text, at) - size)
            if at or begins_with_field or place:  # else the text begins as the pattern does
                values.append(text[place:at])
            place = at + size
        if place < len(text):
            values.append(text[place:])
        return values

    return cut


_BLANKS = frozenset(" \t\n\x0b\f\r")


def _end_of_blanks(text: str, place: int) -> int:
    found = _BLANK_RUN.match(text, place)
    assert found is not None, "it matches the empty text"
    return found.end()


def _namer(pieces: list[Piece]) -> Callable[[list[str]], _Fields]:
    """A function from the values of the pieces, of which the last ones may be absent, to the fields."""
    names = [piece.name for piece in pieces]
    if all(piece.kind == " " for piece in pieces) and len(set(names)) == len(names):
        return lambda values: dict(zip(names, values, strict=False))
    places = {kind: {piece.name: place for place, piece in enumerate(pieces) if piece.kind == kind} for kind in " ?&"}
    plain, skipped, indirect = places[" "], places["?"], places["&"]
    if all(piece.kind in " ?" for piece in pieces):
        picks = [(place, name) for name, place in plain.items()]
        return lambda values: {name: values[place] for place, name in picks if place < len(values)}
    joined = _joined(pieces)

    def fields_of(values: list[str]) -> _Fields:
        count = len(values)
        fields = {name: values[place] for name, place in plain.items() if place < count}
        appended = {name: "".join([values[at] for at in order if at < count]) for name, order in joined.items()}
        fields.update(appended)
        for name, place in indirect.items():
            holder = plain.get(name, skipped.get(name))
            key = appended.get(name, "") if holder is None else values[holder] if holder < count else ""
            if key and place < count:
                fields[key] = values[place]
        return fields

    return fields_of


def _joined(pieces: Iterable[Piece]) -> dict[str, list[int]]:
    """The places of the pieces of each joined field, in the order they are joined in."""
    order: dict[str, list[tuple[int, int]]] = {}
    for place, piece in enumerate(pieces):
        if piece.kind == "+":
            order.setdefault(piece.name, []).append((piece.index, place))
    return {name: [place for _, place in sorted(found)] for name, found in order.items()}


EXAMPLES = [
    sdk.Example(
        "A line of a log",
        config="""
            map: {message: "%{date} %{level->} [%{?thread}] %{text}"}
        """,
        before=[{"message": "2024-01-15 WARN   [main] disk is full"}, {"message": "?"}],
        after=[
            {
                "message": "2024-01-15 WARN   [main] disk is full",
                "date": "2024-01-15",
                "level": "WARN",
                "text": "disk is full",
            },
            {"message": "?"},
        ],
    ),
    sdk.Example(
        "Joined fields, a name out of the text, types",
        config="""
            map: {message: "%{+at/2} %{+at/1} %{?key}=%{&key}"}
            target_types: {size: integer}
            delete_source: true
        """,
        before=[{"message": "10:00 2024-01-15T size=7"}],
        after=[{"at": "2024-01-15T10:00", "size": 7}],
    ),
]
