"""Changes that can no longer be read: told once, kept for `penstock dynamodb status`, with the way to mend it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from penstock import sdk
from penstock.lib.lease import LeaseStore, Status

KEPT_MAX = 100
"""Losses of one table that are kept; those that follow are in the log and the counter alone."""


class Losses:
    """What was lost of one table."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        kept_of: str,
        pipeline: str,
        table_arn: str,
        clock: sdk.Clock,
        meters: sdk.Scope,
        log: logging.Logger,
    ) -> None:
        self._store = store
        self._kept_of = kept_of
        self._pipeline = pipeline
        self._table_arn = table_arn
        self._clock = clock
        self._log = log
        self._count = meters.counter("streamGaps")

    async def report(self, what: str, why: str, *, since_ms: int | None = None, certain: bool = True) -> None:
        """Tell that changes since a moment, if there were any, are missing in what this source delivers.

        `what` names the shard or stream. The same loss is told once, whatever happens to this process.
        """
        since = "" if since_ms is None else f" made after {_text(since_ms)}"
        message = f"Changes of table {self._table_arn}{since} {'are' if certain else 'may be'} lost: {why} ({what})"
        if not await self._is_new(what, {"what": what, "why": why, "since": since_ms, "certain": certain}):
            return
        self._count.add()
        (self._log.error if certain else self._log.warning)(
            "%s. penstock dynamodb resync PIPELINES --pipeline %s --table %s makes the index anew, without downtime",
            message,
            self._pipeline,
            self._table_arn.rpartition("/")[2],
        )

    async def _is_new(self, what: str, known: dict[str, object]) -> bool:
        key = f"{self._table_arn}|{what}"
        try:
            kept = [lease for lease in await self._store.find(self._kept_of) if lease.key.startswith(self._table_arn)]
            if len(kept) >= KEPT_MAX:
                return True
            return await self._store.create(
                self._kept_of, key, {**known, "at": self._clock.now_ms()}, status=Status.COMPLETED
            )
        except sdk.Transient as error:
            self._log.warning("A loss could not be kept: %s", error)
            return True


def _text(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
