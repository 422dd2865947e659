"""Delivery to a sink that writes batches as they are."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.core.batch import Batch
from penstock.core.errors import Permanent, Transient
from penstock.runtime.deliver.surroundings import SinkState, Surroundings, document_at
from penstock.sdk import WriteSink

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A batch that is queued, being written, or on its way to the dead letters."""

    batch: Batch
    on_done: Callable[[], None]
    arrived: Callable[[], None]
    on_written: Callable[[Sequence[int]], None] | None
    count: int
    known: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What the dead letters say that could not be written yet, by place."""

    def end(self, *, written: bool, ok: bool) -> None:
        places = self.batch.held()
        if written and self.on_written is not None:
            self.on_written(places)
        self.batch.release_all(ok=ok)
        if ok:
            self.arrived()
        self.on_done()

    def known_of(self, place: int) -> dict[str, Any]:
        return self.known.get(place) or document_at(self.batch, place)


class WriteDelivery:
    """Hands whole batches to a simple sink, one after the other, and retries them."""

    def __init__(self, sink: WriteSink, surroundings: Surroundings) -> None:
        self._sink = sink
        self._around = surroundings
        self.name = surroundings.ctx.plugin
        self.state = SinkState(since_ms=surroundings.ctx.clock.now_ms())
        self._queue: deque[_Waiting] = deque()
        self._refused: dict[asyncio.Task[None], _Waiting] = {}
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def submit(
        self, batch: Batch, on_done: Callable[[], None], on_written: Callable[[Sequence[int]], None] | None = None
    ) -> None:
        self._around.admit(batch)
        self._queue.append(_Waiting(batch, on_done, self._around.observe(batch), on_written, len(batch)))
        self._pending += len(batch)
        self._idle.clear()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._queue:
            waiting = self._queue[0]
            reason = await self._write(waiting)
            self._queue.popleft()
            if reason is None:
                self._end(waiting, written=True, ok=True)
            else:  # apart from the line: a slow queue of dead letters does not hold up what can be written
                task = asyncio.get_running_loop().create_task(self._bury(waiting, reason))
                self._refused[task] = waiting
                task.add_done_callback(self._buried)
        if self._pending == 0:
            self._idle.set()

    def _end(self, waiting: _Waiting, *, written: bool, ok: bool) -> None:
        self._pending -= waiting.count
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

    async def _write(self, waiting: _Waiting) -> str | None:
        """None when the sink has taken the events, else why it never will."""
        batch = self._without_withdrawn(waiting.batch)
        if not len(batch):
            return None
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
                await self._around.pauses.after(attempts, error.retry_after_s)
            except Permanent as error:
                return str(error)
            except Exception as error:
                log.exception("Sink %s failed unexpectedly", self.name)
                return f"{type(error).__name__}: {error}"
            else:
                if self.state.status != "OK":
                    self.state = SinkState("OK", "", clock.now_ms())
                return None

    async def _bury(self, waiting: _Waiting, reason: str) -> None:
        """Dead letters for a batch that was refused.

        Where they cannot be written, the sources that listen hear no and ask again; what else there is stays here until
        it works.
        """
        batch, around = waiting.batch, self._around
        held = batch.held()
        letters = [
            around.letter({"index": None, "indexId": None, "status": 0, "message": reason, **document_at(batch, place)})
            for place in held
        ]
        events = batch.copy(held) if around.keeps_events else None
        if await around.bury(letters, events):
            self._end(waiting, written=False, ok=True)
            return
        handles = batch.handles
        unheard = {
            place: letter
            for place, letter in zip(held, letters, strict=True)
            if (handle := handles[place]) and not (handle.heard or handle.done)
        }
        batch.release([place for place in held if place not in unheard], ok=False)
        if unheard:
            waiting.known = {place: letter.failed_data for place, letter in unheard.items()}
            await around.bury_until_kept(list(unheard.values()))
        self._end(waiting, written=False, ok=bool(unheard))

    def _buried(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            del self._refused[task]
            if task.exception() is not None:
                log.critical("Delivery to %s failed", self.name, exc_info=task.exception())

    def pending(self) -> int:
        return self._pending

    async def drain(self) -> None:
        self._around.pauses.hurry()
        await self._idle.wait()

    async def close(self) -> None:
        tasks = [*([self._task] if self._task is not None else []), *self._refused]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiting in [*self._refused.values(), *self._queue]:
            await self._around.keep_unheard(waiting.batch, waiting.known_of)
            waiting.end(written=False, ok=False)
        self._refused.clear()
        self._queue.clear()
        self._pending = 0
        self._idle.set()
