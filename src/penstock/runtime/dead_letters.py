"""The file that refused events go to where no dead-letter queue is configured."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from penstock.core.json_text import encode
from penstock.sdk import DeadLetter

__all__ = ["DeadLetter", "DeadLetterFile"]


class DeadLetterFile:
    """A bounded file with one JSON object per line: `path`, then `path.1` … `path.<files_max - 1>`, oldest last.

    A line is the record, or with `wrapped`, for `dlq_file`, `{"Document": [record], "failure": message}`.

    When all are full the oldest is not overwritten: writing fails, so that nothing is lost silently; the events then
    count as undelivered and the message says what to do.
    """

    def __init__(
        self, path: Path, *, wrapped: bool = False, bytes_max: int = 64 * 1024 * 1024, files_max: int = 16
    ) -> None:
        self.path = path
        self._wrapped = wrapped
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._lock = asyncio.Lock()
        self._file: int | None = None

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        lines = [letter.to_object() for letter in letters]
        if self._wrapped:
            lines = [{"Document": [line], "failure": line["failedData"].get("message", "")} for line in lines]
        data = b"".join([encode(line) + b"\n" for line in lines])
        async with self._lock:
            await asyncio.to_thread(self._append, data)

    async def close(self) -> None:
        async with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _append(self, data: bytes) -> None:
        file = self._take(len(data))
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":  # a process was killed while it wrote
                data = b"\n" + data
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(file, view) :]
                os.fsync(file)
            except OSError:  # half a record would spoil the next one
                os.ftruncate(file, size)
                raise
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _take(self, size_bytes: int) -> int:
        """The file with room for so many bytes, locked against the other units that write to it."""
        while True:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            found = os.fstat(self._file)
            if self._is_at_path(found):
                if not found.st_size or found.st_size + size_bytes <= self._bytes_max:
                    return self._file
                self._rotate()
            file, self._file = self._file, None
            os.close(file)  # and with it the lock

    def _is_at_path(self, found: os.stat_result) -> bool:
        """False when another unit has rotated the files, or somebody has moved this one away."""
        try:
            return os.path.samestat(found, self.path.stat())
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        aged = [self.path.with_name(f"{self.path.name}.{number}") for number in range(1, self._files_max)]
        free = next((place for place, file in enumerate(aged) if not file.exists()), None)
        if free is None:
            assert self._file is not None
            fcntl.flock(self._file, fcntl.LOCK_UN)
            raise OSError(f"the dead-letter files {self.path}* are full: move them away to make room")
        for place in range(free, 0, -1):
            aged[place - 1].rename(aged[place])
        self.path.rename(aged[0])
