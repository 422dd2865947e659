"""Names of owners that tell whether the owner can still be alive.

An owner is one start of one unit: host, process id, start of that process, and a number. A process id that was given
to another process since then has another start.
"""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

_number = itertools.count()


def new_owner() -> str:
    """A name that no other start has ever had."""
    pid = os.getpid()
    return f"{_host()}:{pid}:{_started(pid) or 'unknown'}:{next(_number)}"


def is_dead(owner: str) -> bool:
    """Whether `owner` was a process of this machine that has ended. False when nobody can know."""
    host, pid_text, started, _start = ["", "", "", *owner.rsplit(":", 3)][-4:]
    if host != _host() or not pid_text.isdigit():
        return False
    pid = int(pid_text)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    now = _started(pid)
    if now == "":
        return True
    return started != "unknown" and now is not None and now != started


def _host() -> str:
    return socket.gethostname()


def _started(pid: int) -> str | None:
    """Start of a process in clock ticks since the machine started; None where the system does not say (not Linux).

    Empty for one that has ended and that its parent has not noticed yet.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
