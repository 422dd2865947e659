"""Time zones by the names that Java knows: region ids, `Z`, `+01:00`, `UTC+1`, `GMT-05:30`."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from penstock.core.dates.calendar import DAYS_OF_400_YEARS, days_of

OFFSET_S_MAX = 18 * 3600
_FIRST_DAY = days_of(1, 1, 3)
_LAST_DAY = days_of(9999, 12, 29)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (a wall clock time that `fold` belongs to)
_DAY_S = 86_400
_ID = re.compile(r"(?:(UTC|GMT|UT)(?=[+-]|$))?(?:([+-])(\d{1,2})(?::?(\d\d)(?::?(\d\d))?)?)?")


class Zone:
    """Offsets of one time zone. Two zones of one id are one object."""

    __slots__ = ("fixed_s", "id", "rules")

    def __init__(self, zone_id: str, fixed_s: int | None, rules: ZoneInfo | None) -> None:
        self.id = zone_id
        self.fixed_s = fixed_s
        """Seconds east of Greenwich where they never change."""
        self.rules = rules

    def offset_s(self, epoch_s: int) -> int:
        """Seconds east of Greenwich at an instant."""
        if self.rules is None:
            return self.fixed_s or 0
        moment = datetime.fromtimestamp(_near(epoch_s), UTC).astimezone(self.rules)
        return _seconds(moment.utcoffset())

    def offset_s_of_local(self, days: int, second_of_day: int) -> int:
        """Seconds east of Greenwich that a wall clock showed.

        Of two instants it is the earlier one; a time that the clock skipped moves later by what was skipped.
        """
        if self.rules is None:
            return self.fixed_s or 0
        local = _EPOCH + timedelta(seconds=_near(days * _DAY_S + second_of_day))
        return _seconds(local.replace(tzinfo=self.rules).utcoffset())

    def abbreviation(self, epoch_s: int) -> str:
        """`PST`, `CET`; empty where the time zone data has only a number."""
        if self.rules is None:
            return self.id if self.id.isalpha() else ""
        name = datetime.fromtimestamp(_near(epoch_s), UTC).astimezone(self.rules).tzname() or ""
        return name if name.isalpha() else ""


def find_zone(zone_id: str) -> Zone:
    """The zone of that id; an empty id is the zone of this machine. Raises ValueError when there is none."""
    return _named_zone(zone_id or _system_zone_id())


@lru_cache(maxsize=1024)
def _named_zone(zone_id: str) -> Zone:
    if zone_id in ("Z", "UTC", "GMT", "UT"):
        return Zone(zone_id, 0, None)
    match = _ID.fullmatch(zone_id)
    if match is not None and match[2]:
        _, sign, hours, minutes, seconds = match.groups()
        offset_s = int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
        if offset_s <= OFFSET_S_MAX and int(minutes or 0) < 60 and int(seconds or 0) < 60:
            return Zone(zone_id, -offset_s if sign == "-" else offset_s, None)
    elif zone_id in _zone_ids():
        return Zone(zone_id, None, ZoneInfo(zone_id))
    raise ValueError(f"Unknown time-zone ID: {zone_id}")


@lru_cache(maxsize=1)
def _zone_ids() -> frozenset[str]:
    return frozenset(available_timezones())


def _system_zone_id() -> str:
    named = os.environ.get("TZ", "").removeprefix(":")
    if named in _zone_ids():
        return named
    place = Path("/etc/localtime")
    if place.is_symlink():
        _, found, named = str(place.readlink()).partition("zoneinfo/")
        if found and named in _zone_ids():
            return named
    return "UTC"


def _near(epoch_s: int) -> int:
    """The same moment in a year that `datetime` can hold: calendar and zone rules repeat every 400 years."""
    day = epoch_s // _DAY_S
    if _FIRST_DAY <= day <= _LAST_DAY:
        return epoch_s
    cycle = DAYS_OF_400_YEARS
    moved = _FIRST_DAY + (day - _FIRST_DAY) % cycle if day < _FIRST_DAY else _LAST_DAY - (_LAST_DAY - day) % cycle
    return moved * _DAY_S + epoch_s % _DAY_S


def _seconds(offset: timedelta | None) -> int:
    assert offset is not None, "a zone of the time zone database always has an offset"
    return offset.days * _DAY_S + offset.seconds
