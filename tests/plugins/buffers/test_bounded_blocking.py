"""The in-memory buffer: room, order of writers, time-outs that leave nothing behind."""

from __future__ import annotations

import asyncio
import importlib
import random
from typing import Any

import pytest

from penstock.core.metrics import Registry
from penstock.sdk import Batch, BufferFull, BufferTooSmall, Context, Handle
from penstock.testing.virtual import LoopClock, run_virtual

module = importlib.import_module("penstock.plugins.buffers.bounded_blocking")


def buffer_of(**options: int) -> Any:
    bytes_max = options.pop("bytes_max", 10_000)
    clock = LoopClock(asyncio.get_running_loop())
    return module.build(module.Config(**options), Context("p", "b", clock=clock, buffer_bytes_max=bytes_max))


def batch_of(count: int, start: int = 0) -> Batch:
    batch = Batch([{"n": start + n} for n in range(count)])
    handle = Handle()
    batch.promise(handle)
    return batch


def test_small_writes_are_joined_and_large_ones_handed_over_whole() -> None:
    async def run() -> None:
        buffer = buffer_of(buffer_size=100, batch_size=10)
        for start in range(4):
            assert buffer.write_now(batch_of(4, start * 4), 1)
        assert buffer.write_now(batch_of(30, 16), 1)
        sizes = []
        while buffer._queue:
            sizes.append((await buffer.read()).events)
        assert sizes == [8, 8, 30]

    run_virtual(run())


def test_its_timers_tell_of_every_batch() -> None:
    async def run() -> None:
        registry = Registry()
        clock = LoopClock(asyncio.get_running_loop())
        buffer = module.build(module.Config(), Context("p", "b", clock=clock, registry=registry))
        assert buffer.write_now(batch_of(4), 1)
        await buffer.write(batch_of(4), 1)
        await asyncio.sleep(2)
        buffer.done(await buffer.read())
        scope = registry.scope("p", "BlockingBuffer")
        timers = {name: scope.timer(name) for name in ("writeTimeElapsed", "readLatency", "checkpointTimeElapsed")}
        assert {name: timer.count for name, timer in timers.items()} == {
            "writeTimeElapsed": 2,
            "readLatency": 2,
            "checkpointTimeElapsed": 1,
        }
        assert timers["readLatency"].total == pytest.approx(4)

    run_virtual(run())


def test_room_returns_when_the_sinks_are_done_not_when_it_is_read() -> None:
    async def run() -> None:
        buffer = buffer_of(buffer_size=10, batch_size=10)
        assert buffer.write_now(batch_of(10), 1)
        load = await buffer.read()
        assert not buffer.write_now(batch_of(1), 1)
        buffer.done(load)
        assert buffer.write_now(batch_of(1), 1)

    run_virtual(run())


def test_bytes_are_bounded_too() -> None:
    async def run() -> None:
        buffer = buffer_of(buffer_size=10, batch_size=10, bytes_max=100)
        assert buffer.write_now(batch_of(1), 60)
        assert not buffer.write_now(batch_of(1), 60)
        with pytest.raises(BufferTooSmall):
            await buffer.write(batch_of(1), 101)
        with pytest.raises(BufferTooSmall, match="Buffer capacity too small for the number of records: 11"):
            await buffer.write(batch_of(11), 1)

    run_virtual(run())


def test_a_write_that_timed_out_left_nothing() -> None:
    async def run() -> None:
        buffer = buffer_of(buffer_size=10, batch_size=10)
        assert buffer.write_now(batch_of(10), 1)
        with pytest.raises(BufferFull, match=r"Pipeline \[p\] - Buffer does not have enough capacity left"):
            await buffer.write(batch_of(1), 1, timeout_s=3)
        buffer.done(await buffer.read())
        buffer.close()
        assert await buffer.read() is None

    run_virtual(run())


def test_writers_get_room_in_the_order_they_came() -> None:
    async def run() -> None:
        buffer = buffer_of(buffer_size=10, batch_size=1)
        assert buffer.write_now(batch_of(10), 1)
        first = asyncio.create_task(buffer.write(batch_of(8, 100), 1))
        await asyncio.sleep(0)
        second = asyncio.create_task(buffer.write(batch_of(1, 200), 1))
        await asyncio.sleep(0)
        assert not buffer.write_now(batch_of(1, 300), 1), "nobody jumps the line"
        buffer.done(await buffer.read())
        await asyncio.gather(first, second)
        firsts = [(await buffer.read()).batch.bodies[0]["n"] for _ in range(2)]
        assert firsts == [100, 200]

    run_virtual(run())


@pytest.mark.parametrize("seed", range(30))
def test_cancelled_and_timed_out_writers_never_lose_or_make_room(seed: int) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        buffer = buffer_of(buffer_size=20, batch_size=5)
        written = read = 0

        async def writer() -> None:
            nonlocal written
            count = chance.randrange(1, 12)
            try:
                await buffer.write(batch_of(count), 1, timeout_s=chance.choice([None, 0.01, 0.5]))
            except BufferFull:
                return
            written += count

        async def reader() -> None:
            nonlocal read
            while (load := await buffer.read()) is not None:
                read += load.events
                await asyncio.sleep(chance.random() / 10)
                buffer.done(load)

        reading = asyncio.create_task(reader())
        tasks = []
        for _ in range(60):
            tasks.append(asyncio.create_task(writer()))
            await asyncio.sleep(chance.random() / 20)
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        buffer.close()
        await reading
        assert written == read
        assert buffer._events == buffer._bytes == buffer._granted == 0

    run_virtual(run())


def test_bytes_can_be_reserved_before_the_events_are_known() -> None:
    async def run() -> None:
        buffer = buffer_of(buffer_size=10, bytes_max=100)
        buffer.set_aside(40)
        assert buffer.bytes_max == 60
        assert buffer.reserve_now(50)
        assert not buffer.reserve_now(11)
        assert not buffer.write_now(batch_of(1), 11)
        with pytest.raises(BufferFull, match="for 11 bytes"):
            await buffer.reserve(11, 1)
        with pytest.raises(BufferTooSmall):
            await buffer.reserve(61)
        assert buffer.write_now(batch_of(2), 50, reserved=True)
        load = await buffer.read()
        assert (load.events, load.size_bytes) == (2, 50)
        waiting = asyncio.create_task(buffer.reserve(60))
        await asyncio.sleep(0)
        buffer.done(load)
        await waiting
        buffer.give_back(60)
        assert buffer.write_now(batch_of(10), 60)

    run_virtual(run())


def test_who_has_bytes_gets_its_events_before_those_who_have_not() -> None:
    async def run() -> None:
        buffer = buffer_of(buffer_size=10, bytes_max=100)
        assert buffer.write_now(batch_of(8), 10)
        assert buffer.reserve_now(80)
        order: list[str] = []

        async def write(name: str, count: int, size: int, *, reserved: bool = False) -> None:
            await buffer.write(batch_of(count), size, None, reserved=reserved)
            order.append(name)

        large = asyncio.create_task(write("large", 20, 80))
        with pytest.raises(BufferTooSmall):
            await large
        blocked = asyncio.create_task(write("blocked by bytes", 1, 30))
        await asyncio.sleep(0)
        admitted = asyncio.create_task(write("admitted", 5, 80, reserved=True))
        await asyncio.sleep(0)
        assert order == [], "five events do not fit beside eight"
        buffer.done(await buffer.read())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["admitted"], "the others would wait for its bytes for ever"
        buffer.done(await buffer.read())
        await asyncio.gather(admitted, blocked)
        assert order == ["admitted", "blocked by bytes"]

    run_virtual(run())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_becomes_of_writers_and_reservations_all_room_comes_back(seed: int) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        buffer = buffer_of(buffer_size=20, bytes_max=100, batch_size=5)

        async def client() -> None:
            for _ in range(20):
                events, size = chance.randint(1, 12), chance.randint(1, 60)
                try:
                    if chance.random() < 0.5:
                        await buffer.write(batch_of(events), size, chance.choice([None, 0.5]))
                        continue
                    await buffer.reserve(size, chance.choice([None, 0.5]))
                    if chance.random() < 0.2:
                        buffer.give_back(size)
                        continue
                    if not buffer.write_now(batch_of(events), size, reserved=True):
                        await buffer.write(batch_of(events), size, chance.choice([None, 0.5]), reserved=True)
                except BufferFull:
                    pass

        async def sink() -> None:
            while (load := await buffer.read()) is not None:
                await asyncio.sleep(chance.random())
                buffer.done(load)

        reading = asyncio.create_task(sink())
        clients = [asyncio.create_task(client()) for _ in range(6)]
        await asyncio.sleep(3)
        clients[0].cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        buffer.close()
        await reading
        assert (buffer._events, buffer._bytes, buffer._queued, buffer._granted) == (0, 0, 0, 0)
        assert not buffer._writers
        assert not buffer._admitted

    run_virtual(run())
