"""Limits per second, in virtual time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.clock import ManualClock
from penstock.core.errors import ConfigError
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.plugins.processors import rate_limiter
from penstock.sdk import Batch, Context
from penstock.testing import build_processor
from penstock.testing.virtual import LoopClock, run_virtual


def numbered(count, start=0, **more):
    batch = Batch([{"n": n, **more} for n in range(start, start + count)])
    batch.promise(Handle())
    return batch


def test_what_is_too_much_for_a_second_is_dropped_as_delivered():
    outcomes = []
    clock, registry = ManualClock(), Registry()
    config = rate_limiter.Config.model_validate({"events_per_second": 3})
    run = rate_limiter.build(config, Context("p", "rate_limiter", registry=registry, clock=clock))
    batch, handle = Batch([{"n": n} for n in range(5)]), Handle(outcomes.append)
    batch.promise(handle)
    handle.seal()
    kept = run(batch)
    assert [body["n"] for body in kept.bodies] == [0, 1, 2]
    assert handle.pending == 3
    kept.release_all(ok=True)
    assert outcomes == [True]
    assert len(run(numbered(1))) == 0
    clock.advance(1)
    assert len(run(numbered(2))) == 2
    clock.advance(-1)
    assert len(run(numbered(1))) == 0  # that second is spent
    clock.advance(120)
    assert len(run(numbered(4))) == 3
    clock.advance(-120)
    assert len(run(numbered(1))) == 1  # forgotten after a minute
    assert registry.value("p.rate_limiter.eventsDropped") == 2 + 1 + 1 + 1


def test_events_beside_the_condition_pass():
    options = {"events_per_second": 1, "limit_when": '/kind == "a"'}
    run = build_processor("rate_limiter", options, clock=ManualClock())
    batch = Batch([{"kind": kind} for kind in "abab"])
    batch.promise(Handle())
    assert [body["kind"] for body in run(batch).bodies] == ["a", "b", "b"]


def test_without_a_limit_everything_is_dropped():
    run = build_processor("rate_limiter", {})
    assert len(run(numbered(3))) == 0


@pytest.mark.parametrize(
    "config",
    [
        {"when_exceeds": "hold"},
        {"when_exceeds": "wait", "events_per_second": 1},
        {"events_per_second": 1, "limit_when": "== =="},
        {"events_per_second": "many"},
        {"counter_retention": "-PT1S"},
    ],
)
def test_rules(config):
    with pytest.raises(ConfigError):
        build_processor("rate_limiter", config)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_held_events_leave_in_order_and_within_the_limit(sizes, limit):
    async def scenario():
        clock = LoopClock(asyncio.get_running_loop())
        run = build_processor("rate_limiter", {"events_per_second": limit, "when_exceeds": "HOLD"}, clock=clock)
        left = []

        async def send(batch):
            result = await run(batch)
            left.append((clock.now_ms() // 1000, [body["n"] for body in result.bodies]))

        starts = [sum(sizes[:place]) for place in range(len(sizes))]
        batches = [numbered(size, start) for size, start in zip(sizes, starts, strict=True)]
        begin = clock.now_ms() // 1000
        await asyncio.gather(*map(send, batches))
        return begin, left

    begin, left = run_virtual(scenario())
    assert [n for _, batch in left for n in batch] == list(range(sum(sizes)))
    for second in {second for second, _ in left}:
        gone = sum(len(batch) for at, batch in left if at <= second)
        assert gone <= limit * (second - begin + 1)
    assert left[-1][0] - begin == max(0, -(-sum(sizes) // limit) - 1)


def test_nobody_else_waits():
    async def scenario():
        clock = LoopClock(asyncio.get_running_loop())
        run = build_processor("rate_limiter", {"events_per_second": 1, "when_exceeds": "hold"}, clock=clock)
        waiting = asyncio.ensure_future(run(numbered(10)))
        await asyncio.sleep(5)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(run(numbered(1)), 2)  # the turn was given back

    run_virtual(scenario())
