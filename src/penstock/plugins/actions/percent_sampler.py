"""Lets a share of the events of each group pass, evenly spread, and drops the others."""

from pydantic import Field, field_validator

from penstock import sdk
from penstock.lib.aggregation import DROPPED, PASSED, Action, Fate, Group


class Config(sdk.PluginConfig):
    percent: float = Field(default=0.0, validate_default=True)
    """Share of the events to pass, more than 0 and less than 100."""

    @field_validator("percent")
    @classmethod
    def _within(cls, value: float) -> float:
        if not 0.0 < value < 100.0:
            raise ValueError("Percent value must be greater than 0.0 and less than 100.0")
        return value


class PercentSampler(Action):
    def __init__(self, config: Config) -> None:
        self._share = config.percent / 100.0

    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        passed, seen = group.state or (0, 0)
        passes = (passed + 1) / (seen + 1) <= self._share
        group.state = (passed + passes, seen + 1)
        return PASSED if passes else DROPPED


def build(config: Config, ctx: sdk.Context) -> Action:
    return PercentSampler(config)


EXAMPLES = [sdk.Example("Let every fourth event pass", config="percent: 25")]
