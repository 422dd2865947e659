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


class BoundedBlockingBuffer:
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self.events_max = config.buffer_size
        self.bytes_max = ctx.buffer_bytes_max
        self._join_max = config.batch_size
        self._pipeline = ctx.pipeline
        self._monotonic = ctx.clock.monotonic
        self._queue: deque[tuple[sdk.Batch, int, float]] = deque()
        self._queued = 0
        self._events = 0
        self._bytes = 0
        self._writers: deque[tuple[asyncio.Future[None], int, int]] = deque()
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

    def write_now(self, batch: sdk.Batch, size_bytes: int) -> bool:
        assert not self._closed, "write to a closed buffer"
        if self._writers or self._granted or not self._fits(len(batch), size_bytes):
            return False
        begin = self._monotonic()
        self._put(batch, size_bytes, begin)
        self._write_time.observe(self._monotonic() - begin)
        return True

    async def write(self, batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None) -> None:
        events = len(batch)
        if events > self.events_max or size_bytes > self.bytes_max:
            self._failed.add(events)
            raise sdk.BufferTooSmall(f"Buffer capacity too small for the number of records: {events}")
        begin = self._monotonic()
        if self.write_now(batch, size_bytes):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writers.append((turn, events, size_bytes))
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except TimeoutError:
            self._give_back(turn, events, size_bytes)
            self._timeouts.add()
            self._failed.add(events)
            raise sdk.BufferFull(
                f"Pipeline [{self._pipeline}] - Buffer does not have enough capacity left for the number of records: "
                f"{events}, timed out waiting for slots."
            ) from None
        except asyncio.CancelledError:
            self._give_back(turn, events, size_bytes)
            raise
        self._granted -= 1
        self._events -= events
        self._bytes -= size_bytes
        now = self._monotonic()
        self._put(batch, size_bytes, now)
        self._write_time.observe(now - begin)

    async def read(self) -> sdk.Load | None:
        begin = self._monotonic()
        while not self._queue:
            if self._closed and not self._writers and not self._granted:
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

    def _put(self, batch: sdk.Batch, size_bytes: int, now: float) -> None:
        events = len(batch)
        self._events += events
        self._bytes += size_bytes
        self._queued += events
        self._written.add(events)
        self._queue.append((batch, size_bytes, now))
        self._wake_readers()

    def _give_back(self, turn: asyncio.Future[None], events: int, size_bytes: int) -> None:
        """The writer leaves: out of the line, or, where it had its turn already, the room is free for the next."""
        if turn.done() and not turn.cancelled():
            self._granted -= 1
            self._free(events, size_bytes)
        else:
            self._writers = deque(entry for entry in self._writers if entry[0] is not turn)
            self._grant()

    def _free(self, events: int, size_bytes: int) -> None:
        self._events -= events
        self._bytes -= size_bytes
        assert self._events >= 0 <= self._bytes, "more room returned than was taken"
        self._grant()

    def _grant(self) -> None:
        """Writers get their turn in the order they came; the first that does not fit holds up the rest."""
        while self._writers:
            turn, events, size_bytes = self._writers[0]
            if turn.done():  # it gave up and has not run yet
                self._writers.popleft()
                continue
            if not self._fits(events, size_bytes):
                break
            self._writers.popleft()
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
