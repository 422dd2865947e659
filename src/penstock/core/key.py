"""Event keys: `a`, `/a/b`, `list/0/name`. A key is parsed once and carries closures made for its depth.

`a/b`, `/a/b` and `/a/b/` are the same key. `~1` stands for a slash inside a name and `~0` for a tilde. Numeric
segments index arrays. Source: `event-model` in docs/behaviour.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from penstock.core.batch import Body
from penstock.core.errors import EventError

KEY_CHARACTERS_MAX = 2048
KEYS_CACHED_MAX = 512

_ALLOWED = re.compile(r"[A-Za-z0-9.\-_~@/\[\]()$ ]*")
_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_ACTIONS = frozenset(("get", "put", "delete", "all"))


class Missing:
    """The class of `MISSING`, which tells an absent key from one that holds null."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"

    def __copy__(self) -> Missing:
        return self

    def __deepcopy__(self, memo: object) -> Missing:
        return self

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""There is nothing under this key, not even null."""


class Key:
    """A path into a body. Two keys are equal when they lead to the same place."""

    __slots__ = ("delete", "exists", "get", "name", "parts", "put", "take", "text", "top")

    get: Callable[[Body], Any]
    """The value, or `MISSING`. Never raises."""
    put: Callable[[Body, Any], None]
    """Writes a value and creates missing parent objects. Raises `EventError`, and then the body is as it was."""
    take: Callable[[Body], Any]
    """Removes and returns the value, or returns `MISSING`. Raises `EventError` for an element of an array."""
    delete: Callable[[Body], None]
    """Removes the value if there is one. Raises `EventError` when the parent exists and is no object."""
    exists: Callable[[Body], bool]
    """Whether there is something under the key; null counts."""

    def __init__(self, text: str) -> None:
        self.text = text
        """The key as it was written."""
        self.name = text[:-1] if len(text) > 1 and text.endswith("/") else text
        """The key without a trailing slash."""
        self.parts = _split(self.name)
        """The unescaped names from the root to the value; none for the root itself."""
        self.top = self.parts[0] if len(self.parts) == 1 and not _DIGITS.fullmatch(self.parts[0]) else None
        """The name at the top of the event, where `get`, `put`, `take` and `exists` are those of the body itself."""
        self.get = _getter(self.parts)
        self.put = _putter(self.parts, self.name)
        self.take = _taker(self.parts, self.name)
        self.delete = _deleter(self.parts, self.name)
        self.exists = _finder(self.parts, self.get)

    @classmethod
    def parse(cls, text: str, action: str = "all") -> Key:
        """The key written as `text`, for the use named by `action`: `get`, `put`, `delete` or `all`.

        Raises ValueError for a key that cannot be used so.
        """
        assert action in _ACTIONS, f"unknown action {action!r}"
        if text is None:
            raise ValueError("Parameter key cannot be null for EventKey.")
        if not isinstance(text, str):
            raise ValueError(f"an event key is a text, not {text!r}")
        return _parse(text, action)

    def __eq__(self, other: object) -> bool:
        return self.parts == other.parts if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return f"Key({self.text!r})"

    def __str__(self) -> str:
        return self.text

    def __copy__(self) -> Key:
        return self

    def __deepcopy__(self, memo: object) -> Key:
        return self

    def __reduce__(self) -> tuple[type[Key], tuple[str]]:
        return Key, (self.text,)


def valid_key(text: str | None) -> bool:
    """Whether `text` can be read as an event key."""
    if text is None:
        return False
    try:
        Key.parse(text, "get")
    except ValueError:
        return False
    return True


@lru_cache(maxsize=KEYS_CACHED_MAX)
def _parse(text: str, action: str) -> Key:
    if not text and action != "get":
        raise ValueError(f"Event key cannot be an empty string for {action.upper()} actions.")
    if action != "delete":
        if len(text) > KEY_CHARACTERS_MAX:
            raise ValueError(f"key cannot be longer than {KEY_CHARACTERS_MAX} characters")
        if not _ALLOWED.fullmatch(text):
            raise ValueError(
                f"key {text} must contain only alphanumeric chars with .-_@/ and must follow JsonPointer "
                "(ie. 'field/to/key')."
            )
    return Key(text)


def _split(name: str) -> tuple[str, ...]:
    if not name:
        return ()
    *parents, last = name.removeprefix("/").split("/")
    return tuple(_unescape(part) for part in (*filter(None, parents), last))


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~") if "~" in part else part


def _array_index(part: str) -> int | None:
    return int(part) if _ARRAY_INDEX.fullmatch(part) else None


def _step(node: Any, part: str, index: int | None) -> Any:
    if type(node) is dict:
        return node.get(part, MISSING)
    if type(node) is list and index is not None and index < len(node):
        return node[index]
    return MISSING


def _getter(parts: tuple[str, ...]) -> Callable[[Body], Any]:
    if not parts:
        return lambda body: body
    first = parts[0]
    if len(parts) == 1:

        def get_top(body: Body) -> Any:
            return body.get(first, MISSING)

        return get_top

    if len(parts) == 2:
        second, second_index = parts[1], _array_index(parts[1])

        def get_second(body: Body) -> Any:
            inner = body.get(first)
            if type(inner) is dict:
                return inner.get(second, MISSING)
            return _step(inner, second, second_index)

        return get_second

    rest = [(part, _array_index(part)) for part in parts[1:]]

    def get_deep(body: Body) -> Any:
        node = body.get(first)
        for part, index in rest:
            node = node.get(part, MISSING) if type(node) is dict else _step(node, part, index)
        return node

    return get_deep


def _finder(parts: tuple[str, ...], get: Callable[[Body], Any]) -> Callable[[Body], bool]:
    if len(parts) == 1:
        name = parts[0]
        return lambda body: name in body
    return lambda body: get(body) is not MISSING


def _putter(parts: tuple[str, ...], name: str) -> Callable[[Body, Any], None]:
    if not parts:
        return _refuse_put
    last = parts[-1]
    put_deep = _deep_putter(parts, name)
    if _DIGITS.fullmatch(last) or len(parts) > 2:
        return put_deep
    if len(parts) == 1:

        def put_top(body: Body, value: Any) -> None:
            body[last] = value

        return put_top

    first = parts[0]

    def put_second(body: Body, value: Any) -> None:
        inner = body.get(first)
        if type(inner) is dict:
            inner[last] = value
        else:
            put_deep(body, value)

    return put_second


def _refuse_put(body: Body, value: Any) -> None:
    raise EventError("key cannot be an empty string for put method", cause="key")


def _deep_putter(parts: tuple[str, ...], name: str) -> Callable[[Body, Any], None]:
    *parents, last = parts
    numeric = _DIGITS.fullmatch(last) is not None

    def put_deep(body: Body, value: Any) -> None:
        node: Any = body
        for depth, part in enumerate(parents):
            if type(node) is dict:
                child = node.get(part, MISSING)
                if child is MISSING:
                    node[part] = _nest(parts[depth + 1 :], value, numeric, name)
                    return
                node = child
            elif type(node) is list:
                index = _element(part, name)
                if index > len(node):
                    raise EventError(
                        f"Cannot expand array past the limit of size {len(node)} to reach index {index}", cause="key"
                    )
                if index == len(node):
                    node.append(_nest(parts[depth + 1 :], value, numeric, name))
                    return
                node = node[index]
            else:
                raise EventError(f"Unable to put {name}: {part} is below a value that is no object", cause="key")
        _put_last(node, last, value, numeric, name)

    return put_deep


def _put_last(node: Any, last: str, value: Any, numeric: bool, name: str) -> None:
    if not numeric:
        if type(node) is not dict:
            raise EventError(f"Unable to put {name}: its parent is no object", cause="key")
        node[last] = value
        return
    if type(node) is not list:
        raise EventError(f"Unable to put {name}: it ends in an index and its parent is no array", cause="key")
    index = _element(last, name)
    if index >= len(node):
        raise EventError(f"Unable to put {name}: the array has only {len(node)} elements", cause="key")
    node[index] = value


def _nest(parts: tuple[str, ...], value: Any, numeric: bool, name: str) -> Any:
    """The objects from a missing parent down to `value`."""
    if numeric:
        raise EventError(f"Unable to put {name}: {parts[-1]} is an index and its parent is no array", cause="key")
    for part in reversed(parts):
        value = {part: value}
    return value


def _element(part: str, name: str) -> int:
    if not _DIGITS.fullmatch(part) or len(part) > 10:
        raise EventError(f"Unable to put {name}: {part} is no index of an array", cause="key")
    return int(part)


def _taker(parts: tuple[str, ...], name: str) -> Callable[[Body], Any]:
    if not parts:
        return _refuse_delete
    last = parts[-1]
    if len(parts) == 1:

        def take_top(body: Body) -> Any:
            return body.pop(last, MISSING)

        return take_top

    parent_of, index = _getter(parts[:-1]), _array_index(last)

    def take_deep(body: Body) -> Any:
        parent = parent_of(body)
        if type(parent) is dict:
            return parent.pop(last, MISSING)
        if _step(parent, last, index) is not MISSING:
            raise EventError(f"Unable to delete {name}: an element of an array cannot be removed", cause="key")
        return MISSING

    return take_deep


def _deleter(parts: tuple[str, ...], name: str) -> Callable[[Body], None]:
    if not parts:
        return _refuse_delete
    last = parts[-1]
    if len(parts) == 1:

        def delete_top(body: Body) -> None:
            body.pop(last, None)

        return delete_top

    parent_of = _getter(parts[:-1])

    def delete_deep(body: Body) -> None:
        parent = parent_of(body)
        if type(parent) is dict:
            parent.pop(last, None)
        elif parent is not MISSING:
            raise EventError(f"Unable to delete {name}: its parent is no object", cause="key")

    return delete_deep


def _refuse_delete(body: Body) -> None:
    raise EventError("key cannot be an empty string for delete method", cause="key")
