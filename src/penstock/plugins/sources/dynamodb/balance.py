"""Shards and files in equal parts for all units, and those of a unit that died for the others, within seconds."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable

from penstock import sdk
from penstock.lib.lease import LeaseLost, LeaseStore, Members, Share, Status, share_of
from penstock.plugins.sources.dynamodb.reader import LeasedReader

CHANGE_S = 60.0
"""How long partitions are looked at closely after a unit has come or gone."""


NOBODY_ELSE_S = 30.0
"""How long a shard is left to other units."""


class Balance:
    """The share of one unit in the shards of a table."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        owner: str,
        table_arn: str,
        members_of: str,
        shards_of: str,
        others_of: Collection[str] = (),
        clock: sdk.Clock,
        log: logging.Logger,
    ) -> None:
        self._store = store
        self._owner = owner
        self._shards_of = shards_of
        self._others_of = others_of
        """What else a unit owns: the lead, exports, files."""
        self._clock = clock
        self._log = log
        self._table_arn = table_arn
        self._members = Members(store, members_of, owner, clock)
        self._living: list[str] = [owner]
        self._changed_at = -math.inf
        self._completed = 0
        self._share: Share | None = None
        self._free_since = math.inf
        """Since when there are shards that nobody reads."""
        self._leaving: set[LeasedReader] = set()

    @property
    def alone(self) -> bool:
        """No other unit works on this table."""
        return len(self._living) == 1

    def may_take(self, readers: Iterable[LeasedReader]) -> bool:
        """Whether another shard is due to this unit beside those it reads."""
        if self._share is None or len(self._staying(readers)) < self._share.most:
            return True
        return self._clock.monotonic() - self._free_since > NOBODY_ELSE_S

    async def look(self, readers: Iterable[LeasedReader], streams: Collection[str]) -> tuple[bool, bool]:
        """See who is there, and let go of shards of these streams that are due to others.

        Returns whether there may be something to take, and whether another unit has come to the end of a shard.
        Raises `Transient`.
        """
        living = await self._members.look(self._free)
        now = self._clock.monotonic()
        changed = living != self._living
        if changed:
            self._log.info("%d units share the shards of table %s", len(living), self._table_arn)
            self._living, self._changed_at = living, now
        if self.alone:
            self._share = None
            if now - self._changed_at > CHANGE_S:
                return changed, changed
        # The leases of one pipeline may be those of several tables.
        leases = [lease for lease in await self._store.find(self._shards_of) if lease.key.rpartition("|")[0] in streams]
        share = share_of(self._owner, living, leases)
        completed = sum(1 for lease in leases if lease.status is Status.COMPLETED)
        ended, self._completed = completed > self._completed, completed
        self._free_since = min(self._free_since, now) if share.free else math.inf
        if not self.alone:
            self._share = share
            self._let_go(readers, share.excess)
        return changed or share.free, changed or ended

    async def leave(self) -> None:
        """This unit takes nothing any more. Raises `Transient`."""
        await self._members.leave()

    async def _free(self, gone: str) -> None:
        """What a unit owned that is gone need not wait until its leases run out."""
        for source in (*self._others_of, self._shards_of):
            for lease in await self._store.find(source):
                if lease.owner == gone:
                    try:
                        await self._store.give_up(lease)
                    except LeaseLost:  # it lives after all, or another unit was quicker
                        continue

    def _let_go(self, readers: Iterable[LeasedReader], count: int) -> None:
        """Those that were taken last; they end when what they have read is delivered."""
        staying = self._staying(readers)
        for reader in staying[len(staying) - max(0, count - len(self._leaving)) :]:
            self._log.info("Shard %s is given up: another unit reads fewer", reader.lease.key)
            self._leaving.add(reader)
            reader.stop()

    def _staying(self, readers: Iterable[LeasedReader]) -> list[LeasedReader]:
        reading = list(readers)
        self._leaving.intersection_update(reading)
        return [reader for reader in reading if reader not in self._leaving]
