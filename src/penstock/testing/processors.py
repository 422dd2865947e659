"""Run one processor over events."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.batch import Batch, Body
from penstock.core.clock import Clock, ManualClock
from penstock.core.handle import Handle
from penstock.sdk import BatchFn, Context
from penstock.testing.plugins import checked, time_zone
from penstock.testing.result import Result, batch_of, results_of


def build_processor(name: str, config: Mapping[str, Any], *, clock: Clock | None = None) -> BatchFn:
    """The processor of that name, ready to be called with batches. Raises `penstock.ConfigError`."""
    found, options = checked("processor", name, config)
    ctx = Context("test-pipeline", name, clock=clock)
    run: BatchFn = found.module.build(options, ctx)
    return run


def run_processor(
    name: str,
    config: Mapping[str, Any],
    events: Sequence[Body],
    *,
    metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    tags: Sequence[str] | Sequence[Sequence[str]] | None = None,
    event_type: str | None = None,
    tz: str = "UTC",
    flush_after_s: float | None = None,
) -> list[Result]:
    """What the processor makes of `events`, which are not changed themselves.

    `tz` is the time zone of the machine. With `flush_after_s` the processor is called once more with an empty batch
    that many (virtual) seconds later, and what it lets go of is appended. Raises `penstock.ConfigError`.
    """
    clock = ManualClock() if flush_after_s is not None else None
    with time_zone(tz):
        run = build_processor(name, config, clock=clock)
        now_ms = (clock or Clock()).now_ms()
        batch = batch_of(events, metadata, tags, event_type, now_ms)
        handle = Handle()
        batch.promise(handle)
        results = results_of(_called(run, batch))
        if flush_after_s is not None:
            assert clock is not None
            clock.advance(flush_after_s)
            results += results_of(_called(run, Batch([])))
    return results


def _called(run: BatchFn, batch: Batch) -> Batch:
    result = run(batch)
    if not inspect.isawaitable(result):
        assert isinstance(result, Batch)
        return result

    async def wait() -> Batch:
        return await result

    return asyncio.run(wait())
