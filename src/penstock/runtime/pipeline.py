"""One running pipeline: its buffer, its chain of processors, its routes and the ways to its sinks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import cast

from penstock.core.batch import Batch
from penstock.core.clock import Clock
from penstock.core.errors import Permanent, Transient
from penstock.runtime.deliver import SinkState, Surroundings, document_at
from penstock.runtime.forward import Forwarder
from penstock.runtime.output import PipelineOutput
from penstock.runtime.parts import Branch, Parts
from penstock.runtime.routes import choose
from penstock.sdk import Buffer, Load, Source

log = logging.getLogger(__name__)

CHUNK_EVENTS_MAX = 256
"""Events that go through the chain together: the working set stays in the cache and the loop responsive."""
PASSED_EVENTS_MAX = 1024
"""The same where there are no processors and a sink only looks at each event once."""
PASSED_EVENT_BYTES_MAX = 1024
"""Larger events go on in chunks of the usual size."""
BREATH_S = 0.002
"""So long a worker may keep the loop from everybody else."""
SINK_RETRY_S = 5.0
SOURCE_RETRY_S_MAX = 60.0
HOLD_TICK_S = 0.5
"""How often processors that hold events are called while none arrive."""


class _Ticket:
    """Room in the buffer, given back when everything a load became has ended or is held by a processor."""

    __slots__ = ("_buffer", "_load", "_pending")

    def __init__(self, buffer: Buffer, load: Load) -> None:
        self._buffer = buffer
        self._load = load
        self._pending = 1

    def take(self) -> None:
        self._pending += 1

    def done(self) -> None:
        self._pending -= 1
        if self._pending == 0:
            self._buffer.done(self._load)


class Pipeline:
    """Runs the parts of a pipeline until it is drained, fails, or its source has come to its end."""

    def __init__(
        self,
        parts: Parts,
        surroundings: Surroundings,
        clock: Clock,
        failure_pipeline: Callable[[], Pipeline | None],
    ) -> None:
        self.name = parts.name
        self.parts = parts
        self.state = "STARTING"
        self.reason = ""
        self.source_started = False
        self.ended = asyncio.Event()
        """Set when the source has come to its end or the pipeline has failed."""
        self._around = surroundings
        self._clock = clock
        self._failure_pipeline = failure_pipeline
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._source_task: asyncio.Task[None] | None = None
        self._stopping = False
        self._last: asyncio.Future[None] | None = None
        self._left: list[Batch] = []
        """What a worker had in hand when it was cut off."""
        simple = len(parts.branches) == 1 and not parts.branches[0].routes and parts.branches[0].delivery is not None
        self._only = parts.branches[0] if simple else None
        self._holds = any(stage.drain for stage in parts.stages)
        self.output = PipelineOutput(parts.buffer, self._source_has_started)

    # start

    async def start_sinks(self) -> None:
        """Get every sink ready, trying again for ever while that may help. Raises `Permanent` where it cannot."""
        sinks = [branch for branch in self.parts.branches if branch.sink is not None]
        log.info("Pipeline [%s] Waiting for Sink to be ready", self.name)
        await asyncio.gather(*(self._start_sink(branch) for branch in sinks))

    async def _start_sink(self, branch: Branch) -> None:
        assert branch.sink is not None
        assert branch.delivery is not None
        while True:
            try:
                await branch.sink.start()
            except Transient as error:
                branch.delivery.state = SinkState("DEGRADED", str(error), self._clock.now_ms())
                self.parts.contexts[branch.name].log.warning("%s", error)
                await asyncio.sleep(error.retry_after_s or SINK_RETRY_S)
            else:
                branch.delivery.state = SinkState("OK", "", self._clock.now_ms())
                return

    def start_workers(self) -> None:
        """Begin to take events from the buffer."""
        asynchronous = any(asyncio.iscoroutinefunction(stage.run) for stage in self.parts.stages)
        count = self.parts.workers if asynchronous else 1
        self._tasks = [self._loop.create_task(self._work(), name=f"{self.name}-worker-{i}") for i in range(count)]
        for task in self._tasks:
            task.add_done_callback(self._worker_ended)
        if self.state == "STARTING":
            self.state = "RUNNING"

    def start_source(self) -> None:
        """Begin to take events in."""
        if self.parts.source is None:
            self.source_started = True
            return
        log.info("Pipeline [%s] Sink is ready, starting source...", self.name)
        self._source_task = self._loop.create_task(self._run_source(self.parts.source), name=f"{self.name}-source")

    def _source_has_started(self) -> None:
        self.source_started = True

    async def _run_source(self, source: Source) -> None:
        delay = 1.0
        while not self._stopping:
            begin = self._clock.monotonic()
            try:
                await source.run(self.output)
            except Permanent as error:
                self.fail(str(error))
                return
            except Transient as error:
                log.warning("Pipeline [%s] source: %s; starting it again in %.0f s", self.name, error, delay)
            except Exception:
                log.exception("Pipeline [%s] source failed unexpectedly; starting it again in %.0f s", self.name, delay)
            else:
                if not self._stopping:
                    log.info("Pipeline [%s] source has come to its end", self.name)
                self.ended.set()
                return
            if self._clock.monotonic() - begin > SOURCE_RETRY_S_MAX:
                delay = 1.0
            await asyncio.sleep(delay)
            delay = min(delay * 2, SOURCE_RETRY_S_MAX)

    def fail(self, reason: str) -> None:
        """This pipeline cannot go on; the others can."""
        self.state = "FAILED"
        self.reason = reason
        log.error("Pipeline [%s] failed: %s", self.name, reason)
        self.ended.set()

    # work

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("Worker of pipeline [%s] failed", self.name, exc_info=error)
            self.fail(f"{type(error).__name__}: {error}")

    async def _work(self) -> None:
        buffer = self.parts.buffer
        ordered = self.parts.workers > 1
        monotonic = self._clock.monotonic  # the time of the loop stands still while it is kept busy
        breath = monotonic()
        while True:
            load = await self._read(buffer)
            if load is None:
                return
            turn: asyncio.Future[None] | None = None
            if ordered:
                previous, turn = self._last, self._loop.create_future()
                self._last = turn
            else:
                previous = None
            ticket = _Ticket(buffer, load) if load.events else _NO_TICKET
            size_each = load.size_bytes / max(1, load.events)
            passed = not self.parts.stages and size_each <= PASSED_EVENT_BYTES_MAX
            chunks = deque(load.batch.chunks(PASSED_EVENTS_MAX if passed else CHUNK_EVENTS_MAX))
            try:
                while chunks:
                    out = await self._process(chunks.popleft(), previous=previous)
                    if previous is not None:
                        await previous
                    if len(out):
                        await self._dispatch(out, ticket, int(size_each * len(out)))
                    if monotonic() - breath > BREATH_S:
                        await asyncio.sleep(0)
                        breath = monotonic()
            except asyncio.CancelledError:
                self._left += chunks
                raise
            if load.events:
                ticket.done()
            if turn is not None:
                turn.set_result(None)

    async def _read(self, buffer: Buffer) -> Load | None:
        if not self._holds:
            return await buffer.read()
        try:
            async with asyncio.timeout(HOLD_TICK_S):
                return await buffer.read()
        except TimeoutError:
            return Load(Batch([]), 0, 0)

    async def _process(self, batch: Batch, first: int = 0, previous: asyncio.Future[None] | None = None) -> Batch:
        """Run the chain from stage `first`; what a stage throws at is parked and does not go on.

        A stage that holds events gets them in the order they came: it waits for the load before (`previous`).
        """
        monotonic = self._clock.monotonic
        for stage in self.parts.stages[first:]:
            count = len(batch)
            if count == 0 and not self._holds:
                break
            if previous is not None and stage.drain is not None:
                await previous
            stage.records_in.add(count)
            begin = monotonic()
            try:
                result = stage.run(batch)
                if not isinstance(result, Batch):
                    result = await result
            except Exception as error:  # noqa: BLE001 (a bug in one plugin must not lose events or end the process)
                await self.park(batch, stage.name, error)
                return Batch([])
            stage.time_elapsed.observe(monotonic() - begin)
            batch = result
            stage.records_out.add(len(batch))
        return batch

    async def park(self, batch: Batch, plugin: str, error: Exception) -> None:
        """A plugin threw: its events go to the failure pipeline, else to the dead letters; they never run twice."""
        held = batch.held()
        log.exception(
            "A processor threw an exception. This batch of Events will be sent to DLQ. Pipeline [%s] %s: %d events",
            self.name,
            plugin,
            len(held),
            exc_info=error,
        )
        if not held:
            return
        reason = f"{type(error).__name__}: {error}"
        rest = batch.select(held)
        failure = self._failure_pipeline()
        if failure is not None:
            for body in rest.bodies:
                body["_failure_metadata"] = {
                    "pluginId": plugin,
                    "pluginName": plugin,
                    "pipelineName": self.name,
                    "errorMessage": reason,
                }
            await failure.take_over(rest, 0)
            return
        letters = [
            self._around.letter(
                {"index": None, "indexId": None, "status": 0, "message": reason, **document_at(rest, place)},
                plugin=plugin,
            )
            for place in range(len(rest))
        ]
        if await self._around.bury(letters):
            rest.release_all(ok=True)
            return
        unheard = [i for i, handle in enumerate(rest.handles) if handle and not (handle.heard or handle.done)]
        rest.release(sorted(set(range(len(rest))).difference(unheard)), ok=False)
        if unheard:  # nobody will bring these again: the pipeline waits until they are kept
            try:
                await self._around.bury_until_kept([letters[i] for i in unheard])
            except asyncio.CancelledError:
                self._left.append(rest)
                raise
            rest.release(unheard, ok=True)

    async def take_over(self, batch: Batch, size_bytes: int) -> None:
        """Events from another pipeline: waits for room without limit."""
        buffer = self.parts.buffer
        share = size_bytes // max(1, len(batch))
        chunks = deque(batch.chunks(min(CHUNK_EVENTS_MAX, buffer.events_max)))
        try:
            while chunks:
                size = min(share * len(chunks[0]), buffer.bytes_max)
                if not buffer.write_now(chunks[0], size):
                    await buffer.write(chunks[0], size)
                chunks.popleft()
        except asyncio.CancelledError:
            self._left += chunks
            raise

    # out

    async def _dispatch(self, batch: Batch, ticket: _Ticket, size_bytes: int) -> None:
        if not len(batch):
            return
        if self._only is not None:
            await self._submit(self._only, batch, ticket, size_bytes)
            return
        chosen = choose(self.parts, batch)
        connectors = [(branch.target, places) for branch, places in chosen if branch.target is not None]
        for branch, places in chosen:
            if branch.delivery is not None:
                copied = bool(connectors) and branch.reads_later
                part = batch.copy(places) if copied else batch.share(places)
                await self._submit(branch, part, ticket, size_bytes)
        onward = [
            (target, batch.share(places) if index == len(connectors) - 1 else batch.copy(places))
            for index, (target, places) in enumerate(connectors)
        ]
        batch.release_all(ok=True)
        for target, events in onward:
            await target.take_over(events, size_bytes)

    async def _submit(self, branch: Branch, batch: Batch, ticket: _Ticket, size_bytes: int) -> None:
        assert branch.delivery is not None
        ticket.take()
        if branch.forward is not None and branch.forwarder is None:
            branch.forwarder = Forwarder(branch.forward)
        forwarder = branch.forwarder
        onward = None if forwarder is None else forwarder.add(batch.copy(), size_bytes, ticket.done)
        try:
            if onward is None:
                branch.delivery.submit(batch, ticket.done)
            else:
                branch.delivery.submit(batch, onward.done, onward.written)
        except Exception as error:  # noqa: BLE001 (a bug in one plugin must not lose events or end the process)
            if forwarder is not None and onward is not None:
                forwarder.forget(onward)
            await self.park(batch, branch.name, error)
            ticket.done()

    # end

    async def stop_source(self, timeout_s: float) -> bool:
        """Take nothing new. False when the source did not end in time and was cut off."""
        self._stopping = True
        if self.parts.source is None or self._source_task is None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self.parts.source.stop()
                await self._source_task
        except TimeoutError:
            self._source_task.cancel()
            await asyncio.gather(self._source_task, return_exceptions=True)
            return False
        except Exception:
            log.exception("Pipeline [%s] source failed while it was stopped", self.name)
        return True

    async def drain(self) -> None:
        """Everything that came in goes out: call it once nothing comes in any more."""
        if self.state != "FAILED":
            self.state = "DRAINING"
        self.parts.buffer.close()
        self._around.pauses.hurry()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for place, stage in enumerate(self.parts.stages):
                if stage.drain is not None:
                    held = stage.drain()
                    stage.records_out.add(len(held))
                    await self._dispatch(await self._process(held, place + 1), _NO_TICKET, 0)
        await asyncio.gather(*(branch.delivery.drain() for branch in self.parts.branches if branch.delivery))
        await asyncio.gather(*(branch.forwarder.drain() for branch in self.parts.branches if branch.forwarder))
        if self.state != "FAILED":
            self.state = "ENDED"

    async def settle_source(self) -> None:
        """Now that everything has ended, the source can write down how far it got."""
        if self.parts.source is not None:
            try:
                await self.parts.source.stop()
            except Exception:
                log.exception("Pipeline [%s] source failed while it saved its progress", self.name)

    async def close(self) -> None:
        """Give everything back; what is still pending ends undelivered."""
        running = [*self._tasks, *([self._source_task] if self._source_task else [])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for batch in [*self._left, *self.parts.buffer.rest()]:
            await self._around.keep_unheard(batch, partial(document_at, batch))
            batch.release_all(ok=False)
        for branch in self.parts.branches:
            if branch.delivery is not None:
                await branch.delivery.close()
            if branch.sink is not None:
                try:
                    await branch.sink.stop()
                except Exception:
                    log.exception("Pipeline [%s] sink %s failed while it was stopped", self.name, branch.name)
        await asyncio.gather(*(branch.forwarder.close() for branch in self.parts.branches if branch.forwarder))
        self.output.break_promises()

    def undelivered(self) -> int:
        """Events that entered and have not ended."""
        return sum(branch.delivery.pending() for branch in self.parts.branches if branch.delivery)


class _Unbuffered:
    """Stands for the buffer of events that are in none: what a processor let go of."""

    def done(self, load: Load) -> None:
        """There is no room to give back."""


_NO_TICKET = _Ticket(cast(Buffer, _Unbuffered()), Load(Batch([]), 0, 0))
