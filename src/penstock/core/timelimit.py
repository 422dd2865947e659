"""A limit of CPU time and memory for matching, without a thread and without a cost per match.

`re` looks for signals while it matches. A timer of the process's CPU time looks at a match now and then and interrupts
one that runs away; functions that may be left that way are marked `interruptible`: they change nothing that outlives
them. What the system does for the process counts too (`SIGPROF`), for new memory costs more there than here. The limit
works in the main thread, where Python handles signals; elsewhere there is none. A limit inside of another one suspends
it: the outer one goes on with the time that it had left.

Memory is what the process grows by, for `re` keeps 150 bytes for every repetition of a group that it may have to take
back: a text of a few megabytes is enough to fill a machine long before the time is over.

    limit = TimeLimit(seconds)
    done = 0
    while done < len(texts):
        try:
            with limit:
                for done in range(done, len(texts)): ...
        except TimeLimitExceeded: ...
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BYTES_MAX = 256 * 1024 * 1024
"""Memory by which the process may grow while one limit is in force."""
TICK_S = 0.02
"""CPU time between two looks at the memory."""
RETRY_S = 0.001
"""Where a timer meets code that must not be interrupted, it comes again after this CPU time."""
DEPTH_MAX = 8
"""Calls below an interruptible function in which it is still found."""


class TimeLimitExceeded(Exception):
    """A match took longer than its limit, or too much memory."""


_interruptible: set[CodeType] = set()
_armed = False
_left_s = 0.0
"""What the limit in force had left when the timer was set."""
_tick_s = 0.0
"""What the timer was set to."""
_bytes_before: int | None = None
"""What the process took at the first look."""


def interruptible(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function that the time limit may leave at any point, because it has no effects."""
    _interruptible.add(function.__code__)
    return function


class TimeLimit:
    """A context in which interruptible functions raise `TimeLimitExceeded` after `seconds` of CPU time in all.

    They do so too when the process has grown by `BYTES_MAX` meanwhile.
    """

    def __init__(self, seconds: float) -> None:
        assert seconds > 0, "a limit of no time would end every match"
        self.seconds = seconds
        self._suspended_s = 0.0

    def __enter__(self) -> Self:
        global _armed
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGPROF) is not _look:
                signal.signal(signal.SIGPROF, _look)
            nested, _armed = _armed, True
            suspended_s, tick_s = _left_s, _tick_s
            tick_left_s = _set_timer(self.seconds)
            self._suspended_s = max(suspended_s - (tick_s - tick_left_s), RETRY_S) if nested else 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _armed
        if _armed:
            _armed = self._suspended_s > 0
            _set_timer(self._suspended_s)


def _set_timer(left_s: float) -> float:
    """Start a limit anew with that much time, none to stop; returns what the timer had left."""
    global _left_s, _tick_s, _bytes_before
    _left_s, _tick_s, _bytes_before = left_s, min(left_s, TICK_S), None
    return signal.setitimer(signal.ITIMER_PROF, _tick_s)[0]


def _look(number: int, frame: FrameType | None) -> None:
    global _left_s, _tick_s, _bytes_before
    if not _armed:
        return
    _left_s -= _tick_s
    if _left_s > RETRY_S:
        size = _process_bytes()
        if _bytes_before is None:
            _bytes_before = size
        if size - _bytes_before < BYTES_MAX:
            _tick_s = min(_left_s, TICK_S)
            signal.setitimer(signal.ITIMER_PROF, _tick_s)
            return
    for _ in range(DEPTH_MAX):
        if frame is None:
            break
        if frame.f_code in _interruptible:
            raise TimeLimitExceeded
        frame = frame.f_back
    _tick_s = RETRY_S
    signal.setitimer(signal.ITIMER_PROF, RETRY_S)


def _process_bytes() -> int:
    """Memory of this process: what it takes now, or has taken at the most where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as told:  # noqa: PTH123 (a signal handler has no time for objects)
            return int(told.read().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
