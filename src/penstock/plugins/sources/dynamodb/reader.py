"""Reads one partition under a lease: the checkpoint moves behind what was delivered, nothing is given up silently.

`ShardReader` and `FileReader` say how the partition is read.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from penstock import sdk
from penstock.lib.lease import Lease, LeaseLost, LeaseStore
from penstock.plugins.sources.dynamodb.api import TableApi
from penstock.plugins.sources.dynamodb.losses import Losses

REREADS_MAX = 3
"""How often refused events are read again; then they count as errors and reading goes on behind them."""
READS_PENDING_MAX = 1000
"""Reads of one partition whose events are on their way. The buffer bounds the memory; an aggregate may hold events for
minutes, and reading must go on meanwhile."""
LEASE_S = 120.0
RENEW_S = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the source goes about things, in seconds where nothing else is said."""

    idle: float = 0.2
    """From read to read of a shard with nothing new: the service allows 5 reads a second."""
    calm: float = 0.5
    """The same in a shard without changes for `calm_after`: a read costs more than a hundred items do."""
    calm_after: float = 10.0
    closed_idle: float = 0.05
    """The same in a shard that is closed: its end is near."""
    idle_reads_per_s_max: float = 100.0
    """Of all shards of a unit together; with more than 20 idle shards each is read less often."""
    busy_records: int = 100
    """A read that brings as many is followed by the next at once."""
    behind: float = 15.0
    """So is one whose last record is older than this."""
    quiet: float = 10.0
    """How long reads must bring nothing until a shard counts as read to its tip: a single empty read proves nothing."""
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
    export_poll: float = 30.0
    """Between two questions whether an export is ready; the first ones come sooner."""
    export_closed: float = 600.0
    """How long a failed export is put aside."""
    file_closed: float = 60.0
    """How long a file that cannot be loaded is put aside."""
    held: float = 10.0
    """How long the lines of a file are waited for before more than a chunk of it may be on its way."""
    report: float = 30.0
    """Between two lines in the log on how far an export is loaded."""
    warn: float = 600.0
    """Between two warnings on what waits for the export."""


class Outcome(Enum):
    ENDED = auto()
    """Read to its end, all delivered."""
    GIVEN_UP = auto()
    """Refused or timed out: to be read again."""
    STOPPED = auto()
    LOST = auto()
    """Another unit has the partition now."""


@dataclass(slots=True, eq=False)
class Read:
    """What one read brought."""

    label: str
    """Its place in the partition, for the log."""
    progress: dict[str, Any]
    """What is true of the checkpoint once this is delivered."""
    events: int
    at: float
    handle: sdk.Handle | None = None
    ok: bool | None = None
    """None while events are on their way."""
    timed_out: bool = False


@dataclass(slots=True)
class Surroundings:
    """What the readers of a unit share."""

    api: TableApi
    store: LeaseStore
    output: sdk.Output
    clock: sdk.Clock
    chance: random.Random
    log: logging.Logger
    pace: Pace
    acknowledgment_timeout_s: float | None
    file_acknowledgment_timeout_s: float | None
    use_checkpoints: bool
    slots: asyncio.Semaphore
    """Reads at once: bounds the pages that wait for room in the buffer."""
    meters: sdk.Scope
    losses: Losses
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    """There is no export, or all of it is delivered."""
    table_arn: str = ""
    removals_of: str = ""
    """Source of the leases that keep removals until the export is loaded."""
    during_export: bool = False
    """Changes do not wait for the export."""
    active: int = 0
    """Shard readers at work."""
    processed: sdk.Counter = field(init=False)
    errors: sdk.Counter = field(init=False)
    progress: sdk.Counter = field(init=False)
    items_processed: sdk.Counter = field(init=False)
    item_errors: sdk.Counter = field(init=False)
    bytes_received: sdk.Summary = field(init=False)
    bytes_processed: sdk.Summary = field(init=False)

    def __post_init__(self) -> None:
        meters = self.meters
        self.processed = meters.counter("changeEventsProcessed")
        self.errors = meters.counter("changeEventsProcessingErrors")
        self.progress = meters.counter("shardProgress")
        self.items_processed = meters.counter("exportRecordsProcessed")
        self.item_errors = meters.counter("exportRecordProcessingErrors")
        self.bytes_received = meters.summary("bytesReceived")
        self.bytes_processed = meters.summary("bytesProcessed")


class LeasedReader:
    """One partition under one lease. `_read_on` reads it; the rest sees to deliveries, the checkpoint and the lease."""

    kind = "partition"
    """What the log calls it."""
    place = "sequence number"
    """What the log calls a position in it."""
    refused = "Received negative acknowledgment for partition {key} with sequence number {label}, giving up partition"
    overdue = "Acknowledgment timed out for partition {key} with sequence number {label}, giving up partition"

    def __init__(
        self, lease: Lease, shared: Surroundings, timeout_s: float | None, processed: sdk.Counter, errors: sdk.Counter
    ) -> None:
        self.lease = lease
        self._shared = shared
        self._timeout_s = timeout_s
        self._processed = processed
        self._errors = errors
        self._progress = dict(lease.progress)
        self._refusals: int = self._progress.get("refusals", 0)
        """How often the events behind the checkpoint were refused."""
        self._window: deque[Read] = deque()
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
        """Read until the end, `stop`, a refusal or the loss of the lease; then give the lease back."""
        try:
            ended = await self._read_on()
            while self._window and not self._head_refused() and not self._lost:
                await self._wait_for_delivery()
            return await self._finish(ended=ended)
        except LeaseLost:
            self._lose()
            return Outcome.LOST
        except BaseException:  # cancelled, or a bug: the partition must not stay taken
            self._expire()
            await asyncio.shield(self._leave())
            raise

    async def tick(self) -> None:
        """Called every second or so: gives up what takes too long, saves the checkpoint, keeps the lease."""
        shared = self._shared
        now = shared.clock.monotonic()
        if self._timeout_s is not None and self._window:
            head = self._window[0]
            if head.ok is None and now - head.at > self._timeout_s:
                shared.log.warning("%s", self.overdue.format(key=self.lease.key, label=head.label))
                head.timed_out = True
                assert head.handle is not None, "events on their way have a handle"
                head.handle.expire()
        if self._lost or not (self._dirty or now - self._saved_at > RENEW_S):
            return
        try:
            # A write that was cut off would leave the version of the lease unknown.
            await asyncio.shield(self._save())
        except LeaseLost:
            shared.log.warning(
                "%s %s has another owner now: its events are read there", self.kind.capitalize(), self.lease.key
            )
            self._lose()

    # reading

    async def _read_on(self) -> bool:
        """Read until there is a reason to stop. True: the end of the partition."""
        raise NotImplementedError

    async def _deliver(self, batch: sdk.Batch, sizes: list[int], label: str, progress: dict[str, Any]) -> None:
        """Write the events; once they are delivered, and all before them, `progress` is part of the checkpoint."""
        shared = self._shared
        read = Read(label, progress, len(batch), shared.clock.monotonic())
        self._window.append(read)
        if not read.events:
            self._settled(read, ok=True)
            return
        shared.bytes_received.observe_all(sizes)
        read.handle = handle = shared.output.handle(lambda ok: self._settled(read, ok=ok))
        batch.promise(handle)
        try:
            await write_in_parts(shared.output, batch, sizes, self._drop)
        finally:
            batch.release_all(ok=False)  # none, unless a write was cancelled
            handle.seal()
        self._processed.add(read.events)
        shared.bytes_processed.observe_all(sizes)

    def _drop(self, part: sdk.Batch, error: sdk.BufferTooSmall) -> None:
        self._errors.add()
        item = part.peek(0).attributes.get("primary_key")
        self._shared.log.error("The event of item %s was dropped: %s", item, error)
        part.release_all(ok=True)

    async def _wait_for_room(self) -> None:
        """Until not too many reads are on their way."""
        while len(self._window) >= READS_PENDING_MAX and not self._halted.is_set():
            await self._wait_for_delivery()

    # delivery

    def _settled(self, read: Read, *, ok: bool) -> None:
        if read.ok is not None:
            return
        read.ok = ok
        window = self._window
        while window and window[0].ok is not None and (window[0].ok or self._skipped(window[0])):
            self._progress.update(window.popleft().progress)
            self._refusals = 0
            self._dirty = True
        if any(other.ok is False for other in window):
            self._halted.set()
        self._moved.set()

    def _skipped(self, read: Read) -> bool:
        if self._refusals < REREADS_MAX or read.timed_out or self._stopping.is_set() or self._lost:
            return False
        self._errors.add(read.events)
        self._shared.log.error(
            "%d events of partition %s up to %s %s were refused %d times: reading goes on behind them",
            read.events,
            self.lease.key,
            self.place,
            read.label,
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
        if self._lost:
            return Outcome.LOST
        if self._head_refused():
            head = self._window[0]
            self._expire()
            if not self._stopping.is_set():
                await self._give_up_after(head)
                return Outcome.GIVEN_UP
        elif ended and not self._window and await self._complete():
            return Outcome.ENDED
        await self._leave()
        return Outcome.STOPPED

    async def _complete(self) -> bool:
        """Save that the end is reached, as soon as the store can be reached. False: stopped before that."""
        failures = 0
        while True:
            try:
                async with self._saving:
                    self.lease = await self._shared.store.complete(self.lease, self._checkpoint())
                    self._lost = True  # a checkpoint that is still to be saved is part of it
                return True
            except sdk.Transient as error:
                self._shared.log.warning("The end of %s %s was not saved: %s", self.kind, self.lease.key, error)
            if self._stopping.is_set():
                return False
            await self._back_off(failures)
            failures += 1

    async def _give_up_after(self, head: Read) -> None:
        if not head.timed_out:
            self._shared.log.warning("%s", self.refused.format(key=self.lease.key, label=head.label))
            await sleep(self._stopping, self._shared.pace.reread * 2**self._refusals)
            self._refusals += 1
        await self._leave()

    async def _leave(self) -> None:
        """Free the partition for whoever comes next, at the checkpoint."""
        if self._lost:
            return
        try:
            async with self._saving:
                self.lease = await self._shared.store.give_up(self.lease, self._checkpoint())
        except (LeaseLost, sdk.Transient) as error:
            self._shared.log.warning("%s %s could not be given back: %s", self.kind.capitalize(), self.lease.key, error)
        self._lost = True

    async def _save(self) -> None:
        async with self._saving:
            if self._lost:
                return
            self._dirty, self._saved_at = False, self._shared.clock.monotonic()
            try:
                self.lease = await self._shared.store.save(self.lease, self._checkpoint(), LEASE_S)
            except sdk.Transient as error:
                self._dirty = True
                self._shared.log.warning("The checkpoint of %s %s was not saved: %s", self.kind, self.lease.key, error)

    def _checkpoint(self) -> dict[str, Any]:
        progress = {name: value for name, value in self._progress.items() if name != "refusals"}
        return {**progress, "refusals": self._refusals} if self._refusals else progress

    # waiting

    async def _wait_for_delivery(self, span_s: float | None = None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(span_s):
                await self._moved.wait()
        self._moved.clear()

    async def _back_off(self, failures: int) -> None:
        pace = self._shared.pace
        span = min(pace.back_off * 2 ** min(failures, 20), pace.back_off_max)
        await sleep(self._halted, span * self._shared.chance.uniform(0.5, 1.0))


async def write_in_parts(
    output: sdk.Output,
    batch: sdk.Batch,
    sizes: list[int],
    drop: Callable[[sdk.Batch, sdk.BufferTooSmall], None],
    events_max: int | None = None,
) -> None:
    """Write in as few parts as the buffer takes; an event that never fits goes to `drop`."""
    most, bytes_max = events_max or output.events_max, output.bytes_max
    start = 0
    while start < len(sizes):
        end, total = len(sizes), sum(sizes)
        if start == 0 and end <= most and total <= bytes_max:
            (part,) = batch.chunks(end)
        else:
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
                await write_in_parts(output, part, sizes[start:end], drop, events_max=1)
            else:
                drop(part, error)
        except BaseException:  # a write that did not happen left the events here
            part.release_all(ok=False)
            raise
        start = end


async def sleep(unless: asyncio.Event, span_s: float) -> None:
    """For `span_s`, or until the event."""
    if span_s > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(span_s):
                await unless.wait()


async def either(one: asyncio.Event, other: asyncio.Event, span_s: float) -> None:
    """Until one of two events, for `span_s` at most."""
    tasks = [asyncio.create_task(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(tasks, timeout=span_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
