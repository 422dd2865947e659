"""Events that a sink has written go on in order, and keep their room until the next pipeline has taken them."""

from __future__ import annotations

import asyncio

import pytest

from penstock.core.batch import Batch
from penstock.core.handle import Handle
from penstock.runtime.forward import Forwarder
from penstock.testing.virtual import run_virtual


class Next:
    """A pipeline that takes what it is given when there is room."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.room = asyncio.Event()
        self.room.set()

    async def take_over(self, batch: Batch, size_bytes: int) -> None:
        await self.room.wait()
        self.taken += [body["n"] for body in batch.bodies]
        batch.release_all(ok=True)


class Rig:
    def __init__(self) -> None:
        self.next = Next()
        self.forwarder = Forwarder(self.next)
        self.gone: list[int] = []
        self.outcomes: list[bool] = []

    def batch(self, *numbers: int) -> Batch:
        batch = Batch([{"n": n} for n in numbers])
        handle = Handle(self.outcomes.append)
        batch.promise(handle)
        handle.seal()
        return batch


def test_a_later_batch_waits_for_an_earlier_one_that_the_sink_is_slower_with() -> None:
    async def run() -> None:
        rig = Rig()
        first, second = (
            rig.forwarder.add(rig.batch(*n), 10, lambda n=n: rig.gone.append(n[0])) for n in [(1, 2), (3,)]
        )
        second.written([0])
        second.done()
        await asyncio.sleep(1)
        assert rig.next.taken == []
        first.written([1])
        first.done()
        await rig.forwarder.drain()
        assert rig.next.taken == [2, 3], "what the sink has not taken does not go on"
        assert rig.gone == [1, 3]
        assert rig.outcomes == [True, True]

    run_virtual(run())


def test_room_is_given_back_only_when_the_next_pipeline_has_room() -> None:
    async def run() -> None:
        rig = Rig()
        rig.next.room.clear()
        onward = rig.forwarder.add(rig.batch(1), 10, lambda: rig.gone.append(1))
        onward.written([0])
        onward.done()
        await asyncio.sleep(100)
        assert rig.gone == []
        rig.next.room.set()
        await rig.forwarder.drain()
        assert rig.gone == [1]

    run_virtual(run())


@pytest.mark.parametrize("under_way", [False, True])
def test_what_has_not_gone_on_when_it_closes_ends_undelivered(under_way: bool) -> None:
    async def run() -> None:
        rig = Rig()
        rig.next.room.clear()
        onward = rig.forwarder.add(rig.batch(1), 10, lambda: rig.gone.append(1))
        onward.written([0])
        if under_way:
            onward.done()
            await asyncio.sleep(1)
        closing = asyncio.ensure_future(rig.forwarder.close())
        await asyncio.sleep(1)
        if not under_way:
            onward.done()
        await closing
        assert rig.outcomes == [False]
        assert rig.gone == [1]
        assert rig.next.taken == []

    run_virtual(run())


def test_what_the_sink_never_took_over_is_forgotten() -> None:
    async def run() -> None:
        rig = Rig()
        refused = rig.forwarder.add(rig.batch(1), 10, lambda: rig.gone.append(1))
        behind = rig.forwarder.add(rig.batch(2), 10, lambda: rig.gone.append(2))
        behind.written([0])
        behind.done()
        rig.forwarder.forget(refused)
        await rig.forwarder.drain()
        assert rig.next.taken == [2]
        assert rig.gone == [2]

    run_virtual(run())
