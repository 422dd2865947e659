"""Last write wins: two changes of each of many ids, whatever the server does to requests and single items."""

import asyncio
import dataclasses
import random

import pytest
from aiohttp import web

from penstock.core.batch import Batch
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.runtime.deliver import BulkDelivery, Surroundings
from penstock.sdk import Context
from penstock.testing.fakes import MemoryDeadLetters
from penstock.testing.opensearch import FakeOpenSearch
from penstock.testing.plugins import checked

IDS = 10_000
BATCH = 128


class Storm(FakeOpenSearch):
    """Answers late and out of order, refuses a tenth of the items and a quarter of the requests.

    Of the requests that fail some were acted on. With `late` some are acted on long after the client has given up, when
    newer changes are there already: only external versions help against that.
    """

    def __init__(self, chance: random.Random, *, late: bool) -> None:
        super().__init__()
        self._chance = chance
        self._late = late
        self._overdue: set[asyncio.Task[None]] = set()
        self.in_flight = self.in_flight_max = 0
        self.fail_items(lambda action, target, document: chance.random() < 0.1, 429, times=10**9)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/_bulk"):
            return await super()._handle(request)
        body = await request.read()
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            await asyncio.sleep(self._chance.random() * 0.02)
            return await self._misbehave(request, body)
        finally:
            self.in_flight -= 1

    async def _misbehave(self, request: web.Request, body: bytes) -> web.StreamResponse:
        roll = self._chance.random()
        if roll < 0.05:
            return web.json_response({"error": {"type": "x", "reason": "busy"}}, status=429)
        if roll < 0.10:
            return web.json_response({"error": {"type": "x", "reason": "away"}}, status=503)
        if roll < 0.25:
            if roll < 0.15:
                self.answer("POST", "/_bulk", {}, body)
            elif roll < 0.20 and self._late:
                task = asyncio.get_running_loop().create_task(self._act_later(body))
                self._overdue.add(task)
                task.add_done_callback(self._overdue.discard)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return await super()._handle(request)

    async def _act_later(self, body: bytes) -> None:
        await asyncio.sleep(0.2 + self._chance.random() * 0.3)
        self.answer("POST", "/_bulk", {}, body)

    async def all_acted(self) -> None:
        """Return when nothing of what was received is still to be acted on."""
        await asyncio.gather(*self._overdue)


async def deliver(server: Storm, options: dict, events: list[dict], chance: random.Random) -> Registry:
    """Write the events in order through a delivery; all of them must be acknowledged and none refused."""
    found, config = checked(
        "sink", "opensearch", {"hosts": [server.url], "index": "i", "document_id": "${/id}", **options}
    )
    registry = Registry()
    ctx = Context("p", "opensearch", kind="sink", chance=chance, registry=registry)
    sink = found.module.build(config, ctx)
    sink.limits = dataclasses.replace(sink.limits, request_items_max=500)
    letters = MemoryDeadLetters()
    await sink.start()
    delivery = BulkDelivery(sink, Surroundings(ctx, letters))
    outcomes: list[bool] = []
    for start in range(0, len(events), BATCH):
        batch = Batch(events[start : start + BATCH])
        handle = Handle(outcomes.append)
        batch.promise(handle)
        handle.seal()
        delivery.submit(batch, lambda: None)
        while delivery.pending() > 20 * BATCH:  # as a bounded buffer holds a source back
            await asyncio.sleep(0.001)
    await delivery.drain()
    await delivery.close()
    await server.all_acted()
    await sink.stop()
    assert outcomes == [True] * -(-len(events) // BATCH)
    assert letters.letters == []
    return registry


@pytest.mark.parametrize("action", ["index", "upsert"])
def test_the_last_of_two_changes_wins_without_versions(action):
    async def run():
        chance = random.Random(action)
        ids = list(range(IDS)) * 2
        chance.shuffle(ids)
        seen: set[int] = set()
        events = []
        for id_ in ids:
            events.append({"id": str(id_), "n": 2 if id_ in seen else 1})
            seen.add(id_)
        async with Storm(chance, late=False) as server:
            await deliver(server, {"action": action}, events, chance)
            assert server.in_flight_max > 1, "requests overtook one another"
            assert server.documents("i") == {str(id_): {"id": str(id_), "n": 2} for id_ in range(IDS)}

    asyncio.run(run())


def test_the_highest_version_wins_in_any_order():
    async def run():
        chance = random.Random(5)
        events = [{"id": str(id_), "n": n} for id_ in range(IDS) for n in (1, 2)]
        chance.shuffle(events)
        async with Storm(chance, late=True) as server:
            options = {"document_version": "${/n}", "document_version_type": "external"}
            registry = await deliver(server, options, events, chance)
            assert server.in_flight_max > 1
            assert server.documents("i") == {str(id_): {"id": str(id_), "n": 2} for id_ in range(IDS)}
            assert {server.version("i", str(id_)) for id_ in range(IDS)} == {2}
            assert registry.value("p.opensearch.documentsVersionConflictErrors") > 0

    asyncio.run(run())


def test_a_delete_between_two_changes_keeps_its_place():
    """Three operations of an id: what ends up there is what the last of them says."""

    async def run():
        chance = random.Random(11)
        left: dict[str, list[str]] = {
            str(id_): chance.choices(["index", "delete", "upsert"], k=3) for id_ in range(3000)
        }
        expected: dict[str, dict] = {}
        events = []
        order = [id_ for id_ in left for _ in range(3)]
        chance.shuffle(order)
        for number, id_ in enumerate(order):
            action = left[id_].pop(0)
            events.append({"id": id_, "action": action, "n": number})
            if action == "delete":
                expected.pop(id_, None)
            else:
                expected[id_] = events[-1].copy()
        async with Storm(chance, late=False) as server:
            await deliver(server, {"action": "${/action}"}, events, chance)
            assert server.documents("i") == expected

    asyncio.run(run())
