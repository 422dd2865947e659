"""What a source sees of its pipeline."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

from penstock.core.batch import Batch
from penstock.core.handle import Handle
from penstock.sdk import Buffer


class PipelineOutput:
    """What a source sees of its pipeline."""

    acknowledgments = True

    def __init__(self, buffer: Buffer, on_started: Callable[[], None]) -> None:
        self._buffer = buffer
        self._on_started = on_started
        self._promises: WeakSet[Handle] = WeakSet()
        self.events_max = self._buffer.events_max
        self.bytes_max = self._buffer.bytes_max

    def started(self) -> None:
        self._on_started()

    def handle(self, on_done: Callable[[bool], None] | None = None) -> Handle:
        handle = Handle(on_done)
        self._promises.add(handle)
        return handle

    def break_promises(self) -> None:
        """Nothing is delivered any more: the source hears no for whatever was on its way."""
        for handle in list(self._promises):
            handle.expire()

    def write_now(self, batch: Batch, size_bytes: int, *, reserved: bool = False) -> bool:
        _promised(batch)
        if len(batch):
            return self._buffer.write_now(batch, size_bytes, reserved=reserved)
        if reserved:
            self._buffer.give_back(size_bytes)
        return True

    async def write(
        self, batch: Batch, size_bytes: int, timeout_s: float | None = None, *, reserved: bool = False
    ) -> None:
        _promised(batch)
        if len(batch):
            await self._buffer.write(batch, size_bytes, timeout_s, reserved=reserved)
        elif reserved:
            self._buffer.give_back(size_bytes)

    def reserve_now(self, size_bytes: int) -> bool:
        return self._buffer.reserve_now(size_bytes)

    async def reserve(self, size_bytes: int, timeout_s: float | None = None) -> None:
        await self._buffer.reserve(size_bytes, timeout_s)

    def give_back(self, size_bytes: int) -> None:
        self._buffer.give_back(size_bytes)

    def set_aside(self, size_bytes: int) -> None:
        self._buffer.set_aside(size_bytes)
        self.bytes_max = self._buffer.bytes_max


def _promised(batch: Batch) -> None:
    if batch.bodies and batch.handles[0] is None:
        handle = Handle()
        batch.promise(handle)
        handle.seal()
