"""What a lease is and what a store of leases does."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from penstock.core.errors import PenstockError


class Status(StrEnum):
    UNASSIGNED = "UNASSIGNED"
    ASSIGNED = "ASSIGNED"
    COMPLETED = "COMPLETED"
    CLOSED = "CLOSED"
    """Put aside until its reopen time."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One item as it was when it was read. The names follow the item layout of Data Prepper's stores."""

    source: str
    """`pipeline|TYPE`."""
    key: str
    """The partition: `<streamArn>|<shardId>`."""
    status: Status = Status.UNASSIGNED
    owner: str | None = None
    until_ms: int = 0
    """End of the ownership, milliseconds since the epoch."""
    progress: dict[str, Any] = field(default_factory=dict)
    """JSON: how far the work has come."""
    version: int = 0
    reopen_ms: int = 0
    """When a closed item may be taken again."""
    closed_count: int = 0


class LeaseLost(PenstockError):
    """Someone else has changed the item: it is theirs now."""


class LeaseStore(Protocol):
    """All calls but the reading ones raise `LeaseLost` when the item is no longer as `lease` says, and
    `Transient` when the store cannot be reached."""

    look_s: float
    """How often it may be asked what there is, seconds."""

    async def create(
        self, source: str, key: str, progress: dict[str, Any] | None = None, *, status: Status = Status.UNASSIGNED
    ) -> bool:
        """Add an item. False: there is one already, and it stays as it is."""

    async def get(self, source: str, key: str) -> Lease | None: ...

    async def find(self, source: str) -> list[Lease]:
        """All items of `source`, oldest first."""

    async def acquire(self, source: str, owner: str, span_s: float, *, prefix: str = "") -> Lease | None:
        """Take the oldest item whose key starts with `prefix` and that is free.

        Free: unassigned, closed with its reopen time passed, or assigned to an owner whose time is over or who is
        known to be dead.
        """

    async def renew(self, lease: Lease, span_s: float) -> Lease:
        """Own it for `span_s` from now."""

    async def save(self, lease: Lease, progress: dict[str, Any], span_s: float) -> Lease:
        """Save progress and own it for `span_s` from now."""

    async def complete(self, lease: Lease, progress: dict[str, Any] | None = None) -> Lease:
        """The work is done; the item stays as a record of it."""

    async def close(self, lease: Lease, reopen_after_s: float, closures_max: int) -> Lease:
        """Put it aside for a while; closed more than `closures_max` times it counts as completed."""

    async def give_up(self, lease: Lease, progress: dict[str, Any] | None = None) -> Lease:
        """Free for anyone, to go on from `progress`."""

    async def remove(self, source: str, key: str) -> None:
        """Forget an item, whoever owns it."""

    async def state(self, source: str, key: str) -> dict[str, Any] | None:
        """What all units know of a thing that nobody owns."""

    async def put_state(self, source: str, key: str, state: dict[str, Any]) -> None: ...

    async def shut(self) -> None:
        """Close the store. Calling it twice is fine."""
