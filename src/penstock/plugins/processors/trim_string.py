"""Removes blanks and control characters at both ends of texts. Values that are no text are left alone."""

from penstock import sdk
from penstock.lib.text_values import JAVA_BLANKS, compile_change


class Config(sdk.PluginConfig):
    with_keys: sdk.NonEmpty[list[sdk.Key]]
    """Keys of the texts to change."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.each(compile_change(config.with_keys, "value.strip(blanks)", blanks=JAVA_BLANKS))


EXAMPLES = [
    sdk.Example(
        "Blanks inside stay",
        config="with_keys: [message]",
        before=[{"message": "\t disk is full \n"}, {"message": None}],
        after=[{"message": "disk is full"}, {"message": None}],
    ),
]
