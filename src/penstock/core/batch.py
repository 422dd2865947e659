"""Events side by side: bodies, metadata and delivery handles in three parallel lists.

There is no object around a body. Only `select`, `chunks`, `concat`, `copy`, `join` and `release` move events, so that a
body, its metadata and its handle never part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from penstock.core.handle import Handle, JoinedHandle

Body = dict[str, Any]
"""The data of an event: what JSON can hold, plus `Decimal` where a number must not pass through a float."""


class Meta:
    """What is known about an event beside its data. Source: `event-model` in docs/behaviour.md."""

    __slots__ = ("attributes", "event_type", "origination_ms", "received_ms", "tags")

    def __init__(
        self,
        event_type: str = "LOG",
        received_ms: int = 0,
        attributes: dict[str, Any] | None = None,
        tags: Iterable[str] = (),
        origination_ms: int | None = None,
    ) -> None:
        self.event_type = event_type
        self.received_ms = received_ms
        """Arrival in this engine, milliseconds since the epoch."""
        self.attributes: dict[str, Any] = {} if attributes is None else attributes
        self.tags: set[str] = set(tags)
        self.origination_ms = origination_ms
        """Creation outside, milliseconds since the epoch, when a source or `date` knows it."""

    def copy(self) -> Meta:
        """A copy that shares nothing. The external origination time is kept."""
        return Meta(self.event_type, self.received_ms, copy_value(self.attributes), self.tags, self.origination_ms)

    def __repr__(self) -> str:
        return f"Meta({self.event_type!r}, attributes={self.attributes!r}, tags={sorted(self.tags)!r})"


class Batch:
    """Events in order. `metas[i]` is None while event i has nothing of its own: then `origin` speaks for it."""

    __slots__ = ("bodies", "handles", "metas", "origin")

    def __init__(
        self,
        bodies: list[Body],
        metas: list[Meta | None] | None = None,
        handles: list[Handle | None] | None = None,
        origin: Meta | None = None,
    ) -> None:
        size = len(bodies)
        self.bodies = bodies
        self.metas: list[Meta | None] = [None] * size if metas is None else metas
        self.handles: list[Handle | None] = [None] * size if handles is None else handles
        self.origin = Meta() if origin is None else origin
        """Shared by the events without metadata of their own; nobody changes it once the batch is made."""
        assert len(self.metas) == size == len(self.handles), "bodies, metas and handles must be of one length"

    def __len__(self) -> int:
        return len(self.bodies)

    def meta(self, index: int) -> Meta:
        """Metadata of one event to write to: made on first use."""
        meta = self.metas[index]
        if meta is None:
            meta = self.metas[index] = self.origin.copy()
        return meta

    def peek(self, index: int) -> Meta:
        """Metadata of one event to read from."""
        return self.metas[index] or self.origin

    def tag(self, index: int, tags: Iterable[str]) -> None:
        """Add tags to one event."""
        self.meta(index).tags.update(tags)

    def tag_each(self, indices: Iterable[int], tags: Iterable[str]) -> None:
        """Add the same tags to several events; cheaper than one after the other."""
        metas, origin, tags = self.metas, self.origin, tuple(tags)
        tagged, attributes = origin.tags.union(tags), origin.attributes
        for index in indices:
            meta = metas[index]
            if meta is None:
                metas[index] = Meta(
                    origin.event_type,
                    origin.received_ms,
                    copy_value(attributes) if attributes else None,
                    tagged,
                    origin.origination_ms,
                )
            else:
                meta.tags.update(tags)

    def promise(self, handle: Handle) -> None:
        """Put every event of this batch, none of which has a handle yet, under `handle`."""
        assert not any(self.handles), "these events have a handle already"
        self.handles = [handle] * len(self.bodies)
        handle.add(len(self.bodies))

    def chunks(self, size: int) -> Iterator[Batch]:
        """This batch in parts of at most `size` events; the batch itself is empty afterwards."""
        if len(self.bodies) <= size:
            yield self._moved()
            return
        whole = self._moved()
        for start in range(0, len(whole.bodies), size):
            end = start + size
            yield Batch(whole.bodies[start:end], whole.metas[start:end], whole.handles[start:end], whole.origin)

    def select(self, indices: Sequence[int]) -> Batch:
        """Move the events at `indices` into a batch of their own, in that order.

        Their places here stay, without a handle: what is left over is to be released or selected too.
        """
        bodies, metas, handles = self.bodies, self.metas, self.handles
        taken = Batch(
            [bodies[i] for i in indices], [metas[i] for i in indices], [handles[i] for i in indices], self.origin
        )
        for i in indices:
            handles[i] = None
        return taken

    def drop(self, indices: Sequence[int], *, ok: bool = True) -> Batch:
        """Release the events at `indices` and return a batch of the others."""
        if not indices:
            return self
        gone = set(indices)
        rest = self.select([i for i in range(len(self.bodies)) if i not in gone])
        self.release(indices, ok=ok)
        return rest

    def share(self, indices: Sequence[int] | None = None) -> Batch:
        """The same events (those at `indices`) for a further reader that does not change the bodies.

        Each handle counts its event once more.
        """
        if indices is None:
            shared = Batch(self.bodies, self.metas, self.handles.copy(), self.origin)
        else:
            shared = Batch(
                [self.bodies[i] for i in indices],
                [self.metas[i] for i in indices],
                [self.handles[i] for i in indices],
                self.origin,
            )
        for handle, count in _counted(shared.handles):
            handle.add(count)
        return shared

    def copy(self, indices: Sequence[int] | None = None) -> Batch:
        """Like `share`, with bodies and metadata of its own."""
        copied = self.share(indices)
        copied.bodies = [copy_value(body) for body in copied.bodies]
        copied.metas = [None if meta is None else meta.copy() for meta in copied.metas]
        return copied

    def join(self, indices: Sequence[int], into: JoinedHandle, *, stays: bool = False) -> None:
        """The events at `indices` have become part of another one and end when `into` does; their slots are emptied.

        With `stays` they go on themselves as well, and their handles count them once more.
        """
        handles = self.handles
        joined = [handles[i] for i in indices]
        assert None not in joined, "an event was joined twice, or never had a handle"
        if not stays:
            for i in indices:
                handles[i] = None
        for handle, count in _counted(joined):
            if stays:
                handle.add(count)
            into.join(handle, count)

    def join_each(self, indices: Sequence[int], into: Sequence[JoinedHandle]) -> list[bool]:
        """Like `join`, with a handle for each event. Tells for each whether its own handle was new there."""
        handles = self.handles
        joined = [handle for i in indices if (handle := handles[i]) is not None]
        assert len(joined) == len(indices), "an event was joined twice, or never had a handle"
        for i in indices:
            handles[i] = None
        return [whole.join(handle, 1) for whole, handle in zip(into, joined, strict=True)]

    def held(self) -> list[int]:
        """Places of the events that have not ended."""
        return [index for index, handle in enumerate(self.handles) if handle is not None]

    def forget_bodies(self) -> None:
        """Free the bodies; only the handles are still of use."""
        self.bodies, self.metas = [], []

    def release(self, indices: Sequence[int], *, ok: bool) -> None:
        """The events at `indices` have ended. Each slot is emptied; releasing an empty slot is a bug."""
        handles = self.handles
        all_of_them = len(indices) == len(handles)
        held = handles if all_of_them else [handles[i] for i in indices]
        runs = list(_counted(held))
        assert sum([count for _, count in runs]) == len(held), "an event was released twice, or never had a handle"
        if all_of_them:
            self.handles = [None] * len(handles)
        else:
            for i in indices:
                handles[i] = None
        for handle, count in runs:
            handle.release(count, ok=ok)

    def release_all(self, *, ok: bool) -> None:
        """Every event that is still held here has ended."""
        held, self.handles = self.handles, [None] * len(self.handles)
        for handle, count in _counted(held):
            handle.release(count, ok=ok)

    def _moved(self) -> Batch:
        moved = Batch(self.bodies, self.metas, self.handles, self.origin)
        self.bodies, self.metas, self.handles = [], [], []
        return moved


def concat(batches: Sequence[Batch]) -> Batch:
    """One batch of the events of all, in order. Events keep the metadata they came with."""
    if len(batches) == 1:
        return batches[0]
    origin = batches[0].origin
    bodies: list[Body] = []
    metas: list[Meta | None] = []
    handles: list[Handle | None] = []
    for batch in batches:
        bodies += batch.bodies
        handles += batch.handles
        if batch.origin is origin:
            metas += batch.metas
        else:
            metas += [meta or batch.origin.copy() for meta in batch.metas]
    return Batch(bodies, metas, handles, origin)


def copy_value(value: Any) -> Any:
    """Deep copy of a JSON-like value of any depth; scalars are shared. Several times faster than `copy.deepcopy`."""
    if type(value) not in _CONTAINERS:
        return value
    try:
        return _copied(value)
    except RecursionError:
        return _copied_step_by_step(value)


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copied(item) if type(item) in _CONTAINERS else item for key, item in value.items()}
    return [_copied(item) if type(item) in _CONTAINERS else item for item in value]


def _copied_step_by_step(value: Any) -> Any:
    """For values that are nested deeper than calls may be."""
    root = value.copy()
    pending = [root]
    while pending:
        holder = pending.pop()
        for place, item in list(holder.items()) if type(holder) is dict else enumerate(holder):
            if type(item) in _CONTAINERS:
                holder[place] = inner = item.copy()
                pending.append(inner)
    return root


_CONTAINERS = frozenset((dict, list))


def _counted(handles: Sequence[Handle | None]) -> Iterator[tuple[Handle, int]]:
    """Each handle with how often it occurs in a run; most batches are one run."""
    if not handles:
        return
    first = handles[0]
    if handles.count(first) == len(handles):
        if first is not None:
            yield first, len(handles)
        return
    run, count = first, 0
    for handle in handles:
        if handle is run:
            count += 1
        else:
            if run is not None:
                yield run, count
            run, count = handle, 1
    if run is not None:
        yield run, count
