"""Turns an object into a list of its keys and values. An event without such an object stays as it was."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from penstock import sdk
from penstock.lib.inline import COPIED_ITEM, COPYING


class Config(sdk.PluginConfig):
    source: sdk.ReadKey
    """Key of the object; an empty text is the whole event."""
    target: sdk.Key
    """Key that receives the list."""
    key_name: str = "key"
    """Name that each key has in its element."""
    value_name: str = "value"
    """Name that each value has in its element."""
    remove_processed_fields: bool = False
    """Remove the keys from the source."""
    convert_field_to_list: bool = False
    """Make the elements lists of key and value."""
    exclude_keys: Annotated[list[str], Field(default_factory=list)]
    """Keys of the object that are left out; they are not removed either."""
    tags_on_failure: list[str] | None = None
    """Tags for events without such an object, or whose target cannot be written."""
    map_to_list_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    turn, source, target = _turning(config), config.source.top, config.target.top
    change: sdk.EventFn | sdk.Inline = turn
    if source is not None and target is not None and not config.remove_processed_fields and not config.exclude_keys:
        turn_quickly = _TURN.format(element=_PAIR if config.convert_field_to_list else _OBJECT)
        names = {"source": source, "target": target, "key": config.key_name, "value": config.value_name}
        change = sdk.Inline(turn_quickly, turn=turn, **names, **COPYING)
    return ctx.each(change, when=config.map_to_list_when, tags=config.tags_on_failure or ())


_TURN = """
members = body.get(source)
if type(members) is dict:
    body[target] = [{element} for name, item in members.items()]
else:
    turn(body)
"""
_PAIR = f"[name, {COPIED_ITEM}]"
_OBJECT = f"{{key: name, value: {COPIED_ITEM}}}"


def _turning(config: Config) -> sdk.EventFn:
    get, put, source = config.source.get, config.target.put, config.source
    excluded, remove, element_of = frozenset(config.exclude_keys), config.remove_processed_fields, _element(config)

    def turn(body: sdk.Body) -> None:
        members = get(body)
        if type(members) is not dict:
            raise sdk.EventError(f"There is no object under {source}", cause="type")
        if not remove:
            put(
                body,
                [element_of(name, sdk.copy_value(item)) for name, item in members.items() if name not in excluded],
            )
            return
        before = dict(members)
        members.clear()
        members.update({name: item for name, item in before.items() if name in excluded})
        try:
            put(body, [element_of(name, item) for name, item in before.items() if name not in excluded])
        except sdk.EventError:
            members.clear()
            members.update(before)  # a failed event stays as it was
            raise

    return turn


def _element(config: Config) -> Callable[[str, Any], Any]:
    if config.convert_field_to_list:
        return lambda name, value: [name, value]
    key_name, value_name = config.key_name, config.value_name
    return lambda name, value: {key_name: name, value_name: value}


EXAMPLES = [
    sdk.Example(
        "Keys become values",
        config="{source: labels, target: labels, exclude_keys: [internal]}",
        before=[{"labels": {"env": "prod", "internal": 1}}, {"labels": "none"}],
        after=[{"labels": [{"key": "env", "value": "prod"}]}, {"labels": "none"}],
    ),
    sdk.Example(
        "Pairs of the whole event",
        config='{source: "", target: pairs, convert_field_to_list: true, remove_processed_fields: true}',
        before=[{"a": 1, "b": [2]}],
        after=[{"pairs": [["a", 1], ["b", [2]]]}],
    ),
]
