"""What one unit does for all: check the table, follow its streams, and lay out the shards to read.

A shard is laid out when its parent has been read to the end (and delivered), so that the changes of an item keep their
order. A stream that was switched off and on again has a new ARN: its shards wait for those of the old one.
"""

from __future__ import annotations

import logging
from typing import Any

from penstock import sdk
from penstock.lib.lease import Lease, LeaseStore, Status
from penstock.plugins.sources.dynamodb.records import Versions
from penstock.plugins.sources.dynamodb.stream_api import Shard, ShardGone, StreamApi

VIEW_TYPES = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
_ENABLE = "turn it on under Exports and streams > DynamoDB stream details, view type New image or New and old images"


class CheckFailed(sdk.Transient):
    """The table is not ready to be read. It heals without a restart once the table is."""


class Leader:
    """One table's streams and shards, kept in the lease store."""

    def __init__(
        self,
        api: StreamApi,
        store: LeaseStore,
        *,
        pipeline: str,
        table_arn: str,
        start_ms: int,
        meters: sdk.Scope,
        log: logging.Logger,
    ) -> None:
        self._api = api
        self._store = store
        self._table_arn = table_arn
        self._start_ms = start_ms
        self._log = log
        self._open_shards = meters.summary("totalOpenShards")
        self._created = meters.counter("partitionsCreated")
        self._listed: dict[str, list[Shard]] = {}
        self.shards_of = f"{pipeline}|STREAM"
        self.global_of = f"{pipeline}|GLOBAL"

    async def state(self) -> dict[str, Any] | None:
        """What all units know of the table: key names, streams in order, time of the first start."""
        return await self._store.state(self.global_of, self._table_arn)

    async def round(self) -> int:
        """Check the table, list its shards and lay out those whose turn it is; returns how many.

        Raises `CheckFailed` and what the calls raise.
        """
        state = await self.state()
        if state is None:  # before any check: a change made while rights are still missing counts as new
            state = {"startTime": self._start_ms, "streamArns": []}
            await self._store.put_state(self.global_of, self._table_arn, state)
        state = await self._with_table(state)
        self._listed = {}
        created = await self._lay_out(state)
        listed = [shard for shards in self._listed.values() for shard in shards]
        self._open_shards.observe(sum(1 for shard in listed if shard.ending_sequence is None))
        return created

    async def children(self) -> int:
        """Lay out children that the last listing showed already: no calls to the service."""
        state = await self.state()
        return await self._lay_out(state) if state and self._listed else 0

    async def _with_table(self, state: dict[str, Any]) -> dict[str, Any]:
        try:
            table = await self._api.describe_table()
        except (sdk.Transient, sdk.Permanent) as error:
            self._log.error(
                "Unable to call DescribeTableRequest to get information for table %s due to %s", self._table_arn, error
            )
            raise CheckFailed(
                f"Unable to get table information for {self._table_arn}. "
                "Please make sure the permission is properly set"
            ) from error
        stream = table.get("StreamSpecification") or {}
        if not stream.get("StreamEnabled"):
            raise CheckFailed(f"Stream is not enabled for table {self._table_arn} ({_ENABLE})")
        view = stream.get("StreamViewType")
        if view not in VIEW_TYPES:
            raise CheckFailed(
                f"Stream {self._table_arn} is enabled with {view}. Supported types are [{', '.join(VIEW_TYPES)}]"
            )
        keys = {key["KeyType"]: key["AttributeName"] for key in table["KeySchema"]}
        arns = state["streamArns"]
        latest = table["LatestStreamArn"]
        changed = {
            **state,
            "partitionKey": keys["HASH"],
            "sortKey": keys.get("RANGE"),
            "viewType": view,
            "streamArns": arns if latest in arns else [*arns, latest],
        }
        if changed != state:
            if arns and latest not in arns:
                self._log.info("Table %s has a new stream %s", self._table_arn, latest)
            await self._store.put_state(self.global_of, self._table_arn, changed)
        return changed

    async def _lay_out(self, state: dict[str, Any]) -> int:
        created = 0
        leases = await self._store.find(self.shards_of)
        for arn in list(state["streamArns"]):
            shards = await self._shards(arn)
            own = {lease.key.rpartition("|")[2]: lease for lease in leases if lease.key.startswith(arn + "|")}
            created += await self._create(arn, shards, own, state)
            await self._prune(shards, own)
            if any(shard.id not in own for shard in shards) or any(
                lease.status is not Status.COMPLETED for lease in own.values()
            ):
                break  # what the next stream holds came later
            if arn != state["streamArns"][-1]:
                await self._drop(arn, own, state)
        return created

    async def _shards(self, arn: str) -> list[Shard]:
        if arn not in self._listed:
            try:
                self._listed[arn] = await self._api.shards(arn)
            except ShardGone:
                self._log.warning("Stream %s exists no more", arn)
                self._listed[arn] = []
        return self._listed[arn]

    async def _create(self, arn: str, shards: list[Shard], own: dict[str, Lease], state: dict[str, Any]) -> int:
        """Add leases for shards without a parent to wait for; puts them into `own` too."""
        listed = {shard.id for shard in shards}
        first = not own
        created = 0
        for shard in shards:
            if shard.id in own:
                continue
            parent = own.get(shard.parent or "")
            if parent is not None:
                if parent.status is not Status.COMPLETED:
                    continue
                versions = Versions.of(parent.progress)
            elif shard.parent in listed:
                continue
            else:
                versions = Versions.of(state)
            progress = {
                "startTime": state["startTime"],
                "sequenceNumber": None,
                "waitForExport": False,
                "endingSequenceNumber": shard.ending_sequence,
                **versions.progress(),
            }
            key = f"{arn}|{shard.id}"
            if await self._store.create(self.shards_of, key, progress):
                created += 1
                self._created.add()
            own[shard.id] = Lease(self.shards_of, key, progress=progress)
        if first:
            self._log.info("Found %d root shards in total", created)
        return created

    async def _prune(self, shards: list[Shard], own: dict[str, Lease]) -> None:
        """Forget what was read to the end and is no longer listed; its children have their leases by now."""
        if not shards:
            return
        listed = {shard.id for shard in shards}
        waiting = {shard.parent for shard in shards if shard.id not in own}
        for shard_id, lease in list(own.items()):
            if lease.status is Status.COMPLETED and shard_id not in listed and shard_id not in waiting:
                await self._store.remove(self.shards_of, lease.key)

    async def _drop(self, arn: str, own: dict[str, Lease], state: dict[str, Any]) -> None:
        """The old stream is read to the end: the new one goes on from its highest version."""
        last = max([Versions.of(state).last, *(Versions.of(lease.progress).last for lease in own.values())])
        state.update(Versions(last).progress())
        state["streamArns"] = [other for other in state["streamArns"] if other != arn]
        await self._store.put_state(self.global_of, self._table_arn, state)
        for lease in own.values():
            await self._store.remove(self.shards_of, lease.key)
        self._log.info("Stream %s of table %s is read to its end", arn, self._table_arn)
