"""Several tables behind one source: each is read by itself, and they stand and fall together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from penstock import sdk
from penstock.plugins.sources.dynamodb.source import DynamodbSource


class Tables:
    """The tables of one source."""

    def __init__(self, sources: Sequence[DynamodbSource]) -> None:
        self._sources = sources

    async def run(self, output: sdk.Output) -> None:
        started: set[DynamodbSource] = set()

        def noted(source: DynamodbSource) -> Callable[[], None]:
            def note() -> None:
                started.add(source)
                if len(started) == len(self._sources):
                    output.started()

            return note

        try:
            async with asyncio.TaskGroup() as group:
                for source in self._sources:
                    group.create_task(source.run(_Shared(output, noted(source))))
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors

    async def delivered_until(self, moment_ms: int) -> bool:
        """Whether the exports and every change made before this moment are delivered. Raises `Transient`."""
        return all([await source.delivered_until(moment_ms) for source in self._sources])

    async def stop(self) -> None:
        await asyncio.gather(*(source.stop() for source in self._sources))


class _Shared:
    """The output, which is told once that all tables are read."""

    def __init__(self, output: sdk.Output, started: Callable[[], None]) -> None:
        self._output = output
        self.started = started
        self.acknowledgments = output.acknowledgments
        self.events_max = output.events_max
        self.bytes_max = output.bytes_max

    def handle(self, on_done: Callable[[bool], None] | None = None) -> sdk.Handle:
        return self._output.handle(on_done)

    def write_now(self, batch: sdk.Batch, size_bytes: int, *, reserved: bool = False) -> bool:
        return self._output.write_now(batch, size_bytes, reserved=reserved)

    async def write(
        self, batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None, *, reserved: bool = False
    ) -> None:
        await self._output.write(batch, size_bytes, timeout_s, reserved=reserved)

    def reserve_now(self, size_bytes: int) -> bool:
        return self._output.reserve_now(size_bytes)

    async def reserve(self, size_bytes: int, timeout_s: float | None = None) -> None:
        await self._output.reserve(size_bytes, timeout_s)

    def give_back(self, size_bytes: int) -> None:
        self._output.give_back(size_bytes)

    def set_aside(self, size_bytes: int) -> None:
        self._output.set_aside(size_bytes)
        self.bytes_max = self._output.bytes_max


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
