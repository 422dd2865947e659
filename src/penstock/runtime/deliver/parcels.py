"""What is on its way to a bulk sink: batches as parcels of encoded items, and the parts of them that are sent."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from penstock.core.batch import Batch, Meta
from penstock.sdk import Items, Joined, select, texts_of


class Parcel:
    """The items of one batch and how many of them have not ended."""

    __slots__ = (
        *("arrived", "batch", "events", "handle", "kept_bytes"),
        *("left", "metas", "on_done", "on_written", "parts"),
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
        self.parts: set[Part] = set()
        """The items that have not ended, wherever they are. Those that come one by one may stay until all have."""
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
    slot: int
    data: bytes
    key: Hashable | None
    attempts: int = 0
    level: int = 0
    """How long it has to wait when it is refused again; grows while trying again does not help."""
    sent: int = 0
    """What an earlier request with it came to; see `Joined.sent_before`."""
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
    def size_bytes(self) -> int:
        return len(self.data)

    def items(self) -> list[Item]:
        return [self]

    def select(self, offsets: Sequence[int]) -> Item:
        assert len(offsets) == 1, "there is one item only"
        return self

    def __len__(self) -> int:
        return 1

    @property
    def withdrawn(self) -> bool:
        handle = self.parcel.batch.handles[self.slot]
        assert handle is not None
        return handle.done


class Piece:
    """Items of a parcel, all of one history. They have no keys, or each is the only one of its key on the way."""

    __slots__ = ("attempts", "data", "keys", "level", "parcel", "sent", "size_bytes", "slots")

    def __init__(
        self,
        parcel: Parcel,
        slots: Sequence[int],
        data: Sequence[bytes],
        keys: Sequence[Hashable] | None = None,
        size_bytes: int | None = None,
    ) -> None:
        self.parcel = parcel
        self.slots = slots
        self.data = data
        self.keys = keys
        self.size_bytes = sum(map(len, texts_of(data))) if size_bytes is None else size_bytes
        self.attempts = 0
        self.level = 0
        self.sent = 0
        parcel.parts.add(self)

    def __len__(self) -> int:
        return len(self.slots)

    def select(self, offsets: Sequence[int]) -> Piece:
        """Those of its items, with the same history. This piece is given up."""
        if len(offsets) == len(self):
            return self
        self.parcel.parts.discard(self)
        keys = None if self.keys is None else [self.keys[offset] for offset in offsets]
        slots = self.slots
        return self._like(Piece(self.parcel, [slots[offset] for offset in offsets], select(self.data, offsets), keys))

    def cut(self, count: int, size_bytes: int) -> Piece:
        """Take out its first items, which are so large together."""
        keys = None
        if self.keys is not None:
            keys, self.keys = self.keys[:count], self.keys[count:]
        first = self._like(Piece(self.parcel, self.slots[:count], self.data[:count], keys, size_bytes))
        self.slots, self.data = self.slots[count:], self.data[count:]
        self.size_bytes -= size_bytes
        if not self.slots:
            self.parcel.parts.discard(self)
        return first

    def items(self) -> list[Item]:
        """Its items one by one. This piece is given up."""
        keys = [None] * len(self) if self.keys is None else self.keys
        self.parcel.parts.discard(self)
        items = [
            Item(self.parcel, slot, data, key, self.attempts, self.level, self.sent)
            for slot, data, key in zip(self.slots, self.data, keys, strict=True)
        ]
        self.parcel.parts.update(items)
        return items

    def _like(self, other: Piece) -> Piece:
        other.attempts, other.level, other.sent = self.attempts, self.level, self.sent
        return other


Part = Piece | Item


class Request(Joined):
    """The items of one request."""

    __slots__ = ("_count", "_parts", "_texts")

    def __init__(self, parts: Sequence[Part], count: int) -> None:
        self._parts = parts
        self._count = count
        self._texts: list[bytes] = []
        for part in parts:
            if isinstance(part, Item):
                self._texts.append(part.data)
            else:
                self._texts += texts_of(part.data)

    @property
    def texts(self) -> Sequence[bytes]:
        return self._texts

    @property
    def sent_before(self) -> bytes | None:
        if not any([part.sent for part in self._parts]):
            return None
        return b"".join([bytes((part.sent,)) * len(part) for part in self._parts])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable([[part.data] if isinstance(part, Item) else part.data for part in self._parts])


def items_of(parts: Sequence[Part]) -> list[Item]:
    """The items one by one. The parts are given up."""
    items: list[Item] = []
    for part in parts:
        items += part.items()
    return items
