"""Encoded items as they are sent: joined. Only refusals and dead letters need one of them by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import overload


class Joined(Sequence[bytes]):
    """A sequence of items whose bytes exist as fewer, longer texts.

    Joining while encoding, sizes without looking at each item and no object per item halve what an item costs on its
    way.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def texts(self) -> Sequence[bytes]:
        """What the items make when they are joined, in one or more parts."""

    @property
    def sent_before(self) -> bytes | None:
        """A byte for each item, 0 for those that are sent for the first time; None where all are.

        1: a request with it was refused as a whole; 2: it was refused itself.
        """
        return None

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]: ...

    @overload
    def __getitem__(self, place: int) -> bytes: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[bytes]: ...

    def __getitem__(self, place: int | slice) -> bytes | Sequence[bytes]:
        return list(self)[place]


class JoinedItems(Joined):
    """Items that begin alike: each is the line `head` and a line of its own."""

    __slots__ = ("_count", "_head", "_texts")

    def __init__(self, head: bytes, texts: Sequence[bytes], count: int) -> None:
        self._head = head
        self._texts = texts
        self._count = count

    @property
    def texts(self) -> Sequence[bytes]:
        return self._texts

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        head = self._head
        return iter([head + line for line in self._lines()])

    def select(self, places: Sequence[int]) -> JoinedItems:
        """Those at the places, which ascend."""
        lines, head = self._lines(), self._head
        text = head + head.join([lines[place] for place in places]) if places else b""
        return JoinedItems(head, [text], len(places))

    def _lines(self) -> list[bytes]:
        """The second lines of the items."""
        text = b"".join(self._texts)
        lines = text.split(self._head)
        del lines[0]
        if len(lines) != self._count:  # a document that looks like the line before it
            lines = [line + b"\n" for line in text.split(b"\n")[1::2]]
        return lines


def texts_of(items: Sequence[bytes]) -> Sequence[bytes]:
    """The fewest texts that make all of `items` when they are joined."""
    return items.texts if isinstance(items, Joined) else items


def select(items: Sequence[bytes], places: Sequence[int]) -> Sequence[bytes]:
    """Those of `items` at the places, which ascend; joined ones stay joined."""
    return items.select(places) if isinstance(items, JoinedItems) else [items[place] for place in places]


def sent_before(items: Sequence[bytes]) -> bytes | None:
    """Which of `items` are tried again: a byte for each, not 0 for those; None where all are sent for the first time.

    1: a request with it was refused as a whole, or had no answer; 2: it was refused itself.
    """
    return items.sent_before if isinstance(items, Joined) else None
