"""Which dead letters are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from penstock.core.batch import Meta
from penstock.core.errors import ExpressionError
from penstock.core.units import parse_duration
from penstock.expr import Expression
from penstock.lib.dead_letters.record import Record

_META = Meta()
_AGO = re.compile(r"(?P<days>\d+)d|(?P<hours>\d+)h|(?P<minutes>\d+)m", re.ASCII)


@dataclass(frozen=True, slots=True)
class Filter:
    """Everything that is given must hold."""

    since: datetime | None = None
    until: datetime | None = None
    pipelines: Sequence[str] = ()
    indexes: Sequence[str] = ()
    """Names with `*` and `?`."""
    statuses: Sequence[int] = ()
    message: str | re.Pattern[str] | None = None
    """A part of the message in upper or lower case, or a pattern."""
    condition: Expression | None = None
    """Must hold for the document."""
    ids: frozenset[str] = field(default_factory=frozenset)

    def matches(self, record: Record) -> bool:
        return (
            (not self.ids or record.id in self.ids)
            and self._in_time(record)
            and (not self.pipelines or record.pipeline in self.pipelines)
            and (not self.statuses or record.status in self.statuses)
            and (not self.indexes or any(fnmatchcase(record.index, pattern) for pattern in self.indexes))
            and self._says(record)
            and self._holds(record)
        )

    def _in_time(self, record: Record) -> bool:
        if self.since is None and self.until is None:
            return True
        if record.time is None:
            return False
        return (self.since is None or record.time >= self.since) and (self.until is None or record.time < self.until)

    def _says(self, record: Record) -> bool:
        if self.message is None:
            return True
        if isinstance(self.message, str):
            return self.message.lower() in record.message.lower()
        return self.message.search(record.message) is not None

    def _holds(self, record: Record) -> bool:
        if self.condition is None:
            return True
        if not isinstance(record.document, dict):
            return False
        try:
            return self.condition.test(record.document, _META)
        except ExpressionError:
            return False


def parse_moment(text: str, now: datetime) -> datetime:
    """A point in time: ISO 8601 (UTC where no zone is given), or so long ago: `90m`, `2h`, `3d`, `PT15M`.

    Raises ValueError.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - timedelta(**{unit: int(count) for unit, count in ago.groupdict().items() if count})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - timedelta(seconds=parse_duration(text))
        except ValueError:
            raise ValueError(f"{text} is neither a time such as 2024-05-01T12:00 nor a span such as 2h") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
