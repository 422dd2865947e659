"""What every delivery has in common: its face to the pipeline, its state, its meters and its dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.core.batch import Batch
from penstock.core.errors import EventError, Permanent, Transient
from penstock.core.handle import Handle
from penstock.core.json_text import encode
from penstock.runtime.deliver.pace import RetryPauses
from penstock.sdk import Context, DeadLetter, DeadLetterWriter, Room, metadata_told

log = logging.getLogger(__name__)

KEEP_TIMEOUT_S = 10.0
REASON_CHARACTERS_MAX = 500
"""Of a refusal in the log: servers quote values. Dead letters hold all of it."""
SHUT_DOWN = "the pipeline was shut down before this event could be delivered"


class Delivery(Protocol):
    """The way of a pipeline to one of its sinks."""

    name: str
    state: SinkState

    def submit(
        self, batch: Batch, on_done: Callable[[], None], on_written: Callable[[Sequence[int]], None] | None = None
    ) -> None:
        """Take the events over. What of the bodies is needed is read before this returns, except by `WriteDelivery`.

        `on_done` is called once: when all of them have ended or, without `on_written`, when the few that are left wait
        in the room that the delivery has for retries. `on_written` is called before that with the places of those that
        the sink has taken (not with those that became dead letters).
        """

    async def drain(self) -> None:
        """Return when every event has ended."""

    def pending(self) -> int:
        """Events not yet ended."""

    async def close(self) -> None:
        """Stop at once; what is pending ends undelivered."""


@dataclass(slots=True)
class SinkState:
    """What an operator sees of a sink."""

    status: str = "STARTING"
    """`STARTING`, `OK` or `DEGRADED`."""
    last_error: str = ""
    since_ms: int = 0


class FailurePipeline(Protocol):
    """A pipeline that takes refused events instead of a dead-letter queue."""

    async def take_over(self, batch: Batch, size_bytes: int) -> None: ...


class Surroundings:
    """What every delivery needs: where dead letters go, time, chance, names and meters."""

    def __init__(
        self,
        ctx: Context,
        dead_letters: DeadLetterWriter,
        failure_pipeline: Callable[[], FailurePipeline | None] | None = None,
        room: Room | None = None,
    ) -> None:
        self.ctx = ctx
        self._room = room
        self.dead_letters = dead_letters
        self._failure_pipeline = failure_pipeline
        self.keeps_events = failure_pipeline is not None
        """Whether refused events themselves are wanted, not only what was sent of them."""
        self._dead = ctx.metrics.counter("deadLetters")
        self._dead_failed = ctx.metrics.counter("deadLetterErrors")
        self._invalid_handles = ctx.registry.scope(ctx.pipeline, "PipelineRunner").counter("invalidEventHandles")
        self.pauses = RetryPauses(ctx.random)
        """Between attempts to write dead letters, or batches."""
        self.records_in = ctx.metrics.counter("recordsIn")
        self.elapsed = ctx.metrics.timer("timeElapsed")
        """Times of the requests to the sink."""
        self.latency = ctx.metrics.timer("PipelineLatency")
        self.end_to_end = ctx.metrics.timer("EndToEndLatency")

    def letter(self, failed_data: dict[str, Any], *, plugin: str | None = None) -> DeadLetter:
        """A dead letter of this plugin, or of another one of the pipeline."""
        ctx = self.ctx
        name = plugin or ctx.plugin
        if failed_data.get("message") is None:
            failed_data["message"] = ""
        return DeadLetter(name, name, ctx.pipeline, ctx.clock.now_ns(), failed_data)

    async def keep_unheard(self, batch: Batch, failed_data: Callable[[int], dict[str, Any]]) -> None:
        """Nothing is delivered any more: dead letters for those events whose source will not ask again.

        They were accepted. The others are left to their sources, which hear no. `failed_data` tells what is known of
        the event at a place.
        """
        places = [i for i, handle in enumerate(batch.handles) if handle and not (handle.done or handle.heard)]
        if not places:
            return
        reason = {"status": 0, "message": SHUT_DOWN}
        try:
            async with asyncio.timeout(KEEP_TIMEOUT_S):
                kept = await self.bury([self.letter({**reason, **failed_data(place)}) for place in places])
        except TimeoutError:
            kept = False
        if kept:
            batch.release(places, ok=True)

    async def bury(self, letters: Sequence[DeadLetter], events: Batch | None = None) -> bool:
        """Write dead letters; False when even that fails, then the events count as undelivered.

        With `events`, the refused events of the letters, these go to the failure pipeline instead, where there is one.
        """
        pipeline = self._failure_pipeline() if self._failure_pipeline is not None and events is not None else None
        where = "the dead-letter queue" if pipeline is None else "the failure pipeline"
        try:
            if pipeline is not None and events is not None:
                await _hand_over(pipeline, events, letters)
            else:
                await self.dead_letters.write(letters)
        except (OSError, Transient, Permanent) as error:
            self._dead_failed.add(len(letters))
            log.error("Failed to write a document to the DLQ: %s", error)
            return False
        except Exception:
            self._dead_failed.add(len(letters))
            log.exception("Failed to write a document to the DLQ")
            return False
        finally:
            if events is not None:  # what the failure pipeline has taken over is no longer held here
                events.release_all(ok=True)
        self._dead.add(len(letters))
        log.warning(
            "Pipeline [%s] %s: %d events went to %s; the first because: %s",
            self.ctx.pipeline,
            self.ctx.plugin,
            len(letters),
            where,
            str(letters[0].failed_data.get("message"))[:REASON_CHARACTERS_MAX],
        )
        return True

    async def bury_until_kept(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters of events that no source will bring again: tried until it works or the delivery closes."""
        attempts = 0
        while not await self.bury(letters):
            attempts += 1
            await self.pauses.after(attempts)

    def is_awaited(self) -> bool:
        """Whether somebody waits for the room in the buffer that the events here have."""
        return self._room is not None and self._room.is_awaited()

    def is_read_out(self) -> bool:
        """Whether no event has room there that has not been handed on."""
        return self._room is not None and self._room.is_read_out()

    def admit(self, batch: Batch) -> None:
        """Count the events that come in. One that a plugin parted from its handle gets one that nobody waits for."""
        handles = batch.handles
        self.records_in.add(len(handles))
        if handles and handles.count(handles[0]) == len(handles) and handles[0] is not None:
            return  # the usual case, and quickly seen
        if None in handles:
            lost = [place for place, handle in enumerate(batch.handles) if handle is None]
            self._invalid_handles.add(len(lost))
            log.error("Pipeline [%s]: %d events came without their handles", self.ctx.pipeline, len(lost))
            handle = Handle()
            handle.add(len(lost))
            for place in lost:
                batch.handles[place] = handle
            handle.seal()

    def observe(self, batch: Batch) -> Callable[[], None]:
        """Call the result when the batch has arrived: records how long it took."""
        clock = self.ctx.clock
        received = batch.peek(0).received_ms if len(batch) else 0
        metas = batch.metas
        origination: Sequence[int] = ()
        if metas.count(None) < len(metas):
            origination = [m.origination_ms for m in metas if m is not None and m.origination_ms is not None]
        count = len(batch)

        def arrived() -> None:
            now = clock.now_ms()
            if received:
                self.latency.observe(max(0, now - received) / 1000, count)
            for then in origination:
                self.end_to_end.observe(max(0, now - then) / 1000)

        return arrived


async def _hand_over(pipeline: FailurePipeline, events: Batch, letters: Sequence[DeadLetter]) -> None:
    size_bytes = 0
    for body, letter in zip(events.bodies, letters, strict=True):
        failed = letter.failed_data
        body["_failure_metadata"] = {
            "pluginId": letter.plugin_id,
            "pluginName": letter.plugin_name,
            "pipelineName": letter.pipeline_name,
            "message": failed.get("message"),
            "errorMessage": failed.get("message"),
            "status": failed.get("status"),
            "index": failed.get("index"),
            "indexId": failed.get("indexId"),
        }
        size_bytes += len(encode(plain(body)))
    await pipeline.take_over(events.select(range(len(events))), size_bytes)


def document_at(batch: Batch, place: int) -> dict[str, Any]:
    """What a dead letter says of an event that no sink has encoded."""
    return {"document": plain(batch.bodies[place]), **metadata_told(batch.peek(place))}


def plain(value: Any) -> Any:
    """The value if it can be written as JSON, else its text form: a dead letter must always be writable."""
    try:
        encode(value)
    except EventError:
        return repr(value)[:1_000_000]
    return value
