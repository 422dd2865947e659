"""Every processor is measured, and what it is measured against does the same work."""

from __future__ import annotations

import asyncio
import inspect

import orjson
import pytest
from bench.cases import CASES, CHAIN, Case

from penstock.core.batch import Batch
from penstock.core.handle import Handle
from penstock.plan import catalog
from penstock.sdk import BatchFn

EVENTS = 1500
LEFT_ALONE = {"delay", "drop_events", "no-op", "rate_limiter", "split_event (one part)"}
"""What it costs to look at events that are not concerned."""


def test_every_processor_has_a_row() -> None:
    assert {case.name for case in CASES} == set(catalog.names("processor"))
    titles = [case.title for case in CASES]
    assert len(set(titles)) == len(titles)
    assert set(CHAIN) <= set(titles)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_row_measures_work_that_succeeds_and_a_floor_does_the_same(case: Case) -> None:
    before = case.bodies(EVENTS)
    assert [orjson.loads(orjson.dumps(body)) for body in before] == before, "batches are made from JSON"
    run = case.processor()
    batch = Batch(case.bodies(EVENTS))
    batch.promise(Handle())
    result = asyncio.run(_called(run, batch))
    assert not any(meta is not None and meta.tags for meta in result.metas), "no event fails"
    after = result.bodies
    if getattr(run, "holds_events", False):
        after = after + run.drain().bodies
    assert (after == before) == (case.title in LEFT_ALONE)
    make_floor = case.floor or case.bare
    if make_floor is not None:
        floor, expected = make_floor(), before
        floor(expected)
        assert after == [*expected, *getattr(floor, "drain", list)()]


async def _called(run: BatchFn, batch: Batch) -> Batch:
    result = run(batch)
    return await result if inspect.isawaitable(result) else result
