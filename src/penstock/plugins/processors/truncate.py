"""Cuts texts, and the texts in lists, to a range of characters.

A text shorter than `start_at` is left alone, and the others of the event are still cut. Characters are whole: where
Data Prepper counts an emoji as two and may cut it in half, it counts as one here.
"""

from collections.abc import Callable
from textwrap import indent
from typing import Any, Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.text_values import compile_store


class Entry(sdk.PluginConfig):
    source_keys: list[sdk.Key] | None = None
    """Keys of the texts to cut; all top-level values without it."""
    start_at: int | None = None
    """First character that is kept, counted from 0."""
    length: int | None = None
    """Characters that are kept; all up to the end without it."""
    recursive: bool = False
    """Cut the texts inside objects too."""
    truncate_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        given = [value for value in (self.start_at, self.length) if value is not None]
        if not given or min(given) < 0:
            raise ValueError(
                "At least one of start_at or length or both must be specified and the values must be positive integers"
            )
        return self


class Config(sdk.PluginConfig):
    entries: sdk.NonEmpty[list[Entry]]
    """Cuts, applied in order."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.chain(ctx.each(_truncation(entry), when=entry.truncate_when) for entry in config.entries)


def _truncation(entry: Entry) -> sdk.EventFn | sdk.Inline:
    start, end = entry.start_at or 0, None if entry.length is None else (entry.start_at or 0) + entry.length
    within = _cut_within(start, end, recursive=entry.recursive)
    keys = entry.source_keys
    if keys is None:
        return lambda body: within(body, body.items())
    if all(len(key.parts) == 1 for key in keys):
        names = [key.parts[0] for key in keys]
        settings: dict[str, Any] = {"kept": slice(start, end), "within": within}
        statements = _CUT.format(text="value[kept] if len(value) >= start else value" if start else "value[kept]")
        if start:
            settings["start"] = start
        if len(names) == 1:
            return sdk.Inline(statements, name=names[0], **settings)
        return sdk.Inline(f"for name in names:{indent(statements, ' ' * 4)}", names=names, **settings)
    readers = [(key.get, compile_store(key)) for key in keys]

    def cut(body: sdk.Body) -> None:
        for get, store in readers:
            value = get(body)
            if value is not sdk.MISSING:
                holder = {"": value}
                within(holder, holder.items())
                if holder[""] is not value:
                    store(body, holder[""])

    return cut


_CUT = """
value = body.get(name)
if type(value) is str:
    body[name] = {text}
elif type(value) is list or type(value) is dict:
    within(body, ((name, value),))
"""


def _cut_within(start: int, end: int | None, *, recursive: bool) -> Callable[[dict[str, Any], Any], None]:
    """A function that cuts what an object has under some names. It keeps its own stack: objects may be deep."""

    def cut(holder: dict[str, Any], items: Any) -> None:
        pending = [(holder, items)]
        while pending:
            holder, items = pending.pop()
            for name, value in items:
                kind = type(value)
                if kind is str:
                    if len(value) >= start:
                        holder[name] = value[start:end]
                elif kind is list:
                    for place, item in enumerate(value):
                        if type(item) is str and len(item) >= start:
                            value[place] = item[start:end]
                elif kind is dict and recursive:
                    pending.append((value, value.items()))

    return cut


EXAMPLES = [
    sdk.Example(
        "The first characters",
        config="entries: [{source_keys: [message], length: 5}]",
        before=[{"message": "hello world", "other": "hello world"}, {"message": ["a long text", 7]}],
        after=[{"message": "hello", "other": "hello world"}, {"message": ["a lon", 7]}],
    ),
    sdk.Example(
        "Everything, also in objects",
        config="entries: [{start_at: 1, length: 2, recursive: true}]",
        before=[{"a": "abcdef", "b": {"c": "abcdef"}, "n": 1}],
        after=[{"a": "bc", "b": {"c": "bc"}, "n": 1}],
    ),
]
