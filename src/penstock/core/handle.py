"""A delivery promise of a source, counted per event and kept exactly once."""

from __future__ import annotations

from collections.abc import Callable


class Handle:
    """Counts the events that a source must account for and tells it once how they ended.

    A source makes one for what it can ask for again: a request, an SQS message, a page of records. Each event in
    flight that carries the handle counts one. The source holds one count itself until `seal`, so that the handle
    cannot end while events are still being added. When the count is zero the source hears `True` when every event was
    delivered (or dead-lettered, or dropped on purpose), else `False`. Source: `event-acknowledgment` in
    docs/behaviour.md.

    `expire` says no at once: later releases are ignored and counted in `late`.
    """

    __slots__ = ("__weakref__", "_count", "_ok", "_on_done", "done", "late")

    def __init__(self, on_done: Callable[[bool], None] | None = None) -> None:
        self._count = 1
        self._ok = True
        self._on_done = on_done
        self.done = False
        """Whether the source has heard the outcome; events of a done handle need not be delivered any more."""
        self.late = 0
        """Releases that came after the handle had expired."""

    @property
    def heard(self) -> bool:
        """Whether somebody waits for the outcome, and so can ask again for what was not delivered."""
        return self._on_done is not None

    @property
    def pending(self) -> int:
        """Counts not yet released, the source's own included."""
        return self._count

    def add(self, count: int) -> None:
        """Count `count` more events in flight."""
        if self.done:
            self.late -= count
            return
        assert self._count > 0, "events added to a handle that has ended"
        self._count += count

    def release(self, count: int, *, ok: bool) -> None:
        """`count` events have ended. Called by `Batch.release` alone."""
        if self.done:
            self.late += count
            return
        assert 0 < count <= self._count, "a handle was released more often than it was taken"
        self._ok = self._ok and ok
        self._count -= count
        if self._count == 0:
            self._end()

    def seal(self) -> None:
        """The source has added all its events."""
        self.release(1, ok=True)

    def expire(self) -> None:
        """Say no now: the time is over, or the source has lost the right to these events."""
        if not self.done:
            self._ok = False
            self._end()

    def _end(self) -> None:
        self.done = True
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(self._ok)


class JoinedHandle(Handle):
    """Stands for the events that one event was made of: what becomes of it becomes of them.

    The maker holds one count until `seal`, like a source does; each slot of a batch that carries the handle counts one
    more. The counts taken over with `join` are released once, when this handle ends.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        super().__init__()
        self._parts: dict[Handle, int] = {}

    @property
    def parts(self) -> int:
        """Distinct handles that wait for this one."""
        return len(self._parts)

    @property
    def heard(self) -> bool:
        return any(handle.heard for handle in self._parts)

    def join(self, handle: Handle, count: int) -> bool:
        """Take over `count` counts of `handle`, and say whether it is new here. Called by `Batch` alone."""
        parts = self._parts
        if handle in parts:
            parts[handle] += count
            return False
        assert not self.done, "an event joined a handle that has ended"
        assert handle is not self, "a handle cannot wait for itself"
        parts[handle] = count
        return True

    def _end(self) -> None:
        super()._end()
        parts, self._parts = self._parts, {}
        for handle, count in parts.items():
            handle.release(count, ok=self._ok)
