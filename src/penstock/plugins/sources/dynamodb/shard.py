"""Reads one shard: pages in order, a way on after every error, a wait while the table's export is loaded."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from penstock import sdk
from penstock.lib.lease import Lease
from penstock.plugins.sources.dynamodb import removals
from penstock.plugins.sources.dynamodb.api import IteratorExpired, ShardGone, Throttled, Trimmed
from penstock.plugins.sources.dynamodb.reader import LeasedReader, Pace, Surroundings, either, sleep
from penstock.plugins.sources.dynamodb.records import Recorder, Versions

THROTTLED_QUIETLY_MAX = 3
"""Throttled reads in a row that are not worth a line in the log."""
START_MARGIN_MS = 120_000
"""Where the service seeks by time, the iterator is asked for this much earlier; the exact line is drawn per record."""
QUIET_READS_MIN = 3
"""Reads in a row without records that make a shard quiet, beside the time they take."""
RETENTION_MS = 24 * 3600 * 1000
"""How long a stream keeps a record."""
RETENTION_SHORT_MS = 6 * 3600 * 1000
"""What is left of it when waiting becomes worth a warning."""


class ShardReader(LeasedReader):
    """One shard under one lease."""

    kind = "shard"

    def __init__(self, lease: Lease, recorder: Recorder, shared: Surroundings) -> None:
        super().__init__(lease, shared, shared.acknowledgment_timeout_s, shared.processed, shared.errors)
        self._recorder = recorder
        self._stream_arn, _, self._shard_id = lease.key.rpartition("|")
        self._position: str | None = self._progress.get("sequenceNumber") if shared.use_checkpoints else None
        """Reading goes on after it; None: from the oldest record."""
        self._versions = Versions.of(self._progress)
        self._waits = bool(self._progress.get("waitForExport")) and not shared.during_export
        self._next: str | None = self._progress.get("waitingFor") if shared.use_checkpoints else None
        """The record that waits for the export: reading goes on with it."""
        self._changed_at = shared.clock.monotonic()
        """Begin of the last read that brought something."""
        self.waiting_since_ms: int | None = None
        """Stamp of that record, while it waits."""
        self._quiet_reads = 0
        """Reads in a row that brought nothing."""
        self._quiet_from_ms = 0
        self._read_ms = 0
        self._warned_at = -math.inf

    @property
    def until_ms(self) -> int:
        """All changes made before this moment are delivered, as far as the shard tells.

        The service does not say where the tip is, and a read may bring nothing before it. So a shard counts as read to
        its tip when it has been quiet for a while.
        """
        known: int = self._progress.get("second", 0) * 1000
        quiet_ms = round(self._shared.pace.quiet * 1000)
        quiet = self._quiet_reads >= QUIET_READS_MIN and self._read_ms - self._quiet_from_ms >= quiet_ms
        return max(known, self._read_ms - quiet_ms) if quiet and not self._window else known

    @property
    def unread_since_ms(self) -> int | None:
        """Stamp of the oldest change that is known and not delivered; None: there is none."""
        if self.waiting_since_ms is not None or not self._window:
            return self.waiting_since_ms
        second = self._window[0].progress.get("second")
        return None if second is None else second * 1000

    async def tick(self) -> None:
        self._warn_of_age()
        await super().tick()

    def _warn_of_age(self) -> None:
        """What cannot be delivered grows old in the stream; what waits for the export is told of where it waits."""
        shared, since_ms = self._shared, self.unread_since_ms
        if since_ms is None or self.waiting_since_ms is not None:
            return
        left_ms = since_ms + RETENTION_MS - shared.clock.now_ms()
        now = shared.clock.monotonic()
        if left_ms < RETENTION_SHORT_MS and now - self._warned_at >= shared.pace.warn:
            self._warned_at = now
            shared.log.warning(
                "Changes of shard %s are not delivered: the oldest is kept for %s more", self._shard_id, _hours(left_ms)
            )

    def _note_read(self, records: list[dict[str, Any]], at_ms: int) -> None:
        self._read_ms = at_ms
        if records:
            self._quiet_reads = 0
            return
        if self._quiet_reads == 0:
            self._quiet_from_ms = at_ms
        self._quiet_reads += 1

    async def _read_on(self) -> bool:
        shared, pace = self._shared, self._shared.pace
        iterator: str | None = None
        failures = 0
        while not self._halted.is_set():
            began = shared.clock.monotonic()
            try:
                if iterator is None:
                    iterator = await self._open()
                async with shared.slots:
                    at_ms = shared.clock.now_ms()
                    records, after = await shared.api.records(iterator)
                    self._note_read(records, at_ms)
                    shared.progress.add()
                    failures = 0
                    waits = bool(records) and self._has_to_wait(records)
                    if records and not waits:
                        await self._deliver_records(records)
                iterator = after  # not before: what could not be delivered is read again
                if waits:
                    await self._wait_for_export()
                    iterator = None
                    continue
            except ShardGone:
                await self._report_loss("the shard exists no more")
                return True
            except (sdk.Transient, sdk.Permanent) as error:
                if isinstance(error, Trimmed):
                    await self._report_loss("they were older than 24 hours; reading goes on at the oldest there is")
                    self._position = self._next = None
                if not self._can_go_on(error, failures):
                    iterator = None
                await self._back_off(failures)
                failures += 1
                continue
            if iterator is None:
                return True
            await self._pause(records, began, pace)
            await self._wait_for_room()
        return False

    def _can_go_on(self, error: Exception, failures: int) -> bool:
        """Whether the iterator is still good after `error`; sees to the log."""
        shared = self._shared
        if isinstance(error, IteratorExpired | Trimmed):
            return False
        if not isinstance(error, Throttled) or failures >= THROTTLED_QUIETLY_MAX:
            shared.log.warning("Shard %s cannot be read now: %s", self.lease.key, error)
        return isinstance(error, sdk.Transient)

    async def _report_loss(self, why: str) -> None:
        self._shared.errors.add()
        second = self._progress.get("second")
        since_ms = self._progress.get("startTime") if second is None else second * 1000
        position = self._position or self._next
        what = f"shard {self._shard_id} behind " + (f"sequence number {position}" if position else "its beginning")
        await self._shared.losses.report(what, why, since_ms=since_ms)

    async def _open(self) -> str:
        api, arn, shard = self._shared.api, self._stream_arn, self._shard_id
        if self._next is not None:  # so that the loss of what waited too long is noticed
            return await api.iterator(arn, shard, ShardIteratorType="AT_SEQUENCE_NUMBER", SequenceNumber=self._next)
        if self._position is not None:
            return await api.iterator(
                arn, shard, ShardIteratorType="AFTER_SEQUENCE_NUMBER", SequenceNumber=self._position
            )
        if api.is_aws:
            start_ms = self._recorder.start_ms - START_MARGIN_MS
            try:
                stamp = datetime.fromtimestamp(start_ms // 1000, UTC)
                return await api.iterator(arn, shard, ShardIteratorType="AT_TIMESTAMP", Timestamp=stamp)
            except (sdk.Permanent, sdk.Transient) as error:
                self._shared.log.info("Shard %s is read from its oldest record: %s", self.lease.key, error)
        return await api.iterator(arn, shard, ShardIteratorType="TRIM_HORIZON")

    async def _deliver_records(self, records: list[dict[str, Any]]) -> None:
        shared = self._shared
        page = self._recorder.page(records, self._versions, shared.clock.now_ms())
        last = records[-1]["dynamodb"]["SequenceNumber"]
        if not shared.loaded.is_set():
            await removals.keep(shared, f"{self.lease.key}|{last}", page)
        self._position, self._next = last, None
        progress = {**self._versions.progress(), "sequenceNumber": last}
        if "waitingFor" in self._progress:
            progress |= {"waitingFor": None, "waitingSince": None}
        await self._deliver(page.batch, page.sizes, last, progress)

    # waiting

    def _has_to_wait(self, records: list[dict[str, Any]]) -> bool:
        """Whether the export must be loaded first: then reading goes on with the first record that counts."""
        if not self._waits or self._shared.loaded.is_set():
            return False
        for record in records:
            stamp_ms = self._recorder.counts(record)
            if stamp_ms is not None:
                self._next, self.waiting_since_ms = record["dynamodb"]["SequenceNumber"], stamp_ms
                self._progress |= {"waitingFor": self._next, "waitingSince": stamp_ms}
                self._dirty = True
                return True
        return False

    async def _wait_for_export(self) -> None:
        shared, loaded = self._shared, self._shared.loaded
        assert self.waiting_since_ms is not None, "a record waits"
        while not loaded.is_set() and not self._halted.is_set():
            left_ms = self.waiting_since_ms + RETENTION_MS - shared.clock.now_ms()
            say = shared.log.warning if left_ms < RETENTION_SHORT_MS else shared.log.info
            say(
                "Shard %s waits for the export to be loaded: its oldest unread change is kept for %s more%s",
                self._shard_id,
                _hours(left_ms),
                "" if left_ms > RETENTION_SHORT_MS else "; with stream.during_export changes would not wait",
            )
            await either(loaded, self._halted, shared.pace.warn)
        self.waiting_since_ms = None

    async def _pause(self, records: list[dict[str, Any]], began: float, pace: Pace) -> None:
        shared = self._shared
        if records:
            self._changed_at = began
        if len(records) >= pace.busy_records:
            return
        span = pace.idle
        if records:
            stamp = records[-1].get("dynamodb", {}).get("ApproximateCreationDateTime", 0)
            if shared.clock.now_ms() - stamp * 1000 > pace.behind * 1000:
                return
        else:
            if self._progress.get("endingSequenceNumber") is not None:
                span = pace.closed_idle
            elif began - self._changed_at > pace.calm_after:
                span = pace.calm
            span = max(span, shared.active / pace.idle_reads_per_s_max)
        await sleep(self._halted, span - (shared.clock.monotonic() - began))


def _hours(span_ms: int) -> str:
    minutes = max(0, span_ms) // 60_000
    return f"{minutes // 60} h {minutes % 60:02} min"
