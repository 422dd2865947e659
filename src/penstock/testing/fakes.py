"""Sources, sinks and dead letters in memory. They pass the same contract tests as the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from penstock.core.json_text import decode, encode
from penstock.sdk import Batch, DeadLetter, Failure, Items, Limits, Output

Reply = Sequence[Failure] | Exception


class ListSource:
    """Writes the given batches, then ends; `outcomes` holds what each promise became, in the order they ended."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self.outcomes: list[tuple[int, bool]] = []

    async def run(self, output: Output) -> None:
        output.started()
        for place, batch in enumerate(self._batches):
            handle = output.handle(lambda ok, place=place: self.outcomes.append((place, ok)))  # type: ignore[misc]
            batch.promise(handle)
            await output.write(batch, sum(len(encode(body)) for body in batch.bodies))
            handle.seal()

    async def stop(self) -> None:
        """It ends by itself."""


class EndlessSource:
    """Brings an event every `pause_s` seconds until it is stopped; `count` tells how many."""

    def __init__(self, pause_s: float = 1.0) -> None:
        self.count = 0
        self._pause_s = pause_s
        self._stopped = asyncio.Event()

    async def run(self, output: Output) -> None:
        output.started()
        while not self._stopped.is_set():
            await output.write(Batch([{"n": self.count}]), 10)
            self.count += 1
            await asyncio.sleep(self._pause_s)

    async def stop(self) -> None:
        self._stopped.set()


class MemoryBulkSink:
    """A bulk sink that keeps what arrives; `respond` decides about each request."""

    def __init__(
        self,
        respond: Callable[[list[Any]], Reply] | None = None,
        *,
        limits: Limits | None = None,
        key: str | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self.limits = limits or Limits(request_bytes_max=5 * 1024 * 1024, flush_timeout_s=60.0)
        self.arrived: list[Any] = []
        """Documents in the order they were accepted."""
        self.requests: list[list[Any]] = []
        self.in_flight = 0
        self.started = 0
        self.stopped = 0
        self._respond = respond
        self._key = key
        self._delay_s = delay_s

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    def encode(self, batch: Batch) -> Items:
        keys: list[Hashable] | None = None
        if self._key is not None:
            keys = [body.get(self._key) for body in batch.bodies]
        return Items([encode(body) for body in batch.bodies], range(len(batch)), keys)

    async def send(self, data: Sequence[bytes]) -> Sequence[Failure]:
        documents = [decode(item) for item in data]
        self.requests.append(documents)
        self.in_flight += 1
        try:
            await asyncio.sleep(self._delay_s)
            reply = self._respond(documents) if self._respond is not None else ()
        finally:
            self.in_flight -= 1
        if isinstance(reply, Exception):
            raise reply
        refused = {failure.index for failure in reply}
        self.arrived += [document for index, document in enumerate(documents) if index not in refused]
        return reply

    def dead_letter(self, data: bytes) -> dict[str, Any]:
        return {"index": "memory", "indexId": None, "document": decode(data)}


class MemorySink:
    """A sink that keeps bodies, tags and attributes of what it is given."""

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, Any], set[str], dict[str, Any], str]] = []
        """Body, tags, attributes and event type of each event."""

    async def start(self) -> None:
        """It is always ready."""

    async def stop(self) -> None:
        """There is nothing to close."""

    async def write(self, batch: Batch) -> None:
        for index, body in enumerate(batch.bodies):
            meta = batch.peek(index)
            self.events.append((body, set(meta.tags), dict(meta.attributes), meta.event_type))


class MemoryDeadLetters:
    """Keeps dead letters; `broken` makes every write fail."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.broken = False

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        if self.broken:
            raise OSError("the dead-letter queue is broken")
        self.letters += letters

    async def close(self) -> None:
        """There is nothing to close."""
