"""Turns nested objects into one with dotted names: `{"a": {"b": [1]}}` into `{"a.b[0]": 1}`.

Empty objects and lists stay values. A single value instead of an object gets the name `root`. At the top of the event
names are written as they are, whatever characters they hold. An event that fails stays as it was.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from penstock import sdk
from penstock.lib.event_keys import Key

NAME_CHARACTERS_MAX = 32_000_000
"""Characters of all names made of one event: each one repeats the names above it."""


LEVELS_SMALL_MAX = 16
"""Levels that are flattened by calls; more of them need a stack of their own."""


class Config(sdk.PluginConfig):
    source: sdk.ReadKey
    """Key of the object to flatten; an empty text is the whole event."""
    target: sdk.ReadKey
    """Key that receives the result; with an empty text it goes to the top of the event."""
    remove_processed_fields: Annotated[
        bool, Field(validation_alias=AliasChoices("remove_source_keys", "remove_processed_fields"))
    ] = False
    """Remove what was flattened from the source."""
    remove_list_indices: Annotated[
        bool, Field(validation_alias=AliasChoices("remove_list_elements", "remove_list_indices"))
    ] = False
    """Write `[]` in place of each index; the values of one name become a list."""
    remove_brackets: bool = False
    """With `remove_list_indices`: leave out the `[]` too."""
    exclude_keys: list[sdk.Key] = Field(default_factory=list)
    """Keys inside the source that stay as they are."""
    tags_on_failure: list[str] | None = None
    """Tags for events without a source, or whose target cannot be written."""
    flatten_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    flatten_separator: str = "."
    """Character between the names."""

    @field_validator("flatten_separator", mode="before")
    @classmethod
    def _one_character(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("flatten_separator must not be null.")
        if isinstance(value, str) and len(value) != 1:
            raise ValueError("flatten_separator must be exactly one character.")
        return value

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.remove_brackets and not self.remove_list_indices:
            raise ValueError("remove_brackets can not be true if remove_list_indices is false.")
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    flatten = _flattening(config)
    change: sdk.EventFn | sdk.Inline = flatten
    if config.exclude_keys:
        base = config.source.name
        change = _with_exceptions(flatten, [Key(f"{base}/{key.name.removeprefix('/')}") for key in config.exclude_keys])
    elif config.source.top is not None and config.target.top is not None and not config.remove_processed_fields:
        change = sdk.Inline(
            _FLATTEN,
            source=config.source.top,
            target=config.target.top,
            containers=frozenset((dict, list)),
            flattened=_flattener(config),
            flatten=flatten,
        )
    return ctx.each(change, when=config.flatten_when, tags=config.tags_on_failure or ())


_FLATTEN = """
value = body.get(source)
if type(value) is not dict:
    flatten(body)
elif containers.isdisjoint(map(type, value.values())):
    body[target] = value.copy()
else:
    body[target] = flattened(value)
"""


def _flattening(config: Config) -> sdk.EventFn:
    get, put, at_top = config.source.get, config.target.put, not config.target.parts
    remove, source, flattened = config.remove_processed_fields, config.source, _flattener(config)

    def flatten(body: sdk.Body) -> None:
        value = get(body)
        if value is sdk.MISSING:
            raise sdk.EventError(f"There is nothing to flatten under {source}", cause="missing")
        if remove and type(value) is not dict:
            raise sdk.EventError(f"The value of {source} is no object", cause="type")
        flat = flattened(value)
        removed: sdk.Body = {}
        if remove:
            removed = dict(value)
            value.clear()
        if at_top:
            body.update(flat)
            return
        try:
            put(body, flat)
        except sdk.EventError:
            if remove:
                value.update(removed)  # a failed event stays as it was
            raise

    return flatten


def _with_exceptions(change: sdk.EventFn, keys: list[Key]) -> sdk.EventFn:
    """The change of an event from which some values are taken away meanwhile."""

    def change_others(body: sdk.Body) -> None:
        work = sdk.copy_value(body)  # what is taken out or put back can fail half-way
        taken = [(key, key.take(work)) for key in keys]
        change(work)
        for key, value in taken:
            if value is not sdk.MISSING:
                key.put(work, value)
        body.clear()
        body.update(work)

    return change_others


def _add(flat: dict[str, Any], name: str, item: Any) -> None:
    """One more value of a name."""
    known = flat[name]
    if type(known) is list:
        known.append(item)
    else:
        flat[name] = [known, item]


def _flatten_small(flat: dict[str, Any], above: str, value: Any, separator: str, levels: int, characters: int) -> int:
    """Add the members of an object or a list to `flat`: how many characters are left then for names of others.

    Fewer than none are left where names would repeat too much, or where there are more levels than `levels`.
    """
    characters -= len(above) * len(value)
    if characters < 0 or not levels:
        return -1
    items = value.items() if type(value) is dict else ((f"[{index}]", item) for index, item in enumerate(value))
    for name, item in items:
        kind = type(item)
        if (kind is dict or kind is list) and item:
            below = f"{above}{name}{separator}" if kind is dict and (above or name) else f"{above}{name}"
            characters = _flatten_small(flat, below, item, separator, levels - 1, characters)
            if characters < 0:
                return -1
        else:
            flat[f"{above}{name}"] = kind() if kind is dict or kind is list else item
    return characters


def _flattener(config: Config) -> Callable[[Any], dict[str, Any]]:
    flattened, separator = _deep_flattener(config), config.flatten_separator
    if config.remove_list_indices:
        return flattened

    def flattened_small(value: Any) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        if type(value) is not dict:
            return flattened(value)
        left = _flatten_small(flat, "", value, separator, LEVELS_SMALL_MAX, NAME_CHARACTERS_MAX)
        return flat if left >= 0 else flattened(value)

    return flattened_small


def _deep_flattener(config: Config) -> Callable[[Any], dict[str, Any]]:
    """The walk keeps its own stack: objects may be nested deeper than calls."""
    separator, merge = config.flatten_separator, config.remove_list_indices
    place = "" if config.remove_brackets else "[]" if merge else None

    def steps(value: Any) -> Iterator[tuple[str, Any]]:
        if type(value) is dict:
            return iter(value.items())
        if place is None:
            return ((f"[{index}]", item) for index, item in enumerate(value))
        return ((place, item) for item in value)

    def flattened(value: Any) -> dict[str, Any]:
        if type(value) is not dict and (type(value) is not list or not value):
            return {"root": sdk.copy_value(value)}
        flat: dict[str, Any] = {}
        characters = 0
        pending = [("", separator if type(value) is dict else "", steps(value))]
        while pending:
            above, between, items = pending[-1]
            for name, item in items:
                name = f"{above}{between}{name}" if above else name
                characters += len(name)
                if characters > NAME_CHARACTERS_MAX:
                    raise sdk.EventError("The flattened names are too long together", cause="size")
                kind = type(item)
                if kind is dict or kind is list:
                    if item:
                        pending.append((name, separator if kind is dict else "", steps(item)))
                        break
                    item = kind()
                if merge and name in flat:
                    _add(flat, name, item)
                else:
                    flat[name] = item
            else:
                pending.pop()
        return flat

    return flattened


EXAMPLES = [
    sdk.Example(
        "Replace a nested object by its flat form",
        config='{source: http, target: "", remove_source_keys: true}',
        before=[{"http": {"status": 200, "request": {"method": "GET"}}}],
        after=[{"http": {}, "status": 200, "request.method": "GET"}],
    ),
    sdk.Example(
        "Lists",
        config="{source: order, target: flat}",
        before=[{"order": {"items": [{"id": 1}, {"id": 2}]}}],
        after=[{"order": {"items": [{"id": 1}, {"id": 2}]}, "flat": {"items[0].id": 1, "items[1].id": 2}}],
    ),
    sdk.Example(
        "Lists without indices, an exception and a missing source",
        config="""
            source: order
            target: flat
            remove_source_keys: true
            remove_list_elements: true
            remove_brackets: true
            exclude_keys: [id]
            tags_on_failure: [not_flat]
        """,
        before=[{"order": {"id": 7, "items": [{"id": 1}, {"id": 2}]}}, {"a": 1}],
        after=[{"order": {"id": 7}, "flat": {"items.id": [1, 2]}}, {"a": 1}],
        tags=[[], ["not_flat"]],
    ),
]
