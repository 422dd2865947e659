"""Turns a list of objects into one object, with a value of each as its key.

Without a target the members go to the top of the event, each under its name as an event key. An event whose list
cannot be turned stays as it was.
"""

from collections.abc import Callable
from typing import Any, Literal

from penstock import sdk
from penstock.lib.event_keys import compile_spread
from penstock.lib.inline import COPIED_ITEM, COPIED_OBJECT, COPYING

COPIED_BYTES_MAX = 64 * 1024 * 1024
"""JSON bytes that the copies of objects may come to, where each is kept once for each of its own keys."""


class Config(sdk.PluginConfig):
    source: sdk.Key
    """Key of the list of objects."""
    target: sdk.Key | None = None
    """Key that receives the object; its members go to the top of the event when left out."""
    use_source_key: bool = False
    """Take all keys of the objects as keys, instead of the value of `key`."""
    key: str | None = None
    """Name of the value that becomes the key. Needed unless `use_source_key` is set."""
    value_key: str | None = None
    """Name of the value that is kept for the key; the whole object when left out."""
    extract_value: bool = False
    """With `use_source_key`: keep the value of that key instead of the whole object."""
    flatten: bool = False
    """Keep one value for a key instead of a list of all."""
    flattened_element: Literal["first", "last"] = "first"
    """With `flatten`: which one."""
    tags_on_failure: list[str] | None = None
    """Tags for events without such a list, or with an element that has no such key."""
    list_to_map_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    if config.key is None and not config.use_source_key:
        ctx.log.warning("list_to_map needs key or use_source_key; without them every event fails")
    get, source, turned = config.source.get, config.source, _turning(config)
    put = compile_spread(overwrite=True, normalize=False) if config.target is None else config.target.put

    def turn(body: sdk.Body) -> None:
        elements = get(body)
        if type(elements) is not list:
            raise sdk.EventError(f"There is no list under {source}", cause="type")
        if any(type(element) is not dict for element in elements):
            raise sdk.EventError(f"The list under {source} has elements that are no objects", cause="type")
        put(body, turned(elements))

    change: sdk.EventFn | sdk.Inline = turn
    if source.top is not None and not config.use_source_key and (config.target is None or config.target.top):
        change = sdk.Inline(
            _inline_turning(config),
            source=source.top,
            target=config.target and config.target.top,
            put=put,
            turn=turn,
            key=config.key,
            value_key=config.value_key,
            **COPYING,
        )
    return ctx.each(change, when=config.list_to_map_when, tags=config.tags_on_failure or ())


_TURN = """
elements = body.get(source)
if type(elements) is list:
    members = {{}}
    for item in elements:
        if type(item) is not dict or type(name := item.get(key)) is not str:
            break
        {keep}
    else:
        {put}
        continue
turn(body)
"""


def _inline_turning(config: Config) -> str:
    """Statements for lists of objects that have a text under `key`. The others are left to `turn`, which fails."""
    item, copied = "", COPIED_OBJECT
    if config.value_key is not None:
        item, copied = "item = item.get(value_key); ", COPIED_ITEM
    if not config.flatten:
        keep = f"{item}members.setdefault(name, []).append({copied})"
    elif config.flattened_element == "last":
        keep = f"{item}members[name] = {copied}"
    else:
        keep = f"if name not in members: {item}members[name] = {copied}"
    return _TURN.format(keep=keep, put="put(body, members)" if config.target is None else "body[target] = members")


def _turning(config: Config) -> Callable[[list[sdk.Body]], sdk.Body]:
    """A function from the elements to the object. What it gives shares nothing with them."""
    pairs_of = _source_pairs(extract=config.extract_value) if config.use_source_key else _pairs(config)
    flatten, last = config.flatten, config.flattened_element == "last"

    def turned(elements: list[sdk.Body]) -> sdk.Body:
        result: sdk.Body = {}
        for name, value in pairs_of(elements):
            if not flatten:
                result.setdefault(name, []).append(sdk.copy_value(value))
            elif last or name not in result:
                result[name] = sdk.copy_value(value)
        return result

    return turned


def _pairs(config: Config) -> Callable[[list[sdk.Body]], list[tuple[str, Any]]]:
    key, value_key = config.key, config.value_key

    def pairs(elements: list[sdk.Body]) -> list[tuple[str, Any]]:
        found = []
        for element in elements:
            name = None if key is None else element.get(key)
            if type(name) is not str:
                raise sdk.EventError(f"An element has no text under {key}", cause="missing")
            found.append((name, element if value_key is None else element.get(value_key)))
        return found

    return pairs


def _source_pairs(*, extract: bool) -> Callable[[list[sdk.Body]], list[tuple[str, Any]]]:
    def pairs(elements: list[sdk.Body]) -> list[tuple[str, Any]]:
        if extract:
            return [pair for element in elements for pair in element.items()]
        copied = 0
        for element in elements:
            copied += len(element) * len(sdk.encode(element)) if len(element) > 1 else 0
            if copied > COPIED_BYTES_MAX:
                raise sdk.EventError("The copies of the objects would be too large", cause="size")
        return [(name, element) for element in elements for name in element]

    return pairs


EXAMPLES = [
    sdk.Example(
        "Keys and values",
        config="{source: tags, target: tag, key: name, value_key: value, flatten: true}",
        before=[{"tags": [{"name": "env", "value": "prod"}, {"name": "team", "value": "web"}]}],
        after=[
            {
                "tags": [{"name": "env", "value": "prod"}, {"name": "team", "value": "web"}],
                "tag": {"env": "prod", "team": "web"},
            }
        ],
    ),
    sdk.Example(
        "All objects of a key, and an element without it",
        config="{source: list, key: kind, tags_on_failure: [no_map]}",
        before=[{"list": [{"kind": "a", "n": 1}, {"kind": "a", "n": 2}]}, {"list": [{"n": 3}]}],
        after=[
            {
                "list": [{"kind": "a", "n": 1}, {"kind": "a", "n": 2}],
                "a": [{"kind": "a", "n": 1}, {"kind": "a", "n": 2}],
            },
            {"list": [{"n": 3}]},
        ],
        tags=[[], ["no_map"]],
    ),
]
