"""Passes events on as they are."""

from penstock import sdk


class Config(sdk.PluginConfig):
    pass


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return lambda batch: batch


EXAMPLES = [sdk.Example("Nothing happens", config="{}", before=[{"a": 1}], after=[{"a": 1}])]
