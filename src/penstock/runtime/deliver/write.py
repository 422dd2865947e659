"""Delivery to a sink that writes batches as they are."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from penstock.core.batch import Batch
from penstock.core.errors import Permanent, Transient
from penstock.runtime.deliver.surroundings import (
    RETRY_DELAY_S_MAX,
    RETRY_DELAY_S_MIN,
    SinkState,
    Surroundings,
    document_at,
)
from penstock.sdk import WriteSink

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A batch that is queued or being written."""

    batch: Batch
    on_done: Callable[[], None]
    arrived: Callable[[], None]
    on_written: Callable[[Sequence[int]], None] | None

    def end(self, *, written: bool, ok: bool) -> None:
        places = self.batch.held()
        if written and self.on_written is not None:
            self.on_written(places)
        self.batch.release_all(ok=ok)
        if ok:
            self.arrived()
        self.on_done()


class WriteDelivery:
    """Hands whole batches to a simple sink, one after the other, and retries them."""

    def __init__(self, sink: WriteSink, surroundings: Surroundings) -> None:
        self._sink = sink
        self._around = surroundings
        self.name = surroundings.ctx.plugin
        self.state = SinkState(since_ms=surroundings.ctx.clock.now_ms())
        self._queue: deque[_Waiting] = deque()
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def submit(
        self, batch: Batch, on_done: Callable[[], None], on_written: Callable[[Sequence[int]], None] | None = None
    ) -> None:
        self._around.records_in.add(len(batch))
        self._queue.append(_Waiting(batch, on_done, self._around.observe(batch), on_written))
        self._pending += len(batch)
        self._idle.clear()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._queue:
            waiting = self._queue[0]
            count = len(waiting.batch)
            written, ok = await self._write(waiting)
            self._queue.popleft()
            self._pending -= count
            waiting.end(written=written, ok=ok)
        if self._pending == 0:
            self._idle.set()

    def _without_withdrawn(self, batch: Batch) -> Batch:
        """What is still wanted: a promise that is over withdraws its events."""
        gone = [i for i, handle in enumerate(batch.handles) if handle is not None and handle.done]
        if not gone:
            return batch
        batch.release(gone, ok=False)
        kept = batch.held()
        return Batch([batch.bodies[i] for i in kept], [batch.metas[i] for i in kept], None, batch.origin)

    async def _write(self, waiting: _Waiting) -> tuple[bool, bool]:
        """Whether the sink has taken the events, and whether they are accounted for (dead letters are)."""
        batch = self._without_withdrawn(waiting.batch)
        if not len(batch):
            return True, True
        attempts = 0
        clock = self._around.ctx.clock
        while True:
            begin = clock.monotonic()
            try:
                try:
                    await self._sink.write(batch)
                finally:
                    self._around.elapsed.observe(clock.monotonic() - begin)
            except Transient as error:
                attempts += 1
                self.state = SinkState("DEGRADED", str(error), clock.now_ms())
                if attempts % 5 == 1:
                    log.warning("Sink %s: %s; trying again", self.name, error)
                delay = min(RETRY_DELAY_S_MIN * 2.0 ** min(attempts - 1, 16), RETRY_DELAY_S_MAX)
                await asyncio.sleep(error.retry_after_s or delay)
            except Exception as error:
                if not isinstance(error, Permanent):
                    log.exception("Sink %s failed unexpectedly", self.name)
                reason = str(error) if isinstance(error, Permanent) else f"{type(error).__name__}: {error}"
                letters = [
                    self._around.letter(
                        {"index": None, "indexId": None, "status": 0, "message": reason, **document_at(batch, place)}
                    )
                    for place in range(len(batch))
                ]
                events = waiting.batch.copy(waiting.batch.held()) if self._around.keeps_events else None
                return False, await self._around.bury(letters, events)
            else:
                if self.state.status != "OK":
                    self.state = SinkState("OK", "", clock.now_ms())
                return True, True

    def pending(self) -> int:
        return self._pending

    async def drain(self) -> None:
        await self._idle.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while self._queue:
            waiting = self._queue.popleft()
            await self._around.keep_unheard(waiting.batch, partial(document_at, waiting.batch))
            waiting.end(written=False, ok=False)
        self._pending = 0
        self._idle.set()
