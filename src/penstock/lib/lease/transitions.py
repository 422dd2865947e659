"""How a lease goes from one state to the next: the same in every store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from penstock.core.clock import Clock
from penstock.lib.lease.item import Lease, Status


class Transitions(ABC):
    """What a store makes of its one way to change an item."""

    _clock: Clock

    @abstractmethod
    async def _change(self, lease: Lease, progress: dict[str, Any] | None = None, **values: Any) -> Lease:
        """Change the item if it is still as `lease` says. Raises `LeaseLost` where it is not."""

    async def renew(self, lease: Lease, span_s: float) -> Lease:
        return await self._change(lease, until_ms=self._until(span_s))

    async def save(self, lease: Lease, progress: dict[str, Any], span_s: float) -> Lease:
        return await self._change(lease, progress, until_ms=self._until(span_s))

    async def complete(self, lease: Lease, progress: dict[str, Any] | None = None) -> Lease:
        return await self._change(lease, progress, status=Status.COMPLETED, owner=None, until_ms=0)

    async def close(self, lease: Lease, reopen_after_s: float, closures_max: int) -> Lease:
        if lease.closed_count >= closures_max:
            return await self.complete(lease)
        return await self._change(
            lease,
            status=Status.CLOSED,
            owner=None,
            until_ms=0,
            reopen_ms=self._until(reopen_after_s),
            closed_count=lease.closed_count + 1,
        )

    async def give_up(self, lease: Lease, progress: dict[str, Any] | None = None) -> Lease:
        return await self._change(lease, progress, status=Status.UNASSIGNED, owner=None, until_ms=0)

    def _until(self, span_s: float) -> int:
        return self._clock.now_ms() + round(span_s * 1000)
