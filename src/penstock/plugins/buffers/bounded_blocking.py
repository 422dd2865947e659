"""In-memory queue with a fixed capacity in events and bytes; the default buffer.

The capacity counts what is queued and what is on its way to the sinks: a writer waits until earlier events have
arrived. What is queued at a crash is gone; a source that is asked again brings it back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Annotated

from pydantic import Field

from penstock import sdk


class Config(sdk.PluginConfig):
    buffer_size: Annotated[int, Field(gt=0)] = 12800
    """Capacity in events, those on their way to the sinks included."""
    batch_size: Annotated[int, Field(gt=0)] = 200
    """Most events of small writes that are joined for a worker. A larger write is handed over as it is."""


def build(config: Config, ctx: sdk.Context) -> sdk.Buffer:
    return BoundedBlockingBuffer(config, ctx)


EXAMPLES = [sdk.Example("A larger buffer", config="buffer_size: 50000\nbatch_size: 500")]


_Turn = tuple[asyncio.Future[None], int, int]
"""Somebody who waits for room: set when it is taken for them; events, bytes."""


class BoundedBlockingBuffer:
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self.events_max = config.buffer_size
        self._capacity = self.bytes_max = ctx.buffer_bytes_max
        self._join_max = config.batch_size
        self._pipeline = ctx.pipeline
        self._monotonic = ctx.clock.monotonic
        self._queue: deque[tuple[sdk.Batch, int, float]] = deque()
        self._queued = 0
        self._events = 0
        self._bytes = 0
        self._writers: deque[_Turn] = deque()
        self._admitted: deque[_Turn] = deque()
        """Writers whose bytes are reserved. They go before the others: nobody else's turn can come without theirs."""
        self._granted = 0
        self._readers: deque[asyncio.Future[None]] = deque()
        self._closed = False
        metrics = ctx.registry.scope(ctx.pipeline, "BlockingBuffer")
        self._written = metrics.counter("recordsWritten")
        self._read = metrics.counter("recordsRead")
        self._failed = metrics.counter("recordsWriteFailed")
        self._timeouts = metrics.counter("writeTimeouts")
        self._write_time = metrics.timer("writeTimeElapsed")
        self._read_time = metrics.timer("readTimeElapsed")
        self._latency = metrics.timer("readLatency")
        self._checkpoint_time = metrics.timer("checkpointTimeElapsed")
        metrics.gauge("recordsInBuffer", lambda: self._queued)
        metrics.gauge("recordsInFlight", lambda: self._events - self._queued)
        metrics.gauge("capacityUsed", lambda: self._events)
        metrics.gauge("bufferUsage", lambda: 100.0 * self._events / self.events_max)
        metrics.gauge("bytesUsed", lambda: self._bytes)
        self._processed = ctx.registry.scope(ctx.pipeline).counter("recordsProcessed")

    def write_now(self, batch: sdk.Batch, size_bytes: int, *, reserved: bool = False) -> bool:
        assert not self._closed, "write to a closed buffer"
        events = len(batch)
        if self._admitted or self._events + events > self.events_max:
            return False
        if not reserved and not self.reserve_now(size_bytes):
            return False
        begin = self._monotonic()
        self._events += events
        self._append(batch, size_bytes, begin)
        self._write_time.observe(self._monotonic() - begin)
        return True

    async def write(
        self, batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None, *, reserved: bool = False
    ) -> None:
        events = len(batch)
        if events > self.events_max or size_bytes > self.bytes_max:
            if reserved:
                self.give_back(size_bytes)
            self._failed.add(events)
            raise sdk.BufferTooSmall(f"Buffer capacity too small for the number of records: {events}")
        begin = self._monotonic()
        if self.write_now(batch, size_bytes, reserved=reserved):
            return
        if reserved:
            try:
                await self._turn(self._admitted, events, 0, timeout_s)
            except BaseException:
                self.give_back(size_bytes)
                raise
        else:
            await self._turn(self._writers, events, size_bytes, timeout_s)
        now = self._monotonic()
        self._append(batch, size_bytes, now)
        self._write_time.observe(now - begin)

    def reserve_now(self, size_bytes: int) -> bool:
        if self._writers or self._granted or self._bytes + size_bytes > self.bytes_max:
            return False
        self._bytes += size_bytes
        return True

    async def reserve(self, size_bytes: int, timeout_s: float | None = None) -> None:
        if size_bytes > self.bytes_max:
            raise sdk.BufferTooSmall(f"Buffer capacity too small for {size_bytes} bytes")
        if not self.reserve_now(size_bytes):
            await self._turn(self._writers, 0, size_bytes, timeout_s)

    def give_back(self, size_bytes: int) -> None:
        self._free(0, size_bytes)

    def set_aside(self, size_bytes: int) -> None:
        self.bytes_max = self._capacity - size_bytes

    async def _turn(self, line: deque[_Turn], events: int, size_bytes: int, timeout_s: float | None) -> None:
        """Wait in `line` until room for that many events and bytes is taken."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append((turn, events, size_bytes))
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except TimeoutError:
            self._leave(turn, events, size_bytes)
            self._timeouts.add()
            self._failed.add(events)
            wanted = f"the number of records: {events}" if events else f"{size_bytes} bytes"
            raise sdk.BufferFull(
                f"Pipeline [{self._pipeline}] - Buffer does not have enough capacity left for {wanted}, "
                "timed out waiting for slots."
            ) from None
        except asyncio.CancelledError:
            self._leave(turn, events, size_bytes)
            raise
        self._granted -= 1

    def is_awaited(self) -> bool:
        return bool(self._writers or self._admitted)

    def is_read_out(self) -> bool:
        return bool(self._readers)

    async def read(self) -> sdk.Load | None:
        begin = self._monotonic()
        while not self._queue:
            if self._closed and not self._writers and not self._admitted and not self._granted:
                return None
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.append(turn)
            await turn
        now = self._monotonic()
        batch, size, written = self._queue.popleft()
        self._latency.observe(now - written)
        events = len(batch)
        if events < self._join_max and self._queue:
            joined = [batch]
            while self._queue and events + len(self._queue[0][0]) <= self._join_max:
                more, more_size, written = self._queue.popleft()
                self._latency.observe(now - written)
                joined.append(more)
                events += len(more)
                size += more_size
            batch = sdk.concat(joined)
        self._queued -= events
        self._read.add(events)
        self._read_time.observe(self._monotonic() - begin)
        return sdk.Load(batch, events, size)

    def done(self, load: sdk.Load) -> None:
        begin = self._monotonic()
        self._processed.add(load.events)
        self._free(load.events, load.size_bytes)
        self._checkpoint_time.observe(self._monotonic() - begin)

    def close(self) -> None:
        self._closed = True
        self._wake_readers()

    def rest(self) -> list[sdk.Batch]:
        batches = []
        while self._queue:
            batch, size_bytes, _ = self._queue.popleft()
            self._queued -= len(batch)
            self._free(len(batch), size_bytes)
            batches.append(batch)
        return batches

    def _fits(self, events: int, size_bytes: int) -> bool:
        return self._events + events <= self.events_max and self._bytes + size_bytes <= self.bytes_max

    def _append(self, batch: sdk.Batch, size_bytes: int, now: float) -> None:
        """Queue a batch whose room is taken."""
        events = len(batch)
        self._queued += events
        self._written.add(events)
        self._queue.append((batch, size_bytes, now))
        self._wake_readers()

    def _leave(self, turn: asyncio.Future[None], events: int, size_bytes: int) -> None:
        """The writer leaves: out of its line, or, where it had its turn already, the room is free for the next."""
        if turn.done() and not turn.cancelled():
            self._granted -= 1
            self._free(events, size_bytes)
        else:
            for line in (self._admitted, self._writers):
                for entry in line:
                    if entry[0] is turn:
                        line.remove(entry)
                        break
            self._grant()

    def _free(self, events: int, size_bytes: int) -> None:
        self._events -= events
        self._bytes -= size_bytes
        assert self._events >= 0 <= self._bytes, "more room returned than was taken"
        self._grant()

    def _grant(self) -> None:
        """Each line gets its turns in the order they came; the first that does not fit holds up the rest of its line.

        Bytes may be reserved while the admitted wait for events, but nobody takes events before them.
        """
        for line in (self._admitted, self._writers):
            while line:
                turn, events, size_bytes = line[0]
                if turn.done():  # it gave up and has not run yet
                    line.popleft()
                    continue
                if not self._fits(events, size_bytes) or (events and line is not self._admitted and self._admitted):
                    break
                line.popleft()
                self._events += events
                self._bytes += size_bytes
                self._granted += 1
                turn.set_result(None)
        if self._closed:
            self._wake_readers()

    def _wake_readers(self) -> None:
        while self._readers:
            turn = self._readers.popleft()
            if not turn.done():
                turn.set_result(None)
                if not self._closed:
                    return
