"""Texts of several lines: read at once they cost less than one by one. A text does not end with a line feed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def parts(text: bytes, lines_max: int, bytes_max: int) -> Iterator[tuple[bytes, int]]:
    """The text in parts of whole lines that keep to both limits, each with the number of its lines.

    A line that is longer is a part of its own.
    """
    start, end, size = 0, -1, len(text)
    while end < size:
        end = size if size - start <= bytes_max else text.rfind(b"\n", start, start + bytes_max + 1)
        if end < 0:
            end = text.find(b"\n", start)
            end = size if end < 0 else end
        part = text[start:end]
        start = end + 1
        count = part.count(b"\n") + 1
        if count <= lines_max:
            yield part, count
            continue
        lines = part.split(b"\n")
        for first in range(0, count, lines_max):
            some = lines[first : first + lines_max]
            yield b"\n".join(some), len(some)


def behind(text: bytes, count: int) -> bytes:
    """What follows the first lines."""
    return text.split(b"\n", count)[count]


def filled(text: bytes) -> list[bytes]:
    """Lines that are not empty."""
    return [line for line in text.split(b"\n") if line]


def read(
    text: bytes, count: int, read_all: Callable[[bytes], list[Any]], read_one: Callable[[bytes], Any]
) -> list[Any]:
    """What `read_all` finds in so many lines; where that fails, what `read_one` finds in each that is not empty."""
    try:
        found = read_all(text)
        if len(found) == count:
            return found
    except (ValueError, RecursionError):
        pass  # one of them needs to be looked at by itself
    return [read_one(line) for line in filled(text)]
