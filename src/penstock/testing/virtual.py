"""Virtual time: an event loop whose clock jumps to the next thing that is due, so that hours pass in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

from penstock.core.clock import Clock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_NS = 1_700_000_000_000_000_000


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. Real sockets and threads work, but time stands still while they are awaited."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        self.in_threads = 0
        """Calls that run in threads now."""
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._virtual_s

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.in_threads += 1
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, future: asyncio.Future[Any]) -> None:
        self.in_threads -= 1

    def jump(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._virtual_s += seconds


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting it moves the clock of its loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self._loop.in_threads:
            ready = super().select(10.0)  # a thread may still have something to say
            if ready:
                return ready
            if timeout is None:
                raise RuntimeError("deadlock: nothing is due and nothing is under way")
        self._loop.jump(timeout)
        return []


class LoopClock(Clock):
    """Wall and monotonic time of the running loop; `skew_ns` moves the wall clock alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch_ns: int = EPOCH_NS) -> None:
        self._loop = loop
        self.skew_ns = epoch_ns

    def now_ns(self) -> int:
        return self.skew_ns + round(self._loop.time() * 1e9)

    def monotonic(self) -> float:
        return self._loop.time()


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
