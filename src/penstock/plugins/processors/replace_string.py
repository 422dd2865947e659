"""Replaces fixed texts inside texts. Absent values and those that are no text are left alone."""

from typing import Annotated

from pydantic import Field

from penstock import sdk
from penstock.lib.text_values import compile_change


class Entry(sdk.PluginConfig):
    source: sdk.Key | None = None
    """Key of the text to change."""
    from_: Annotated[str | None, Field(validation_alias="from")] = None
    """Text to look for, character by character."""
    to: str | None = None
    """Text that takes its place."""
    replace_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""


class Config(sdk.PluginConfig):
    entries: list[Entry] | None = None
    """Replacements, applied in order: each one sees the result of the one before it."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.chain(_step(entry, ctx) for entry in config.entries or ())


def _step(entry: Entry, ctx: sdk.Context) -> sdk.BatchFn:
    source, old, new = entry.source, entry.from_, entry.to
    if source is None or old is None or new is None:
        ctx.log.warning("An entry of replace_string without source, from and to changes nothing")
        return lambda batch: batch
    change = compile_change([source], "value.replace(old, new)", old=old, new=new)
    return ctx.each(change, when=entry.replace_when)


EXAMPLES = [
    sdk.Example(
        "A dot is a dot",
        config='entries: [{source: host, from: ".", to: "-"}]',
        before=[{"host": "web.1.example"}, {"host": 10}],
        after=[{"host": "web-1-example"}, {"host": 10}],
    ),
    sdk.Example(
        "Only where a condition holds",
        config="""entries: [{source: path, from: "//", to: "/", replace_when: '/kind == "url"'}]""",
        before=[{"kind": "url", "path": "/a//b"}, {"kind": "raw", "path": "/a//b"}],
        after=[{"kind": "url", "path": "/a/b"}, {"kind": "raw", "path": "/a//b"}],
    ),
]
