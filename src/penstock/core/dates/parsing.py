"""Texts to instants: a pattern becomes one regular expression and a list of field readers.

Java reads a text from left to right and never takes back what an element has read; atomic groups say the same. What
the fields mean together is `resolving`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from penstock.core.dates.names import Names
from penstock.core.dates.pattern import (
    FRACTION_NS,
    PIVOT_YEAR,
    WIDTH_MAX,
    DayPeriod,
    Element,
    Fraction,
    Literal,
    LocalizedOffset,
    Number,
    Offset,
    Optional,
    Padded,
    Text,
    ZoneElement,
    ZoneId,
    ZoneName,
)
from penstock.core.dates.zones import OFFSET_S_MAX, Zone, find_zone

Values = dict[str, int]
"""Value by field; `offset_s` for an offset in the text."""

Reading = tuple[Values, Zone | None, tuple[int, ...] | None]
"""Fields, the zone and the hours of the period of the day that a text names."""

_Slot = tuple[str, Callable[[str], object]]
"""Field and reader of one group of the expression."""

TEXT_LENGTH_MAX = 512
"""Longer texts are no dates; regular expressions need not see them."""


def compile_reading(elements: Sequence[Element], names: Names) -> Callable[[str], Reading]:
    """A function from text to fields. It raises ValueError for a text that does not match."""
    expression = _Expression(names)
    match = re.compile(expression.of(elements), re.ASCII).fullmatch
    slots = expression.slots

    def read(text: str) -> Reading:
        found = match(text) if len(text) <= TEXT_LENGTH_MAX else None
        if found is None:
            raise ValueError(f"Text '{text[:64]}' could not be parsed")
        values: Values = {}
        zone: Zone | None = None
        hours: tuple[int, ...] | None = None
        for (name, reader), part in zip(slots, found.groups(), strict=True):
            if part is None:
                continue
            value = reader(part)
            if isinstance(value, int):
                if values.setdefault(name, value) != value:
                    raise ValueError(f"Text '{text}' has two values for {name}")
            elif isinstance(value, Zone):
                zone = value
            elif isinstance(value, tuple):
                hours = value
        return values, zone, hours

    return read


PLAIN_FIELDS = ("year", "month", "day", "hour", "minute", "second", "nano_of_second", "offset_s")
_PLAIN_DEFAULTS = [None, None, None, 0, 0, 0, 0, None]

Plain = tuple[int | None, int | None, int | None, int, int, int, int, int | None]
"""Values of `PLAIN_FIELDS`; a missing part of the date, or a missing offset, is None."""


def compile_plain_reading(elements: Sequence[Element], names: Names) -> Callable[[str], Plain] | None:
    """The same for a pattern that holds nothing but `PLAIN_FIELDS`, each at most once: nearly all do."""
    if not all(isinstance(element, Literal | Number | Fraction | Text | Offset) for element in elements):
        return None
    expression = _Expression(names)
    match = re.compile(expression.of(elements), re.ASCII).fullmatch
    fields = ["year" if name == "year_of_era" else name for name, _ in expression.slots]
    if len(set(fields)) < len(fields) or not set(fields) <= set(PLAIN_FIELDS):
        return None
    readers = [reader for _, reader in expression.slots]
    places = enumerate(PLAIN_FIELDS, len(fields))
    in_order: Callable[[list[Any]], Plain] = itemgetter(
        *(fields.index(name) if name in fields else place for place, name in places)
    )

    def read(text: str) -> Plain:
        found = match(text) if len(text) <= TEXT_LENGTH_MAX else None
        if found is None:
            raise ValueError(f"Text '{text[:64]}' could not be parsed")
        values = [reader(part) for reader, part in zip(readers, found.groups(), strict=True)]
        return in_order(values + _PLAIN_DEFAULTS)

    return read


class _Expression:
    """Writes the regular expression; `slots` tells what its groups hold."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.slots: list[_Slot] = []

    def of(self, elements: Sequence[Element]) -> str:
        written: list[str] = []
        position = 0
        while position < len(elements):
            element = elements[position]
            if isinstance(element, Number) and not element.fixed:
                end = position + 1
                while end < len(elements) and _is_fixed(elements[end]):
                    end += 1
                # Of digits in a row the later ones have fixed widths and the first one takes the rest, all of it.
                group = "".join(self.of_one(each) for each in elements[position:end])
                rest = r"(?!\d)" if element.width_max == WIDTH_MAX or end > position + 1 else ""
                written.append(f"(?>{group}){rest}")
                position = end
                continue
            written.append(f"(?>{self.of_one(element)})")
            position += 1
        return "".join(written)

    def of_one(self, element: Element) -> str:
        match element:
            case Literal():
                return re.escape(element.text)
            case Number():
                return self._group(element.field, _number_reader(element), _digits(element))
            case Fraction():
                scale = FRACTION_NS[element.digits]
                return self._group("nano_of_second", lambda text: int(text) * scale, rf"\d{{{element.digits}}}")
            case Text():
                values = self.names.values_of(element)
                return self._group(element.field, values.__getitem__, _alternatives(values))
            case DayPeriod():
                hours = self.names.hours_of_periods(element.style)
                return self._group("", hours.__getitem__, _alternatives(hours))
            case Padded():
                return self._padded(element)
            case Optional():
                return f"(?:{self.of(element.elements)})?"
            case _:
                return self._zone(element)

    def _zone(self, element: ZoneElement) -> str:
        match element:
            case Offset():
                return self._group("offset_s", _offset_reader(element.zero), _offset_expression(element))
            case LocalizedOffset():
                digits = r"\d\d:\d\d(?::\d\d)?" if element.full else r"\d\d?(?::\d\d(?::\d\d)?)?"
                return self._group("offset_s", _offset_reader("GMT"), rf"GMT(?:[+-]{digits})?")
            case ZoneId():
                return self._group("", find_zone, _ZONE_ID)
            case ZoneName():
                zones = self.names.zones_by_name(full=element.full)
                return self._group(
                    "", lambda name: find_zone(zones.get(name, name)), f"{_alternatives(zones)}|{_ZONE_ID}"
                )

    def _group(self, name: str, reader: Callable[[str], object], expression: str) -> str:
        self.slots.append((name, reader))
        return f"({expression})"

    def _padded(self, padded: Padded) -> str:
        element, width = padded.element, padded.width
        if isinstance(element, Number) and not element.reduced:
            widths = range(element.width_min, min(width, element.width_max) + 1)
            forms = [rf" {{{width - digits}}}\d{{{digits}}}" for digits in widths]
            return self._group(element.field, lambda text: int(text.lstrip()), "|".join(forms) or "(?!)")
        if isinstance(element, Text):
            values = {name.rjust(width): value for name, value in self.names.values_of(element).items()}
            fitting = {name: value for name, value in values.items() if len(name) == width}
            return self._group(element.field, fitting.__getitem__, _alternatives(fitting) or "(?!)")
        if isinstance(element, Number | Fraction):
            own = element.width_min if isinstance(element, Number) else element.digits
            return " " * (width - own) + self.of_one(element) if own <= width else "(?!)"
        raise ValueError("Only numbers and names can be padded in a pattern that reads")


_ZONE_ID = r"[+-]\d\d?(?::?\d\d(?::?\d\d)?)?|[A-Za-z][A-Za-z0-9~/._-]*(?:[+-]\d[\d:]*)?"


def _is_fixed(element: Element) -> bool:
    return isinstance(element, Fraction) or (isinstance(element, Number) and element.fixed)


def _digits(number: Number) -> str:
    least, most = number.width_min, number.width_max
    digits = rf"\d{{{least},{most}}}" if least != most else rf"\d{{{least}}}"
    if number.field not in ("year", "year_of_era", "week_based_year", "modified_julian_day") or number.reduced:
        return digits  # below zero they are out of range in any case
    if number.sign == "exceeds_pad":
        return rf"\d{{{least}}}|\+\d{{{least + 1},{most}}}|-{digits}"
    return f"-?{digits}"


def _number_reader(number: Number) -> Callable[[str], int]:
    if number.reduced:
        return lambda text: PIVOT_YEAR + int(text)
    if number.field not in ("year", "year_of_era", "week_based_year"):
        return int

    def read(text: str) -> int:
        value = int(text)
        if value == 0 and text[0] == "-":
            raise ValueError("Zero has no sign")
        return value

    return read


def _alternatives(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


def _offset_expression(offset: Offset) -> str:
    colon = ":" if offset.colon else ""
    minutes = rf"{colon}[0-5]\d"
    seconds = rf"(?:{colon}[0-5]\d)?" if offset.seconds == "not_zero" else ""
    digits = rf"\d\d(?:{minutes})?" if offset.minutes == "not_zero" else rf"\d\d{minutes}{seconds}"
    return rf"{re.escape(offset.zero)}|[+-]{digits}"


def _offset_reader(zero: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text == zero:
            return 0
        text = text.removeprefix("GMT")
        digits = text[1:].split(":") if ":" in text else [text[1:3], text[3:5], text[5:7]]
        hour, minute, second = (int(part or 0) for part in (*digits, "", "")[:3])
        offset_s = hour * 3600 + minute * 60 + second
        if offset_s > OFFSET_S_MAX or minute > 59 or second > 59:
            raise ValueError("Zone offset not in valid range: -18:00 to +18:00")
        return -offset_s if text[0] == "-" else offset_s

    return read
