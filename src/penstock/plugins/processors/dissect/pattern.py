"""Patterns of dissect: what they are made of, and what they make of a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from penstock.lib.text_values import JAVA_BLANKS, JAVA_WHITESPACE

_Fields = dict[str, str]

_PIECE = re.compile(r"%\{([^}]*)\}")
_PREFIXED = re.compile(r"([+&?])([^\n\r\x85\u2028\u2029]+)")
_INDEX = re.compile(r"/([0-9]{1,9})\Z", re.ASCII)
BLANKS = " \t\n\x0b\f\r"
"""Those of which several count as one where a delimiter is made of them."""
_BLANK_SET = frozenset(BLANKS)
_BLANK_RUN = re.compile(f"[{BLANKS}]*")


@dataclass(frozen=True, slots=True)
class Piece:
    """One `%{...}` of a pattern."""

    kind: str
    """A space for a plain field, else `+`, `?` or `&`."""
    name: str
    index: int = 0
    strips: bool = False


class Pattern:
    """A compiled pattern."""

    def __init__(self, text: str) -> None:
        split = _PIECE.split(text)
        self.texts = split[::2]
        """The fixed texts: before the first piece, between the pieces and behind the last one."""
        self.pieces = pieces = [_piece(inside) for inside in split[1::2]]
        delimiters = [delimiter for delimiter in self.texts if delimiter]
        self._cut = _cutter(delimiters, begins_with_field=not self.texts[0] or not pieces)
        self._name_fields = _namer(pieces)
        self._count = len(pieces)
        self._strips = [place for place, piece in enumerate(pieces) if piece.strips]
        self.names = {piece.name for piece in pieces if piece.kind in " +"}
        """The names of all fields there may be, but for those that the text names."""

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
            if is_blank and text[at + size : at + size + 1] in _BLANK_SET:
                at = max(at, _end_of_blanks(text, at) - size)
            if at or begins_with_field or place:  # else the text begins as the pattern does
                values.append(text[place:at])
            place = at + size
        if place < len(text):
            values.append(text[place:])
        return values

    return cut


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
    joined = joined_places(pieces)

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


def joined_places(pieces: Iterable[Piece]) -> dict[str, list[int]]:
    """The places of the pieces of each joined field, in the order they are joined in."""
    order: dict[str, list[tuple[int, int]]] = {}
    for place, piece in enumerate(pieces):
        if piece.kind == "+":
            order.setdefault(piece.name, []).append((piece.index, place))
    return {name: [place for _, place in sorted(found)] for name, found in order.items()}
