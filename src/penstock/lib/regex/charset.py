"""Sets of code points, as the character classes of a regular expression describe them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

LAST = 0x10FFFF
Range = tuple[int, int]


class CharSet:
    """An immutable set of code points, held as sorted, disjoint, inclusive ranges."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        merged: list[Range] = []
        for low, high in sorted(ranges):
            if merged and low <= merged[-1][1] + 1:
                if high > merged[-1][1]:
                    merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        self.ranges = tuple(merged)

    @classmethod
    def of(cls, text: str) -> CharSet:
        """The set of the characters of `text`."""
        return cls((ord(char), ord(char)) for char in text)

    def __or__(self, other: CharSet) -> CharSet:
        return CharSet(self.ranges + other.ranges)

    def __and__(self, other: CharSet) -> CharSet:
        mine, theirs, found = self.ranges, other.ranges, []
        i = j = 0
        while i < len(mine) and j < len(theirs):
            low, high = max(mine[i][0], theirs[j][0]), min(mine[i][1], theirs[j][1])
            if low <= high:
                found.append((low, high))
            if mine[i][1] < theirs[j][1]:
                i += 1
            else:
                j += 1
        return CharSet(found)

    def __invert__(self) -> CharSet:
        gaps, start = [], 0
        for low, high in self.ranges:
            if low > start:
                gaps.append((start, low - 1))
            start = high + 1
        if start <= LAST:
            gaps.append((start, LAST))
        return CharSet(gaps)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __eq__(self, other: object) -> bool:
        return self.ranges == other.ranges if isinstance(other, CharSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.ranges)

    def __contains__(self, char: str) -> bool:
        point = ord(char)
        return any(low <= point <= high for low, high in self.ranges)

    def __len__(self) -> int:
        return sum(high - low + 1 for low, high in self.ranges)

    def isdisjoint(self, other: CharSet) -> bool:
        return not self & other

    def issubset(self, other: CharSet) -> bool:
        return (self & other).ranges == self.ranges

    @property
    def single(self) -> str | None:
        """The one character of this set, None when there is not exactly one."""
        if len(self.ranges) == 1 and self.ranges[0][0] == self.ranges[0][1]:
            return chr(self.ranges[0][0])
        return None

    def folded(self, *, unicode: bool) -> CharSet:
        """This set and the other case of each of its letters."""
        if not unicode:
            shift = ord("a") - ord("A")
            upper, lower = self & UPPER, self & LOWER
            return CharSet(
                (
                    *self.ranges,
                    *((low + shift, high + shift) for low, high in upper.ranges),
                    *((low - shift, high - shift) for low, high in lower.ranges),
                )
            )
        return self | CharSet((other, other) for point, other in _cased() if chr(point) in self)

    def pattern(self) -> str:
        """This set as an atom of Python's `re`."""
        if self == ANYTHING:
            return "(?s:.)"
        if not self:
            return "(?!)"
        if (char := self.single) is not None:
            return escape(char)
        if self.ranges[-1][1] == LAST:
            return f"[^{(~self)._members()}]"
        return f"[{self._members()}]"

    def _members(self) -> str:
        parts = []
        for low, high in self.ranges:
            if high - low < 2:
                parts += [_class_char(point) for point in range(low, high + 1)]
            else:
                parts.append(f"{_class_char(low)}-{_class_char(high)}")
        return "".join(parts)


def escape(text: str) -> str:
    """`text` as a pattern of Python's `re` that matches just it."""
    return "".join(_escaped(char, ".^$*+?{}[]\\|()") for char in text)


def _class_char(point: int) -> str:
    return _escaped(chr(point), "\\]^-[&~|")


def _escaped(char: str, special: str) -> str:
    point = ord(char)
    if char in special:
        return "\\" + char
    if 0x20 <= point < 0x7F:
        return char
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


@lru_cache(maxsize=1)
def _cased() -> tuple[tuple[int, int], ...]:
    """Each cased code point with its simple upper, lower and title case."""
    pairs: set[tuple[int, int]] = set()
    for point in range(LAST + 1):
        char = chr(point)
        for other in (char.lower(), char.upper()):
            if len(other) == 1 and other != char:
                pairs.update(((point, ord(other)), (ord(other), point)))
    return tuple(sorted(pairs))


@lru_cache(maxsize=64)
def category(prefix: str) -> CharSet:
    """The code points whose Unicode general category starts with `prefix`, such as `L` or `Nd`."""
    found: list[Range] = []
    start: int | None = None
    for point in range(LAST + 1):
        if unicodedata.category(chr(point)).startswith(prefix):
            start = point if start is None else start
        elif start is not None:
            found.append((start, point - 1))
            start = None
    if start is not None:
        found.append((start, LAST))
    return CharSet(found)


def _ascii(*spans: str) -> CharSet:
    return CharSet((ord(span[0]), ord(span[-1])) for span in spans)


ANYTHING = CharSet([(0, LAST)])
NOTHING = CharSet()
DIGIT = _ascii("09")
UPPER = _ascii("AZ")
LOWER = _ascii("az")
WORD = _ascii("09", "AZ", "az", "_")
SPACE = _ascii("\t\r", " ")
HORIZONTAL_SPACE = CharSet.of("\t \xa0\u1680\u180e\u202f\u205f\u3000") | CharSet([(0x2000, 0x200A)])
VERTICAL_SPACE = CharSet.of("\n\x0b\f\r\x85\u2028\u2029")
LINE_ENDS = CharSet.of("\n\r\x85\u2028\u2029")
NEWLINE = CharSet.of("\n")

POSIX = {
    "Lower": LOWER,
    "Upper": UPPER,
    "ASCII": CharSet([(0, 0x7F)]),
    "Alpha": UPPER | LOWER,
    "Digit": DIGIT,
    "Alnum": UPPER | LOWER | DIGIT,
    "Punct": _ascii("!/", ":@", "[`", "{~"),
    "Graph": _ascii("!~"),
    "Print": _ascii(" ~"),
    "Blank": CharSet.of(" \t"),
    "Cntrl": CharSet([(0, 0x1F), (0x7F, 0x7F)]),
    "XDigit": _ascii("09", "AF", "af"),
    "Space": SPACE,
}
"""Java's `\\p{…}` classes of ASCII characters."""
