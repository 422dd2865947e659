"""A limit of so many permits a second, even over time, with what was left unused for at most one second on top."""

from __future__ import annotations

from penstock.core.clock import Clock


class RateLimit:
    """Permits arrive at a steady rate. Who takes one that has not arrived yet makes the next one wait."""

    def __init__(self, permits_per_s: float, clock: Clock) -> None:
        assert permits_per_s > 0, "a limit of nothing would never let anything pass"
        self._clock = clock
        self._interval_s = 1 / permits_per_s
        self._unused_max = float(permits_per_s)
        self._unused = 0.0
        self._next_s = clock.monotonic()
        """When the next permit is due, once the unused ones are gone."""

    def take(self) -> float:
        """Take a permit, now or in advance; returns the seconds until it is due."""
        now = self._refill()
        due = self._next_s
        if self._unused >= 1:
            self._unused -= 1
        else:
            self._next_s += (1 - self._unused) * self._interval_s
            self._unused = 0.0
        return max(0.0, due - now)

    def try_take(self) -> bool:
        """Take a permit if there is one now."""
        if self._next_s > self._refill():
            return False
        self.take()
        return True

    def _refill(self) -> float:
        now = self._clock.monotonic()
        if now > self._next_s:
            self._unused = min(self._unused_max, self._unused + (now - self._next_s) / self._interval_s)
            self._next_s = now
        return now
