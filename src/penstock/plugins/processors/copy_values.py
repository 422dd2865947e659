"""Copies values to other keys, or the values of a list of objects into a new list."""

from collections.abc import Callable
from typing import Any, Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.event_keys import Key
from penstock.lib.inline import COPIED_ITEM, COPYING


class Entry(sdk.PluginConfig):
    from_key: sdk.ReadKey
    """Key of the value to copy. Events without it are left alone."""
    to_key: sdk.Key
    """Key that receives the copy. Missing parent objects are created."""
    overwrite_if_to_key_exists: bool = False
    """Replace a value already at `to_key`; otherwise that event is left alone."""
    copy_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""


class Config(sdk.PluginConfig):
    entries: sdk.NonEmpty[list[Entry]]
    """Copies, in order: each one sees the result of the one before it."""
    from_list: sdk.ReadKey | None = None
    """List of objects to copy from: the keys of the entries are those of its elements."""
    to_list: sdk.Key | None = None
    """Key that receives the new list, one object for each element of `from_list`."""
    overwrite_if_to_list_exists: bool = False
    """Replace a value already at `to_list`; otherwise that event is left alone."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.from_list is None) != (self.to_list is None):
            raise ValueError("Both from_list and to_list should be specified when copying entries between lists.")
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    if config.from_list is not None and config.to_list is not None:
        return ctx.each_event(_between_lists(config, config.from_list, config.to_list))
    return ctx.chain(ctx.each(_copy(entry), when=entry.copy_when) for entry in config.entries)


def _copy(entry: Entry) -> sdk.EventFn | sdk.Inline:
    source, target = entry.from_key.top, entry.to_key.top
    if entry.from_key == entry.to_key:
        return lambda body: None
    if source is not None and target is not None:
        may = "source in body" if entry.overwrite_if_to_key_exists else "source in body and target not in body"
        return sdk.Inline(f"if {may}:\n{_COPY}", source=source, target=target, **COPYING)
    get, put, taken = entry.from_key.get, entry.to_key.put, entry.to_key.exists
    overwrite = entry.overwrite_if_to_key_exists

    def copy(body: sdk.Body) -> None:
        if overwrite or not taken(body):
            value = get(body)
            if value is not sdk.MISSING:  # None is a value like any other
                put(body, sdk.copy_value(value))

    return copy


_COPY = f"    item = body[source]\n    body[target] = {COPIED_ITEM}"


def _between_lists(config: Config, from_list: Key, to_list: Key) -> Callable[[sdk.Body, sdk.Meta], None]:
    def copy(body: sdk.Body, meta: sdk.Meta) -> None:
        if not config.overwrite_if_to_list_exists and to_list.exists(body):
            return
        elements = from_list.get(body)
        if elements is sdk.MISSING or elements is None:
            return
        if type(elements) is not list or any(type(element) is not dict for element in elements):
            raise sdk.EventError(f"{from_list} is no list of objects", cause="type")
        entries = [entry for entry in config.entries if entry.copy_when is None or entry.copy_when.test(body, meta)]
        to_list.put(body, [_copied(element, entries) for element in elements])

    return copy


def _copied(element: sdk.Body, entries: list[Entry]) -> sdk.Body:
    result: dict[str, Any] = {}
    for entry in entries:
        value = entry.from_key.get(element)
        if value is not sdk.MISSING and (entry.overwrite_if_to_key_exists or not entry.to_key.exists(result)):
            entry.to_key.put(result, sdk.copy_value(value))
    return result


EXAMPLES = [
    sdk.Example(
        "Keep a copy of a value",
        config="entries: [{from_key: http/status, to_key: status}]",
        before=[{"http": {"status": 200}}, {"status": 404}],
        after=[{"http": {"status": 200}, "status": 200}, {"status": 404}],
    ),
    sdk.Example(
        "A shorter list",
        config="""
            from_list: fruits
            to_list: names
            entries: [{from_key: name, to_key: fruit}]
        """,
        before=[{"fruits": [{"name": "apple", "color": "red"}, {"name": "plum"}]}],
        after=[
            {
                "fruits": [{"name": "apple", "color": "red"}, {"name": "plum"}],
                "names": [{"fruit": "apple"}, {"fruit": "plum"}],
            }
        ],
    ),
]
