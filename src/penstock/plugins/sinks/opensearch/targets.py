"""What is known of the indexes written to: seen by the encoder, prepared before the first request names them."""

from __future__ import annotations

from penstock import sdk

TARGETS_MAX = 10_000
REFUSAL_S = 60.0
"""How long a name counts as impossible before it is tried again: somebody may have made room for it."""


class Targets:
    """Names in three states: waiting to be prepared, ready, or refused."""

    def __init__(self, clock: sdk.Clock) -> None:
        self._now = clock.monotonic
        self.waiting: dict[str, None] = {}
        """Names to prepare, oldest first."""
        self.ready: set[str] = set()
        self.refused: dict[str, tuple[str, float]] = {}
        """Names that cannot be prepared, with the reason and when that expires."""
        self.streams: set[str] = set()
        """Names that are data streams: these take only `create`."""
        self.late_streams = False
        """Whether a data stream was found after operations for it had been encoded."""

    def see(self, name: str) -> None:
        """An operation for this index is about to be made."""
        if name not in self.ready and name not in self.waiting and name not in self.refused:
            self.waiting[name] = None

    def is_ready(self, name: str) -> None:
        if len(self.ready) >= TARGETS_MAX:  # forgetting costs one look at the server when the name comes up again
            self.ready.clear()
            self.streams.clear()
        self.waiting.pop(name, None)
        self.refused.pop(name, None)
        self.ready.add(name)

    def is_refused(self, name: str, reason: str) -> None:
        if len(self.refused) >= TARGETS_MAX:
            self.refused.clear()
        self.waiting.pop(name, None)
        self.refused[name] = (reason, self._now() + REFUSAL_S)

    def reason(self, name: str) -> str | None:
        """Why nothing can be written to this name; None when there is no reason."""
        refusal = self.refused.get(name)
        if refusal is None:
            return None
        if self._now() >= refusal[1]:
            self.prepare_again(name)
        return refusal[0]

    def prepare_again(self, name: str) -> None:
        """The index has gone away, or never was."""
        self.ready.discard(name)
        self.refused.pop(name, None)
        self.waiting[name] = None
