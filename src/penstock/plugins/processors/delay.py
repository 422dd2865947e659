"""Lets events wait before it passes them on, to try how a pipeline behaves when it is slow.

Events wait in the chunks in which they go through the pipeline, one after the other; the rest of the process goes on.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field

from penstock import sdk


class Config(sdk.PluginConfig):
    for_: Annotated[sdk.Duration, Field(ge=0, alias="for")] = 1.0
    """How long."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    delay_s = config.for_

    async def wait(batch: sdk.Batch) -> sdk.Batch:
        if len(batch):
            await asyncio.sleep(delay_s)
        return batch

    return wait


EXAMPLES = [
    sdk.Example("A twentieth of a second", config="for: 50ms", before=[{"a": 1}, {"a": 2}], after=[{"a": 1}, {"a": 2}])
]
