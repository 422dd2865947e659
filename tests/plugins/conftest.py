"""What tests of several kinds of plugins share."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@pytest.fixture(scope="session")
def memory_below() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which the process may grow by that many bytes at the most, whatever it gives back meanwhile.

    Where the system has no peak to be set back, only growth beyond the peak of the whole run is seen.
    """

    @contextmanager
    def below(limit_bytes: int) -> Iterator[None]:
        gc.collect()
        before = _size_with_fresh_peak()
        yield
        grown = _peak_bytes() - before
        assert grown < limit_bytes, f"the process has grown by {grown / 1e6:.0f} MB"

    return below


def _size_with_fresh_peak() -> int:
    if not _CLEAR.exists():
        return _peak_bytes()
    _CLEAR.write_text("5")
    return _told("VmRSS")


def _peak_bytes() -> int:
    if _CLEAR.exists():
        return _told("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _told(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
