"""A limit of CPU time for matching, without a thread and without a cost per match.

`re` looks for signals while it matches. A timer of the process's CPU time (`SIGVTALRM`) interrupts a match that runs
away; functions that may be left that way are marked `interruptible`: they change nothing that outlives them. The limit
works in the main thread, where Python handles signals; elsewhere there is none. A limit inside of another one suspends
it: the outer one goes on with the time that it had left.

    limit = TimeLimit(seconds)
    done = 0
    while done < len(texts):
        try:
            with limit:
                for done in range(done, len(texts)): ...
        except TimeLimitExceeded: ...
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

RETRY_S = 0.001
"""Where a timer meets code that must not be interrupted, it comes again after this CPU time."""
DEPTH_MAX = 8
"""Calls below an interruptible function in which it is still found."""


class TimeLimitExceeded(Exception):
    """A match took longer than its limit."""


_interruptible: set[CodeType] = set()
_armed = False


def interruptible(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function that the time limit may leave at any point, because it has no effects."""
    _interruptible.add(function.__code__)
    return function


class TimeLimit:
    """A context in which interruptible functions raise `TimeLimitExceeded` after `seconds` of CPU time in all."""

    def __init__(self, seconds: float) -> None:
        assert seconds > 0, "a limit of no time would end every match"
        self.seconds = seconds
        self._suspended_s = 0.0

    def __enter__(self) -> Self:
        global _armed
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGVTALRM) is not _expire:
                signal.signal(signal.SIGVTALRM, _expire)
            nested, _armed = _armed, True
            left_s, _ = signal.setitimer(signal.ITIMER_VIRTUAL, self.seconds)
            self._suspended_s = max(left_s, RETRY_S) if nested else 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _armed
        if _armed:
            _armed = self._suspended_s > 0
            signal.setitimer(signal.ITIMER_VIRTUAL, self._suspended_s)


def _expire(number: int, frame: FrameType | None) -> None:
    if not _armed:
        return
    for _ in range(DEPTH_MAX):
        if frame is None:
            break
        if frame.f_code in _interruptible:
            raise TimeLimitExceeded
        frame = frame.f_back
    signal.setitimer(signal.ITIMER_VIRTUAL, RETRY_S)
