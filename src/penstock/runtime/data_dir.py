"""The data directory of a run: one run at a time."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from pathlib import Path

from penstock.core.errors import Permanent

ORPHANS_WAIT_S = 60.0
"""How long the units of a run that was killed may take to finish what they have."""
LOOK_EVERY_S = 0.05

log = logging.getLogger(__name__)


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
        owner = _owner(lock) or "unknown"
        os.close(lock)
        raise Permanent(
            f"the data directory {data_dir} is in use by process {owner}: stop it, or choose another directory "
            "with --data-dir"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


async def orphans_gone(data_dir: Path, wait_s: float = ORPHANS_WAIT_S) -> None:
    """Wait while the directory is only held by the units of a run that was killed: they finish what they have."""
    give_up = time.monotonic() + wait_s
    told = False
    while (owner := _ended_owner(data_dir)) is not None and time.monotonic() < give_up:
        if not told:
            told = True
            log.info("Process %s has ended; waiting for its units, which finish what they have", owner)
        await asyncio.sleep(LOOK_EVERY_S)


def _ended_owner(data_dir: Path) -> str | None:
    """The number of the process that had the directory, where it has ended and the directory is still held."""
    try:
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = _owner(lock)
        return owner if owner.isdecimal() and not _lives(int(owner)) else None
    else:
        return None
    finally:
        os.close(lock)


def _owner(lock: int) -> str:
    return os.pread(lock, 32, 0).decode(errors="replace").strip()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True
