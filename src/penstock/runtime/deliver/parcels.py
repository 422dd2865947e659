"""What is on its way to a bulk sink: batches as parcels of encoded items, and the parts of them that are sent."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from penstock.core.batch import Batch, Meta
from penstock.sdk import Items, Joined, objects_of, pick, texts_of


class Parcel:
    """The items of one batch and how many of them have not ended."""

    __slots__ = (
        *("arrived", "batch", "data", "events", "handle", "kept_bytes"),
        *("left", "metas", "on_done", "on_written", "slots"),
    )

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
        self.metas = batch.metas if batch.metas.count(None) < len(batch.metas) else None
        """Metadata of events that have some of their own: dead letters tell it."""
        self.data: Sequence[bytes] = items.data
        self.slots = items.slots
        self.left = len(items.data) + len(items.rejected)
        first = batch.handles[0]
        self.handle = first if batch.handles.count(first) == len(batch.handles) else None
        """The one promise all events of the batch belong to, where there is only one."""
        self.on_done: Callable[[], None] | None = on_done
        self.arrived = arrived
        self.on_written = on_written
        self.kept_bytes = 0
        """Bytes that the delivery holds of it in its own room, once it has given up the room in the buffer."""

    @property
    def is_bare(self) -> bool:
        """Whether what is left of it is bytes alone: nobody waits for its end, and no event is kept for another use."""
        return self.on_written is None and self.events is None

    def items(self) -> list[bytes]:
        """The items one by one, to be changed in place."""
        if not isinstance(self.data, list):
            self.data = list(self.data)
        return self.data

    def give_room(self) -> None:
        """The room in the buffer is free again. Calling it twice is fine."""
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            on_done()

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
            self.give_room()


@dataclass(slots=True, eq=False)
class Item:
    """One item that is looked at by itself: it has a key, or may be the bad one of its request."""

    parcel: Parcel
    place: int
    key: Hashable | None
    attempts: int = 0
    level: int = 0
    """How long it has to wait when it is refused again; grows while trying again does not help."""
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
    def slot(self) -> int:
        return self.parcel.slots[self.place]

    @property
    def size_bytes(self) -> int:
        return len(self.parcel.data[self.place])

    def items(self) -> list[Item]:
        return [self]

    def __len__(self) -> int:
        return 1

    @property
    def withdrawn(self) -> bool:
        handle = self.parcel.batch.handles[self.slot]
        assert handle is not None
        return handle.done


class Piece:
    """Items of a parcel, all of one history. They have no keys, or each is the only one of its key on the way."""

    __slots__ = ("attempts", "keys", "level", "parcel", "places", "size_bytes")

    def __init__(
        self,
        parcel: Parcel,
        places: Sequence[int],
        keys: Sequence[Hashable] | None = None,
        attempts: int = 0,
        level: int = 0,
        size_bytes: int | None = None,
    ) -> None:
        self.parcel = parcel
        self.places = places
        self.keys = keys
        self.attempts = attempts
        self.level = level
        self.size_bytes = sum(map(len, texts_of(self.data))) if size_bytes is None else size_bytes

    def __len__(self) -> int:
        return len(self.places)

    @property
    def is_whole(self) -> bool:
        return len(self.places) == len(self.parcel.data)

    @property
    def data(self) -> Sequence[bytes]:
        if self.is_whole:
            return self.parcel.data
        items = self.parcel.items()
        return [items[place] for place in self.places]

    @property
    def slots(self) -> Sequence[int]:
        slots, places = self.parcel.slots, self.places
        return slots if len(places) == len(slots) else [slots[place] for place in places]

    def pick(self, offsets: Sequence[int]) -> Piece:
        """Those of its items, with the same history."""
        places = offsets if self.is_whole else [self.places[offset] for offset in offsets]
        keys = None if self.keys is None else [self.keys[offset] for offset in offsets]
        return Piece(self.parcel, places, keys, self.attempts, self.level)

    def cut(self, count: int, size_bytes: int) -> Piece:
        """Take out its first items, which are so large together."""
        keys = None
        if self.keys is not None:
            keys, self.keys = self.keys[:count], self.keys[count:]
        first = Piece(self.parcel, self.places[:count], keys, self.attempts, self.level, size_bytes)
        self.places = self.places[count:]
        self.size_bytes -= size_bytes
        return first

    def items(self) -> list[Item]:
        keys = repeat(None) if self.keys is None else self.keys
        return [
            Item(self.parcel, place, key, self.attempts, self.level)
            for place, key in zip(self.places, keys, strict=False)
        ]


Part = Piece | Item


class Request(Joined):
    """The items of one request."""

    __slots__ = ("_count", "_held", "_texts")

    def __init__(self, parts: Sequence[Part], count: int) -> None:
        self._held = [[part.data] if isinstance(part, Item) else part.data for part in parts]
        self._count = count
        self._texts: list[bytes] = []
        for items in self._held:
            self._texts += texts_of(items)

    @property
    def texts(self) -> Sequence[bytes]:
        return self._texts

    @property
    def objects(self) -> Iterable[Sequence[bytes] | bytes]:
        return chain.from_iterable(map(objects_of, self._held))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self._held)

    def pick(self, places: Sequence[int]) -> list[bytes]:
        found: list[bytes] = []
        start = first = 0
        for items in self._held:
            end = start + len(items)
            last = bisect_left(places, end, first)
            if last > first:
                found += pick(items, [place - start for place in places[first:last]])
            start, first = end, last
        return found


def items_of(parts: Sequence[Part]) -> list[Item]:
    items: list[Item] = []
    for part in parts:
        items += part.items()
    return items
