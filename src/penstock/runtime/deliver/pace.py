"""How fast a sink is sent to: when the next request may start, and how long what it refused has to wait."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from penstock.core.errors import Transient
from penstock.sdk import Limits

RETRY_DELAY_S_MIN = 0.05
RETRY_DELAY_S_MAX = 60.0
BREAKER_DELAY_S_MAX = 10.0
DRAIN_DELAY_S_MAX = 1.0
"""Longest pause before a retry while it drains: one that would come after the deadline is none."""
COLLECT_S_MAX = 0.05
"""Longest time a busy sink collects before it is sent what there is."""
FULL_BYTES_MIN = 3 * 1024 * 1024
"""So much is sent at once when the buffer is full: not much more comes before something has left.

Each request costs about as much as two thousand small events: it is not sent for few.
"""
STRAINED_BYTES_MIN = FULL_BYTES_MIN // 4
"""The same while the server refuses for want of room: smaller requests fit more easily, and the next one is made while
it is at work on this one."""
STRAINED_BYTES_MAX = 2 * STRAINED_BYTES_MIN
"""No request is larger meanwhile, so that they do not all come back at once."""
STRAINED_REQUESTS = 16
"""So many requests in a row must be taken until the server counts as having room again."""


def retry_delay_s(level: int, chance: random.Random, *, draining: bool = False) -> float:
    """Exponential from 50 ms to a minute (a second while it drains), with full jitter over its upper half."""
    delay_max = DRAIN_DELAY_S_MAX if draining else RETRY_DELAY_S_MAX
    delay = min(RETRY_DELAY_S_MIN * 2.0 ** min(level - 1, 16), delay_max)
    return delay * (0.5 + chance.random() / 2)


class RetryPauses:
    """Pauses between attempts at one thing; a drain cuts them short."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._draining = asyncio.Event()

    async def after(self, attempts: int, asked_s: float | None = None) -> None:
        """Wait after so many failed attempts; `asked_s` is what the other side has asked for."""
        delay = retry_delay_s(attempts, self._chance) if asked_s is None else min(asked_s, RETRY_DELAY_S_MAX)
        if self._draining.is_set():
            await asyncio.sleep(min(delay, DRAIN_DELAY_S_MAX))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._draining.wait()

    def hurry(self) -> None:
        """It drains from now on."""
        self._draining.set()


class Pace:
    """The pace of one sink with several lanes.

    An idle sink is sent to at once; a busy one when there is enough for a request, when nothing more can come, or one
    reply time (50 ms at most) after its last reply: a trickle does not become a stream of one-document requests.

    A request that was refused as a whole pauses its lane; the others go on. All lanes pause when none of them gets
    through, when the server names a time, and when it is not reached at all: then one request at a time knocks.
    """

    def __init__(self, now: Callable[[], float], chance: random.Random) -> None:
        self._now = now
        self._chance = chance
        self._rest_until = 0.0
        self._collect_until: float | None = None
        self._paused_until = 0.0
        self.strikes = 0
        """Requests in a row that were refused as a whole or had no answer."""
        self.knocks = False
        """The server was not reached: only one request at a time."""
        self.draining = False
        self._strained = 0
        self._takes = False
        """Whether a request got through, and since then no two in a row were refused."""

    def start_at(
        self, limits: Limits, in_flight: int, queued_bytes: int, *, is_full: bool, is_all: bool = False
    ) -> float | None:
        """When the next request may start; None: now.

        `is_full` when nothing more is let in before something has left, `is_all` when this is all that was let in.
        """
        now = self._now()
        if self._paused_until > now:
            return self._paused_until
        if self.knocks and in_flight:
            return now + COLLECT_S_MAX
        enough = limits.request_bytes_max
        if is_full:
            enough = min(enough, STRAINED_BYTES_MIN if self._strained else FULL_BYTES_MIN)
        if self.draining or is_all or queued_bytes >= enough:
            start = now
        else:
            wait_max = min(COLLECT_S_MAX, limits.flush_timeout_s)
            if in_flight == 0:
                start = min(self._rest_until, now + wait_max)
            else:
                if self._collect_until is None:
                    self._collect_until = now + wait_max
                start = self._collect_until
        if start > now:
            return start
        self._collect_until = None
        return None

    def request_bytes_max(self, limits: Limits) -> int:
        """How large the next request may be."""
        return min(limits.request_bytes_max, STRAINED_BYTES_MAX) if self._strained else limits.request_bytes_max

    def replied(self, reply_s: float, limits: Limits) -> None:
        """A request is over, whatever became of it."""
        self._rest_until = self._now() + min(reply_s, COLLECT_S_MAX, limits.flush_timeout_s)

    def strike(self, error: Transient, *, reached: bool, lanes: int) -> float:
        """A request as a whole was refused. Seconds for which its own lane pauses; 0: all of them do."""
        self._takes = self._takes and self.strikes == 0
        self.strikes += 1
        self._strained = STRAINED_REQUESTS
        self.knocks = not reached
        if error.retry_after_s is not None:
            delay = self.wait_s(error.retry_after_s)
        else:
            delay = min(self.backoff_s(self.strikes), BREAKER_DELAY_S_MAX)
            if reached and self.strikes <= lanes:
                return delay
        self._paused_until = max(self._paused_until, self._now() + delay)
        return 0.0

    def well(self) -> None:
        """A request got through."""
        self.strikes = 0
        self.knocks = False
        self._takes = True
        self._strained = max(0, self._strained - 1)

    @property
    def refuses_some(self) -> bool:
        """Whether the request that was refused is the first one after one that got through."""
        return self._takes and self.strikes > 0

    def strain(self) -> None:
        """Items of it were refused that will be sent again."""
        self._strained = STRAINED_REQUESTS

    def backoff_s(self, level: int) -> float:
        return retry_delay_s(level, self._chance, draining=self.draining)

    def wait_s(self, asked_s: float) -> float:
        """How long to wait where the server has asked for a time."""
        return min(asked_s, DRAIN_DELAY_S_MAX if self.draining else RETRY_DELAY_S_MAX)

    def hurry(self) -> None:
        """It drains: no pause is longer than a drain allows."""
        self.draining = True
        self._paused_until = min(self._paused_until, self._now() + DRAIN_DELAY_S_MAX)
