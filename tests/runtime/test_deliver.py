"""Delivery of items to a bulk sink: batching, order, retry, dead letters, and one release for every event."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from penstock.core.batch import Batch
from penstock.core.errors import Failure, Permanent, Transient, Unreachable
from penstock.core.handle import Handle
from penstock.runtime.deliver import BulkDelivery, Surroundings, WriteDelivery, bulk
from penstock.runtime.deliver.pace import STRAINED_BYTES_MAX, STRAINED_BYTES_MIN, STRAINED_REQUESTS, Pace
from penstock.runtime.deliver.parcels import Item
from penstock.runtime.deliver.surroundings import SHUT_DOWN
from penstock.sdk import Context, DeadLetter, Failures, Items, Limits, Room, sent_before
from penstock.testing.fakes import MemoryBulkSink, MemoryDeadLetters, MemorySink, Reply
from penstock.testing.virtual import LoopClock, run_virtual


class Rig:
    """A delivery to a sink in memory, and what its events came to."""

    def __init__(
        self,
        sink: MemoryBulkSink,
        seed: int = 1,
        room: Room | None = None,
        letters: MemoryDeadLetters | None = None,
    ) -> None:
        self.sink = sink
        self.letters = letters or MemoryDeadLetters()
        clock = LoopClock(asyncio.get_running_loop())
        ctx = Context("p", "memory", kind="sink", clock=clock, chance=random.Random(seed))
        self.ctx = ctx
        self.delivery = BulkDelivery(sink, Surroundings(ctx, self.letters, room=room))
        self.outcomes: list[bool] = []
        self.done = 0

    def submit(self, documents: Sequence[dict[str, Any]]) -> Handle:
        batch = Batch([dict(document) for document in documents])
        handle = Handle(self.outcomes.append)
        batch.promise(handle)
        handle.seal()
        self.delivery.submit(batch, self._done)
        return handle

    def _done(self) -> None:
        self.done += 1


def deliver(
    batches: Sequence[Sequence[dict[str, Any]]], sink_of: Callable[[], MemoryBulkSink], *, broken_letters: bool = False
) -> Rig:
    async def run() -> Rig:
        rig = Rig(sink_of())
        rig.letters.broken = broken_letters
        for batch in batches:
            rig.submit(batch)
        await rig.delivery.drain()
        await rig.delivery.close()
        assert rig.delivery.pending() == 0
        assert rig.done == len(batches) == len(rig.outcomes)
        return rig

    return run_virtual(run())


def numbers(start: int, end: int) -> list[dict[str, Any]]:
    return [{"n": n} for n in range(start, end)]


def test_everything_arrives_once_and_in_order() -> None:
    batches = [numbers(start, start + 10) for start in range(0, 100, 10)]
    rig = deliver(batches, MemoryBulkSink)
    assert rig.sink.arrived == numbers(0, 100)
    assert rig.outcomes == [True] * 10


def test_requests_keep_to_their_size_and_an_oversize_item_goes_alone() -> None:
    limits = Limits(request_bytes_max=40, flush_timeout_s=60.0, lanes_max=1)
    big = {"n": "x" * 100}
    rig = deliver([[*numbers(0, 9), big, *numbers(9, 12)]], lambda: MemoryBulkSink(limits=limits))
    assert sorted(map(str, rig.sink.arrived)) == sorted(map(str, [*numbers(0, 12), big]))
    assert [big] in rig.sink.requests
    small = [request for request in rig.sink.requests if big not in request]
    assert all(sum(len(b'{"n":0}') for _ in request) <= 45 for request in small)
    assert max(map(len, small)) > 1, "small items are joined"


def test_only_refused_items_are_sent_again() -> None:
    refused_once: set[int] = set()

    def respond(documents: list[Any]) -> Reply:
        again = [i for i, d in enumerate(documents) if d["n"] % 5 == 0 and d["n"] not in refused_once]
        refused_once.update(documents[i]["n"] for i in again)
        return [Failure(i, "429 busy", retryable=True, status=429) for i in again]

    rig = deliver([numbers(0, 50)], lambda: MemoryBulkSink(respond))
    assert sorted(d["n"] for d in rig.sink.arrived) == list(range(50))
    sent = [d["n"] for request in rig.sink.requests for d in request]
    assert sorted(n for n in sent if sent.count(n) > 1) == sorted(2 * list(range(0, 50, 5)))
    assert rig.ctx.metrics.timer("timeElapsed").count == len(rig.sink.requests)
    assert rig.outcomes == [True]


def test_a_permanent_failure_becomes_a_dead_letter_with_its_reason() -> None:
    rig = deliver([numbers(0, 5)], lambda: MemoryBulkSink(lambda docs: [Failure(3, "mapper_parsing", status=400)]))
    (letter,) = rig.letters.letters
    assert letter.failed_data == {
        "index": "memory",
        "indexId": None,
        "document": {"n": 3},
        "status": 400,
        "message": "mapper_parsing",
    }
    assert rig.outcomes == [True], "dead-lettered is accounted for"


def test_without_a_working_dead_letter_queue_the_answer_is_no() -> None:
    rig = deliver(
        [numbers(0, 2)], lambda: MemoryBulkSink(lambda docs: [Failure(0, "bad", status=400)]), broken_letters=True
    )
    assert rig.outcomes == [False]
    assert rig.ctx.metrics.counter("deadLetterErrors").value == 1


def test_a_request_refused_as_a_whole_is_halved_until_the_bad_item_is_alone() -> None:
    def respond(documents: list[Any]) -> Reply:
        return Permanent("413 too large") if any(d["n"] == 6 for d in documents) else ()

    rig = deliver([numbers(0, 16)], lambda: MemoryBulkSink(respond))
    assert sorted(d["n"] for d in rig.sink.arrived) == [n for n in range(16) if n != 6]
    assert [letter.failed_data["document"] for letter in rig.letters.letters] == [{"n": 6}]


def test_retries_end_at_the_configured_number() -> None:
    limits = Limits(request_bytes_max=1000, flush_timeout_s=1.0, max_retries=3)
    rig = deliver([numbers(0, 2)], lambda: MemoryBulkSink(lambda docs: Transient("503 away"), limits=limits))
    assert len(rig.sink.requests) == 3
    assert [letter.failed_data["message"] for letter in rig.letters.letters] == [
        "Number of retries reached the limit of max retries (configured value 3. Last exception message: 503 away)"
    ] * 2
    assert rig.outcomes == [True]


def test_dead_letters_tell_how_often_an_item_was_tried() -> None:
    def respond(documents: list[Any]) -> Reply:
        refused = {1: Failure(0, "429 busy", retryable=True), 2: Failure(0, "400 bad")}
        return [refused[d["n"]].at(place) for place, d in enumerate(documents) if d["n"] in refused]

    limits = Limits(request_bytes_max=1000, flush_timeout_s=1.0, max_retries=3)
    rig = deliver([numbers(0, 4)], lambda: MemoryBulkSink(respond, limits=limits))
    tried = {letter.failed_data["document"]["n"]: letter.failed_data.get("attempts") for letter in rig.letters.letters}
    assert tried == {1: 3, 2: None}


def test_an_item_that_only_waited_its_time_was_not_sent_before() -> None:
    marks: list[bytes | None] = []

    class Marking(MemoryBulkSink):
        async def send(self, data: Sequence[bytes]) -> Sequence[Failure]:
            marks.append(sent_before(data))
            return await super().send(data)

    answers = iter([[Failure(1, "not yet", retryable=True, counts=False)], [Failure(0, "429", retryable=True)], (), ()])
    deliver([numbers(0, 2)], lambda: Marking(lambda documents: next(answers)))
    assert marks == [None, None, b"\2"]


def test_a_drain_does_not_wait_out_the_long_pauses_of_retries() -> None:
    refused = 0

    def respond(documents: list[Any]) -> Reply:
        nonlocal refused
        again = [i for i, document in enumerate(documents) if document["n"] == 0 and refused < 12]
        refused += len(again)
        return [Failure(i, "429 busy", retryable=True, status=429) for i in again]

    async def run() -> tuple[list[Any], float]:
        rig = Rig(MemoryBulkSink(respond))
        rig.submit(numbers(0, 3))
        while refused < 11:  # the next pause is the longest there is
            await asyncio.sleep(1)
        begin = asyncio.get_running_loop().time()
        await rig.delivery.drain()
        took = asyncio.get_running_loop().time() - begin
        await rig.delivery.close()
        return rig.sink.arrived, took

    arrived, took = run_virtual(run())
    assert sorted(document["n"] for document in arrived) == [0, 1, 2]
    assert took <= 3


def test_an_absent_server_uses_up_no_retries() -> None:
    limits = Limits(request_bytes_max=1000, flush_timeout_s=1.0, max_retries=2)
    answers = iter([*[Unreachable("refused")] * 20, (), (), ()])
    rig = deliver([numbers(0, 3)], lambda: MemoryBulkSink(lambda docs: next(answers), limits=limits))
    assert rig.sink.arrived == numbers(0, 3)
    assert not rig.letters.letters


def test_while_the_server_is_away_one_request_at_a_time_knocks() -> None:
    async def run() -> None:
        limits = Limits(request_bytes_max=10, flush_timeout_s=1.0, lanes_max=4)
        sink = MemoryBulkSink(lambda docs: Unreachable("refused"), limits=limits, delay_s=0.1)
        rig = Rig(sink)
        rig.submit(numbers(0, 100))
        await asyncio.sleep(0.2)
        highest = 0
        for _ in range(1000):
            await asyncio.sleep(0.05)
            highest = max(highest, sink.in_flight)
        assert highest == 1
        await rig.delivery.close()
        assert rig.outcomes == [False]

    run_virtual(run())


@pytest.mark.parametrize("seed", range(20))
def test_items_of_one_key_are_never_in_flight_together_and_keep_their_order(seed: int) -> None:
    chance = random.Random(seed)
    busy: set[str] = set()

    class Watching(MemoryBulkSink):
        async def send(self, data: list[bytes]) -> Sequence[Failure]:
            ids = [item.split(b'"')[3] for item in data]
            assert len(set(ids)) == len(ids), "two items of one key in one request"
            assert not busy & set(map(str, ids)), "two requests with one key at the same time"
            busy.update(map(str, ids))
            try:
                await asyncio.sleep(chance.random())
                return await super().send(data)
            finally:
                busy.difference_update(map(str, ids))

    def respond(documents: list[Any]) -> Reply:
        if chance.random() < 0.2:
            return Transient("503")
        return [Failure(i, "429", retryable=True) for i in range(len(documents)) if chance.random() < 0.3]

    limits = Limits(request_bytes_max=200, flush_timeout_s=1.0, lanes_max=3)
    batches = [[{"id": f"k{chance.randrange(15)}", "n": start + i} for i in range(10)] for start in range(0, 200, 10)]
    rig = deliver(batches, lambda: Watching(respond, key="id", limits=limits))
    for key in {d["id"] for batch in batches for d in batch}:
        assert [d["n"] for d in rig.sink.arrived if d["id"] == key] == [
            d["n"] for batch in batches for d in batch if d["id"] == key
        ]
    assert rig.outcomes == [True] * len(batches)


def test_an_expired_promise_withdraws_what_is_still_queued() -> None:
    async def run() -> None:
        sink = MemoryBulkSink(limits=Limits(request_bytes_max=1, flush_timeout_s=1.0, lanes_max=1), delay_s=1.0)
        rig = Rig(sink)
        handle = rig.submit(numbers(0, 10))
        await asyncio.sleep(2.5)
        handle.expire()
        await rig.delivery.drain()
        assert rig.outcomes == [False]
        assert len(sink.arrived) <= 4
        assert handle.late == 10 - 2

    run_virtual(run())


def test_rejected_events_are_dead_letters_with_their_document() -> None:
    class Picky(MemoryBulkSink):
        def encode(self, batch: Batch) -> Items:
            good = [i for i, body in enumerate(batch.bodies) if body["n"] % 2]
            whole = super().encode(batch)
            bad = [Failure(i, "odd ones only") for i in range(len(batch)) if i not in good]
            return Items([whole.data[i] for i in good], good, None, bad)

    rig = deliver([numbers(0, 4)], Picky)
    assert rig.sink.arrived == [{"n": 1}, {"n": 3}]
    assert [letter.failed_data["document"] for letter in rig.letters.letters] == [{"n": 0}, {"n": 2}]
    assert rig.outcomes == [True]


def test_a_trickle_does_not_become_a_stream_of_single_documents() -> None:
    async def run() -> None:
        sink = MemoryBulkSink(delay_s=0.02)
        rig = Rig(sink)
        for n in range(1000):
            rig.submit([{"n": n}])
            await asyncio.sleep(0.001)
        await rig.delivery.drain()
        assert len(sink.arrived) == 1000
        assert len(sink.requests) <= 60, "about one request in two reply times"
        assert sink.requests[0] == [{"n": 0}], "an idle sink is sent to at once"

    run_virtual(run())


def test_a_bug_in_the_sink_loses_nothing() -> None:
    def respond(documents: list[Any]) -> Reply:
        return KeyError("oops") if any(d["n"] == 2 for d in documents) else ()

    rig = deliver([numbers(0, 4)], lambda: MemoryBulkSink(respond))
    assert sorted(d["n"] for d in rig.sink.arrived) == [0, 1, 3]
    assert "KeyError" in rig.letters.letters[0].failed_data["message"]


@pytest.mark.parametrize("places", [[0, 7], [-1], [1, 1], [2, 1]])
def test_failures_of_items_that_there_are_not_lose_nothing(places: list[int]) -> None:
    class Confused(MemoryBulkSink):
        async def send(self, data: Sequence[bytes]) -> Sequence[Failure]:
            await super().send(data)
            return Failures([(places, Failure(0, "no"))]) if len(data) == 4 else ()

    rig = deliver([numbers(0, 4)], Confused)
    assert {d["n"] for request in rig.sink.requests[1:] for d in request} == {0, 1, 2, 3}, "all are sent again"
    assert rig.outcomes == [True] and not rig.letters.letters


class LastWins(MemoryBulkSink):
    """Its later items make earlier ones of the key needless, unless they say otherwise."""

    def supersedes(self, later: bytes, earlier: bytes) -> bool:
        return b"keep" not in earlier


def hot(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": "hot", "n": n, **more} for n in range(count)]


def test_ten_thousand_updates_of_one_id_are_few_requests_and_all_acknowledged() -> None:
    updates = hot(10_000)
    batches = [updates[start : start + 100] for start in range(0, 10_000, 100)]
    rig = deliver(batches, lambda: LastWins(key="id", delay_s=0.01))
    assert rig.sink.arrived[-1] == updates[-1]
    numbers_sent = [document["n"] for document in rig.sink.arrived]
    assert numbers_sent == sorted(numbers_sent)
    assert len(rig.sink.requests) < 10
    assert rig.outcomes == [True] * 100
    assert rig.ctx.metrics.counter("itemsSuperseded").value == 10_000 - len(numbers_sent)


def test_what_was_replaced_is_sent_when_its_successor_is_refused() -> None:
    def respond(documents: list[Any]) -> Reply:
        return [Failure(i, "bad", status=400) for i, d in enumerate(documents) if d["n"] >= 7]

    rig = deliver([hot(10)], lambda: LastWins(respond, key="id"))
    assert rig.sink.arrived == [{"id": "hot", "n": 0}, {"id": "hot", "n": 6}]
    assert sorted(letter.failed_data["document"]["n"] for letter in rig.letters.letters) == [7, 8, 9]
    assert rig.outcomes == [True]


def test_only_what_may_be_replaced_is() -> None:
    rig = deliver([[*hot(3), {"id": "hot", "n": 3, "keep": True}, *hot(6)[4:]]], lambda: LastWins(key="id"))
    assert [document["n"] for document in rig.sink.arrived] == [0, 3, 5]


def test_what_was_replaced_is_told_as_written_too() -> None:
    async def run() -> None:
        rig = Rig(LastWins(key="id"))
        written: list[int] = []
        batch = Batch(hot(20))
        handle = Handle(rig.outcomes.append)
        batch.promise(handle)
        handle.seal()
        rig.delivery.submit(batch, lambda: None, written.extend)
        await rig.delivery.drain()
        await rig.delivery.close()
        assert sorted(written) == list(range(20)) and rig.outcomes == [True]

    run_virtual(run())


@pytest.mark.parametrize("seed", range(25))
def test_replacing_never_changes_what_the_index_ends_up_with(seed: int) -> None:
    chance = random.Random(seed)
    updates = [{"id": chance.randrange(4), "n": n, "bad": chance.random() < 0.2} for n in range(300)]
    sizes = [chance.randrange(1, 30) for _ in range(300)]
    batches, start = [], 0
    for size in sizes:
        if start < len(updates):
            batches.append(updates[start : start + size])
            start += size

    def respond(documents: list[Any]) -> Reply:
        if chance.random() < 0.2:
            return Transient("503") if chance.random() < 0.5 else Unreachable("away")
        return [
            Failure(i, "bad" if d["bad"] else "429", retryable=not d["bad"])
            for i, d in enumerate(documents)
            if d["bad"] or chance.random() < 0.1
        ]

    rig = deliver(batches, lambda: LastWins(respond, key="id", delay_s=0.01))
    final: dict[int, int] = {}
    for document in rig.sink.arrived:
        assert document["n"] > final.get(document["id"], -1), "order of a key"
        final[document["id"]] = document["n"]
    assert final == {update["id"]: update["n"] for update in updates if not update["bad"]}
    bad = {letter.failed_data["document"]["n"] for letter in rig.letters.letters}
    assert all(updates[n]["bad"] for n in bad)
    assert rig.outcomes == [True] * len(batches)


def test_limits_are_read_for_each_request() -> None:
    sink = MemoryBulkSink(limits=Limits(request_bytes_max=1000, flush_timeout_s=1.0, lanes_max=1))

    def respond(documents: list[Any]) -> Reply:
        sink.limits = Limits(request_bytes_max=20, flush_timeout_s=1.0, lanes_max=1)
        return ()

    sink._respond = respond
    deliver([numbers(0, 50), numbers(50, 60)], lambda: sink)
    assert len(sink.requests[0]) == 60 or len(sink.requests[0]) > 20
    assert all(len(request) <= 2 for request in sink.requests[1:])


def test_a_slow_dead_letter_queue_holds_up_no_lane() -> None:
    class SlowLetters(MemoryDeadLetters):
        async def write(self, letters: Sequence[Any]) -> None:
            await asyncio.sleep(1000)
            await super().write(letters)

    async def run() -> None:
        limits = Limits(request_bytes_max=1000, flush_timeout_s=1.0, lanes_max=1)
        sink = MemoryBulkSink(
            lambda documents: [Failure(i, "bad") for i, d in enumerate(documents) if d["n"] == 0], limits=limits
        )
        rig = Rig(sink)
        letters = SlowLetters()
        rig.delivery = BulkDelivery(sink, Surroundings(rig.ctx, letters))
        rig.submit(numbers(0, 1))
        await asyncio.sleep(1)
        rig.submit(numbers(1, 5))
        await asyncio.sleep(1)
        assert [document["n"] for document in sink.arrived] == [1, 2, 3, 4]
        assert rig.outcomes == [True]
        await rig.delivery.drain()
        assert len(letters.letters) == 1 and rig.outcomes == [True, True]
        await rig.delivery.close()

    run_virtual(run())


def test_refused_items_do_not_hold_the_room_of_their_load() -> None:
    """Room in the buffer returns once the rest of a load has arrived, as long as the delivery has room of its own."""

    async def run() -> None:
        sink = MemoryBulkSink(
            lambda documents: [Failure(i, "429", retryable=True) for i, d in enumerate(documents) if d["n"] == 3]
        )
        rig = Rig(sink)
        rig.submit(numbers(0, 100))
        await asyncio.sleep(0.01)
        assert rig.done == 1 and rig.delivery.pending() == 1 and rig.outcomes == []
        await rig.delivery.close()
        assert rig.done == 1 and rig.outcomes == [False]

    run_virtual(run())


def test_a_refused_request_does_not_hold_the_room_of_its_loads() -> None:
    async def run() -> None:
        taken = 1
        sink = MemoryBulkSink(lambda documents: () if len(sink.requests) <= taken else Transient("429"))
        rig = Rig(sink)
        rig.submit(numbers(0, 100))
        await asyncio.sleep(0.1)
        assert rig.done == 1 and rig.outcomes == [True]
        rig.submit(numbers(100, 200))
        await asyncio.sleep(0.01)
        assert rig.done == 2 and rig.delivery.pending() == 100
        await rig.delivery.close()
        assert rig.done == 2 and rig.outcomes == [True, False]

    run_virtual(run())


@pytest.mark.parametrize("taken", [0, 1])
def test_a_server_that_takes_nothing_is_felt_at_the_source(taken: int) -> None:
    """Loads hold their room, but for those of the first request that was refused after others were taken."""

    async def run() -> None:
        sink = MemoryBulkSink(lambda documents: () if len(sink.requests) <= taken else Transient("429"))
        rig = Rig(sink)
        for load in range(10):
            rig.submit([{"n": load}])
            await asyncio.sleep(0.5)
        assert rig.done == 2 * taken
        await rig.delivery.close()
        assert rig.done == 10

    run_virtual(run())


def test_what_is_left_of_a_load_is_counted_once_for_each_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each of its items, of which the next ones of a key come one by one."""
    counted = 0
    size_bytes = Item.size_bytes.fget

    def counting(item: Item) -> int:
        nonlocal counted
        counted += 1
        return size_bytes(item)

    async def run() -> int:
        nonlocal counted
        answers = iter([(), Transient("503"), ()])
        rig = Rig(MemoryBulkSink(lambda documents: next(answers), key="id", delay_s=0.01))
        rig.submit([{"id": n % 500, "n": n} for n in range(1000)])
        await asyncio.sleep(0.015)
        monkeypatch.setattr(Item, "size_bytes", property(counting))
        await rig.delivery.drain()
        await rig.delivery.close()
        return counted

    assert run_virtual(run()) < 10_000


def test_a_full_buffer_that_is_read_out_is_sent_at_once() -> None:
    """Nothing more can come before something has left; while a reader is busy more is on its way."""

    class FullRoom:
        is_out = False

        def is_awaited(self) -> bool:
            return True

        def is_read_out(self) -> bool:
            return self.is_out

    async def run(is_out: bool) -> float:
        room = FullRoom()
        room.is_out = is_out
        rig = Rig(MemoryBulkSink(delay_s=0.04), room=room)
        rig.submit(numbers(0, 10))
        while not rig.outcomes:
            await asyncio.sleep(0.001)
        begin = asyncio.get_running_loop().time()
        rig.submit(numbers(10, 20))
        while len(rig.sink.requests) < 2:
            await asyncio.sleep(0.001)
        waited = asyncio.get_running_loop().time() - begin
        await rig.delivery.drain()
        await rig.delivery.close()
        return waited

    assert run_virtual(run(True)) < 0.005
    assert run_virtual(run(False)) > 0.03


def test_what_is_left_of_refused_loads_counts_only_as_long_as_it_is_left() -> None:
    async def run() -> None:
        refused = 90

        def answer(documents: list[dict[str, Any]]) -> Reply:
            return [Failure(i, "429", retryable=True) for i, d in enumerate(documents) if d["n"] < refused]

        rig = Rig(MemoryBulkSink(answer))
        rig.submit(numbers(0, 100))
        await asyncio.sleep(0.01)
        kept = rig.delivery._kept_bytes
        refused = 10
        await asyncio.sleep(10)
        assert rig.delivery.pending() == 10
        assert 0 < rig.delivery._kept_bytes < kept / 5
        refused = 0
        await rig.delivery.drain()
        assert rig.delivery._kept_bytes == 0 and rig.outcomes == [True]
        await rig.delivery.close()

    run_virtual(run())


def test_while_a_server_refuses_requests_are_smaller() -> None:
    """With a full buffer; once it has taken enough of them they are as large as before."""
    limits = Limits(request_bytes_max=5 * 1024 * 1024, flush_timeout_s=1.0)
    now = 0.0
    pace = Pace(lambda: now, random.Random(1))

    def is_sent(size_bytes: int) -> bool:
        return pace.start_at(limits, 1, size_bytes, is_full=True) is None

    assert not is_sent(STRAINED_BYTES_MIN)
    pace.strain()
    assert is_sent(STRAINED_BYTES_MIN) and not is_sent(STRAINED_BYTES_MIN - 1)
    for _ in range(STRAINED_REQUESTS):
        assert is_sent(STRAINED_BYTES_MIN)
        assert pace.request_bytes_max(limits) == STRAINED_BYTES_MAX
        pace.well()
    assert not is_sent(STRAINED_BYTES_MIN)
    assert pace.request_bytes_max(limits) == limits.request_bytes_max
    pace.strike(Transient("429"), reached=True, lanes=4)
    assert is_sent(STRAINED_BYTES_MIN)


def test_beyond_its_own_room_refused_items_hold_that_of_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        sink = MemoryBulkSink(lambda documents: [Failure(i, "429", retryable=True) for i in range(len(documents))])
        rig = Rig(sink)
        for start in range(0, 100, 10):
            rig.submit(numbers(start, start + 10))
        await asyncio.sleep(5)
        assert 0 < rig.done < 10
        assert rig.delivery._kept_bytes <= 300 + 100
        await rig.delivery.close()
        assert rig.done == 10

    monkeypatch.setattr(bulk, "RETRY_BYTES_MAX", 300)
    run_virtual(run())


def test_a_refused_request_pauses_its_own_lane_only() -> None:
    """A third of the requests answers 429; the others do not wait for them."""

    async def run(share: float) -> float:
        chance = random.Random(3)
        limits = Limits(request_bytes_max=100, flush_timeout_s=1.0, lanes_max=4)
        rig = Rig(
            MemoryBulkSink(
                lambda documents: Transient("429") if chance.random() < share else (), limits=limits, delay_s=0.05
            )
        )
        for start in range(0, 5000, 50):
            rig.submit(numbers(start, start + 50))
        begin = asyncio.get_running_loop().time()
        await rig.delivery.drain()
        took = asyncio.get_running_loop().time() - begin
        await rig.delivery.close()
        assert sorted(d["n"] for d in rig.sink.arrived) == list(range(5000))
        return took

    calm, storm = run_virtual(run(0.0)), run_virtual(run(0.3))
    assert calm / storm > 0.4, "0.7 would be the share that gets through, without any pause"


def test_a_storm_of_refused_items_does_not_wait_longer_and_longer() -> None:
    async def run() -> None:
        chance = random.Random(5)
        rig = Rig(
            MemoryBulkSink(
                lambda documents: [
                    Failure(i, "429", retryable=True) for i in range(len(documents)) if chance.random() < 0.3
                ],
                key="n",
            )
        )
        rig.submit(numbers(0, 10_000))
        begin = asyncio.get_running_loop().time()
        while rig.delivery.pending():
            await asyncio.sleep(0.05)
        assert asyncio.get_running_loop().time() - begin < 5
        await rig.delivery.close()

    run_virtual(run())


def test_a_server_that_takes_nothing_is_asked_ever_more_rarely() -> None:
    async def run() -> None:
        sink = MemoryBulkSink(lambda documents: [Failure(i, "429", retryable=True) for i in range(len(documents))])
        rig = Rig(sink)
        rig.submit(numbers(0, 100))
        await asyncio.sleep(600)
        assert len(sink.requests) < 30
        await rig.delivery.close()

    run_virtual(run())


def test_a_time_that_the_server_names_pauses_all_lanes() -> None:
    async def run() -> None:
        limits = Limits(request_bytes_max=10, flush_timeout_s=1.0, lanes_max=2)
        answers = iter([Transient("429", retry_after_s=7)])
        rig = Rig(MemoryBulkSink(lambda documents: next(answers, ()), limits=limits))
        rig.submit(numbers(0, 1))
        await asyncio.sleep(0.1)
        rig.submit(numbers(1, 50))
        await asyncio.sleep(6.5)
        assert rig.sink.arrived == []
        await asyncio.sleep(0.5)
        assert len(rig.sink.arrived) == 50
        await rig.delivery.close()

    run_virtual(run())


def test_a_dead_letter_nobody_brings_again_is_written_until_it_works() -> None:
    async def run(drains: bool) -> None:
        rig = Rig(MemoryBulkSink(lambda documents: [Failure(0, "bad", status=400)] if documents[0]["n"] == 0 else ()))
        rig.letters.broken = True
        batch = Batch(numbers(0, 3))
        handle = Handle()
        batch.promise(handle)
        handle.seal()
        room: list[bool] = []
        rig.delivery.submit(batch, lambda: room.append(True))
        await asyncio.sleep(300)
        assert not handle.done and not room, "back-pressure instead of a loss"
        if drains:
            drain = asyncio.create_task(rig.delivery.drain())
            await asyncio.sleep(2)
            rig.letters.broken = False
            await asyncio.sleep(2)
            assert drain.done()
        else:
            rig.letters.broken = False
        await rig.delivery.close()
        (letter,) = rig.letters.letters
        assert letter.failed_data["message"] == "bad" and letter.failed_data["document"] == {"n": 0}
        assert handle.done and room == [True]

    run_virtual(run(True))
    run_virtual(run(False))


@pytest.mark.parametrize("started", [False, True])
def test_dead_letters_that_are_cut_off_tell_at_the_close_what_they_said(started: bool) -> None:
    """A queue of dead letters that does not answer in time; sources that will not ask again."""

    class Picky(MemoryBulkSink):
        def encode(self, batch: Batch) -> Items:
            items = super().encode(batch)
            return Items(items.data[1:], range(1, len(batch)), None, [Failure(0, "cannot be encoded")])

    class Slow(MemoryDeadLetters):
        async def write(self, letters: Sequence[DeadLetter]) -> None:
            await asyncio.sleep(self.delay_s)
            await super().write(letters)

        delay_s = 1000.0

    async def run() -> None:
        sink = Picky(lambda documents: [Failure(0, "400 bad", status=400)] if documents[0]["n"] == 1 else ())
        letters = Slow()
        rig = Rig(sink, letters=letters)
        batch = Batch(numbers(0, 3))
        handle = Handle()
        batch.promise(handle)
        handle.seal()
        rig.delivery.submit(batch, lambda: None)
        if started:
            await asyncio.sleep(1)
        letters.delay_s = 0.0
        await rig.delivery.close()
        assert handle.done
        told = {letter.failed_data["document"]["n"]: letter.failed_data["message"] for letter in letters.letters}
        assert told == (
            {0: "cannot be encoded", 1: "400 bad"}
            if started
            else {0: "cannot be encoded"} | dict.fromkeys((1, 2), SHUT_DOWN)
        )

    run_virtual(run())


class Flaky(MemorySink):
    """Refuses writes while `error` is set."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    async def write(self, batch: Batch) -> None:
        if self.error is not None:
            raise self.error
        await super().write(batch)


def write_delivery(sink: MemorySink, letters: MemoryDeadLetters) -> tuple[WriteDelivery, Surroundings]:
    ctx = Context("p", "memory", kind="sink", clock=LoopClock(asyncio.get_running_loop()), chance=random.Random(1))
    around = Surroundings(ctx, letters)
    return WriteDelivery(sink, around), around


def promised(documents: Sequence[dict[str, Any]], handle: Handle) -> Batch:
    batch = Batch([dict(document) for document in documents])
    batch.promise(handle)
    handle.seal()
    return batch


def test_a_drain_does_not_wait_out_the_long_pauses_of_writes() -> None:
    async def run() -> None:
        sink = Flaky(Transient("busy", retry_after_s=50))
        delivery, _ = write_delivery(sink, MemoryDeadLetters())
        delivery.submit(promised(numbers(0, 3), Handle()), lambda: None)
        await asyncio.sleep(120)
        begin = asyncio.get_running_loop().time()
        drain = asyncio.create_task(delivery.drain())
        await asyncio.sleep(3)
        sink.error = None
        await drain
        assert asyncio.get_running_loop().time() - begin < 5
        assert [body for body, *_ in sink.events] == numbers(0, 3)
        await delivery.close()

    run_virtual(run())


@pytest.mark.parametrize("heard", [True, False])
def test_a_refused_write_is_kept_or_asked_for_again(heard: bool) -> None:
    async def run() -> None:
        letters, outcomes = MemoryDeadLetters(), []
        letters.broken = True
        sink = Flaky(Permanent("read-only"))
        delivery, _ = write_delivery(sink, letters)
        handle = Handle(outcomes.append if heard else None)
        delivery.submit(promised(numbers(0, 3), handle), lambda: None)
        await asyncio.sleep(1)
        sink.error = None
        delivery.submit(promised(numbers(3, 5), Handle()), lambda: None)
        await asyncio.sleep(1)
        assert len(sink.events) == 2, "a broken queue of dead letters does not hold up what can be written"
        assert handle.done is heard and outcomes == [False] * heard
        letters.broken = False
        await delivery.drain()
        assert len(letters.letters) == (0 if heard else 3)
        await delivery.close()

    run_virtual(run())


def test_an_event_that_lost_its_handle_is_delivered_and_counted() -> None:
    async def run() -> None:
        rig = Rig(MemoryBulkSink())
        batch = promised(numbers(0, 3), Handle(rig.outcomes.append))
        lost = batch.handles[1]
        assert lost is not None
        batch.handles[1] = None
        lost.release(1, ok=True)
        rig.delivery.submit(batch, rig._done)
        await rig.delivery.drain()
        assert rig.sink.arrived == numbers(0, 3) and rig.outcomes == [True] and rig.done == 1
        assert rig.ctx.registry.scope("p", "PipelineRunner").counter("invalidEventHandles").value == 1
        await rig.delivery.close()

    run_virtual(run())
