"""One file: where its reading stands, what of it is on its way, and whether it is still the file it was."""

from __future__ import annotations

import os
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from penstock.plugins.sources.file.checkpoints import Position


@dataclass(slots=True, eq=False)
class Piece:
    """Whole lines that went on together."""

    start: int
    length: int
    """Bytes to read when they are read again; less than `end - start` where the rest of a long line was cut off."""
    end: int
    """The position behind them."""
    generation: int
    attempts: int = 0
    delivered: bool = False


class LineCutter:
    """Finds the ends of lines in an encoding whose characters may be several bytes wide."""

    def __init__(self, encoding: str) -> None:
        self._newline = "\n".encode(encoding)
        self._width = len(self._newline)

    def cut(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The whole lines of `data` with their ends, and what is left. `data` begins at the start of a line."""
        if self._width > 1:
            return self._wide(data)
        *lines, rest = data.split(b"\n")
        return [line + b"\n" for line in lines], rest

    def _wide(self, data: bytes) -> tuple[list[bytes], bytes]:
        lines: list[bytes] = []
        start = found = 0
        while (found := data.find(self._newline, found)) >= 0:
            if found % self._width:
                found += 1
                continue
            found += self._width
            lines.append(data[start:found])
            start = found
        return lines, data[start:]


class TrackedFile:
    """A file that is read. Only `open` and what says so touches the disk."""

    def __init__(self, key: str, path: Path, position: Position) -> None:
        self.key = key
        self.path = path
        self.position = position
        self.read_to = position.committed
        """Bytes that have been read, an unfinished line at their end included."""
        self.partial = b""
        """The unfinished line."""
        self.skipping = False
        """Whether the rest of a line that was too long is being passed over."""
        self.generation = 0
        self.descriptor: int | None = None
        self.on_its_way: deque[Piece] = deque()
        self.refused: deque[Piece] = deque()
        """Pieces to be read and sent again."""
        self.busy = False
        self.active_at = 0.0
        self.turned_at = 0.0
        """When there was new data last."""
        self.hidden_since: float | None = None
        """Since when the name leads elsewhere: renamed or deleted."""
        self.ended = False
        """Whether everything that will ever be read has been read."""

    @property
    def line_start(self) -> int:
        """Position of the unfinished line."""
        return self.read_to - len(self.partial)

    def open(self) -> bool:
        """Open the file. False when the name leads to another one by now."""
        if self.descriptor is None:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            if key_of(os.fstat(descriptor)) != self.key:
                os.close(descriptor)
                return False
            self.descriptor = descriptor
        return True

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def read(self, start: int, size: int) -> bytes:
        """Bytes from the disk; fewer at the end of the file."""
        assert self.descriptor is not None
        pieces: list[bytes] = []
        while size:
            data = os.pread(self.descriptor, size, start)
            if not data:
                break
            pieces.append(data)
            start += len(data)
            size -= len(data)
        return b"".join(pieces)

    def look(self, fingerprint_bytes: int) -> tuple[int, bool]:
        """Size of the file, and whether it was emptied and written anew. Reads its head when it has grown."""
        assert self.descriptor is not None
        size = os.fstat(self.descriptor).st_size
        if size < self.read_to:
            return size, True
        if size == self.read_to:
            return size, False
        head = os.pread(self.descriptor, min(fingerprint_bytes, size), 0)
        if not same_head(head, self.position):
            return size, True
        if len(head) > self.position.head_bytes:
            self.position.head_bytes, self.position.head_crc = len(head), zlib.crc32(head)
        return size, False

    def start_over(self) -> None:
        """The file was emptied: what was on its way counts no more."""
        self.generation += 1
        self.on_its_way.clear()
        self.refused.clear()
        self.read_to = self.position.committed = 0
        self.position.head_bytes = self.position.head_crc = 0
        self.partial = b""
        self.skipping = False

    def delivered(self, piece: Piece) -> bool:
        """A piece has ended. True when the position moved."""
        piece.delivered = True
        moved = False
        while self.on_its_way and self.on_its_way[0].delivered:
            self.position.committed = self.on_its_way.popleft().end
            moved = True
        return moved


def key_of(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}"


def same_head(head: bytes, position: Position) -> bool:
    """Whether a file that begins with `head` may be the one `position` is about."""
    known = position.head_bytes
    return len(head) >= known and zlib.crc32(head[:known]) == position.head_crc
