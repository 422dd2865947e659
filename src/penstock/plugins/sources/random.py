"""Makes events with a random UUID in `message`, one after each pause. For demonstrations."""

import asyncio
import uuid

from penstock import sdk


class Config(sdk.PluginConfig):
    wait_delay: sdk.Duration = 0.5
    """Pause between two events."""


class RandomSource:
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._delay_s = config.wait_delay
        self._random = ctx.random
        self._clock = ctx.clock
        self._stop = asyncio.Event()

    async def run(self, output: sdk.Output) -> None:
        output.started()
        while not self._stop.is_set():
            message = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            origin = sdk.Meta("event", self._clock.now_ms())
            await output.write(sdk.Batch([{"message": message}], origin=origin), len(message))
            try:
                await asyncio.wait_for(self._stop.wait(), self._delay_s)
            except TimeoutError:
                continue

    async def stop(self) -> None:
        self._stop.set()


def build(config: Config, ctx: sdk.Context) -> sdk.Source:
    return RandomSource(config, ctx)


EXAMPLES = [sdk.Example("Ten events a second", config="wait_delay: 100ms")]
