"""Lets at most so many events through in each second of the clock; the others are dropped, or wait.

Each unit counts for itself. What is dropped ends there as if delivered and counts as `eventsDropped`. Events wait
without holding up the rest of the process, and leave in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from penstock import sdk

SECONDS_KEPT_MAX = 3600


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Config(sdk.PluginConfig):
    events_per_second: Annotated[int, Field(le=2**31 - 1)] = 0
    """How many events may pass in a second. Without it none may, and all are dropped."""
    when_exceeds: Annotated[Literal["drop", "hold"], BeforeValidator(_lower)] = "drop"
    """`drop` the events beyond that, or `hold` them back until the next second."""
    limit_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are counted and limited; the others pass."""
    counter_retention: Annotated[sdk.Duration, Field(ge=0)] = 60.0
    """How long the count of a second is remembered, which matters when the clock is set back; an hour at most."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.when_exceeds == "hold" and self.events_per_second < 1:
            raise ValueError("events_per_second must be at least 1 when events are held, or they would wait for ever.")
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    if config.events_per_second < 1:
        ctx.log.warning("rate_limiter of pipeline %s drops all events: events_per_second is not set", ctx.pipeline)
    seconds = _Seconds(config, ctx.clock)
    limited = _chooser(config, ctx)
    dropped = ctx.metrics.counter("eventsDropped")

    def drop(batch: sdk.Batch) -> sdk.Batch:
        places = limited(batch)
        beyond = places[seconds.take(len(places)) :]
        dropped.add(len(beyond))
        return batch.drop(beyond)

    turn = asyncio.Lock()

    async def hold(batch: sdk.Batch) -> sdk.Batch:
        waiting = len(limited(batch))
        async with turn:
            while waiting := waiting - seconds.take(waiting):
                await asyncio.sleep(seconds.until_next_s())
        return batch

    return drop if config.when_exceeds == "drop" else hold


class _Seconds:
    """How many events have passed in each of the last seconds."""

    def __init__(self, config: Config, clock: sdk.Clock) -> None:
        self._most = max(0, config.events_per_second)
        self._kept = min(config.counter_retention, SECONDS_KEPT_MAX)
        self._clock = clock
        self._passed: dict[int, int] = {}

    def take(self, wanted: int) -> int:
        """How many of `wanted` events may pass now; they are counted."""
        if not wanted:
            return 0
        now = self._clock.now_ms() // 1000
        passed = self._passed.get(now)
        if passed is None:
            self._passed = {second: count for second, count in self._passed.items() if abs(now - second) <= self._kept}
            passed = 0
        taken = min(wanted, self._most - passed)
        self._passed[now] = passed + taken
        return taken

    def until_next_s(self) -> float:
        """Time until the next second begins."""
        return (1000 - self._clock.now_ms() % 1000) / 1000


def _chooser(config: Config, ctx: sdk.Context) -> Callable[[sdk.Batch], Sequence[int]]:
    """A function that gives the places of the events to be limited."""
    when = config.limit_when
    fail = ctx.failure()
    if when is None:
        return lambda batch: range(len(batch))
    test = when.test

    def limited(batch: sdk.Batch) -> list[int]:
        places = []
        for index, body in enumerate(batch.bodies):
            try:
                if test(body, batch.peek(index)):
                    places.append(index)
            except sdk.EventError as error:
                fail(batch, index, error)
        return places

    return limited


EXAMPLES = [
    sdk.Example(
        "At most a thousand debug lines a second; the others are dropped",
        config="""
            events_per_second: 1000
            limit_when: '/level == "debug"'
        """,
        before=[{"level": "debug"}, {"level": "error"}],
        after=[{"level": "debug"}, {"level": "error"}],
    ),
]
