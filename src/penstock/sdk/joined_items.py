"""Encoded items as they are sent: joined. Only refusals and dead letters need one of them by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload


class JoinedItems(Sequence[bytes]):
    """A sequence of items that exists as joined texts until somebody asks for one of them.

    Joining while encoding, sizes without looking at each item and no object per item halve what an item costs on its
    way. Once it was taken apart an item keeps its identity.
    """

    __slots__ = ("_count", "_take_apart", "texts")

    def __init__(self, texts: Sequence[bytes], count: int, take_apart: Callable[[], list[bytes]]) -> None:
        self.texts: Sequence[bytes] = texts
        """What the items make when they are joined, in one or more parts."""
        self._count = count
        self._take_apart: Callable[[], list[bytes]] | None = take_apart

    @classmethod
    def of_lines(cls, texts: Sequence[bytes], count: int, lines_each: int) -> JoinedItems:
        """Items of the same number of lines, each of which ends with a newline."""

        def take_apart() -> list[bytes]:
            lines = b"".join(texts).split(b"\n")[:-1]
            return [b"\n".join([*lines[start : start + lines_each], b""]) for start in range(0, len(lines), lines_each)]

        return cls(texts, count, take_apart)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> bytes: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[bytes]: ...

    def __getitem__(self, place: int | slice) -> bytes | Sequence[bytes]:
        return self._items()[place]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._items())

    def _items(self) -> Sequence[bytes]:
        if self._take_apart is not None:
            items = self._take_apart()
            assert len(items) == self._count, f"{self._count} items were joined, {len(items)} came out"
            self.texts, self._take_apart = items, None
        return self.texts


def texts_of(items: Sequence[bytes]) -> Sequence[bytes]:
    """The fewest texts that make all of `items` when they are joined."""
    return items.texts if isinstance(items, JoinedItems) else items
