"""Loops over a batch that are made of source: what is done to an event stands inside the loop instead of being called.

A call costs more than most processors have to do. So the condition and the statements of a processor are put together
into one function, once for each combination of them. The source holds nothing but our own text: what comes from a
configuration is bound to names.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import length_hint
from textwrap import dedent, indent
from typing import Any

from penstock.core.batch import Batch, Body, copy_value
from penstock.core.errors import EventError, ExpressionError
from penstock.core.inline import Inline
from penstock.core.timelimit import TimeLimitExceeded
from penstock.expr import Expression

Fail = Callable[[Batch, int, EventError | ExpressionError], None]
Change = Callable[[Body], None] | Inline

FACTORIES_CACHED_MAX = 512
"""Loops of the same text are compiled once."""

COPIED_ITEM = "(copy_value(item) if type(item) in containers else item)"
"""A copy of `item`, as an expression with the names of `COPYING`; most items are no containers."""
COPIED_OBJECT = "(item.copy() if containers.isdisjoint(map(type, item.values())) else copy_value(item))"
"""The same for an `item` that is an object for sure; most objects in lists hold no containers."""
COPYING = {"copy_value": copy_value, "containers": frozenset((dict, list))}

PLACE = "len(bodies) - left(events) - 1"
"""The place of the event in its batch, as an expression. It is only worth while where it is seldom needed."""

_LOOP = """\
def loop(batch):
    bodies, meta, origin = batch.bodies, batch.origin, batch.origin
    events, metas = iter(bodies), iter(batch.metas)
    while True:
        try:
{work}
            return batch
        except failures as error:
            fail(batch, {place}, error)
"""
_LIMITED = """\
def loop(batch, begin):
    bodies, meta, origin = batch.bodies, batch.origin, batch.origin
    events, metas = iter(bodies), iter(batch.metas)
    events.__setstate__(begin)
    metas.__setstate__(begin)
    while True:
        try:
{work}
            return len(bodies)
        except failures as error:
            fail(batch, {place}, error)
        except expired:
            return {place}
"""
_PLACES = """\
def loop(batch):
    metas, meta, origin = batch.metas, batch.origin, batch.origin
    places = []
{work}
    return places
"""
_OVER_BODIES = "for body in events:"
_OVER_METAS = "for body, own in zip(events, metas):\n    meta = own or origin"


def compile_loop(change: Change, *, when: Expression | None, fail: Fail) -> Callable[[Batch], Batch]:
    """A loop that changes the events for which `when` holds; those that raise are given to `fail`, with their places.

    Each event is seen once, in order, and the loop goes on behind one that failed.
    """
    run: Callable[[Batch], Batch] = _compiled(_LOOP, change, when, fail)
    return run


def compile_limited_loop(change: Change, *, when: Expression | None, fail: Fail) -> Callable[[Batch, int], int]:
    """The same from a place on; gives the place at which `TimeLimitExceeded` ended it, or else how many there are."""
    run: Callable[[Batch, int], int] = _compiled(_LIMITED, change, when, fail)
    return run


def compile_places(condition: Expression) -> Callable[[Batch], list[int]]:
    """A function that gives the places of the events for which the condition holds. It raises what `test` raises."""
    test = condition.inline("when")
    loop = "for place, body in enumerate(batch.bodies):"
    if test.reads_meta:
        loop += "\n    meta = metas[place] or origin"
    work = f"{loop}\n    if {test.source}:\n        places.append(place)"
    run: Callable[[Batch], list[int]] = _bound(_PLACES.format(work=indent(work, " " * 4)), test.names)
    return run


def _compiled(frame: str, change: Change, when: Expression | None, fail: Fail) -> Any:
    statements = change if isinstance(change, Inline) else Inline("change(body)", change=change)
    names = dict(statements.names)
    work, reads_meta = dedent(statements.source).strip("\n"), statements.reads_meta
    if when is not None:
        condition = when.inline("when")
        assert names.keys().isdisjoint(condition.names), "a name stands for two things"
        names |= condition.names
        work, reads_meta = f"if {condition.source}:\n{_inside(work)}", reads_meta or condition.reads_meta
    work = f"{_OVER_METAS if reads_meta else _OVER_BODIES}\n{_inside(work)}"
    surroundings = {
        "fail": fail,
        "failures": (EventError, ExpressionError),
        "left": length_hint,
        "expired": TimeLimitExceeded,
    }
    assert names.keys().isdisjoint(surroundings), "a name of the loop cannot be used inside of it"
    names |= surroundings
    return _bound(frame.format(place=PLACE, work=indent(work, " " * 12)), names)


def _bound(source: str, names: Mapping[str, Any]) -> Any:
    return _factory(source, tuple(names))(*names.values())


def _inside(source: str) -> str:
    return indent(source, " " * 4)


@lru_cache(maxsize=FACTORIES_CACHED_MAX)
def _factory(source: str, names: tuple[str, ...]) -> Callable[..., Any]:
    """A function that gives the loop for the values of its names."""
    text = f"def bind({', '.join(names)}):\n{_inside(source)}\n    return loop\n"
    file = f"<loop {_factory.cache_info().misses}>"
    namespace: dict[str, Any] = {}
    exec(compile(text, file, "exec"), namespace)  # noqa: S102 (source of our own making)
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # for tracebacks
    bind: Callable[..., Any] = namespace["bind"]
    return bind
