"""A virtual event loop that can be stopped dead at any step, as a killed process is."""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.testing.virtual import VirtualLoop

STEPS_MAX = 200_000
"""Turns of the loop in one life of the process; more means that something runs in a circle."""


class SimulationLoop(VirtualLoop):
    """Counts its turns and hears of every exception that nobody else has heard of."""

    def __init__(self, start_s: float) -> None:
        super().__init__()
        self.steps = 0
        self.troubles: list[str] = []
        self._kill_at: int | None = None
        self.jump(start_s)
        self.set_exception_handler(self._trouble)

    def kill_after(self, steps: int) -> None:
        """Stop dead after so many more turns."""
        self._kill_at = self.steps + steps

    def _run_once(self) -> None:
        self.steps += 1
        if self._kill_at is not None and self.steps >= self._kill_at:
            self.stop()
        if self.steps > STEPS_MAX:
            self.troubles.append(f"the loop made {STEPS_MAX} turns: something runs in a circle")
            self.stop()
        super()._run_once()  # type: ignore[misc]

    def run_life(self, main: asyncio.Task[Any]) -> bool:
        """Run until `main` is done (True) or the loop was stopped dead."""
        main.add_done_callback(self._ended)
        self.run_forever()
        main.remove_done_callback(self._ended)
        return main.done()

    def bury(self) -> None:
        """After a kill: let every task go, so that nothing is left to warn about."""
        self._kill_at = None
        self.steps = 0
        self.set_exception_handler(lambda _loop, _context: None)
        for _ in range(3):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=1.0))

    def _ended(self, _main: asyncio.Task[Any]) -> None:
        self.stop()

    def _trouble(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.troubles.append(f"{context.get('message')}: {context.get('exception')!r}")
