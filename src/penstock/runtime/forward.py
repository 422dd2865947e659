"""What a sink has written goes on to another pipeline, in the order in which the sink was given it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.core.batch import Batch


class Target(Protocol):
    name: str

    """The pipeline behind the sink."""

    async def take_over(self, batch: Batch, size_bytes: int) -> None: ...


class Onward:
    """Events that go on once the sink has taken them."""

    __slots__ = ("_forwarder", "_on_gone", "_written", "batch", "ready", "size_bytes")

    def __init__(self, forwarder: Forwarder, batch: Batch, size_bytes: int, on_gone: Callable[[], None]) -> None:
        self._forwarder = forwarder
        self._on_gone = on_gone
        self._written: list[int] = []
        self.batch = batch
        self.size_bytes = size_bytes
        self.ready = False
        """The sink has done with all of them."""

    def written(self, places: Sequence[int]) -> None:
        """The sink has taken these."""
        self._written += places

    def done(self) -> None:
        """The sink has done with all of them; those it has not taken do not go on."""
        taken = self.batch.select(sorted(self._written))
        self.batch.release_all(ok=True)  # how these ended, the sink's own part has said
        self.batch = taken
        self.ready = True
        self._forwarder.advance()

    def gone(self) -> None:
        """They are in the next pipeline, or will never be: the room they had is free."""
        self._on_gone()


class Forwarder:
    """One sink's way to the next pipeline.

    Later operations on an id must not overtake earlier ones that the sink was slower with, so batches go on in order.
    They keep their room in the buffer until the next pipeline has room for them.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._line: deque[Onward] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, batch: Batch, size_bytes: int, on_gone: Callable[[], None]) -> Onward:
        """`batch` is about to be given to the sink; `on_gone` is called when it has left for the next pipeline."""
        onward = Onward(self, batch, size_bytes, on_gone)
        self._line.append(onward)
        return onward

    def forget(self, onward: Onward) -> None:
        """The sink did not take the batch over after all."""
        self._line.remove(onward)
        onward.batch.release_all(ok=True)
        self.advance()

    def advance(self) -> None:
        """Send on what is ready, if nothing before it is not."""
        if self._closed:
            self._give_up()
        elif self._line and self._line[0].ready and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._line and self._line[0].ready:
            onward = self._line[0]
            if len(onward.batch):
                await self._target.take_over(onward.batch, onward.size_bytes)
            self._line.popleft()
            onward.gone()

    async def drain(self) -> None:
        """Return when everything has gone on. Call it once the sink is done with everything."""
        while self._task is not None and not self._task.done():
            await self._task

    async def close(self) -> None:
        """Stop at once; what has not gone on ends undelivered."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._give_up()

    def _give_up(self) -> None:
        while self._line and self._line[0].ready:
            onward = self._line.popleft()
            onward.batch.release_all(ok=False)
            onward.gone()
