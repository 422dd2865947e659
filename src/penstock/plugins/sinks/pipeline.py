"""Hands events to another pipeline, which names this one as its source.

Each receiving pipeline has its own events: what one changes the others do not see.
"""

from __future__ import annotations

from typing import NoReturn

from penstock import sdk


class Config(sdk.PluginConfig):
    name: sdk.NonEmpty[str]
    """Name of the pipeline that receives the events."""


def build(config: Config, ctx: sdk.Context) -> NoReturn:
    raise AssertionError(f"pipeline {ctx.pipeline} writes into the buffer of {config.name} itself")


EXAMPLES = [sdk.Example("Send events on", config="name: second-pipeline")]
