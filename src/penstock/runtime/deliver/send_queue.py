"""The line of what waits to be sent, and the order of what has the same key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence

from penstock.runtime.deliver.parcels import Item, Parcel, Part, Piece
from penstock.sdk import Items

NEARLY_FULL = 8
"""A request with less than this part of its room left is not filled up: to cut off items they must be taken apart."""


class SendQueue:
    """Parts of parcels in the order in which they are to be sent.

    Two items of one key are never out together: later ones stand in a line behind the key until the first has ended.
    One that makes the last of the line needless takes its place and speaks for it; when it ends unwritten, the other
    one comes next.
    """

    def __init__(
        self,
        supersedes: Callable[[bytes, bytes], bool] | None,
        on_superseded: Callable[[], None],
        on_withdrawn: Callable[[Item], None],
    ) -> None:
        self._supersedes = supersedes
        self._on_superseded = on_superseded
        self._on_withdrawn = on_withdrawn
        self._parts: deque[Part] = deque()
        self._waiting: dict[Hashable, deque[Item] | None] = {}
        """Line behind each key that is queued, in flight or about to be retried; the first of a key is not in it, and
        None stands for no line yet."""
        self.size_bytes = 0
        """Of what may be sent now; lines behind keys do not count."""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def put_parcel(self, parcel: Parcel, items: Items) -> None:
        keys = items.keys
        if keys is None:
            self._append(Piece(parcel, items.slots, items.data))
            return
        distinct = dict.fromkeys(keys)
        if len(distinct) == len(keys) and None not in distinct and distinct.keys().isdisjoint(self._waiting.keys()):
            self._waiting |= distinct  # the usual case: nobody has to wait for anybody
            self._append(Piece(parcel, items.slots, items.data, keys))
            return
        one_by_one = [Item(parcel, *of_item) for of_item in zip(items.slots, items.data, keys, strict=True)]
        parcel.parts.update(one_by_one)
        for item in one_by_one:
            self.put(item)

    def put(self, item: Item) -> None:
        """At the end, or into the line of its key."""
        if item.key is not None:
            if item.key in self._waiting:
                line = self._waiting[item.key]
                if line is None:
                    line = self._waiting[item.key] = deque()
                if line and self._supersedes is not None and self._supersedes(item.data, line[-1].data):
                    item.replace(line.pop())
                    self._on_superseded()
                line.append(item)
                return
            self._waiting[item.key] = None
        self._append(item)

    def put_back(self, parts: Sequence[Part]) -> None:
        """To the front: what was taken and has to be sent again."""
        self._parts.extendleft(reversed(parts))
        self.size_bytes += sum(part.size_bytes for part in parts)

    def has_ended(self, item: Item) -> None:
        """The next of its key may go. What it had replaced and does not speak for any more comes before that."""
        if item.key is None:
            return
        earlier = item.give_back()
        if earlier is not None:
            self.put_back([earlier])
        else:
            self.are_free((item.key,))

    def are_free(self, keys: Sequence[Hashable]) -> None:
        """What was sent of each of the keys has ended: the next may go."""
        waiting = self._waiting
        for key in keys:
            line = waiting.pop(key)
            if line:
                self._append(line.popleft())
                waiting[key] = line

    def take(self, room: int, count_max: int) -> tuple[list[Part], int]:
        """The parts of one request and the number of their items: what fits into `room` bytes, one item at least."""
        nearly_full = room // NEARLY_FULL
        parts: list[Part] = []
        count = 0
        queue = self._parts
        while queue and (room > 0 or not count):
            part = queue[0]
            if self._withdraw(part):
                continue
            if not ((part.size_bytes <= room or (not count and len(part) == 1)) and count + len(part) <= count_max):
                if isinstance(part, Item) or (count and room < nearly_full):
                    break
                taken = _first_of(part, room, count_max - count, at_least=not count)
                if taken is None:
                    break
                if not len(part):
                    queue.popleft()
                part = taken
            else:
                queue.popleft()
            self.size_bytes -= part.size_bytes
            room -= part.size_bytes
            count += len(part)
            parts.append(part)
        return parts, count

    def clear(self) -> None:
        self._parts.clear()
        self._waiting.clear()
        self.size_bytes = 0

    def _append(self, part: Part) -> None:
        self._parts.append(part)
        self.size_bytes += part.size_bytes

    def _withdraw(self, part: Part) -> bool:
        """Take out the items at the front whose promise is over (time-out, lost lease). True when it has changed."""
        if isinstance(part, Item):
            if not part.withdrawn:
                return False
        elif part.parcel.handle is not None:
            if not part.parcel.handle.done:
                return False
        else:
            handles = part.parcel.batch.handles
            if not any(handle.done for handle in {handles[slot] for slot in part.slots} if handle):
                return False
        self._parts.popleft()
        self.size_bytes -= part.size_bytes
        items = part.items()
        self.put_back([item for item in items if not item.withdrawn])
        for item in items:
            if item.withdrawn:
                self._on_withdrawn(item)
        return True


def _first_of(piece: Piece, room: int, count_max: int, *, at_least: bool) -> Piece | None:
    """Cut off what fits from the front of a piece, with `at_least` one item; None when nothing does."""
    if not isinstance(piece.data, list):
        piece.data = list(piece.data)
    fit = size = 0
    for item in piece.data:
        bytes_more = len(item)
        if fit >= count_max or (size + bytes_more > room and (fit or not at_least)):
            break
        size += bytes_more
        fit += 1
    return piece.cut(fit, size) if fit else None
