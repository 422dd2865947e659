"""Log lines about single events, which a bad stream of data would otherwise repeat millions of times."""

from __future__ import annotations

import logging

from penstock import sdk

INTERVAL_S = 60.0
KINDS_MAX = 1000


class Notices:
    """Writes each kind of line at most once a minute and says how often it was kept back."""

    def __init__(self, log: logging.Logger, clock: sdk.Clock) -> None:
        self._log = log
        self._now = clock.monotonic
        self._last: dict[str, tuple[float, int]] = {}
        self._said: set[tuple[object, ...]] = set()

    def error(self, message: str, *args: object) -> None:
        now = self._now()
        last, kept_back = self._last.get(message, (now - INTERVAL_S, 0))
        if now - last < INTERVAL_S:
            self._last[message] = (last, kept_back + 1)
            return
        if len(self._last) >= KINDS_MAX:
            self._last.clear()
        self._last[message] = (now, 0)
        if kept_back:
            self._log.error(message + " (and %d more)", *args, kept_back)
        else:
            self._log.error(message, *args)

    def once(self, message: str, *args: object) -> None:
        """Warn of something that holds for all events of a kind; a second time nothing is written."""
        if (message, *args) not in self._said and len(self._said) < KINDS_MAX:
            self._said.add((message, *args))
            self._log.warning(message, *args)
