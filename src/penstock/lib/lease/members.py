"""Who works on a source, and how its partitions are divided among them.

Each unit keeps an item of its own in the lease store as long as it lives. A unit that holds more partitions than its
share gives the rest up, between two reads; nobody takes a partition from somebody who lives.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from penstock.core.clock import Clock
from penstock.lib.lease.item import Lease, LeaseLost, LeaseStore, Status
from penstock.lib.lease.owner import is_dead

MEMBER_S = 40.0
"""A member that has not renewed its item for so long is gone: within a minute others go on with its work."""
RENEW_S = 10.0


class Members:
    """The units that work on one source, as this one, `owner`, sees them."""

    def __init__(self, store: LeaseStore, source: str, owner: str, clock: Clock) -> None:
        self._store = store
        self._source = source
        self._owner = owner
        self._clock = clock
        self._own: Lease | None = None

    async def look(self, free: Callable[[str], Awaitable[None]] | None = None) -> list[str]:
        """Owners that live, in order of their names; this one is among them from now on.

        `free` is awaited for each owner that is gone, before its item is forgotten. Raises `Transient`.
        """
        await self._stay()
        now = self._clock.now_ms()
        living = []
        for item in await self._store.find(self._source):
            if item.owner == self._owner or (
                item.until_ms > now and item.owner is not None and not is_dead(item.owner)
            ):
                living.append(str(item.owner))
            elif item.status is Status.ASSIGNED:
                if free is not None and item.owner is not None:
                    await free(item.owner)
                await self._store.remove(self._source, item.key)
        return sorted({*living, self._owner})

    async def leave(self) -> None:
        """This unit takes nothing any more. Raises `Transient`."""
        if self._own is not None:
            self._own = None
            await self._store.remove(self._source, f"{self._owner}|")

    async def _stay(self) -> None:
        try:
            if self._own is None:
                await self._store.create(self._source, f"{self._owner}|")
                self._own = await self._store.acquire(self._source, self._owner, MEMBER_S, prefix=f"{self._owner}|")
            elif self._own.until_ms - self._clock.now_ms() < (MEMBER_S - RENEW_S) * 1000:
                self._own = await self._store.renew(self._own, MEMBER_S)
        except LeaseLost:  # another one took this one for gone
            self._own = None


@dataclass(frozen=True, slots=True)
class Share:
    """What is due to one of several units."""

    most: int
    """Partitions that it may take and keep."""
    excess: int
    """How many of those it holds it should give up."""
    free: bool
    """There are partitions that nobody works on."""


def share_of(owner: str, members: Sequence[str], leases: Iterable[Lease]) -> Share:
    """The share of `owner`; the counts of any two members end up at most one apart."""
    assert owner in members, "a unit shares with others once it is a member itself"
    counts = dict.fromkeys(members, 0)
    total = ownerless = 0
    for lease in leases:
        if lease.status is Status.COMPLETED:
            continue
        total += 1
        if lease.owner in counts:
            counts[lease.owner] += 1
        else:
            ownerless += 1
    most = math.ceil(total / len(members))
    excess = max(0, counts[owner] - most)
    if not excess and not ownerless:
        largest = max(counts.values())
        first = min(name for name, count in counts.items() if count == largest)
        if owner == first and largest - min(counts.values()) > 1:
            excess = 1
    return Share(most, excess, free=ownerless > 0)
