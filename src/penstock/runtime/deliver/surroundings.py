"""What every delivery has in common: its face to the pipeline, its state, its meters and its dead letters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.core.batch import Batch
from penstock.core.errors import EventError, Permanent, Transient
from penstock.core.json_text import encode
from penstock.runtime.dead_letters import DeadLetter, DeadLetterWriter
from penstock.sdk import Context

log = logging.getLogger(__name__)

RETRY_DELAY_S_MIN = 0.05
RETRY_DELAY_S_MAX = 60.0


class Delivery(Protocol):
    """The way of a pipeline to one of its sinks."""

    name: str
    state: SinkState

    def submit(
        self, batch: Batch, on_done: Callable[[], None], on_written: Callable[[Sequence[int]], None] | None = None
    ) -> None:
        """Take the events over. What of the bodies is needed is read before this returns, except by `WriteDelivery`.

        `on_done` is called once all of them have ended, `on_written` before that with the places of those that the
        sink has taken (not with those that became dead letters).
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


class Surroundings:
    """What every delivery needs: where dead letters go, time, chance, names and meters."""

    def __init__(self, ctx: Context, dead_letters: DeadLetterWriter) -> None:
        self.ctx = ctx
        self.dead_letters = dead_letters
        self._dead = ctx.metrics.counter("deadLetters")
        self._dead_failed = ctx.metrics.counter("deadLetterErrors")
        self.records_in = ctx.metrics.counter("recordsIn")
        self.latency = ctx.metrics.timer("PipelineLatency")
        self.end_to_end = ctx.metrics.timer("EndToEndLatency")

    def letter(self, failed_data: dict[str, Any]) -> DeadLetter:
        ctx = self.ctx
        return DeadLetter(ctx.plugin, ctx.plugin, ctx.pipeline, ctx.clock.now_ns(), failed_data)

    async def bury(self, letters: Sequence[DeadLetter]) -> bool:
        """Write dead letters; False when even that fails, then the events count as undelivered."""
        try:
            await self.dead_letters.write(letters)
        except (OSError, Transient, Permanent) as error:
            self._dead_failed.add(len(letters))
            log.error("Failed to write a document to the DLQ: %s", error)
            return False
        self._dead.add(len(letters))
        log.warning(
            "Pipeline [%s] %s: %d events went to the dead-letter queue; the first because: %s",
            self.ctx.pipeline,
            self.ctx.plugin,
            len(letters),
            letters[0].failed_data.get("message"),
        )
        return True

    def observe(self, batch: Batch) -> Callable[[], None]:
        """Call the result when the batch has arrived: records how long it took."""
        clock = self.ctx.clock
        received = batch.peek(0).received_ms if len(batch) else 0
        metas = batch.metas if any(batch.metas) else ()
        origination = [m.origination_ms for m in metas if m is not None and m.origination_ms is not None]
        count = len(batch)

        def arrived() -> None:
            now = clock.now_ms()
            if received:
                self.latency.observe(max(0, now - received) / 1000, count)
            for then in origination:
                self.end_to_end.observe(max(0, now - then) / 1000)

        return arrived


def plain(value: Any) -> Any:
    """The value if it can be written as JSON, else its text form: a dead letter must always be writable."""
    try:
        encode(value)
    except EventError:
        return repr(value)[:1_000_000]
    return value
