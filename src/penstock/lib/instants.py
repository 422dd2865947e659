"""Instants as nanoseconds since the epoch: read from what events hold, written as Java's `Instant` prints them."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from penstock.core.dates import parse_iso
from penstock.core.dates.calendar import date_of
from penstock.core.errors import EventError

_NANOS = 1_000_000_000
_MILLISECONDS_FROM = 10_000_000_000
"""Whole numbers above this are milliseconds, up to it seconds."""
_SECONDS_MAX = 31_556_889_864_403_199
"""The last second of Java's `Instant`."""


def read_instant(value: Any) -> int:
    """The instant of an ISO 8601 text, of whole seconds or milliseconds, or of seconds with a fraction.

    Raises EventError for anything else.
    """
    if type(value) is int:
        nanos = value * 1_000_000 if value > _MILLISECONDS_FROM else value * _NANOS
    elif type(value) is str:
        try:
            nanos = parse_iso(value)
        except ValueError as error:
            raise EventError(str(error), cause="time", logged="A text is no time") from None
    elif isinstance(value, float | Decimal) and math.isfinite(value):
        nanos = int(Decimal(value) * _NANOS)
    else:
        wrong = "Invalid format for time"
        raise EventError(f"{wrong} {str(value)[:64]}", cause="time", logged=wrong)
    if abs(nanos) > _SECONDS_MAX * _NANOS:
        raise EventError(f"The time {str(value)[:64]} is out of range", cause="time", logged="A time is out of range")
    return nanos


def instant_text(nanos: int) -> str:
    """`2024-01-02T03:04:05.123Z`: in UTC, with no, three, six or nine digits of a second's fraction."""
    seconds, fraction = divmod(nanos, _NANOS)
    days, second = divmod(seconds, 86_400)
    year, month, day = date_of(days)
    shown = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+05d}"
    text = f"{shown}-{month:02d}-{day:02d}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    if fraction:
        digits = f"{fraction:09d}"
        while digits.endswith("000"):
            digits = digits[:-3]
        text += "." + digits
    return text + "Z"
