"""What date and time fields mean together, as `java.time` resolves them in its smart mode.

Fields that say the same thing twice have to agree. Day 31 is the last day of any month. 24:00 is the next midnight.
Missing date parts come from today, missing time parts are 0. A field that names a date in another way (day of year,
week) is never contradicted by such a default.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from penstock.core.dates import calendar
from penstock.core.dates.names import Names
from penstock.core.dates.parsing import Plain, Reading, Values
from penstock.core.dates.zones import Zone

DAY_NS = 86_400_000_000_000
YEAR_MAX = 999_999_999
_HOUR_NS, _MINUTE_NS, _SECOND_NS = 3_600_000_000_000, 60_000_000_000, 1_000_000_000
_JULIAN_EPOCH = 40_587
_EPOCH = date(1970, 1, 1).toordinal()

_RANGES = {
    "era": (0, 1),
    "year_of_era": (1, YEAR_MAX + 1),
    "year": (-YEAR_MAX, YEAR_MAX),
    "week_based_year": (-YEAR_MAX, YEAR_MAX),
    "quarter": (1, 4),
    "month": (1, 12),
    "day_of_year": (1, 366),
    "day": (1, 31),
    "modified_julian_day": (-365_961_662, 365_961_662),
    "aligned_day_of_week_in_month": (1, 7),
    "day_of_week": (1, 7),
    "local_day_of_week": (1, 7),
    "week_of_year": (1, 53),
    "week_of_month": (0, 6),
    "half_day": (0, 1),
    "hour": (0, 24),
    "clock_hour": (0, 24),
    "hour_of_half_day": (0, 11),
    "clock_hour_of_half_day": (0, 12),
    "minute": (0, 59),
    "second": (0, 59),
    "nano_of_second": (0, 999_999_999),
    "milli_of_day": (0, 86_399_999),
    "nano_of_day": (0, DAY_NS - 1),
}


def compile_resolving(names: Names, zone: Zone, now: Callable[[], int]) -> Callable[[Reading], int]:
    """A function from fields to nanoseconds since the epoch. It raises ValueError for fields that make no instant."""

    def resolve(reading: Reading) -> int:
        values, own_zone, hours = reading
        for name, value in values.items():
            if name != "offset_s":
                least, most = _RANGES[name]
                if not least <= value <= most:
                    raise ValueError(f"Invalid value for {name} (valid values {least} - {most}): {value}")
        time_ns = _time_of_day(values, hours)
        days = _date(values, names, zone, now)
        _check_date(values, days, names)
        if time_ns == DAY_NS:
            days, time_ns = days + 1, 0
        offset_s = values.get("offset_s")
        if offset_s is None:
            offset_s = (own_zone or zone).offset_s_of_local(days, time_ns // _SECOND_NS)
        return days * DAY_NS + time_ns - offset_s * _SECOND_NS

    return resolve


def compile_plain_resolving(zone: Zone, now: Callable[[], int]) -> Callable[[Plain], int | None]:
    """The same for plain fields; None where only `compile_resolving` knows what they mean."""
    fixed_s = zone.fixed_s

    def resolve(fields: Plain) -> int | None:
        year, month, day, hour, minute, second, nano, offset_s = fields
        if year is None or month is None or day is None:
            this_year, this_month, this_day = _today(zone, now)
            year = this_year if year is None else year
            month = this_month if month is None else month
            day = this_day if day is None else day
        if not (0 < year < 10_000 and 0 < month < 13 and 0 < day < 29):
            return None
        if hour > 23 or minute > 59 or second > 59 or nano >= _SECOND_NS:
            return None
        days = date(year, month, day).toordinal() - _EPOCH
        second_of_day = hour * 3600 + minute * 60 + second
        if offset_s is None:
            offset_s = zone.offset_s_of_local(days, second_of_day) if fixed_s is None else fixed_s
        return (days * 86_400 + second_of_day - offset_s) * _SECOND_NS + nano

    return resolve


def _time_of_day(values: Values, hours: tuple[int, ...] | None) -> int:
    hour = _hour(values, hours)
    nano = values.get("nano_of_second")
    total = values.get("nano_of_day")
    if total is None and "milli_of_day" in values:
        total = values["milli_of_day"] * 1_000_000
        if nano is not None:
            total += nano % 1_000_000
    if total is None:
        minute, second = values.get("minute", 0), values.get("second", 0)
        if hour == 24 and (minute or second or nano):
            raise ValueError(f"Invalid value for hour: {hour}")
        return (hour or 0) * _HOUR_NS + minute * _MINUTE_NS + second * _SECOND_NS + (nano or 0)
    given = (hour, values.get("minute"), values.get("second"), nano)
    parts = (total // _HOUR_NS, total // _MINUTE_NS % 60, total // _SECOND_NS % 60, total % _SECOND_NS)
    _agree(given, parts, "time of day")
    return total


def _hour(values: Values, hours: tuple[int, ...] | None) -> int | None:
    hour = values.get("hour")
    if "clock_hour" in values:
        hour = _same(hour, values["clock_hour"] % 24, "hour")
    of_half_day = values.get("hour_of_half_day")
    if "clock_hour_of_half_day" in values:
        of_half_day = _same(of_half_day, values["clock_hour_of_half_day"] % 12, "hour")
    half_day = values.get("half_day")
    if of_half_day is not None:
        if half_day is None and hour is not None:
            half_day = hour // 12
        if half_day is None and hours is not None:
            half_day = 0 if of_half_day in hours else 1
        hour = _same(hour, (half_day or 0) * 12 + of_half_day, "hour")
    elif half_day is not None:
        hour = half_day * 12 if hour is None else hour
        _same(hour // 12, half_day, "half of the day")
    if hours is not None:
        hour = hours[len(hours) // 2] if hour is None else hour
        if hour not in hours:
            raise ValueError("Hour and period of the day contradict each other")
    return hour


def _date(values: Values, names: Names, zone: Zone, now: Callable[[], int]) -> int:
    if "modified_julian_day" in values:
        return values["modified_julian_day"] - _JULIAN_EPOCH
    year = _year(values)
    in_week = _day_of_week(values, names)
    week_rule = names.week_first_day, names.week_days_min
    if year is None and "week_of_year" in values and "week_based_year" in values:
        start = calendar.week_year_start(values["week_based_year"], *week_rule)
        return start + 7 * (values["week_of_year"] - 1) + ((in_week or names.week_first_day) - names.week_first_day) % 7
    if year is None:  # `YYYY` without a week is a year to those who write it
        year = values.get("week_based_year")
    if year is not None and {"month", "day"} <= values.keys():
        return _clamped(year, values["month"], values["day"])

    this_year, this_month, this_day = _today(zone, now)
    if year is None:
        year = this_year
    if "day_of_year" in values:
        if values["day_of_year"] == 366 and not calendar.is_leap(year):
            raise ValueError(f"Invalid date 'DayOfYear 366' as '{year}' is not a leap year")
        return calendar.days_of(year, 1, 1) + values["day_of_year"] - 1
    month, day = values.get("month"), values.get("day")
    if month is None and "quarter" in values:
        month, day = values["quarter"] * 3 - 2, day or 1
    month = month or this_month
    if "week_of_month" in values and day is None:
        start = calendar.month_week_start(year, month, *week_rule) + 7 * (values["week_of_month"] - 1)
        return start + ((in_week or names.week_first_day) - names.week_first_day) % 7
    return _clamped(year, month, day or this_day)


def _today(zone: Zone, now: Callable[[], int]) -> tuple[int, int, int]:
    now_s = now() // _SECOND_NS
    return calendar.date_of((now_s + zone.offset_s(now_s)) // 86_400)


def _year(values: Values) -> int | None:
    year = values.get("year")
    of_era, era = values.get("year_of_era"), values.get("era")
    if of_era is None:
        if year is not None and era is not None:
            _same(era, int(year > 0), "era")
        return year
    if era is None:
        era = 1 if year is None else int(year > 0)
    return _same(year, of_era if era else 1 - of_era, "year")


def _day_of_week(values: Values, names: Names) -> int | None:
    day = values.get("day_of_week")
    if "local_day_of_week" in values:
        day = _same(day, (values["local_day_of_week"] + names.week_first_day - 2) % 7 + 1, "day of week")
    return day


def _clamped(year: int, month: int, day: int) -> int:
    if day > 28:
        day = min(day, calendar.month_length(year, month))
    return calendar.days_of(year, month, day)


_CALENDAR_FIELDS = {"day_of_week", "local_day_of_week", "quarter", "day_of_year", "week_of_year", "week_of_month"}
_CHECKED = _CALENDAR_FIELDS | {"aligned_day_of_week_in_month", "modified_julian_day"}


def _check_date(values: Values, days: int, names: Names) -> None:
    """Raise ValueError when a field of the text contradicts the date."""
    if _CHECKED.isdisjoint(values) or ("week_of_month" in values and "day" not in values):
        return  # the first and the last week of a month reach into its neighbours
    year, month, day = calendar.date_of(days)
    in_week = calendar.weekday_of(days)
    _agree((_day_of_week(values, names),), (in_week,), "day of week")
    given = (values.get("quarter"), values.get("month"), values.get("aligned_day_of_week_in_month"))
    _agree(given, ((month + 2) // 3, month, (day - 1) % 7 + 1), "month")
    if "day_of_year" in values or "modified_julian_day" in values:
        in_year = days - calendar.days_of(year, 1, 1) + 1
        _agree((_year(values), values.get("day"), values.get("day_of_year")), (year, day, in_year), "date")
    week_rule = names.week_first_day, names.week_days_min
    if "week_of_month" in values:
        _agree((values["week_of_month"],), (calendar.week_of_month(days, *week_rule),), "week of month")
    if "week_of_year" in values:
        given = (values.get("week_based_year"), values["week_of_year"], None)
        _agree(given, (*calendar.week_of_year(days, *week_rule), None), "week of year")


def _same(known: int | None, value: int, what: str) -> int:
    if known is not None and known != value:
        raise ValueError(f"Two values for the {what}: {known} and {value}")
    return value


def _agree(given: tuple[int | None, ...], actual: tuple[int | None, ...], what: str) -> None:
    for value, expected in zip(given, actual, strict=True):
        if value is not None and value != expected:
            raise ValueError(f"The {what} does not fit the rest: {value} instead of {expected}")
