"""Takes fields out of texts by the fixed texts between them: `%{date} %{level}: %{message}`.

Pieces of a pattern:

- `%{name}` goes into the event, `%{}` and `%{?name}` do not
- `%{+name}` is joined with others of that name, `%{+name/2}` in the order of the numbers
- `%{&name}` goes under the key that the field `name` holds: `%{?key}=%{&key}`
- `%{name->}` is without the blanks at its end

Blanks between two fields match the last ones of several. Where the text does not fit, the event stays as it was and
`dissectMismatch` counts it. A value that cannot be converted stays text.

Unlike in Data Prepper a pattern of a single field takes the whole text, and an empty first field is empty instead of
getting the value of the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self, cast, get_args

from pydantic import Field, model_validator

from penstock import sdk
from penstock.lib.event_keys import Key, event_key
from penstock.lib.target_types import TargetType, compile_conversion, java_text
from penstock.plugins.processors.dissect.inline import compile_inline, converted
from penstock.plugins.processors.dissect.pattern import Pattern

PLAIN_NAMES_MAX = 1024
"""Names remembered as plain, which lead to the top of the event."""

_WRONG_TYPE = (
    "target_type must be a Map<String, TargetType>. Valid options include "
    "[ 'integer', 'string', 'double', 'boolean', 'long', and 'big_decimal' ]"
)


class Config(sdk.PluginConfig):
    map: dict[sdk.Key, str]
    """Patterns by the key of the text they take apart, in order."""
    target_types: Annotated[dict[str, str], Field(default_factory=dict)]
    """Types by field: `integer`, `long`, `double`, `boolean`, `big_decimal` or `string`."""
    dissect_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    delete_source: bool = False
    """Remove a text that was taken apart."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not set(self.target_types.values()) <= set(get_args(TargetType)):
            raise ValueError(_WRONG_TYPE)
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    types = {name: compile_conversion(cast(TargetType, kind)) for name, kind in config.target_types.items()}
    mismatches = ctx.metrics.counter("dissectMismatch")
    changes: list[sdk.EventFn] = []
    steps: list[sdk.BatchFn] = []
    for key, text in config.map.items():
        pattern, plain_names = Pattern(text), set[str]()
        change = _change(key, pattern, types, plain_names, delete=config.delete_source, missed=mismatches.add)
        quick = None
        if key.top is not None and all(map(_is_plain, pattern.names)):
            quick = compile_inline(
                key.top,
                pattern,
                {name: (config.target_types[name], convert) for name, convert in types.items()},
                plain_names=plain_names,
                delete=config.delete_source,
                missed=mismatches.add,
                change=change,
            )
        changes.append(change)
        steps.append(ctx.each(quick or change, when=config.dissect_when))
    if config.dissect_when is not sdk.ALWAYS and len(changes) > 1:  # what is dissected may change what is asked for
        return ctx.each_of(changes, when=config.dissect_when)
    return ctx.chain(steps)


def _change(
    key: Key,
    pattern: Pattern,
    types: dict[str, Callable[[Any], Any]],
    plain_names: set[str],
    *,
    delete: bool,
    missed: Callable[[], None],
) -> sdk.EventFn:
    """The way that serves all patterns and all values."""
    get, dissect = key.get, pattern.dissect

    def change(body: sdk.Body) -> None:
        text = get(body)
        if text.__class__ is not str:
            if text is None or text is sdk.MISSING:
                return
            if type(text) is dict or type(text) is list:
                raise sdk.EventError(f"The value of {key} is no text", cause="type")
            text = java_text(text)
        fields = dissect(text)
        if fields is None:
            missed()
            return
        values: dict[str, Any] = fields
        if types:
            values = {name: converted(value, types.get(name)) for name, value in fields.items()}
        if plain_names.issuperset(values) and (not delete or key.top is not None):
            body.update(values)
            if delete:
                key.delete(body)
        else:
            _put_all(body, values, plain_names, key if delete else None)

    return change


def _is_plain(name: str) -> bool:
    """Whether the name is the key of a value at the top of the event."""
    try:
        return event_key(name).parts == (name,) and not name.isdecimal()
    except sdk.EventError:
        return False


def _put_all(body: sdk.Body, values: dict[str, Any], plain_names: set[str], deleted: Key | None) -> None:
    """Put values under their names, which are event keys, and delete a key, all or nothing; remembers plain names."""
    keys = {name: event_key(name) for name in values}
    found = {name for name in values if _is_plain(name)}
    if len(plain_names) < PLAIN_NAMES_MAX:
        plain_names |= found
    if len(found) == len(values) and deleted is None:
        body.update(values)
        return
    trial = sdk.copy_value(body)
    for name, value in values.items():
        keys[name].put(trial, value)
    if deleted is not None:
        deleted.delete(trial)
    body.clear()
    body.update(trial)


EXAMPLES = [
    sdk.Example(
        "A line of a log",
        config="""
            map: {message: "%{date} %{level->} [%{?thread}] %{text}"}
        """,
        before=[{"message": "2024-01-15 WARN   [main] disk is full"}, {"message": "?"}],
        after=[
            {
                "message": "2024-01-15 WARN   [main] disk is full",
                "date": "2024-01-15",
                "level": "WARN",
                "text": "disk is full",
            },
            {"message": "?"},
        ],
    ),
    sdk.Example(
        "Joined fields, a name out of the text, types",
        config="""
            map: {message: "%{+at/2} %{+at/1} %{?key}=%{&key}"}
            target_types: {size: integer}
            delete_source: true
        """,
        before=[{"message": "10:00 2024-01-15T size=7"}],
        after=[{"at": "2024-01-15T10:00", "size": 7}],
    ),
]
