"""Holds the events of a group, such as the spans of a trace, until none has come for a while; then all go on or none.

They go on when one of them has met the condition, else by chance. Held events keep their delivery promises: a source
hears of them when they have gone on and were delivered, or were not chosen.
"""

import random

from pydantic import field_validator

from penstock import sdk
from penstock.lib.aggregation import HELD, Action, Fate, Group, weight

WAIT_S_MAX = 60


class Config(sdk.PluginConfig):
    wait_period: sdk.Duration
    """Silence after which a group is complete, from 1 to 60 seconds."""
    percent: int
    """Share of the groups without an event that meets `condition` that go on, more than 0 and less than 100."""
    condition: sdk.When = sdk.ALWAYS
    """Groups with an event that matches this expression go on in any case."""

    @field_validator("percent")
    @classmethod
    def _share(cls, value: int) -> int:
        if not 0 < value < 100:
            raise ValueError("Percent value must be greater than 0.0 and less than 100.0")
        return value

    @field_validator("wait_period")
    @classmethod
    def _not_for_ever(cls, value: float) -> float:
        if not 1 <= value < WAIT_S_MAX + 1:  # whole seconds count
            raise ValueError("Wait period value must be greater than 0 and less than 60")
        return value


class TailSampler(Action):
    def __init__(self, config: Config, chance: random.Random) -> None:
        self.quiet_s = config.wait_period
        self._percent = config.percent
        self._chosen = None if config.condition is None else config.condition.test
        self._chance = chance

    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        chosen = self._chosen is not None and self._chosen(body, meta)
        group.size_bytes += weight(body)
        group.state = chosen or bool(group.state)
        return HELD

    def keeps(self, group: Group) -> bool:
        return bool(group.state) or self._chance.randrange(100) < self._percent


def build(config: Config, ctx: sdk.Context) -> Action:
    return TailSampler(config, ctx.random)


EXAMPLES = [
    sdk.Example(
        "All traces with an error and a tenth of the others",
        config="""
wait_period: 10s
percent: 10
condition: '/status == "ERROR"'
""",
    )
]
