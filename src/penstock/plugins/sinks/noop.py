"""Discards all events and acknowledges them. Also known as `drop`."""

from penstock import sdk


class Config(sdk.PluginConfig):
    pass


class NoopSink:
    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def write(self, batch: sdk.Batch) -> None:
        return


def build(config: Config, ctx: sdk.Context) -> sdk.WriteSink:
    return NoopSink()


EXAMPLES = [sdk.Example("Throw everything away", config="{}")]
