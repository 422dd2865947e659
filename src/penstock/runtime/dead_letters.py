"""Where refused events go: a record each, with the reason and everything a replay needs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from penstock.core.json_text import encode


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that could not be delivered."""

    plugin_id: str
    plugin_name: str
    pipeline_name: str
    time_ns: int
    failed_data: dict[str, Any] = field(default_factory=dict)
    """`index`, `indexId`, `status`, `message`, `document`, and what a replay needs beside."""

    def to_object(self) -> dict[str, Any]:
        """The record in the form of Data Prepper's dead-letter objects. Source: S-B20."""
        seconds, rest = divmod(self.time_ns, 1_000_000_000)
        time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest // 1_000_000:03d}Z"
        return {
            "pluginId": self.plugin_id,
            "pluginName": self.plugin_name,
            "pipelineName": self.pipeline_name,
            "failedData": self.failed_data,
            "timestamp": time,
        }


class DeadLetterWriter(Protocol):
    """Keeps dead letters where somebody can find them."""

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them durably. Raises `OSError` or `Transient` when that fails: then they were not delivered."""

    async def close(self) -> None: ...


class DeadLetterFile:
    """A bounded file with one JSON record per line: `path`, then `path.1` … `path.<files_max - 1>`, oldest last.

    When all are full the oldest is not overwritten: writing fails, so that nothing is lost silently; the events then
    count as undelivered and the message says what to do.
    """

    def __init__(self, path: Path, *, bytes_max: int = 64 * 1024 * 1024, files_max: int = 16) -> None:
        self.path = path
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._lock = asyncio.Lock()
        self._file: int | None = None

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        data = b"".join(encode(letter.to_object()) + b"\n" for letter in letters)
        async with self._lock:
            await asyncio.to_thread(self._append, data)

    async def close(self) -> None:
        async with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if os.fstat(self._file).st_size + len(data) > self._bytes_max and os.fstat(self._file).st_size:
            self._rotate()
        assert self._file is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fsync(self._file)

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
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
