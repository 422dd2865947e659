"""Makes several events of one: one for each part of a text, or for each element of a list.

All of them share the delivery promise of the event they come from: the source hears of success when the last one has
arrived. Events without the field, or with a single part, pass as they are; a list of one element becomes that element.
Without a delimiter only lists are split.
"""

from collections.abc import Callable
from typing import Any, Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.inline import COPYING, PLACE, compile_loop
from penstock.lib.limited_loop import each_limited
from penstock.lib.text_values import compile_split, compile_store
from penstock.sdk.splitting import SplitOptions

COPIED_VALUES_MAX = 5_000_000
"""Values that the events made of one may hold together, their own parts not counted."""


class Config(SplitOptions):
    field: sdk.Key
    """Key of the text or list to split."""
    split_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are split."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.delimiter and self.delimiter_regex:
            raise ValueError("delimiter and delimiter_regex cannot both be specified")
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    get, store, name = config.field.get, compile_store(config.field), config.field.top
    parts_of = _parting(config)
    found: dict[int, list[Any]] = {}
    nested: set[int] = set()
    """Those of the places found whose events have to be copied with all that is in them."""

    def find(batch: sdk.Batch, index: int) -> None:
        body = batch.bodies[index]
        value = get(body)
        parts = parts_of(value)
        if len(parts) > 1:
            _check_size(body, value, len(parts))
            found[index] = parts
            nested.add(index)
        elif parts:
            store(body, parts[0])

    change = sdk.Inline(f"find(batch, {PLACE})", find=find)
    if config.delimiter and name is not None:
        change = sdk.Inline(
            _FIND,
            find=find,
            field=name,
            delimiter=config.delimiter,
            found=found,
            values_max=COPIED_VALUES_MAX,
            containers=COPYING["containers"],
        )
    compile_each = each_limited if config.delimiter_regex else compile_loop
    find_all = compile_each(change, when=config.split_when, fail=ctx.failure())

    def split(batch: sdk.Batch) -> sdk.Batch:
        found.clear()
        nested.clear()
        find_all(batch)
        return _spread(batch, found, nested, name, store) if found else batch

    return split


_FIND = f"""
value = body.get(field)
if type(value) is str:
    if delimiter in value:
        parts = value.split(delimiter)
        if parts[-1] and len(parts) * len(body) <= values_max and containers.isdisjoint(map(type, body.values())):
            found[{PLACE}] = parts
        else:
            find(batch, {PLACE})
elif value is not None:
    find(batch, {PLACE})
"""
"""Most events hold no containers, and most texts do not end in a delimiter."""


def _parting(config: Config) -> Callable[[Any], list[Any]]:
    """A function that gives the parts of a value; none where it is to stay."""
    if not config.delimiter and not config.delimiter_regex:
        return lambda value: value if type(value) is list else []
    split = compile_split(config.delimiter, config.delimiter_regex)

    def parts_of(value: Any) -> list[Any]:
        if type(value) is str:
            parts = split(value)
            return parts if len(parts) > 1 else []
        return value if type(value) is list else []

    return parts_of


def _check_size(body: sdk.Body, value: Any, parts: int) -> None:
    """Whether the event around the value may be copied so often. Raises EventError."""
    copied = parts * (_values_in(body) - _values_in(value))
    if copied > COPIED_VALUES_MAX:
        raise sdk.EventError(f"{parts} events would hold {copied} values", cause="size")


def _values_in(value: Any) -> int:
    values, pending = 0, [value]
    while pending:
        holder = pending.pop()
        kind = type(holder)
        if kind is dict or kind is list:
            values += len(holder)
            pending += holder.values() if kind is dict else holder
    return values


def _spread(
    batch: sdk.Batch,
    found: dict[int, list[Any]],
    nested: set[int],
    name: str | None,
    store: Callable[[sdk.Body, Any], None],
) -> sdk.Batch:
    """The batch with the parts of some events in their places; the last part stays in the event itself."""
    whole, bodies, counts = batch.bodies, list[sdk.Body](), [1] * len(batch)
    add, done = bodies.append, 0
    for place, parts in found.items():
        if done < place:
            bodies += whole[done:place]
        body, done = whole[place], place + 1
        counts[place] = len(parts)
        last = parts.pop()
        if name is None or place in nested:
            store(body, None)  # the whole value need not be copied each time
            for part in parts:
                copied = sdk.copy_value(body)
                store(copied, part)
                add(copied)
            store(body, last)
        else:
            for part in parts:
                copied = body.copy()
                copied[name] = part
                add(copied)
            body[name] = last
        add(body)
    bodies += whole[done:]
    metas, handles = _repeated_metas(batch, counts, len(bodies)), _repeated_handles(batch, counts, len(bodies))
    batch.handles = [None] * len(batch)  # they have moved
    return sdk.Batch(bodies, metas, handles, batch.origin)


def _repeated_metas(batch: sdk.Batch, counts: list[int], total: int) -> list[sdk.Meta | None]:
    if not any(batch.metas):
        return [None] * total
    metas: list[sdk.Meta | None] = []
    for meta, count in zip(batch.metas, counts, strict=True):
        metas += [None if meta is None else meta.copy() for _ in range(count - 1)]
        metas.append(meta)
    return metas


def _repeated_handles(batch: sdk.Batch, counts: list[int], total: int) -> list[sdk.Handle | None]:
    first = batch.handles[0]
    if batch.handles.count(first) == len(batch):
        if first is not None:
            first.add(total - len(batch))
        return [first] * total
    handles: list[sdk.Handle | None] = []
    for handle, count in zip(batch.handles, counts, strict=True):
        handles += [handle] * count
        if handle is not None and count > 1:
            handle.add(count - 1)
    return handles


EXAMPLES = [
    sdk.Example(
        "One event for each line",
        config='{field: message, delimiter: "\\n"}',
        before=[{"host": "web-1", "message": "first\nsecond"}, {"message": 7}],
        after=[{"host": "web-1", "message": "first"}, {"host": "web-1", "message": "second"}, {"message": 7}],
    ),
    sdk.Example(
        "One event for each element",
        config="field: Records",
        before=[{"Records": [{"id": 1}, {"id": 2}]}],
        after=[{"Records": {"id": 1}}, {"Records": {"id": 2}}],
    ),
]
