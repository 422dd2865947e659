"""How far each file has been read and delivered, kept in a file over restarts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from logging import Logger
from pathlib import Path
from typing import Any

from penstock import sdk


@dataclass(slots=True)
class Position:
    """What is known of one file. Its key is device and inode; the fingerprint tells a new file in the same place."""

    path: str
    committed: int = 0
    """Everything before this byte has been delivered."""
    head_bytes: int = 0
    head_crc: int = 0
    """Checksum of the first `head_bytes` bytes."""
    seen_ms: int = 0


class Checkpoints:
    """The positions of all files. Without a path they live only in memory."""

    def __init__(
        self, path: Path | None, *, cleanup_after_s: float, clock: sdk.Clock, log: Logger, errors: sdk.Counter
    ) -> None:
        self._path = path
        self._cleanup_after_ms = int(cleanup_after_s * 1000)
        self._clock = clock
        self._log = log
        self._errors = errors
        self._positions: dict[str, Position] = {}
        self._dirty = False

    def load(self) -> None:
        """Read the file. One that cannot be read is put aside with the ending `.corrupt`."""
        if self._path is None:
            return
        try:
            stored = json.loads(self._path.read_bytes())
            self._positions = {key: _position(entry) for key, entry in stored.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, AttributeError) as error:
            aside = self._path.with_name(self._path.name + ".corrupt")
            self._log.warning(
                "Corrupt or unreadable checkpoint file at %s. Renaming to .corrupt and starting fresh. %s",
                self._path,
                error,
            )
            try:
                self._path.replace(aside)
            except OSError as failure:
                self._log.warning("Failed to rename corrupt checkpoint file at %s: %s", self._path, failure)

    def get(self, key: str) -> Position | None:
        return self._positions.get(key)

    def put(self, key: str, position: Position) -> None:
        position.seen_ms = self._clock.now_ms()
        self._positions[key] = position
        self._dirty = True

    def changed(self) -> None:
        """A position has moved."""
        self._dirty = True

    def save(self) -> None:
        """Write the file as a whole or not at all, if something has changed. A failure is logged and tried again."""
        if self._path is None or not self._dirty:
            return
        oldest = self._clock.now_ms() - self._cleanup_after_ms
        self._positions = {key: kept for key, kept in self._positions.items() if kept.seen_ms >= oldest}
        text = json.dumps({key: asdict(position) for key, position in list(self._positions.items())})
        draft = self._path.with_name(self._path.name + ".tmp")
        self._dirty = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            self._dirty = True
            self._errors.add()
            self._log.error("Failed to flush checkpoint file %s: %s", self._path, error)


def _position(entry: dict[str, Any]) -> Position:
    position = Position(**entry)
    if not all(isinstance(number, int) and number >= 0 for number in (position.committed, position.head_bytes)):
        raise ValueError("a position is no number")
    return position
