"""The only reader of time in the engine, so that a whole pipeline can run in virtual time."""

from __future__ import annotations

import time


class Clock:
    """Wall and monotonic time of this machine."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self.now_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that only ever grow; for spans, never for dates."""
        return time.monotonic()


class ManualClock(Clock):
    """A clock that moves only when told to."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._start_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic(self) -> float:
        return (self._now_ns - self._start_ns) / 1e9

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self._now_ns += round(seconds * 1e9)
