"""ISO 8601 date-times as `DateTimeFormatter.ISO_DATE_TIME` reads them."""

from __future__ import annotations

import re

from penstock.core.dates import calendar
from penstock.core.dates.zones import OFFSET_S_MAX, find_zone

_ISO = re.compile(
    r"(\d{4}|\+\d{5,10}|-(?!0000-)\d{4,10})-(\d\d)-(\d\d)[Tt](\d\d):([0-5]\d)(?::([0-5]\d)(?:\.(\d{0,9}))?)?"
    r"(?:(?:[Zz]|([+-])(\d\d):([0-5]\d)(?::([0-5]\d))?)(?:\[([^\]]+)\])?)?",
    re.ASCII,
)


def parse_iso(text: str, zone: str = "UTC") -> int:
    """Nanoseconds since the epoch of `2024-01-15T10:20:30.5+01:00[Europe/Paris]`; seconds, offset and zone may miss.

    Without an offset the wall clock is that of `zone`. Raises ValueError.
    """
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"Text '{text[:64]}' could not be parsed")
    year, month, day, hour, minute, second, fraction, sign, east_h, east_m, east_s, region = match.groups()
    if int(hour) > 23:
        raise ValueError(f"Text '{text}' could not be parsed: no such time of day")
    days = calendar.days_of(int(year), int(month), int(day))
    time_s = int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if region:
        find_zone(region)  # it has to exist; the offset before it says all
    offset_s = 0
    if sign:
        offset_s = int(east_h) * 3600 + int(east_m) * 60 + int(east_s or 0)
        if offset_s > OFFSET_S_MAX:
            raise ValueError(f"Text '{text}' could not be parsed: zone offset beyond 18 hours")
        offset_s = -offset_s if sign == "-" else offset_s
    elif text[-1] not in "Zz]":
        offset_s = find_zone(zone).offset_s_of_local(days, time_s)
    return (days * 86_400 + time_s - offset_s) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
