"""The simulation is worth its time only if it finds what is wrong: bugs are planted, and found within 200 seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from penstock.core.batch import Batch
from penstock.core.errors import Failure
from penstock.core.handle import Handle
from penstock.plugins.buffers.bounded_blocking import BoundedBlockingBuffer
from penstock.runtime.deliver import BulkDelivery, bulk
from penstock.runtime.deliver.parcels import Parcel, Part, Piece, items_of
from penstock.runtime.deliver.send_queue import SendQueue
from penstock.runtime.deliver.surroundings import Surroundings
from penstock.runtime.forward import Forwarder, Onward
from penstock.runtime.output import PipelineOutput
from penstock.runtime.pipeline import Pipeline
from penstock.testing.simulation import simulate

SEEDS = 200
Plant = Callable[[pytest.MonkeyPatch], None]


def release_twice(patch: pytest.MonkeyPatch) -> None:
    end = Parcel.end

    def twice(self: Parcel, slots: Sequence[int], *, ok: bool) -> None:
        held = [(self.batch.handles[slot], slot) for slot in slots][-1:]
        end(self, slots, ok=ok)
        for handle, _ in held:
            if handle is not None and not handle.done:
                handle.release(1, ok=ok)

    patch.setattr(Parcel, "end", twice)


def drop_on_retry(patch: pytest.MonkeyPatch) -> None:
    later = BulkDelivery._retry_later

    def lose_one(self: BulkDelivery, delay_s: float, parts: list[Part]) -> None:
        items = items_of(parts)
        later(self, delay_s, items[:-1] if len(items) > 1 else items)
        for item in items[-1:] if len(items) > 1 else ():
            self._end_item(item, ok=True)

    patch.setattr(BulkDelivery, "_retry_later", lose_one)


def forget_a_range_on_split(patch: pytest.MonkeyPatch) -> None:
    async def half(self: BulkDelivery, parts: list[Part], count: int, reason: str, dead: Any) -> None:
        items = items_of(parts)
        if count == 1:
            dead.append((items[0], Failure(0, reason)))
            return
        await self._send(list(items[: count // 2]), count // 2, dead)

    patch.setattr(BulkDelivery, "_split", half)


def acknowledge_before_the_reply(patch: pytest.MonkeyPatch) -> None:
    send = BulkDelivery._send

    async def hasty(self: BulkDelivery, parts: list[Part], count: int, dead: Any) -> None:
        if all(isinstance(part, Piece) for part in parts):
            self._have_arrived(parts)
            await self._sink.send(bulk.joined(parts))
        else:
            await send(self, parts, count, dead)

    patch.setattr(BulkDelivery, "_send", hasty)


def lose_order_on_retry(patch: pytest.MonkeyPatch) -> None:
    later = BulkDelivery._retry_later

    def overtake(self: BulkDelivery, delay_s: float, parts: list[Part]) -> None:
        for item in items_of(parts):
            line = self._queue._waiting.get(item.key)
            if line:
                follower = line.popleft()
                line.appendleft(item)
                later(self, delay_s, [follower])
            else:
                later(self, delay_s, [item])

    patch.setattr(BulkDelivery, "_retry_later", overtake)


def two_of_a_key_in_flight(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SendQueue, "put", SendQueue._append)
    patch.setattr(SendQueue, "has_ended", lambda self, item: None)


def leak_room(patch: pytest.MonkeyPatch) -> None:
    leave = BoundedBlockingBuffer._leave

    def forget(self: BoundedBlockingBuffer, turn: asyncio.Future[None], events: int, size_bytes: int) -> None:
        leave(self, turn, events, size_bytes)
        self._bytes += 1

    patch.setattr(BoundedBlockingBuffer, "_leave", forget)


def leave_a_promise_open(patch: pytest.MonkeyPatch) -> None:
    def forget(self: Batch, indices: Sequence[int], *, ok: bool = True) -> Batch:
        gone = set(indices)
        return self.select([i for i in range(len(self.bodies)) if i not in gone])

    patch.setattr(Batch, "drop", forget)


def retry_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BulkDelivery, "_exhausted", lambda self, attempts: False)


def a_lost_dead_letter_counts_as_kept(patch: pytest.MonkeyPatch) -> None:
    bury = Surroundings.bury

    async def pretend(self: Surroundings, letters: Any, events: Any = None) -> bool:
        await bury(self, letters, events)
        return True

    patch.setattr(Surroundings, "bury", pretend)


def a_dead_letter_without_its_reason(patch: pytest.MonkeyPatch) -> None:
    letter = Surroundings.letter
    patch.setattr(
        Surroundings, "letter", lambda self, data, **rest: letter(self, data | {"message": "refused"}, **rest)
    )


def withdrawn_events_count_as_delivered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Handle, "expire", lambda self: None if self.done else self._end())


def forward_out_of_order(patch: pytest.MonkeyPatch) -> None:
    def at_once(self: Forwarder) -> None:
        ready = [onward for onward in self._line if onward.ready]

        async def go(onward: Onward) -> None:
            await self._target.take_over(onward.batch, onward.size_bytes)
            onward.gone()

        for onward in ready:
            self._line.remove(onward)
            self._task = asyncio.get_running_loop().create_task(go(onward))

    patch.setattr(Forwarder, "advance", at_once)


def workers_without_turns(patch: pytest.MonkeyPatch) -> None:
    process = Pipeline._process

    async def unordered(self: Pipeline, batch: Batch, first: int = 0, previous: Any = None) -> Batch:
        return await process(self, batch, first)

    patch.setattr(Pipeline, "_process", unordered)


def promises_left_at_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PipelineOutput, "break_promises", lambda self: None)


PLANTS: list[tuple[Plant, int]] = [
    (release_twice, 0),
    (drop_on_retry, 0),
    (forget_a_range_on_split, 105),
    (acknowledge_before_the_reply, 0),
    (lose_order_on_retry, 40),
    (two_of_a_key_in_flight, 0),
    (leak_room, 20),
    (leave_a_promise_open, 0),
    (retry_for_ever, 0),
    (a_lost_dead_letter_counts_as_kept, 0),
    (a_dead_letter_without_its_reason, 0),
    (withdrawn_events_count_as_delivered, 0),
    (forward_out_of_order, 90),
    (workers_without_turns, 150),
    (promises_left_at_the_end, 75),
]
"""Each with the seed to begin with, so that the search is short; from 0 all are found before seed 200 as well."""


@pytest.mark.parametrize(("plant", "start"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_planted_bug_is_found(plant: Plant, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert any(simulate(seed).violations for seed in range(start, SEEDS)), "nobody noticed"
