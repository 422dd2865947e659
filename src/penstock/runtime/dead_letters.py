"""The file that refused events go to where no dead-letter queue is configured."""

from __future__ import annotations

import asyncio
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
        if self._file is None:
            self._file = self._open()
        size = os.fstat(self._file).st_size
        if size + len(data) > self._bytes_max and size:
            self._rotate()
            size = 0
        assert self._file is not None
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError:  # half a record would spoil the next one
            os.ftruncate(self._file, size)
            raise

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":  # the process was killed while it wrote
            os.write(file, b"\n")
        return file

    def _rotate(self) -> None:
        aged = [self.path.with_name(f"{self.path.name}.{number}") for number in range(1, self._files_max)]
        free = next((place for place, file in enumerate(aged) if not file.exists()), None)
        if free is None:
            raise OSError(f"the dead-letter files {self.path}* are full: move them away to make room")
        assert self._file is not None
        os.close(self._file)
        self._file = None
        for place in range(free, 0, -1):
            aged[place - 1].rename(aged[place])
        self.path.rename(aged[0])
        self._file = self._open()
