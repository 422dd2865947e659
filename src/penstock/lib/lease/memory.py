"""Leases that end with the process."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from penstock.core.clock import Clock
from penstock.lib.lease.item import Lease, LeaseLost, Status
from penstock.lib.lease.owner import is_dead
from penstock.lib.lease.transitions import Transitions


class MemoryStore(Transitions):
    """For one process, or for tests."""

    look_s = 2.0

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._items: dict[tuple[str, str], Lease] = {}
        self._states: dict[tuple[str, str], dict[str, Any]] = {}

    async def create(
        self, source: str, key: str, progress: dict[str, Any] | None = None, *, status: Status = Status.UNASSIGNED
    ) -> bool:
        if (source, key) in self._items:
            return False
        self._items[source, key] = Lease(source, key, status, progress=deepcopy(progress or {}))
        return True

    async def get(self, source: str, key: str) -> Lease | None:
        item = self._items.get((source, key))
        return None if item is None else _copy(item)

    async def find(self, source: str) -> list[Lease]:
        return [_copy(item) for item in self._items.values() if item.source == source]

    async def acquire(self, source: str, owner: str, span_s: float, *, prefix: str = "") -> Lease | None:
        now = self._clock.now_ms()
        for item in self._items.values():
            if item.source == source and item.key.startswith(prefix) and _free(item, owner, now):
                return await self._change(
                    item, status=Status.ASSIGNED, owner=owner, until_ms=now + round(span_s * 1000)
                )
        return None

    async def remove(self, source: str, key: str) -> None:
        self._items.pop((source, key), None)

    async def state(self, source: str, key: str) -> dict[str, Any] | None:
        return deepcopy(self._states.get((source, key)))

    async def put_state(self, source: str, key: str, state: dict[str, Any]) -> None:
        self._states[source, key] = deepcopy(state)

    async def shut(self) -> None:
        pass

    async def _change(self, lease: Lease, progress: dict[str, Any] | None = None, **values: Any) -> Lease:
        held = self._items.get((lease.source, lease.key))
        if held is None or held.version != lease.version:
            raise LeaseLost(f"{lease.key} has another owner")
        if progress is not None:
            values["progress"] = deepcopy(progress)
        changed = replace(held, version=held.version + 1, **values)
        self._items[lease.source, lease.key] = changed
        return _copy(changed)


def _copy(item: Lease) -> Lease:
    return replace(item, progress=deepcopy(item.progress))


def _free(item: Lease, owner: str, now_ms: int) -> bool:
    match item.status:
        case Status.UNASSIGNED:
            return True
        case Status.CLOSED:
            return item.reopen_ms <= now_ms
        case Status.ASSIGNED:
            return item.until_ms <= now_ms or (item.owner is not None and item.owner != owner and is_dead(item.owner))
        case Status.COMPLETED:
            return False
