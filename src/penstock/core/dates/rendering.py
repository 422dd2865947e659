"""Instants to texts: a pattern becomes a list of small functions over the parts of a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.core.dates import calendar
from penstock.core.dates.names import Names, gmt_offset
from penstock.core.dates.pattern import (
    FRACTION_NS,
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
from penstock.core.dates.zones import Zone

_DAY_NS, _SECOND_NS = 86_400_000_000_000, 1_000_000_000


class Moment:
    """One instant on the wall clock of a zone."""

    __slots__ = ("day", "days", "epoch_s", "month", "nano_of_day", "offset_s", "year", "zone")

    def __init__(self, epoch_ns: int, zone: Zone) -> None:
        self.zone = zone
        self.epoch_s = epoch_ns // _SECOND_NS
        self.offset_s = zone.offset_s(self.epoch_s)
        self.days, self.nano_of_day = divmod(epoch_ns + self.offset_s * _SECOND_NS, _DAY_NS)
        self.year, self.month, self.day = calendar.date_of(self.days)

    @property
    def hour(self) -> int:
        return self.nano_of_day // 3_600_000_000_000


_Part = Callable[[Moment], str]


def compile_rendering(elements: Sequence[Element], zone: Zone, names: Names) -> Callable[[int], str]:
    """A function from nanoseconds since the epoch to text."""
    parts = [_part(element, names) for element in elements]

    def render(epoch_ns: int) -> str:
        moment = Moment(epoch_ns, zone)
        return "".join([part(moment) for part in parts])

    return render


def compile_split_rendering(
    before: Sequence[Element], behind: Sequence[Element], zone: Zone, names: Names
) -> Callable[[int], tuple[str, str]]:
    """The same for the two halves of a pattern."""
    first, second = ([_part(element, names) for element in half] for half in (before, behind))

    def render(epoch_ns: int) -> tuple[str, str]:
        moment = Moment(epoch_ns, zone)
        return "".join([part(moment) for part in first]), "".join([part(moment) for part in second])

    return render


def _part(element: Element, names: Names) -> _Part:
    match element:
        case Literal():
            text = element.text
            return lambda _: text
        case Number():
            return _number(element, names)
        case Fraction():
            digits, scale = element.digits, FRACTION_NS[element.digits]
            return lambda moment: f"{moment.nano_of_day % _SECOND_NS // scale:0{digits}d}"
        case Text():
            table, value_of = names.of(element), _value_reader(element.field, names)
            return lambda moment: table[value_of(moment)]
        case DayPeriod():
            style = element.style
            return lambda moment: names.day_period(moment.nano_of_day, style)
        case Padded():
            return _padded(element, names)
        case Optional():
            parts = [_part(each, names) for each in element.elements]
            return lambda moment: "".join([part(moment) for part in parts])
        case _:
            return _zone(element, names)


def _zone(element: ZoneElement, names: Names) -> _Part:
    match element:
        case Offset():
            return lambda moment: _offset(moment.offset_s, element)
        case LocalizedOffset():
            return lambda moment: gmt_offset(moment.offset_s, full=element.full)
        case ZoneId():
            return lambda moment: moment.zone.id
        case ZoneName():
            full, generic = element.full, element.generic
            return lambda moment: names.zone_name(moment.zone, moment.epoch_s, full=full, generic=generic)


def _padded(padded: Padded, names: Names) -> _Part:
    inner, width = _part(padded.element, names), padded.width

    def pad(moment: Moment) -> str:
        text = inner(moment)
        if len(text) > width:
            raise ValueError(f"Cannot print as output of {len(text)} characters exceeds pad width of {width}")
        return text.rjust(width)

    return pad


def _number(number: Number, names: Names) -> _Part:
    value_of, width = _value_reader(number.field, names), number.width_min
    if number.reduced:
        return lambda moment: f"{abs(value_of(moment)) % 100:02d}"
    if number.sign == "exceeds_pad":
        limit = 10**width
        return lambda moment: _signed(value_of(moment), width, limit)
    if number.sign == "not_negative":
        return lambda moment: f"{value_of(moment):0{width}d}"
    return lambda moment: _signed(value_of(moment), width, None)


def _signed(value: int, width: int, plus_from: int | None) -> str:
    sign = "-" if value < 0 else "+" if plus_from is not None and value >= plus_from else ""
    return f"{sign}{abs(value):0{width}d}"


def _offset(offset_s: int, offset: Offset) -> str:
    minutes, second = divmod(abs(offset_s), 60)
    hour, minute = divmod(minutes, 60)
    if hour == 0 and minute == 0 and (second == 0 or offset.seconds == "never"):
        return offset.zero
    colon = ":" if offset.colon else ""
    text = f"{'-' if offset_s < 0 else '+'}{hour:02d}"
    if minute or offset.minutes == "always":
        text += f"{colon}{minute:02d}"
    return f"{text}{colon}{second:02d}" if second and offset.seconds == "not_zero" else text


def _value_reader(name: str, names: Names) -> Callable[[Moment], int]:
    if name in ("week_based_year", "week_of_year", "week_of_month", "local_day_of_week"):
        return _week_reader(name, names.week_first_day, names.week_days_min)
    return _READERS[name]


def _week_reader(name: str, first_day: int, days_min: int) -> Callable[[Moment], int]:
    if name == "local_day_of_week":
        return lambda moment: (calendar.weekday_of(moment.days) - first_day) % 7 + 1
    if name == "week_of_month":
        return lambda moment: calendar.week_of_month(moment.days, first_day, days_min)
    index = 0 if name == "week_based_year" else 1
    return lambda moment: calendar.week_of_year(moment.days, first_day, days_min)[index]


_READERS: dict[str, Callable[[Moment], int]] = {
    "era": lambda moment: int(moment.year > 0),
    "year_of_era": lambda moment: moment.year if moment.year > 0 else 1 - moment.year,
    "year": lambda moment: moment.year,
    "quarter": lambda moment: (moment.month + 2) // 3,
    "month": lambda moment: moment.month,
    "day_of_year": lambda moment: moment.days - calendar.days_of(moment.year, 1, 1) + 1,
    "day": lambda moment: moment.day,
    "modified_julian_day": lambda moment: moment.days + 40_587,
    "aligned_day_of_week_in_month": lambda moment: (moment.day - 1) % 7 + 1,
    "day_of_week": lambda moment: calendar.weekday_of(moment.days),
    "half_day": lambda moment: moment.hour // 12,
    "hour": lambda moment: moment.hour,
    "clock_hour": lambda moment: moment.hour or 24,
    "hour_of_half_day": lambda moment: moment.hour % 12,
    "clock_hour_of_half_day": lambda moment: moment.hour % 12 or 12,
    "minute": lambda moment: moment.nano_of_day // 60_000_000_000 % 60,
    "second": lambda moment: moment.nano_of_day // _SECOND_NS % 60,
    "nano_of_second": lambda moment: moment.nano_of_day % _SECOND_NS,
    "milli_of_day": lambda moment: moment.nano_of_day // 1_000_000,
    "nano_of_day": lambda moment: moment.nano_of_day,
}
