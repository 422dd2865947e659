"""What single processors cost per event, inside this process."""

from __future__ import annotations

import asyncio
import gc
import time

import orjson

from bench.cases import BARE_FACTOR, CASES, CHAIN, CHAIN_US, FLOOR_FACTOR, SIMPLE_US, Case, plain
from bench.floors import Floor
from penstock.core.batch import Batch
from penstock.core.handle import Handle
from penstock.runtime.pipeline import CHUNK_EVENTS_MAX
from penstock.sdk import BatchFn, Context

Measured = tuple[str, float, str, float, dict[str, float]]
"""Name, value, unit, budget; what each pass cost where the value is a ratio."""


REQUEST_EVENTS = 1024
"""Events that are decoded at once before the first of them is processed: what a source gets is of about this size."""


def us_per_event(run: BatchFn, texts: list[bytes], rounds: int = 7) -> float:
    """CPU microseconds per event, the best of `rounds` passes over freshly made batches."""
    return min(_pass_us(run, texts) for _ in range(rounds))


def _pass_us(run: BatchFn, texts: list[bytes]) -> float:
    """One pass, request by request, as in a pipeline: events are processed soon after they were decoded.

    The clock is that of the thread: that of the process lags while a limit of matching time is set.
    """
    gc.collect()
    spent = 0.0
    for start in range(0, len(texts), REQUEST_EVENTS):
        batches = batches_of(texts[start : start + REQUEST_EVENTS])
        begin = time.thread_time()
        for batch in batches:
            result = run(batch)
            if not isinstance(result, Batch):
                _loop.run_until_complete(result)
        spent += time.thread_time() - begin
    return spent / len(texts) * 1e6


_loop = asyncio.new_event_loop()


def batches_of(bodies: list[bytes], size: int = CHUNK_EVENTS_MAX) -> list[Batch]:
    made = []
    for start in range(0, len(bodies), size):
        batch = Batch([orjson.loads(body) for body in bodies[start : start + size]])
        batch.promise(Handle())
        made.append(batch)
    return made


def processor_rows(events: int = 10_000, rounds: int = 7) -> list[Measured]:
    """The rows of every processor, and one for several of them in a chain."""
    rows = [_row(case, events, rounds) for case in CASES]
    by_title = {case.title: case for case in CASES}
    chain = Context("bench", "chain").chain([by_title[title].processor() for title in CHAIN])
    cost = us_per_event(chain, [orjson.dumps(plain(number)) for number in range(events)], rounds)
    rows.append((f"{len(CHAIN)} in a chain", cost, "us/event", CHAIN_US, {}))
    return rows


def _row(case: Case, events: int, rounds: int) -> Measured:
    """Processor and floor take turns, so that a machine that slows down slows both."""
    texts = [orjson.dumps(body) for body in case.bodies(events)]
    run = case.processor()
    make_floor = case.floor or case.bare
    if make_floor is None:
        return case.title, us_per_event(run, texts, rounds), "us/event", SIMPLE_US, {}
    floor = _on_bodies(make_floor())
    costs, floors = [], []
    for _ in range(rounds):
        floors.append(_pass_us(floor, texts))
        costs.append(_pass_us(run, texts))
    cost, least = min(costs), min(floors)
    told = {"us": round(cost, 3), "floor_us": round(least, 3)}
    if case.floor is None:
        return (
            case.title,
            cost,
            "us/event",
            round(max(SIMPLE_US, BARE_FACTOR * least), 2),
            {**told, "x_floor": round(cost / least, 2)},
        )
    return case.title, cost / least, "x floor", FLOOR_FACTOR, told


def _on_bodies(floor: Floor) -> BatchFn:
    def run(batch: Batch) -> Batch:
        floor(batch.bodies)
        return batch

    return run
