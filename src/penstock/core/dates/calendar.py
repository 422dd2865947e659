"""Days since 1970-01-01 and the calendar, for any year: the arithmetic of `datetime` ends at year 9999."""

from __future__ import annotations

from datetime import date

DAYS_OF_400_YEARS = 146_097
_EPOCH = date(1970, 1, 1).toordinal()
_LAST_ORDINAL = date.max.toordinal()
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def days_of(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Raises ValueError for no date."""
    if 1 <= year <= 9999:
        return date(year, month, day).toordinal() - _EPOCH
    cycles, rest = divmod(year, 400)
    return date(rest + 400, month, day).toordinal() - _EPOCH + (cycles - 1) * DAYS_OF_400_YEARS


def date_of(days: int) -> tuple[int, int, int]:
    """Year, month and day of a count of days since 1970-01-01."""
    ordinal = days + _EPOCH
    if 1 <= ordinal <= _LAST_ORDINAL:
        found = date.fromordinal(ordinal)
        return found.year, found.month, found.day
    cycles, rest = divmod(ordinal - 1, DAYS_OF_400_YEARS)
    found = date.fromordinal(rest + 1)
    return found.year + 400 * cycles, found.month, found.day


def weekday_of(days: int) -> int:
    """1 for Monday to 7 for Sunday."""
    return (days + 3) % 7 + 1


def is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def month_length(year: int, month: int) -> int:
    return 29 if month == 2 and is_leap(year) else _MONTH_DAYS[month - 1]


def week_year_start(year: int, first_day: int, days_min: int) -> int:
    """Day on which the week-based `year` begins, for weeks that begin on `first_day` (1 for Monday).

    The first week is the first one with at least `days_min` days in the year.
    """
    new_year = days_of(year, 1, 1)
    into_week = (weekday_of(new_year) - first_day) % 7
    start = new_year - into_week
    return start if 7 - into_week >= days_min else start + 7


def week_of_year(days: int, first_day: int, days_min: int) -> tuple[int, int]:
    """Week-based year and week of a day."""
    year = date_of(days)[0] + 1
    while True:
        start = week_year_start(year, first_day, days_min)
        if start <= days:
            return year, (days - start) // 7 + 1
        year -= 1


def month_week_start(year: int, month: int, first_day: int, days_min: int) -> int:
    """Day on which week 1 of a month begins."""
    first = days_of(year, month, 1)
    into_week = (weekday_of(first) - first_day) % 7
    start = first - into_week
    return start if 7 - into_week >= days_min else start + 7


def week_of_month(days: int, first_day: int, days_min: int) -> int:
    """Week of the month of a day; 0 for the days before week 1."""
    year, month, _ = date_of(days)
    return (days - month_week_start(year, month, first_day, days_min)) // 7 + 1
