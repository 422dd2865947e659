"""Patterns of dissect as Python statements: a chain of cuts, each behind the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from penstock import sdk
from penstock.lib.text_values import JAVA_WHITESPACE
from penstock.plugins.processors.dissect.pattern import BLANKS, Pattern, joined_places

PIECES_MAX = 32
"""Patterns of more pieces are not inlined: each cut copies what is behind it."""

_BLANK_SET = frozenset(BLANKS)
_SHORT_NUMBERS = {"integer": 9, "long": 18}
"""Digits of which every number is in range."""


def compile_inline(
    source: str,
    pattern: Pattern,
    types: Mapping[str, tuple[str, Callable[[Any], Any]]],
    *,
    plain_names: set[str],
    delete: bool,
    missed: Callable[[], None],
    change: sdk.EventFn,
) -> sdk.Inline | None:
    """Statements that do to an event what `change` does, which they call for all that is unusual.

    They serve patterns with a text between any two pieces and without two fields of one name; None for the others.
    `types` are names and functions of types by field, `plain_names` those out of texts that need no second look.
    """
    pieces = pattern.pieces
    named = [piece.name for piece in pieces if piece.kind in " +"]
    refers = any(piece.kind == "&" for piece in pieces)
    if not 0 < len(pieces) <= PIECES_MAX or not all(pattern.texts[1:-1]) or (refers and types):
        return None
    if len(set(named)) + sum(len(places) - 1 for places in joined_places(pieces).values()) < len(named):
        return None
    writer = _Writer(pattern, types)
    lines = chain(writer.cuts(), writer.stores(), ["body.pop(source, None)"] if delete else ())
    inline = sdk.Inline("\n".join(lines), source=source, missed=missed, change=change, plain_names=plain_names)
    inline.names |= writer.names
    return inline


class _Writer:
    """Writes the statements; `v0`, `v1` … are the texts of the pieces, `rest` what is still to be cut."""

    def __init__(self, pattern: Pattern, types: Mapping[str, tuple[str, Callable[[Any], Any]]]) -> None:
        self.names: dict[str, Any] = {
            "blanks": BLANKS,
            "blank_set": _BLANK_SET,
            "whitespace": JAVA_WHITESPACE,
            **{f"text{place}": text for place, text in enumerate(pattern.texts)},
            **{f"name{place}": piece.name for place, piece in enumerate(pattern.pieces)},
        }
        self._texts, self._pieces, self._types = pattern.texts, pattern.pieces, types
        self._last = None if pattern.texts[-1] else len(pattern.pieces) - 1
        """The piece that reaches to the end; it does not count where there is nothing left for it."""

    def cuts(self) -> Iterator[str]:
        """Statements that give the texts of the pieces, and leave an event whose text does not fit."""
        yield from ("rest = body.get(source)", *_leave("type(rest) is not str", "change(body)"))
        if self._texts[0]:
            yield from self._begin(self._texts[0])
        for place, text in enumerate(self._texts[1:]):
            if place == self._last:
                yield f"v{place} = rest"
            else:
                yield f"v{place}, found, rest = rest.partition(text{place + 1})"
                yield from _leave("not found", "missed()")
                if _is_blank(text):
                    yield from ("if rest[:1] in blank_set:", "    behind = rest.lstrip(blanks)")
                    yield f"    v{place} += (text{place + 1} + rest)[: len(rest) - len(behind)]"
                    yield "    rest = behind"
            if self._pieces[place].strips:
                yield f"v{place} = v{place}.rstrip(whitespace)"
        if self._last is None:
            yield from _leave("rest", "missed()")

    def _begin(self, lead: str) -> Iterator[str]:
        end = len(lead)
        more = f" or rest[{end}:{end + 1}] in blank_set" if _is_blank(lead) else ""
        yield from _leave(f"not rest.startswith(text0){more}", "change(body)")
        yield f"rest = rest[{end}:]"

    def stores(self) -> Iterator[str]:
        """Statements that put the fields. Nothing fails once the first one is put."""
        joined = {name: " + ".join(f"v{place}" for place in places) for name, places in self._joined().items()}
        referring = [place for place, piece in enumerate(self._pieces) if piece.kind == "&"]
        for place in referring:
            yield f"key{place} = {self._reference(self._pieces[place].name, joined)}"
            yield from _leave(f"key{place} and key{place} not in plain_names", "change(body)")
        for place, piece in enumerate(self._pieces):
            if piece.kind == " ":
                put = f"body[name{place}] = {self._converted(piece.name, f'v{place}')}"
                yield f"if rest: {put}" if place == self._last else put
        for name, text in joined.items():
            place = self._joined()[name][0]
            yield f"body[name{place}] = {self._converted(name, text)}"
        for place in referring:
            yield f"if key{place}{' and rest' if place == self._last else ''}: body[key{place}] = v{place}"

    def _joined(self) -> dict[str, list[int]]:
        return joined_places(self._pieces)

    def _reference(self, name: str, joined: Mapping[str, str]) -> str:
        """The text that names a field."""
        for kind in " ?":
            places = [place for place, piece in enumerate(self._pieces) if (piece.kind, piece.name) == (kind, name)]
            if places:
                return f"v{places[-1]}"
        return f"({joined[name]})" if name in joined else '""'

    def _converted(self, name: str, text: str) -> str:
        if name not in self._types:
            return text
        type_name, convert = self._types[name]
        function = f"convert{len(self.names)}"
        self.names |= {"converted": converted, function: convert}
        digits = _SHORT_NUMBERS.get(type_name)
        if digits is None:
            return f"converted({text}, {function})"
        return f"int(value) if len(value := {text}) <= {digits} and value.isdecimal() else converted(value, {function})"


def _leave(condition: str, statement: str) -> tuple[str, ...]:
    return f"if {condition}:", f"    {statement}", "    continue"


def _is_blank(text: str) -> bool:
    """Whether further blanks behind the text are passed over; one that begins with something else stands alone."""
    return _BLANK_SET.issuperset(text)


def converted(text: str, convert: Callable[[Any], Any] | None) -> Any:
    """The value of a text as another type; the text where it has none."""
    if convert is None:
        return text
    try:
        return convert(text)
    except ValueError:
        return text
