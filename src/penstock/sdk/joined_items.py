"""Encoded items as they are sent: joined. Only refusals and dead letters need one of them by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class Joined(Sequence[bytes]):
    """A sequence of items whose bytes exist as fewer, longer texts.

    Joining while encoding, sizes without looking at each item and no object per item halve what an item costs on its
    way. An item that was asked for keeps its identity.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def texts(self) -> Sequence[bytes]:
        """What the items make when they are joined, in one or more parts."""

    @property
    @abstractmethod
    def objects(self) -> Iterable[Sequence[bytes] | bytes]:
        """What there is of them in memory: items, and joined ones of which none was asked for."""

    @overload
    def __getitem__(self, place: int) -> bytes: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[bytes]: ...

    def __getitem__(self, place: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(place, slice):
            return list(self)[place]
        return self.pick([range(len(self))[place]])[0]

    @abstractmethod
    def pick(self, places: Sequence[int]) -> list[bytes]:
        """The items at these places, which ascend."""


class JoinedItems(Joined):
    """Items that begin alike: each is the line `head` and a line of its own."""

    __slots__ = ("_count", "_head", "_items", "_lines", "_texts")

    def __init__(self, head: bytes, texts: Sequence[bytes], count: int) -> None:
        self._head = head
        self._texts = texts
        self._count = count
        self._lines: list[bytes] | None = None
        self._items: dict[int, bytes] = {}

    @property
    def texts(self) -> Sequence[bytes]:
        return self._texts

    @property
    def objects(self) -> Iterable[Sequence[bytes] | bytes]:
        return self._items.values() or (self,)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pick(range(self._count)))

    def pick(self, places: Sequence[int]) -> list[bytes]:
        lines = self._lines
        if lines is None:
            lines = self._lines = b"".join(self._texts).split(b"\n")[1::2]
        head, get = self._head, self._items.get
        items = [get(place) or b"%b%b\n" % (head, lines[place]) for place in places]
        self._items.update(zip(places, items, strict=True))
        return items


def texts_of(items: Sequence[bytes]) -> Sequence[bytes]:
    """The fewest texts that make all of `items` when they are joined."""
    return items.texts if isinstance(items, Joined) else items


def pick(items: Sequence[bytes], places: Sequence[int]) -> list[bytes]:
    """Those of `items` at the places, which ascend; quicker than asking for each."""
    return items.pick(places) if isinstance(items, Joined) else [items[place] for place in places]


def objects_of(items: Sequence[bytes]) -> Iterable[Sequence[bytes] | bytes]:
    """What there is of `items` in memory: themselves, and joined ones of which none was asked for."""
    return items.objects if isinstance(items, Joined) else items
