"""What a function has returned, as events: nothing but what JSON can hold, shared with nobody."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

from penstock import sdk

EVENTS_MAX = 10_000
"""Events that one event may become."""
NESTING_MAX = 500
"""Objects and lists inside each other; what holds itself is deeper than that."""

_SCALARS = frozenset((str, int, float, bool, type(None), Decimal))


def compile_events(*, copy: bool) -> Callable[[Any], list[sdk.Body] | sdk.Body | None]:
    """A function from a returned value to what it stands for: one event, several, or none. It raises EventError.

    With `copy` the events share nothing with what was returned, nor with each other.
    """
    own = _copied if copy else _checked
    scalars = _SCALARS

    def events(result: Any) -> list[sdk.Body] | sdk.Body | None:
        if type(result) is dict:
            for name, item in result.items():
                if type(item) not in scalars or type(name) is not str:
                    return own(result, 0)  # type: ignore[no-any-return]
            return result.copy() if copy else result  # a flat event, as most are
        if result is None:
            return None
        if isinstance(result, dict):
            return _copied(result, 0)  # type: ignore[no-any-return]
        if isinstance(result, list | tuple | Iterator):
            return _several(result)
        if inspect.iscoroutine(result):
            result.close()
            raise _refused("a coroutine: declare the function with async def")
        raise _refused(f"{type(result).__name__}, which is no event")

    return events


def own_meta(meta: sdk.Meta) -> None:
    """Check metadata that a function may have changed. Raises EventError."""
    if not (isinstance(meta.tags, set) and all(type(tag) is str for tag in meta.tags)):
        raise _refused("tags that are no texts")
    if not isinstance(meta.attributes, dict):
        raise _refused("attributes that are no object")
    meta.attributes = _copied(meta.attributes, 0)


def _several(results: Iterable[Any]) -> list[sdk.Body]:
    bodies: list[sdk.Body] = []
    for result in islice(results, EVENTS_MAX + 1):
        if not isinstance(result, dict):
            raise _refused(f"a list with {type(result).__name__}, which is no event")
        bodies.append(_copied(result, 0))  # even where nothing else is copied: they often share values
    if len(bodies) > EVENTS_MAX:
        raise sdk.EventError(f"more than {EVENTS_MAX} events were returned for one", cause="size")
    return bodies


def _checked(value: Any, depth: int) -> Any:
    """The value itself where it holds plain values only, else a copy that does."""
    return value if _is_plain(value, depth) else _copied(value, depth)


def _is_plain(value: Any, depth: int) -> bool:
    if depth > NESTING_MAX:
        raise _too_deep()
    if type(value) is dict and not all(type(name) is str for name in value):
        return False
    for item in value.values() if type(value) is dict else value:
        kind = type(item)
        if kind not in _SCALARS and not ((kind is dict or kind is list) and _is_plain(item, depth + 1)):
            return False
    return True


def _copied(value: Any, depth: int) -> Any:
    if depth > NESTING_MAX:
        raise _too_deep()
    if isinstance(value, dict):
        copied = {}
        for name, item in value.items():
            if type(name) is not str:
                raise _refused(f"a key that is no text but {type(name).__name__}")
            copied[name] = item if type(item) in _SCALARS else _copied(item, depth + 1)
        return copied
    if isinstance(value, list | tuple):
        return [item if type(item) in _SCALARS else _copied(item, depth + 1) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    """The plain value of an enumeration member and of other kinds of texts and numbers."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise _refused(f"a value of type {type(value).__name__}, which JSON cannot hold")


def _too_deep() -> sdk.EventError:
    return _refused(f"an event nested deeper than {NESTING_MAX} levels, or one that holds itself")


def _refused(what: str) -> sdk.EventError:
    return sdk.EventError(f"The function returned {what}", cause="result")
