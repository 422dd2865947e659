"""Turns texts into upper case. Absent values and those that are no text are left alone."""

from penstock import sdk
from penstock.lib.text_values import compile_change


class Config(sdk.PluginConfig):
    with_keys: sdk.NonEmpty[list[sdk.Key]]
    """Keys of the texts to change."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.each(compile_change(config.with_keys, "value.upper()"))


EXAMPLES = [
    sdk.Example(
        "Upper-case a text",
        config="with_keys: [level]",
        before=[{"level": "warn"}, {"level": ["warn"]}],
        after=[{"level": "WARN"}, {"level": ["warn"]}],
    ),
]
