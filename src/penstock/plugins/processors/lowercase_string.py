"""Turns texts into lower case. Absent values and those that are no text are left alone."""

from penstock import sdk
from penstock.lib.text_values import compile_change


class Config(sdk.PluginConfig):
    with_keys: sdk.NonEmpty[list[sdk.Key]]
    """Keys of the texts to change."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.each(compile_change(config.with_keys, "value.lower()"))


EXAMPLES = [
    sdk.Example(
        "Lower-case two texts",
        config="with_keys: [method, user/name]",
        before=[{"method": "GET", "user": {"name": "Ada"}}, {"method": 7}],
        after=[{"method": "get", "user": {"name": "ada"}}, {"method": 7}],
    ),
]
