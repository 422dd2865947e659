"""Delivery to a sink that writes batches as they are."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from penstock.core.batch import Batch
from penstock.core.errors import Permanent, Transient
from penstock.runtime.deliver.surroundings import (
    RETRY_DELAY_S_MAX,
    RETRY_DELAY_S_MIN,
    SinkState,
    Surroundings,
    plain,
)
from penstock.sdk import WriteSink

log = logging.getLogger(__name__)


class WriteDelivery:
    """Hands whole batches to a simple sink, one after the other, and retries them."""

    def __init__(self, sink: WriteSink, surroundings: Surroundings) -> None:
        self._sink = sink
        self._around = surroundings
        self.name = surroundings.ctx.plugin
        self.state = SinkState(since_ms=surroundings.ctx.clock.now_ms())
        self._queue: deque[tuple[Batch, Callable[[], None], Callable[[], None]]] = deque()
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def submit(self, batch: Batch, on_done: Callable[[], None]) -> None:
        self._around.records_in.add(len(batch))
        self._queue.append((batch, on_done, self._around.observe(batch)))
        self._pending += len(batch)
        self._idle.clear()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._queue:
            batch, on_done, arrived = self._queue.popleft()
            if any(handle.done for handle in {*batch.handles} if handle is not None):
                gone = [i for i, handle in enumerate(batch.handles) if handle is not None and handle.done]
                self._pending -= len(gone)
                batch = batch.drop(gone, ok=False)
            ok = await self._write(batch) if len(batch) else True
            self._pending -= len(batch)
            batch.release_all(ok=ok)
            if ok:
                arrived()
            on_done()
        if self._pending == 0:
            self._idle.set()

    async def _write(self, batch: Batch) -> bool:
        attempts = 0
        clock = self._around.ctx.clock
        while True:
            try:
                await self._sink.write(batch)
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
                return await self._around.bury(
                    [
                        self._around.letter({"status": 0, "message": reason, "document": plain(body)})
                        for body in batch.bodies
                    ]
                )
            else:
                if self.state.status != "OK":
                    self.state = SinkState("OK", "", clock.now_ms())
                return True

    def pending(self) -> int:
        return self._pending

    async def drain(self) -> None:
        await self._idle.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
