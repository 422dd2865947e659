"""CPU of the opensearch sink with its delivery, as a multiple of the HTTP client that posts the same bytes.

Two rows: from encoded items to acknowledged events without compression, against the client alone; and from events to
acknowledged events as configured by default, against encode, join, gzip and the client. What a pipeline hands over is
made beforehand. Sink and floor take turns in this process, on the loop the engine runs on, and are measured in its CPU
time.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import statistics
import time
from collections.abc import Sequence
from typing import Any

import orjson
import uvloop
from isal import igzip

from bench import corpus, peer
from penstock.core.batch import Batch
from penstock.core.handle import Handle
from penstock.lib.http_client import HttpClient, Reply
from penstock.plugins.sinks import opensearch
from penstock.runtime.deliver import BulkDelivery, Surroundings
from penstock.runtime.pipeline import PASSED_EVENTS_MAX
from penstock.sdk import Context, Failure, Items, JoinedItems
from penstock.testing.fakes import MemoryDeadLetters

EVENTS = 256_000
PER_LOAD = 1000
PER_BATCH = PASSED_EVENTS_MAX
IN_FLIGHT_MAX = 12_800
"""What the default buffer lets in."""
ROUNDS = 7
ACTION = b'{"index":{"_index":"logs"}}\n'


class _Encoded:
    """The sink with its items made beforehand."""

    def __init__(self, sink: Any, texts: list[bytes]) -> None:
        self._sink = sink
        self._texts = iter(texts)
        self.dead_letter = sink.dead_letter

    @property
    def limits(self) -> Any:
        return self._sink.limits

    def encode(self, batch: Batch) -> Items:
        return Items(JoinedItems(ACTION, [next(self._texts)], len(batch)), range(len(batch)))

    async def send(self, data: Sequence[bytes]) -> Sequence[Failure]:
        found: Sequence[Failure] = await self._sink.send(data)
        return found


class _Room(asyncio.Semaphore):
    """The buffer, as far as a delivery asks it; whoever waits has handed on what came before."""

    def is_awaited(self) -> bool:
        return self.locked()

    def is_read_out(self) -> bool:
        return self.locked()


class _Recorder:
    """Stands before the client of the sink and notes the items of each request."""

    def __init__(self, client: HttpClient) -> None:
        self.client = client
        self.bodies: list[tuple[str, Any, Any]] = []
        self.in_flight = 0
        self.in_flight_max = 0

    async def request(self, method: str, path: str, body: Any = None, headers: Any = None) -> Reply:
        assert body is not None, "a bulk request has a body"
        self.bodies.append((path, body, headers))
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            return await self.client.request(method, path, body, headers)
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        await self.client.close()


def sink_rows() -> list[tuple[str, float, dict[str, float]]]:
    """Name, multiple of the floor and figures of both rows."""
    logging.getLogger("penstock").setLevel(logging.ERROR)
    lines = corpus.apache(EVENTS)
    events = [{"log": line} for line in lines]
    with peer.stub() as stub:
        return uvloop.run(_both(f"http://127.0.0.1:{stub.port}", events))


async def _both(url: str, events: list[dict[str, Any]]) -> list[tuple[str, float, dict[str, float]]]:
    encoded = [
        b"".join(
            [ACTION + orjson.dumps(event, None, orjson.OPT_APPEND_NEWLINE) for event in load[start : start + PER_BATCH]]
        )
        for load in (events[begin : begin + PER_LOAD] for begin in range(0, len(events), PER_LOAD))
        for start in range(0, PER_LOAD, PER_BATCH)
    ]
    rows = []
    for name, compress in (("sink: items to acknowledgment", False), ("sink: events to acknowledgment", True)):
        multiples, costs = [], []
        for _ in range(ROUNDS):
            spent, recorder = await _through_the_sink(url, events, None if compress else encoded)
            requests = recorder.bodies
            whole = [(path, body if isinstance(body, bytes) else b"".join(body), head) for path, body, head in requests]
            floor = await _replayed(url, whole, recorder.in_flight_max, events if compress else None)
            multiples.append(spent / floor)
            costs.append(spent / len(events) * 1e6)
        figures = {"cpu_us_per_event": round(min(costs), 3), "requests": len(requests)}
        rows.append((name, statistics.median(multiples), figures))
    return rows


async def _through_the_sink(
    url: str, events: list[dict[str, Any]], encoded: list[bytes] | None
) -> tuple[float, _Recorder]:
    """CPU seconds of the delivery, and what it has sent."""
    options = {"hosts": [url], "index": "logs", "index_type": "management_disabled"}
    ctx = Context("bench", "opensearch", kind="sink")
    sink: Any = opensearch.build(opensearch.Config(**options, enable_request_compression=encoded is None), ctx)
    await sink.start()
    recorder = _Recorder(sink._cluster._http)
    sink._cluster._http = recorder
    room = _Room(IN_FLIGHT_MAX // PER_LOAD)
    delivery = BulkDelivery(
        sink if encoded is None else _Encoded(sink, encoded),  # type: ignore[arg-type]
        Surroundings(ctx, MemoryDeadLetters(), room=room),
    )
    failed: list[bool] = []
    if encoded is not None:  # nobody reads them; a quarter of a million cold objects would only be let go of here
        events = [events[0]] * len(events)
    loads = [_promised(events[start : start + PER_LOAD], failed) for start in range(0, len(events), PER_LOAD)]
    gc.collect()
    begin = time.process_time()
    for chunks in loads:
        await room.acquire()
        left = [len(chunks)]

        def done(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                room.release()

        for chunk in chunks:
            delivery.submit(chunk, done)
    await delivery.drain()
    spent = time.process_time() - begin
    await delivery.close()
    await sink.stop()
    assert not failed, "everything was delivered"
    return spent, recorder


def _promised(events: list[dict[str, Any]], failed: list[bool]) -> list[Batch]:
    """What a pipeline hands to its sink of one load."""
    load = Batch(events)
    handle = Handle(lambda ok: None if ok else failed.append(ok))
    load.promise(handle)
    handle.seal()
    return list(load.chunks(PER_BATCH))


async def _replayed(
    url: str, requests: list[tuple[str, bytes, Any]], at_once: int, events: list[dict[str, Any]] | None
) -> float:
    """CPU seconds of the client that posts the same requests; with `events`, of making the bodies too."""
    client = HttpClient([url])
    lanes = asyncio.Semaphore(at_once)
    share = -(-len(events) // len(requests)) if events is not None else 0
    gc.collect()
    begin = time.process_time()

    async def post(number: int, path: str, body: bytes, headers: Any) -> None:
        async with lanes:
            if events is not None:
                part = events[number * share : (number + 1) * share]
                items = [ACTION + orjson.dumps(event, None, orjson.OPT_APPEND_NEWLINE) for event in part]
                body = await asyncio.to_thread(igzip.compress, b"".join(items), 1)
            reply = await client.request("POST", path, body, headers)
            assert reply.status == 200

    await asyncio.gather(*(post(number, *request) for number, request in enumerate(requests)))
    spent = time.process_time() - begin
    await client.close()
    return spent
