"""Where the seconds stand in a text, so that all texts of one minute can share one reading of the rest.

Log lines come in order: thousands of them differ in the seconds alone. The rest of the text is the key of a bounded
cache; the seconds are checked and added. `may_share_minute` says which minutes may enter the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.core.dates.calendar import days_of
from penstock.core.dates.names import Names
from penstock.core.dates.pattern import FRACTION_NS, Element, Fraction, Literal, Number, Offset, Text, fields_of
from penstock.core.dates.rendering import compile_rendering, compile_split_rendering
from penstock.core.dates.zones import Zone

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
CACHE_ENTRIES_MAX = 4096
"""Minutes (or whole texts) remembered; a full cache is cleared, which costs less than to keep an order."""

_QUARTER_HOUR_NS = 15 * MINUTE_NS
_YEAR_1973_NS = days_of(1973, 1, 1) * 86_400 * SECOND_NS
_YEAR_10000_NS = days_of(9999, 12, 31) * 86_400 * SECOND_NS

SECOND_TEXTS = {f"{second:02d}": second * SECOND_NS for second in range(60)}


@dataclass(frozen=True, slots=True)
class Seconds:
    """`ss`, or `ss.SSS`, inside a pattern: the index of its first element, what separates the fraction, its digits."""

    index: int
    separator: str = ""
    digits: int = 0

    @property
    def elements(self) -> int:
        return 3 if self.digits else 1

    @property
    def width(self) -> int:
        return 2 + len(self.separator) + self.digits


_FINER_THAN_MINUTES = {"second", "nano_of_second", "milli_of_day", "nano_of_day"}


def find_seconds(elements: Sequence[Element]) -> Seconds | None:
    """The seconds of a pattern, when they stand in one place only."""
    for index, element in enumerate(elements):
        if isinstance(element, Number) and element.field == "second" and element.fixed:
            found = Seconds(index)
            match elements[index + 1 : index + 3]:
                case [Literal(text=separator), Fraction(digits=digits)] if len(separator) == 1:
                    found = Seconds(index, separator, digits)
            others = [*elements[:index], *elements[index + found.elements :]]
            return found if _FINER_THAN_MINUTES.isdisjoint(fields_of(others)) else None
    return None


def find_slice(elements: Sequence[Element], seconds: Seconds, names: Names) -> tuple[int, int | None] | None:
    """Start and end of the seconds in every text of the pattern, from the front or else from the back."""
    front = _width(elements[: seconds.index], names)
    if front is not None:
        return front, front + seconds.width
    back = _width(elements[seconds.index + seconds.elements :], names)
    if back is not None:
        return -back - seconds.width, -back or None
    return None


def _width(elements: Sequence[Element], names: Names) -> int | None:
    total = 0
    for element in elements:
        width = _width_of(element, names)
        if width is None:
            return None
        total += width
    return total


def _width_of(element: Element, names: Names) -> int | None:
    match element:
        case Literal():
            return len(element.text)
        case Number():
            year = element.sign == "exceeds_pad" and element.field in ("year", "year_of_era")
            return element.width_min if element.fixed or (year and element.width_min == 4) else None
        case Text():
            widths = {len(name) for name in names.values_of(element)}
            return widths.pop() if len(widths) == 1 else None
        case Offset() if element.zero == "+0000" and element.seconds == "never":
            return 5
    return None


def may_share_minute(minute_ns: int) -> bool:
    """Whether the texts of the minute that begins at this instant differ in their seconds alone.

    Since 1973 the offsets of all zones are whole minutes and change on whole minutes; a text may still name an offset
    with seconds. From year 10000 on a text is longer, so that its seconds stand elsewhere.
    """
    return minute_ns % MINUTE_NS == 0 and _YEAR_1973_NS <= minute_ns < _YEAR_10000_NS


def ends_day(text: str, parsed_ns: int) -> bool:
    """Whether the text may have said 24:00: no second follows that one."""
    return parsed_ns % _QUARTER_HOUR_NS == 0 and "24" in text


def cached_parse(parse: Callable[[str], int], elements: Sequence[Element], names: Names) -> Callable[[str], int]:
    """`parse` with a memory of minutes; `parse` itself where the pattern has no place for it."""
    seconds = find_seconds(elements)
    place = find_slice(elements, seconds, names) if seconds else None
    if seconds is None or place is None:
        return parse
    start, end = place
    cache: dict[str, int] = {}
    value_of = read_seconds(seconds)

    def parse_cached(text: str) -> int:
        value = value_of(text[start:end])
        if value is None:
            return parse(text)
        rest = text[:start] + text[end:] if end else text[:start]
        minute = cache.get(rest)
        if minute is not None:
            return minute + value
        parsed = parse(text)
        if may_share_minute(parsed - value) and not ends_day(text, parsed):
            if len(cache) >= CACHE_ENTRIES_MAX:
                cache.clear()
            cache[rest] = parsed - value
        return parsed

    return parse_cached


def read_seconds(seconds: Seconds) -> Callable[[str], int | None]:
    """A function from the text of the seconds to nanoseconds; None when it is no such text."""
    if not seconds.digits:
        return SECOND_TEXTS.get
    whole = {text + seconds.separator: value for text, value in SECOND_TEXTS.items()}
    width, scale = seconds.width, FRACTION_NS[seconds.digits]

    def read(text: str) -> int | None:
        value = whole.get(text[:3])
        fraction = text[3:]
        if value is None or len(text) != width or not (fraction.isascii() and fraction.isdigit()):
            return None
        return value + int(fraction) * scale

    return read


def cached_render(elements: Sequence[Element], zone: Zone, names: Names) -> Callable[[int], str]:
    """A function from instant to text with a memory of minutes, where the pattern has a place for it."""
    render = compile_rendering(elements, zone, names)
    seconds = find_seconds(elements)
    if seconds is None and not _FINER_THAN_MINUTES.isdisjoint(fields_of(elements)):
        return render
    if not has_whole_minutes(zone):
        return render
    index, after = (seconds.index, seconds.index + seconds.elements) if seconds else (len(elements), len(elements))
    split = compile_split_rendering(elements[:index], elements[after:], zone, names)
    cache: dict[int, tuple[str, str]] = {}
    text_of = _seconds_writer(seconds)

    def render_cached(epoch_ns: int) -> str:
        minute, rest = divmod(epoch_ns, MINUTE_NS)
        around = cache.get(minute)
        if around is None:
            if not may_share_minute(epoch_ns - rest):
                return render(epoch_ns)
            if len(cache) >= CACHE_ENTRIES_MAX:
                cache.clear()
            around = cache[minute] = split(epoch_ns)
        return around[0] + text_of(rest) + around[1]

    return render_cached


def has_whole_minutes(zone: Zone) -> bool:
    """Whether the offset of a zone has no seconds, since 1973 at least."""
    return zone.fixed_s is None or zone.fixed_s % 60 == 0


def _seconds_writer(seconds: Seconds | None) -> Callable[[int], str]:
    if seconds is None:
        return lambda _: ""
    texts = [f"{second:02d}{seconds.separator}" for second in range(60)]
    digits = seconds.digits
    if not digits:
        return lambda rest: texts[rest // SECOND_NS]
    scale = FRACTION_NS[digits]
    return lambda rest: f"{texts[rest // SECOND_NS]}{rest % SECOND_NS // scale:0{digits}d}"
