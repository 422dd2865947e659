"""The data directory of a run: one run at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from penstock.core.errors import Permanent


def take_data_dir(data_dir: Path) -> int:
    """Make the directory and lock it; the lock lasts until the descriptor and all its copies are closed.

    Two runs on one data directory would undo each other's progress. Raises `Permanent` where there is one, or where
    the directory cannot be used.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Permanent(
            f"the data directory {data_dir} cannot be used ({error.strerror}): choose another one with --data-dir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise Permanent(
            f"the data directory {data_dir} is in use by process {owner}: stop it, or choose another directory "
            "with --data-dir"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
