"""Splits texts into lists, at a character or where a regular expression matches.

Empty parts at the end are left out, as Java does; the others stay. An event for which matching takes too long is left
as it was and counted with the cause `timeout`.
"""

from typing import Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.limited_loop import each_limited
from penstock.lib.text_values import compile_change, compile_split
from penstock.sdk.splitting import SplitOptions


class Entry(SplitOptions):
    source: sdk.Key
    """Key of the text to split. Values that are no text are left alone."""
    split_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.delimiter and self.delimiter_regex:
            raise ValueError("delimiter and delimiter_regex cannot be defined at the same time")
        if not self.delimiter and not self.delimiter_regex:
            raise ValueError("delimiter or delimiter_regex needs to be defined")
        return self


class Config(sdk.PluginConfig):
    entries: list[Entry]
    """Splits, applied in order."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.chain(_step(entry, ctx) for entry in config.entries)


def _step(entry: Entry, ctx: sdk.Context) -> sdk.BatchFn:
    split = compile_split(entry.delimiter, entry.delimiter_regex)
    if entry.delimiter_regex:
        change = compile_change([entry.source], "split(value)", split=split)
        return each_limited(change, when=entry.split_when, fail=ctx.failure())
    quick = "parts if (parts := value.split(delimiter))[-1] else split(value)"  # an empty end is cut off
    change = compile_change([entry.source], quick, delimiter=entry.delimiter, split=split)
    return ctx.each(change, when=entry.split_when)


EXAMPLES = [
    sdk.Example(
        "At a character",
        config='entries: [{source: tags, delimiter: ","}]',
        before=[{"tags": "a,,b,,"}, {"tags": "a"}],
        after=[{"tags": ["a", "", "b"]}, {"tags": ["a"]}],
    ),
    sdk.Example(
        "At a regular expression",
        config="""entries: [{source: message, delimiter_regex: '\\s*[;,]\\s*'}]""",
        before=[{"message": "a ; b,c"}],
        after=[{"message": ["a", "b", "c"]}],
    ),
]
