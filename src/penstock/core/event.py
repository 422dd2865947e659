"""What can be done with an event beside reading and writing one key: lists, JSON documents, metadata, merging.

Everything works on a plain body and its `Meta`. Source: `event-model` in docs/behaviour.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.core import json_text
from penstock.core.batch import Body, Meta, copy_value
from penstock.core.errors import EventError
from penstock.core.key import MISSING, Key, valid_key

FAILURE_METADATA_KEY = "_failure_metadata"
MESSAGE_KEY = "message"
MESSAGE_EVENT_TYPE = "event"

_REPLACED = re.compile(r"[^A-Za-z0-9._~@/\[\]()\-]")


def new_event(data: Any, event_type: str, *, received_ms: int = 0) -> tuple[Body, Meta]:
    """An event of a mapping, or of the JSON text of an object; None gives an empty one. Raises EventError."""
    if event_type is None:
        raise EventError("eventType cannot be null", cause="event_type")
    if not event_type:
        raise EventError("eventType cannot be empty", cause="event_type")
    if data is None:
        data = {}
    if isinstance(data, str | bytes):
        try:
            data = json_text.decode(data)
        except ValueError as error:
            raise EventError(f"Unable to convert data into an event: {error}", cause="json") from error
    if not isinstance(data, dict):
        raise EventError("Unable to convert data into an event: it is no object", cause="json")
    return data, Meta(event_type, received_ms)


def from_message(message: str, *, received_ms: int = 0) -> tuple[Body, Meta]:
    """The event that stands for one line of text."""
    return {MESSAGE_KEY: message}, Meta(MESSAGE_EVENT_TYPE, received_ms)


def get_list(body: Body, key: Key) -> list[Any] | None:
    """The list under `key`, None when there is none. Raises EventError for a value that is no list."""
    value = key.get(body)
    if value is MISSING or value is None:
        return None
    if type(value) is not list:
        raise EventError(f"Unable to map {key.text} to List", cause="type")
    return value


def is_value_a_list(body: Body, key: Key) -> bool:
    """Whether there is a list under `key`."""
    return type(key.get(body)) is list


def as_json_string(body: Body, key: Key) -> str | None:
    """The JSON text of the value under `key`, None when there is no value."""
    value = key.get(body)
    return None if value is MISSING else json_text.encode(value).decode()


def merge(body: Body, other: Body, keys: Sequence[Key] | None = None) -> None:
    """Put what `other` holds over `body`: all top-level keys, or only `keys`. The two share nothing afterwards."""
    if not isinstance(other, dict):
        raise EventError("Unable to merge the Event. The input Event must be a JacksonEvent with object data.")
    if not isinstance(body, dict):
        raise EventError("Unable to merge the Event. The current Event must have object data.")
    if keys is None:
        body.update(copy_value(other))
        return
    if not keys:
        raise EventError("Keys list must not be null or empty for selective merge.")
    for key in keys:
        value = key.get(other)
        if value is not MISSING:
            key.put(body, copy_value(value))


def clear(body: Body) -> None:
    """Remove every top-level key."""
    body.clear()


def put_replacing(body: Body, key_text: str, value: Any) -> None:
    """Put under a key whose invalid characters, and those of the keys inside `value`, become `_`."""
    try:
        key = Key.parse(replace_invalid_characters(key_text) or "", "put")
    except ValueError as error:
        raise EventError(str(error), cause="key") from error
    key.put(body, replace_invalid_characters_in(value))


def replace_invalid_characters(key_text: str | None) -> str | None:
    """The key with `_` for what an event key cannot hold. A key that is valid already, or None, stays as it is."""
    return key_text if key_text is None or valid_key(key_text) else _REPLACED.sub("_", key_text)


def replace_invalid_characters_in(value: Any) -> Any:
    """`value` with valid keys in all objects inside objects. Lists are left alone."""
    if type(value) is not dict:
        return value
    return {replace_invalid_characters(name): replace_invalid_characters_in(item) for name, item in value.items()}


def add_failure_metadata(body: Body, entries: Mapping[str, Any]) -> None:
    """Say in the event why it failed: `pluginId`, `pluginName`, `pipelineName`, `errorMessage` and free keys."""
    known = body.get(FAILURE_METADATA_KEY)
    body[FAILURE_METADATA_KEY] = {**known, **entries} if type(known) is dict else dict(entries)


def get_attribute(meta: Meta, name: str) -> Any:
    """A metadata attribute, None when absent. `a/b` looks into a nested map; one leading slash is ignored."""
    attributes = meta.attributes
    name = name.removeprefix("/")
    if "/" not in name:
        return attributes.get(name)
    node: Any = attributes
    for part in name.rstrip("/").split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return attributes.get(name) if node is None else node


def set_attribute(meta: Meta, name: str, value: Any) -> None:
    """Set a metadata attribute; slashes in the name have no meaning here."""
    meta.attributes[name] = value


def has_tags(meta: Meta, tags: Iterable[str]) -> bool:
    """Whether every one of `tags` is on the event; true for none."""
    return meta.tags.issuperset(tags)


def lift_attributes(body: Body) -> Body:
    """The body as classic spans and OTLP logs are written: members of `attributes` at the top, existing keys win."""
    attributes = body.get("attributes")
    if type(attributes) is not dict:
        return body
    lifted = {name: value for name, value in body.items() if name != "attributes"}
    for name, value in attributes.items():
        lifted.setdefault(name, value)
    return lifted


Document = Callable[[Body, Meta], Any]
"""What is to be written of an event. It may share values with the body; it is for encoding only."""


def compile_document(
    *,
    root_key: str | None = None,
    include_keys: Iterable[str] | None = None,
    exclude_keys: Iterable[str] | None = None,
    tags_target_key: str | None = None,
) -> Document:
    """Make the function that picks what a sink writes of an event.

    The root key counts only where the event has it. Paths of filters are relative to the root; a filter that names a
    parent keeps or drops all below it, a longer one looks into the object or into each element of an array. Including
    wins over excluding.
    """
    root = Key.parse(root_key, "get") if root_key else None
    included, excluded = _tree(include_keys or ()), _tree(exclude_keys or ())

    def document(body: Body, meta: Meta) -> Any:
        value: Any = body
        if root is not None:
            value = root.get(body)
            if value is MISSING:
                value = body
        if included:
            value = _included(value, included)
        elif excluded:
            value = _excluded(value, excluded)
        if tags_target_key and type(value) is dict:
            value = {**value, tags_target_key: sorted(meta.tags)}
        return value

    return document


def to_json(
    body: Body,
    meta: Meta,
    *,
    root_key: str | None = None,
    include_keys: Iterable[str] | None = None,
    exclude_keys: Iterable[str] | None = None,
    tags_target_key: str | None = None,
) -> bytes:
    """The JSON text of the event, or of the part of it that the options pick. Raises EventError."""
    document = compile_document(
        root_key=root_key, include_keys=include_keys, exclude_keys=exclude_keys, tags_target_key=tags_target_key
    )
    return json_text.encode(document(body, meta))


class _Tree(dict[str, "_Tree"]):
    """Filter paths by segment; an empty tree below a name stands for everything under it."""


def _tree(paths: Iterable[str]) -> _Tree:
    root = _Tree()
    # Short paths first, so that a parent swallows the filters below it.
    for path in sorted((path.strip("/").split("/") for path in paths if path.strip("/")), key=len):
        node = root
        for depth, part in enumerate(path):
            known = node.get(part)
            if known is None:
                node[part] = node = _Tree()
            elif not known or depth == len(path) - 1:
                break
            else:
                node = known
    return root


def _included(value: Any, tree: _Tree) -> Any:
    if type(value) is list:
        return [_included(item, tree) for item in value]
    if type(value) is not dict:
        return {}
    picked = {}
    for name, item in value.items():
        below = tree.get(name)
        if below is not None:
            if not below:
                picked[name] = item
            elif type(item) is dict or type(item) is list:
                picked[name] = _included(item, below)
    return picked


def _excluded(value: Any, tree: _Tree) -> Any:
    if type(value) is list:
        return [_excluded(item, tree) for item in value]
    if type(value) is not dict:
        return value
    left = {}
    for name, item in value.items():
        below = tree.get(name)
        if below is None:
            left[name] = item
        elif below:
            left[name] = _excluded(item, below)
    return left
