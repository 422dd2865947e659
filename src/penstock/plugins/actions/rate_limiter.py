"""Lets so many events pass in a second, all groups together. A quiet second may be made up for in the next one.

With `block` the events beyond wait, and what comes behind them waits too; nothing else in the process does. With `drop`
they are dropped.
"""

from typing import Literal

from pydantic import Field, field_validator

from penstock import sdk
from penstock.lib.aggregation import DROPPED, PASSED, Action, Fate, Group
from penstock.lib.rate_limit import RateLimit


class Config(sdk.PluginConfig):
    events_per_second: int = Field(default=0, validate_default=True)
    """Events that may pass in a second."""
    when_exceeds: Literal["block", "drop"] = "block"
    """What happens to the events beyond: `block` lets them wait, `drop` drops them."""

    @field_validator("events_per_second")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value <= 0:
            raise ValueError("events_per_second must be greater than 0")
        return value


class RateLimiter(Action):
    def __init__(self, config: Config, clock: sdk.Clock) -> None:
        self._limit = RateLimit(config.events_per_second, clock)
        self._drops = config.when_exceeds == "drop"
        self._wait_s = 0.0

    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        if self._drops:
            return PASSED if self._limit.try_take() else DROPPED
        self._wait_s = max(self._wait_s, self._limit.take())
        return PASSED

    def wait_s(self) -> float:
        wait, self._wait_s = self._wait_s, 0.0
        return wait


def build(config: Config, ctx: sdk.Context) -> Action:
    return RateLimiter(config, ctx.clock)


EXAMPLES = [sdk.Example("At most a hundred events a second", config="{events_per_second: 100, when_exceeds: drop}")]
