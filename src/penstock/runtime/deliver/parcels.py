"""What is on its way to a bulk sink: batches as parcels of encoded items, and the parts of them that are queued."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from penstock.core.batch import Batch, Meta
from penstock.sdk import Items


class Parcel:
    """The items of one batch and how many of them have not ended."""

    __slots__ = ("arrived", "batch", "data", "events", "handle", "left", "metas", "on_done", "on_written", "slots")

    def __init__(
        self,
        batch: Batch,
        items: Items,
        on_done: Callable[[], None],
        arrived: Callable[[], None],
        on_written: Callable[[Sequence[int]], None] | None = None,
        events: Batch | None = None,
    ) -> None:
        self.batch = batch
        self.events = events
        """The events as they were, where a failure pipeline may want those that are refused."""
        self.metas = batch.metas if any(batch.metas) else None
        """Metadata of events that have some of their own: dead letters tell it."""
        self.data = items.data
        self.slots = items.slots
        self.left = len(items.data) + len(items.rejected)
        first = batch.handles[0]
        self.handle = first if batch.handles.count(first) == len(batch.handles) else None
        """The one promise all events of the batch belong to, where there is only one."""
        self.on_done = on_done
        self.arrived = arrived
        self.on_written = on_written

    def meta(self, slot: int) -> Meta:
        """Metadata of the event of that slot, to read from."""
        return (self.metas[slot] if self.metas is not None else None) or self.batch.origin

    def refused(self, slot: int) -> Batch | None:
        """Move the event of that slot out, where it was kept."""
        return None if self.events is None else self.events.select([slot])

    def end(self, slots: Sequence[int], *, ok: bool) -> None:
        self.batch.release(slots, ok=ok)
        if self.events is not None:
            kept = self.events.handles
            self.events.release([slot for slot in slots if kept[slot] is not None], ok=True)
        self.left -= len(slots)
        assert self.left >= 0, "more items ended than there were"
        if self.left == 0:
            if ok:
                self.arrived()
            self.on_done()


@dataclass(slots=True, eq=False)
class Item:
    """One item that is looked at by itself: it has a key, or was refused once."""

    parcel: Parcel
    place: int
    key: Hashable | None
    attempts: int = 0
    replaced: list[Item] | None = None
    """Earlier items of the key that need not be sent as this one comes after them, oldest first. They end with it."""

    def replace(self, earlier: Item) -> None:
        """Take the place of `earlier` and of all that it had replaced."""
        self.replaced, earlier.replaced = earlier.replaced or [], None
        self.replaced.append(earlier)

    def give_back(self) -> Item | None:
        """The latest item that this one had replaced, with the others: this one will not be written after all."""
        if not self.replaced:
            return None
        replaced, self.replaced = self.replaced, None
        earlier = replaced.pop()
        earlier.replaced = replaced
        return earlier

    @property
    def data(self) -> bytes:
        return self.parcel.data[self.place]

    @property
    def size_bytes(self) -> int:
        return len(self.parcel.data[self.place])

    def items(self) -> list[Item]:
        return [self]

    @property
    def withdrawn(self) -> bool:
        handle = self.parcel.batch.handles[self.parcel.slots[self.place]]
        assert handle is not None
        return handle.done


@dataclass(slots=True, eq=False)
class Range:
    """A stretch of a parcel whose items have no keys."""

    parcel: Parcel
    start: int
    end: int
    attempts: int = 0

    def items(self) -> list[Item]:
        return [Item(self.parcel, place, None, self.attempts) for place in range(self.start, self.end)]

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.parcel.data[self.start : self.end]))


Part = Range | Item


def whole(part: Part) -> bool:
    return isinstance(part, Range) and part.start == 0 and part.end == len(part.parcel.data)


def joined(parts: list[Part]) -> list[bytes]:
    data: list[bytes] = []
    for part in parts:
        if isinstance(part, Item):
            data.append(part.data)
        else:
            data += part.parcel.data[part.start : part.end]
    return data


def items_of(parts: list[Part]) -> list[Item]:
    items: list[Item] = []
    for part in parts:
        if isinstance(part, Item):
            items.append(part)
        else:
            items += part.items()
    return items
