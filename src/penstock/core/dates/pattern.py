"""Date patterns in the letters of `java.time.format.DateTimeFormatter`, read into elements.

`read_pattern` accepts and refuses what `DateTimeFormatter.ofPattern` accepts and refuses. The elements say what stands
in the text; `parsing` and `rendering` turn them into functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal as OneOf

Sign = OneOf["normal", "not_negative", "exceeds_pad"]
Style = OneOf["short", "full", "narrow"]

WIDTH_MAX = 19
FRACTION_NS: tuple[int, ...] = tuple(10**power for power in range(9, -1, -1))
"""Nanoseconds of the last of that many digits behind the decimal point."""
PIVOT_YEAR = 2000
"""`yy` means a year of this century: 2000 to 2099."""


@dataclass(frozen=True, slots=True)
class Literal:
    text: str


@dataclass(frozen=True, slots=True)
class Number:
    field: str
    width_min: int = 1
    width_max: int = WIDTH_MAX
    sign: Sign = "normal"
    """`normal` takes a minus, `exceeds_pad` also needs a plus beyond `width_min` digits."""
    reduced: bool = False
    """Two digits of a year from `PIVOT_YEAR` on."""

    @property
    def fixed(self) -> bool:
        return self.width_min == self.width_max and self.sign == "not_negative"


@dataclass(frozen=True, slots=True)
class Fraction:
    """The first digits of the fraction of a second, without a decimal point."""

    digits: int


@dataclass(frozen=True, slots=True)
class Text:
    field: str
    style: Style
    standalone: bool = False


@dataclass(frozen=True, slots=True)
class Offset:
    """`+01:00` and its relatives."""

    colon: bool
    minutes: OneOf["always", "not_zero"]
    seconds: OneOf["never", "not_zero"]
    zero: str
    """How an offset of nothing is written."""


@dataclass(frozen=True, slots=True)
class LocalizedOffset:
    """`GMT+8`, or `GMT+08:00` when full."""

    full: bool


@dataclass(frozen=True, slots=True)
class ZoneId:
    pass


@dataclass(frozen=True, slots=True)
class ZoneName:
    full: bool
    generic: bool
    """The same name in summer and winter: `PT` instead of `PST`."""


@dataclass(frozen=True, slots=True)
class DayPeriod:
    """`in the morning`."""

    style: Style


@dataclass(frozen=True, slots=True)
class Padded:
    width: int
    element: Element


@dataclass(frozen=True, slots=True)
class Optional:
    elements: tuple[Element, ...]


ZoneElement = Offset | LocalizedOffset | ZoneId | ZoneName
Element = (
    Literal | Number | Fraction | Text | Offset | LocalizedOffset | ZoneId | ZoneName | DayPeriod | Padded | Optional
)


def read_pattern(pattern: str) -> tuple[Element, ...]:
    """The elements of `pattern`. Raises ValueError, in the words of Java, when it is none."""
    reader = _Reader(pattern)
    while reader.position < len(pattern):
        reader.read()
    return reader.finish()


def walk(elements: Sequence[Element]) -> Iterator[Element]:
    """All elements, those inside optional and padded ones too."""
    for element in elements:
        yield element
        if isinstance(element, Optional):
            yield from walk(element.elements)
        elif isinstance(element, Padded):
            yield element.element


def fields_of(elements: Sequence[Element]) -> set[str]:
    """Names of the date and time fields that the elements hold."""
    found = {element.field for element in walk(elements) if isinstance(element, Number | Text)}
    if any(isinstance(element, Fraction) for element in walk(elements)):
        found.add("nano_of_second")
    return found


@dataclass
class _Reader:
    pattern: str
    position: int = 0
    open_sections: list[list[Element]] = field(default_factory=lambda: [[]])

    def read(self) -> None:
        sign = self.pattern[self.position]
        if sign.isascii() and sign.isalpha():
            self._add(self._letters())
        elif sign == "'":
            self._add(Literal(self._quoted()))
        elif sign == "[":
            self.open_sections.append([])
            self.position += 1
        elif sign == "]":
            self._close_section()
            self.position += 1
        elif sign in "{}#":
            raise ValueError(f"Pattern includes reserved character: '{sign}'")
        else:
            self._add(Literal(sign))
            self.position += 1

    def finish(self) -> tuple[Element, ...]:
        while len(self.open_sections) > 1:
            self._close_section()
        return tuple(_join_literals(self.open_sections[0]))

    def _add(self, element: Element) -> None:
        self.open_sections[-1].append(element)

    def _close_section(self) -> None:
        if len(self.open_sections) == 1:
            raise ValueError("Pattern invalid as it contains ] without previous [")
        section = self.open_sections.pop()
        if section:
            self._add(Optional(tuple(_join_literals(section))))

    def _run(self) -> tuple[str, int]:
        letter = self.pattern[self.position]
        start = self.position
        while self.position < len(self.pattern) and self.pattern[self.position] == letter:
            self.position += 1
        return letter, self.position - start

    def _letters(self) -> Element:
        letter, count = self._run()
        if letter != "p":
            return _element(letter, count)
        following = self.pattern[self.position : self.position + 1]
        if not (following.isascii() and following.isalpha()):
            raise ValueError(f"Pad letter 'p' must be followed by valid pad pattern: {self.pattern}")
        return Padded(count, _element(*self._run()))

    def _quoted(self) -> str:
        start = self.position + 1
        end = start
        while True:
            end = self.pattern.find("'", end)
            if end < 0:
                raise ValueError(f"Pattern ends with an incomplete string literal: {self.pattern}")
            if self.pattern[end + 1 : end + 2] != "'":
                break
            end += 2
        self.position = end + 1
        return self.pattern[start:end].replace("''", "'") or "'"


def _join_literals(elements: list[Element]) -> Iterator[Element]:
    for literal, group in groupby(elements, key=lambda element: isinstance(element, Literal)):
        if literal:
            yield Literal("".join(element.text for element in group if isinstance(element, Literal)))
        else:
            yield from group


_FIELDS = {
    "G": "era",
    "y": "year_of_era",
    "u": "year",
    "Q": "quarter",
    "q": "quarter",
    "M": "month",
    "L": "month",
    "D": "day_of_year",
    "d": "day",
    "g": "modified_julian_day",
    "F": "aligned_day_of_week_in_month",
    "E": "day_of_week",
    "c": "day_of_week",
    "e": "day_of_week",
    "a": "half_day",
    "H": "hour",
    "k": "clock_hour",
    "K": "hour_of_half_day",
    "h": "clock_hour_of_half_day",
    "m": "minute",
    "s": "second",
    "S": "nano_of_second",
    "A": "milli_of_day",
    "n": "nano_of_second",
    "N": "nano_of_day",
    "w": "week_of_year",
    "W": "week_of_month",
    "Y": "week_based_year",
}
_STYLES: dict[int, Style] = {1: "short", 2: "short", 3: "short", 4: "full", 5: "narrow"}


def _element(letter: str, count: int) -> Element:
    too_many = ValueError(f"Too many pattern letters: {letter}")
    if letter in "zVvZOXx":
        return _zone_element(letter, count, too_many)
    if letter == "B":
        if count not in (1, 4, 5):
            raise ValueError(f"Wrong number of pattern letters: {letter}")
        return DayPeriod(_STYLES[count])
    if letter not in _FIELDS:
        raise ValueError(f"Unknown pattern letter: {letter}")
    name = _FIELDS[letter]
    if letter in "MLQqEecGa":
        return _text_element(letter, name, count, too_many)
    if letter in "uyY":
        if count == 2:
            return Number(name, 2, 2, "not_negative", reduced=True)
        return Number(name, count, WIDTH_MAX, "normal" if count < 4 else "exceeds_pad")
    if letter == "S":
        if count > 9:
            raise ValueError(f"Maximum width must be from 1 to 9 inclusive but was {count}")
        return Fraction(count)
    return _number_element(letter, name, count, too_many)


def _number_element(letter: str, name: str, count: int, too_many: ValueError) -> Number:
    if letter in "AnN" and count <= WIDTH_MAX:
        return Number(name, count, WIDTH_MAX, "not_negative")
    if letter == "g" and count <= WIDTH_MAX:
        return Number(name, count, WIDTH_MAX, "normal")
    if letter == "D" and count in (2, 3):
        return Number(name, count, 3, "not_negative")
    if letter == "w" and count <= 2:
        return Number(name, count, 2, "not_negative")
    if letter == "W" and count == 1:
        return Number(name, 1, 1, "not_negative")
    if count == 1 and letter in "DFdhHkKms":
        return Number(name)
    if count == 2 and letter in "dhHkKms":
        return Number(name, 2, 2, "not_negative")
    raise too_many


def _text_element(letter: str, name: str, count: int, too_many: ValueError) -> Element:
    if count > 5 or (letter == "a" and count > 1):
        raise too_many
    standalone = letter in "Lqc"
    if count > 2 or letter in "EGa":
        return Text(name, _STYLES[count], standalone)
    if letter in "ec":  # counted from the first day of the week of the locale
        if letter == "c" and count == 2:
            raise ValueError('Invalid pattern "cc"')
        return Number("local_day_of_week", count, count, "not_negative")
    return Number(name) if count == 1 else Number(name, 2, 2, "not_negative")


_OFFSETS = {
    1: Offset(colon=False, minutes="not_zero", seconds="never", zero="Z"),
    2: Offset(colon=False, minutes="always", seconds="never", zero="Z"),
    3: Offset(colon=True, minutes="always", seconds="never", zero="Z"),
    4: Offset(colon=False, minutes="always", seconds="not_zero", zero="Z"),
    5: Offset(colon=True, minutes="always", seconds="not_zero", zero="Z"),
}
_ZEROS = {1: "+00", 2: "+0000", 3: "+00:00", 4: "+0000", 5: "+00:00"}


def _zone_element(letter: str, count: int, too_many: ValueError) -> Element:
    match letter:
        case "V":
            if count != 2:
                raise ValueError("Pattern letter count must be 2: V")
            return ZoneId()
        case "v":
            if count not in (1, 4):
                raise ValueError("Wrong number of pattern letters: v")
            return ZoneName(full=count == 4, generic=True)
        case "z" if count <= 4:
            return ZoneName(full=count == 4, generic=False)
        case "O":
            if count not in (1, 4):
                raise ValueError("Pattern letter count must be 1 or 4: O")
            return LocalizedOffset(full=count == 4)
        case "Z" if count <= 5:
            if count < 4:
                return replace(_OFFSETS[2], zero="+0000")
            return LocalizedOffset(full=True) if count == 4 else _OFFSETS[5]
        case "X" if count <= 5:
            return _OFFSETS[count]
        case "x" if count <= 5:
            return replace(_OFFSETS[count], zero=_ZEROS[count])
    raise too_many
