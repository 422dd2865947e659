"""Takes the events that another pipeline sends to its sink of the same name. Both sides name each other.

`source: other-pipeline` is the short form of `source: {pipeline: {name: other-pipeline}}`.
"""

from __future__ import annotations

from typing import NoReturn

from penstock import sdk


class Config(sdk.PluginConfig):
    name: sdk.NonEmpty[str]
    """Name of the pipeline whose events come in here."""


def build(config: Config, ctx: sdk.Context) -> NoReturn:
    raise AssertionError(f"pipeline {config.name} writes into the buffer of {ctx.pipeline} itself")


EXAMPLES = [sdk.Example("Events of another pipeline", config="name: entry-pipeline")]
