"""Reads one shard: pages in order, a checkpoint behind what was delivered, a way on after every error."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from penstock import sdk
from penstock.lib.lease import Lease, LeaseLost, LeaseStore
from penstock.plugins.sources.dynamodb.records import Recorder, Versions
from penstock.plugins.sources.dynamodb.stream_api import (
    IteratorExpired,
    ShardGone,
    StreamApi,
    Throttled,
    Trimmed,
)

REREADS_MAX = 3
"""How often refused events are read again; then they count as errors and reading goes on behind them."""
READS_PENDING_MAX = 1000
"""Reads of one shard whose events are on their way. The buffer bounds the memory; an aggregate may hold events for
minutes, and reading must go on meanwhile."""
THROTTLED_QUIETLY_MAX = 3
"""Throttled reads in a row that are not worth a line in the log."""
LEASE_S = 120.0
RENEW_S = 30.0
START_MARGIN_MS = 120_000
"""Where the service seeks by time, the iterator is asked for this much earlier; the exact line is drawn per record."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the source goes about things, in seconds where nothing else is said."""

    idle: float = 0.2
    """From read to read of a shard with nothing new: the service allows 5 reads a second."""
    closed_idle: float = 0.05
    """The same in a shard that is closed: its end is near."""
    idle_reads_per_s_max: float = 100.0
    """Of all shards of a unit together; with more than 20 idle shards each is read less often."""
    busy_records: int = 100
    """A read that brings as many is followed by the next at once."""
    behind: float = 15.0
    """So is one whose last record is older than this."""
    save: float = 1.0
    """From checkpoint to checkpoint."""
    back_off: float = 0.2
    back_off_max: float = 10.0
    reread: float = 1.0
    """Before refused events are read again; doubles each time."""
    discover_min: float = 1.0
    """Between two listings of shards."""
    retry_max: float = 60.0
    """Between two failing rounds of the leader; starts at a second and doubles."""
    acquire: float = 0.5
    """Before looking for a shard again; doubles up to `acquire_max`."""
    acquire_max: float = 15.0
    stop: float = 10.0
    """How long `run` waits at the end for events on their way; then the rest is done in the background."""


class Outcome(Enum):
    ENDED = auto()
    """Read to its end, all delivered."""
    GIVEN_UP = auto()
    """Refused or timed out: to be read again."""
    STOPPED = auto()
    LOST = auto()
    """Another unit has the shard now."""


@dataclass(slots=True, eq=False)
class _Read:
    """What one read brought."""

    sequence: str
    versions: dict[str, int]
    events: int
    at: float
    handle: sdk.Handle | None = None
    ok: bool | None = None
    """None while events are on their way."""
    timed_out: bool = False


@dataclass(slots=True)
class Surroundings:
    """What the readers of a unit share."""

    api: StreamApi
    store: LeaseStore
    output: sdk.Output
    clock: sdk.Clock
    chance: random.Random
    log: logging.Logger
    pace: Pace
    acknowledgment_timeout_s: float | None
    use_checkpoints: bool
    slots: asyncio.Semaphore
    """Reads at once: bounds the pages that wait for room in the buffer."""
    processed: sdk.Counter
    errors: sdk.Counter
    progress: sdk.Counter
    bytes_received: sdk.Summary
    bytes_processed: sdk.Summary
    active: int = 0
    """Readers at work."""


class ShardReader:
    """One shard under one lease."""

    def __init__(self, lease: Lease, recorder: Recorder, shared: Surroundings) -> None:
        self._lease = lease
        self._recorder = recorder
        self._shared = shared
        self._stream_arn, _, self._shard_id = lease.key.rpartition("|")
        self._progress = dict(lease.progress)
        self._position: str | None = self._progress.get("sequenceNumber") if shared.use_checkpoints else None
        """Reading goes on after it; None: from the oldest record."""
        self._versions = Versions.of(self._progress)
        self._refusals: int = self._progress.get("refusals", 0)
        """How often the events behind the checkpoint were refused."""
        self._window: deque[_Read] = deque()
        self._dirty = False
        self._saved_at = shared.clock.monotonic()
        self._saving = asyncio.Lock()
        self._moved = asyncio.Event()
        """Something happened to what is on its way."""
        self._stopping = asyncio.Event()
        self._halted = asyncio.Event()
        """No further reads: stopping, refused or lost. What is on its way is waited for."""
        self._lost = False

    def stop(self) -> None:
        """Read nothing more; `run` returns when what is on its way has been delivered."""
        self._stopping.set()
        self._halted.set()

    async def run(self) -> Outcome:
        """Read until the end of the shard, `stop`, a refusal or the loss of the lease; then give the lease back."""
        try:
            ended = await self._read_on()
            while self._window and not self._head_refused() and not self._lost:
                await self._wait_for_delivery()
            return await self._finish(ended=ended)
        except LeaseLost:
            self._lose()
            return Outcome.LOST
        except BaseException:  # cancelled, or a bug: the shard must not stay taken
            self._expire()
            await asyncio.shield(self._leave())
            raise

    async def tick(self) -> None:
        """Called every second or so: gives up what takes too long, saves the checkpoint, keeps the lease."""
        shared = self._shared
        now = shared.clock.monotonic()
        timeout = shared.acknowledgment_timeout_s
        if timeout is not None and self._window and self._window[0].ok is None and now - self._window[0].at > timeout:
            head = self._window[0]
            shared.log.warning(
                "Acknowledgment timed out for partition %s with sequence number %s, giving up partition",
                self._lease.key,
                head.sequence,
            )
            head.timed_out = True
            assert head.handle is not None, "events on their way have a handle"
            head.handle.expire()
        if self._lost or not (self._dirty or now - self._saved_at > RENEW_S):
            return
        try:
            # A write that was cut off would leave the version of the lease unknown.
            await asyncio.shield(self._save())
        except LeaseLost:
            shared.log.warning("Shard %s has another owner now: its events are read there", self._lease.key)
            self._lose()

    # reading

    async def _read_on(self) -> bool:
        """Read until there is a reason to stop. True: the end of the shard."""
        shared, pace = self._shared, self._shared.pace
        iterator: str | None = None
        failures = 0
        while not self._halted.is_set():
            began = shared.clock.monotonic()
            try:
                if iterator is None:
                    iterator = await self._open()
                async with shared.slots:
                    records, iterator = await shared.api.records(iterator)
                    shared.progress.add()
                    failures = 0
                    if records:
                        await self._deliver(records)
            except ShardGone:
                self._report_loss("the shard exists no more")
                return True
            except (sdk.Transient, sdk.Permanent) as error:
                if not self._can_go_on(error, failures):
                    iterator = None
                await self._back_off(failures)
                failures += 1
                continue
            if iterator is None:
                return True
            await self._pause(records, began, pace)
            while len(self._window) >= READS_PENDING_MAX and not self._halted.is_set():
                await self._wait_for_delivery()
        return False

    def _can_go_on(self, error: Exception, failures: int) -> bool:
        """Whether the iterator is still good after `error`; sees to the position and the log."""
        shared = self._shared
        if isinstance(error, IteratorExpired):
            return False
        if isinstance(error, Trimmed):
            self._report_loss("they were older than 24 hours; reading goes on at the oldest record there is")
            self._position = None
            return False
        if not isinstance(error, Throttled) or failures >= THROTTLED_QUIETLY_MAX:
            shared.log.warning("Shard %s cannot be read now: %s", self._lease.key, error)
        return isinstance(error, sdk.Transient)

    def _report_loss(self, why: str) -> None:
        self._shared.errors.add()
        self._shared.log.error(
            "Records of shard %s behind sequence number %s that were not read are lost: %s",
            self._lease.key,
            self._position,
            why,
        )

    async def _open(self) -> str:
        api, arn, shard = self._shared.api, self._stream_arn, self._shard_id
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
                self._shared.log.info("Shard %s is read from its oldest record: %s", self._lease.key, error)
        return await api.iterator(arn, shard, ShardIteratorType="TRIM_HORIZON")

    async def _deliver(self, records: list[dict[str, Any]]) -> None:
        shared = self._shared
        page = self._recorder.page(records, self._versions, shared.clock.now_ms())
        self._position = records[-1]["dynamodb"]["SequenceNumber"]
        read = _Read(self._position, self._versions.progress(), len(page.batch), shared.clock.monotonic())
        self._window.append(read)
        if not read.events:
            self._settled(read, ok=True)
            return
        for size in page.sizes:
            shared.bytes_received.observe(size)
        read.handle = handle = shared.output.handle(lambda ok: self._settled(read, ok=ok))
        page.batch.promise(handle)
        try:
            await self._write(page.batch, page.sizes)
        finally:
            page.batch.release_all(ok=False)  # none, unless a write was cancelled
            handle.seal()
        shared.processed.add(read.events)
        for size in page.sizes:
            shared.bytes_processed.observe(size)

    async def _write(self, batch: sdk.Batch, sizes: list[int], events_max: int | None = None) -> None:
        """In as few writes as the buffer takes."""
        output = self._shared.output
        most, bytes_max = events_max or output.events_max, output.bytes_max
        start = 0
        while start < len(sizes):
            end, total = start, 0
            while end < len(sizes) and end - start < most and (end == start or total + sizes[end] <= bytes_max):
                total += sizes[end]
                end += 1
            part = batch.select(range(start, end))
            try:
                if not output.write_now(part, total):
                    await output.write(part, total)
            except sdk.BufferTooSmall as error:
                if end - start > 1:
                    await self._write(part, sizes[start:end], events_max=1)
                else:
                    self._drop(part, error)
            except BaseException:  # a write that did not happen left the events here
                part.release_all(ok=False)
                raise
            start = end

    def _drop(self, part: sdk.Batch, error: sdk.BufferTooSmall) -> None:
        self._shared.errors.add()
        item = part.peek(0).attributes.get("primary_key")
        self._shared.log.error("The change of item %s was dropped: %s", item, error)
        part.release_all(ok=True)

    # delivery

    def _settled(self, read: _Read, *, ok: bool) -> None:
        if read.ok is not None:
            return
        read.ok = ok
        window = self._window
        while window and window[0].ok is not None and (window[0].ok or self._skipped(window[0])):
            done = window.popleft()
            self._progress.update(done.versions, sequenceNumber=done.sequence)
            self._refusals = 0
            self._dirty = True
        if any(other.ok is False for other in window):
            self._halted.set()
        self._moved.set()

    def _skipped(self, read: _Read) -> bool:
        if self._refusals < REREADS_MAX or read.timed_out or self._stopping.is_set() or self._lost:
            return False
        self._shared.errors.add(read.events)
        self._shared.log.error(
            "%d events of partition %s up to sequence number %s were refused %d times: reading goes on behind them",
            read.events,
            self._lease.key,
            read.sequence,
            self._refusals + 1,
        )
        return True

    def _head_refused(self) -> bool:
        return bool(self._window) and self._window[0].ok is False

    def _expire(self) -> None:
        """Withdraw what is still on its way: it will be read again."""
        for read in list(self._window):
            if read.handle is not None and read.ok is None:
                read.handle.expire()

    def _lose(self) -> None:
        self._lost = True
        self._halted.set()
        self._expire()
        self._moved.set()

    # the lease

    async def _finish(self, *, ended: bool) -> Outcome:
        shared = self._shared
        if self._lost:
            return Outcome.LOST
        if self._head_refused():
            head = self._window[0]
            self._expire()
            if not self._stopping.is_set():
                await self._give_up_after(head)
                return Outcome.GIVEN_UP
        elif ended and not self._window:
            async with self._saving:
                self._lease = await shared.store.complete(self._lease, self._checkpoint())
            return Outcome.ENDED
        await self._leave()
        return Outcome.STOPPED

    async def _give_up_after(self, head: _Read) -> None:
        if not head.timed_out:
            self._shared.log.warning(
                "Received negative acknowledgment for partition %s with sequence number %s, giving up partition",
                self._lease.key,
                head.sequence,
            )
            await _sleep(self._stopping, self._shared.pace.reread * 2**self._refusals)
            self._refusals += 1
        await self._leave()

    async def _leave(self) -> None:
        """Free the shard for whoever comes next, at the checkpoint."""
        if self._lost:
            return
        try:
            async with self._saving:
                self._lease = await self._shared.store.give_up(self._lease, self._checkpoint())
        except (LeaseLost, sdk.Transient) as error:
            self._shared.log.warning("Shard %s could not be given back: %s", self._lease.key, error)
        self._lost = True

    async def _save(self) -> None:
        async with self._saving:
            if self._lost:
                return
            self._dirty, self._saved_at = False, self._shared.clock.monotonic()
            try:
                self._lease = await self._shared.store.save(self._lease, self._checkpoint(), LEASE_S)
            except sdk.Transient as error:
                self._dirty = True
                self._shared.log.warning("The checkpoint of shard %s was not saved: %s", self._lease.key, error)

    def _checkpoint(self) -> dict[str, Any]:
        progress = {name: value for name, value in self._progress.items() if name != "refusals"}
        return {**progress, "refusals": self._refusals} if self._refusals else progress

    # waiting

    async def _wait_for_delivery(self) -> None:
        await self._moved.wait()
        self._moved.clear()

    async def _pause(self, records: list[dict[str, Any]], began: float, pace: Pace) -> None:
        shared = self._shared
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
            span = max(span, shared.active / pace.idle_reads_per_s_max)
        await _sleep(self._halted, span - (shared.clock.monotonic() - began))

    async def _back_off(self, failures: int) -> None:
        pace = self._shared.pace
        span = min(pace.back_off * 2 ** min(failures, 20), pace.back_off_max)
        await _sleep(self._halted, span * self._shared.chance.uniform(0.5, 1.0))


async def _sleep(unless: asyncio.Event, span_s: float) -> None:
    """For `span_s`, or until the event."""
    if span_s > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(span_s):
                await unless.wait()
