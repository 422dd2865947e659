"""Replaces what a regular expression matches inside texts.

Expressions and replacements mean what they mean in Java: `$1` and `${name}` stand for groups, `\\$` for a dollar. An
event for which matching takes too long is left as it was and counted with the cause `timeout`, where Data Prepper
would go on matching; so is one that meets a replacement which names no group (cause `replacement`).
"""

from collections.abc import Callable
from typing import Annotated

from pydantic import Field, field_validator

from penstock import sdk
from penstock.lib.limited_loop import each_limited
from penstock.lib.regex import RegexError, compile_java, interruptible
from penstock.lib.text_values import ReplacementError, compile_change, compile_replace


class Entry(sdk.PluginConfig):
    source: sdk.Key | None = None
    """Key of the text to change."""
    from_: Annotated[str, Field(validation_alias="from")]
    """Regular expression of what is replaced."""
    to: str | None = None
    """What takes its place; `$1` and `${name}` stand for groups."""
    substitute_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @field_validator("from_")
    @classmethod
    def _is_regex(cls, value: str) -> str:
        try:
            compile_java(value)
        except RegexError:
            raise ValueError("The value of from is not a valid regex string") from None
        return value


class Config(sdk.PluginConfig):
    entries: list[Entry]
    """Substitutions, applied in order: each one sees the result of the one before it."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.chain(_step(entry, ctx) for entry in config.entries)


def _step(entry: Entry, ctx: sdk.Context) -> sdk.BatchFn:
    if entry.source is None or entry.to is None:
        ctx.log.warning("An entry of substitute_string without source and to changes nothing")
        return lambda batch: batch
    change = compile_change([entry.source], "replace(value)", replace=_replacement(entry.from_, entry.to, ctx))
    return each_limited(change, when=entry.substitute_when, fail=ctx.failure())


def _replacement(expression: str, to: str, ctx: sdk.Context) -> Callable[[str], str]:
    try:
        return compile_replace(expression, to)
    except ReplacementError as error:
        ctx.log.warning("The replacement %s of substitute_string fails wherever its expression matches: %s", to, error)
        search, reason = compile_java(expression).search, str(error)

        @interruptible
        def refuse(text: str) -> str:
            if search(text):
                raise sdk.EventError(f"The replacement {to} is wrong: {reason}", cause="replacement")
            return text

        return refuse


EXAMPLES = [
    sdk.Example(
        "One slash is enough",
        config='entries: [{source: path, from: "/+", to: "/"}]',
        before=[{"path": "/a///b"}, {"path": None}],
        after=[{"path": "/a/b"}, {"path": None}],
    ),
    sdk.Example(
        "Groups in the replacement",
        config="""entries: [{source: name, from: '(\\w+), (?<first>\\w+)', to: '${first} $1'}]""",
        before=[{"name": "Lovelace, Ada"}],
        after=[{"name": "Ada Lovelace"}],
    ),
]
