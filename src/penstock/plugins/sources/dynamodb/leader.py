"""What one unit does for all: check the table, plan its export, follow its streams, lay out the shards to read.

A shard is laid out when its parent has been read to the end (and delivered), so that the changes of an item keep their
order. A stream that was switched off and on again has a new ARN: its shards wait for those of the old one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from penstock import sdk
from penstock.lib.lease import Lease, LeaseStore, Status
from penstock.plugins.sources.dynamodb.api import Shard, ShardGone, TableApi
from penstock.plugins.sources.dynamodb.checks import CheckFailed, check_table
from penstock.plugins.sources.dynamodb.export import (
    COMPLETED,
    FAILED,
    ExportOptions,
    Loaded,
    existing_export_ms,
    file_leases,
)
from penstock.plugins.sources.dynamodb.export_items import OVERLAP_MS
from penstock.plugins.sources.dynamodb.losses import Losses
from penstock.plugins.sources.dynamodb.records import Versions
from penstock.plugins.sources.dynamodb.shard import RETENTION_MS


class Leader:
    """One table's streams and shards, kept in the lease store."""

    def __init__(
        self,
        api: TableApi,
        store: LeaseStore,
        *,
        names: Callable[[str], str],
        table_arn: str,
        start_ms: int,
        clock: sdk.Clock,
        meters: sdk.Scope,
        log: logging.Logger,
        losses: Losses,
        stream: bool = True,
        view_on_remove: str = "NEW_IMAGE",
        export: ExportOptions | None = None,
        during_export: bool = False,
    ) -> None:
        self._api = api
        self._store = store
        self._table_arn = table_arn
        self._start_ms = start_ms
        self._clock = clock
        self._log = log
        self._losses = losses
        self._stream = stream
        self._view_on_remove = view_on_remove
        self._export = export
        self._during_export = during_export
        self._open_shards = meters.summary("totalOpenShards")
        self._created = meters.counter("partitionsCreated")
        self._listed: dict[str, list[Shard]] = {}
        self._begun = False
        """This leader has planned an export, or found one that is under way."""
        self.shards_of = names("STREAM")
        self.export_of = names("EXPORT")
        self.files_of = names("DATAFILE")
        self.global_of = names("GLOBAL")

    async def state(self) -> dict[str, Any] | None:
        """What all units know of the table: key names, streams in order, time of the first start."""
        return await self._store.state(self.global_of, self._table_arn)

    async def round(self) -> int:
        """Check the table, list its shards and lay out those whose turn it is; returns how many.

        Raises `CheckFailed` and what the calls raise.
        """
        state = await self.state()
        if state is None:  # before any check: a change made while rights are still missing counts as new
            early = OVERLAP_MS if self._export is not None else 0
            state = {"startTime": self._start_ms - early, "streamArns": []}
            await self._store.put_state(self.global_of, self._table_arn, state)
        state = await self._with_table(state)
        if self._export is not None and not state.get("exportLoaded"):
            state = await self._plan_export(state, self._export)
        self._listed = {}
        if not self._stream:
            return 0
        created = await self._lay_out(state)
        listed = [shard for shards in self._listed.values() for shard in shards]
        self._open_shards.observe(sum(1 for shard in listed if shard.ending_sequence is None))
        return created

    async def check_export(self) -> None:
        """Note that the export is loaded, once it is: no calls to the service."""
        state = await self.state()
        if self._export is not None and state and "exportTime" in state and not state.get("exportLoaded"):
            await self._plan_export(state, self._export)

    async def children(self) -> int:
        """Lay out children that the last listing showed already: no calls to the service."""
        state = await self.state()
        return await self._lay_out(state) if state and self._listed else 0

    async def _with_table(self, state: dict[str, Any]) -> dict[str, Any]:
        recovery = self._export is not None and not self._export.exists and "exportTime" not in state
        checked = await check_table(
            self._api,
            self._table_arn,
            self._log,
            recovery=recovery,
            stream=self._stream,
            view_on_remove="" if state.get("partitionKey") else self._view_on_remove,
        )
        if checked.findings:
            raise CheckFailed("; ".join(str(finding) for finding in checked.findings))
        table = checked.table
        assert table is not None, "without findings there is a table"
        keys = {key["KeyType"]: key["AttributeName"] for key in table["KeySchema"]}
        changed = {
            **state,
            "partitionKey": keys["HASH"],
            "sortKey": keys.get("RANGE"),
            "tableId": table.get("TableId") or state.get("tableId"),
        }
        arns, latest = state["streamArns"], None
        if self._stream:
            latest = table["LatestStreamArn"]
            changed["viewType"] = table["StreamSpecification"]["StreamViewType"]
            changed["streamArns"] = arns if latest in arns else [*arns, latest]
        if changed != state:
            if arns and latest is not None and latest not in arns:
                self._log.info("Table %s has a new stream %s", self._table_arn, latest)
            await self._tell_of_gaps(state, changed)
            await self._store.put_state(self.global_of, self._table_arn, changed)
        return changed

    async def _tell_of_gaps(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Before the new state is kept: a unit that dies between the two tells again, and no loss is told twice."""
        if before.get("tableId") and now["tableId"] and before["tableId"] != now["tableId"]:
            await self._losses.report(
                f"table {now['tableId']}",
                "the table was deleted and made again: documents of items that are there no more stay, items that came "
                "in other ways than by writes are missing",
            )
        elif before["streamArns"] and now["streamArns"] != before["streamArns"]:
            await self._losses.report(
                f"stream {now['streamArns'][-1].rpartition('/')[2]}",
                "the stream was switched off and on again, and what changed in between is in no stream",
                certain=False,
            )

    async def _plan_export(self, state: dict[str, Any], export: ExportOptions) -> dict[str, Any]:
        """See that there is one export, and note when it is loaded. Returns the state as it is then."""
        if "exportTime" not in state:
            now = self._clock.now_ms() // 1000 * 1000
            at_ms = await existing_export_ms(self._api, export, self._log) if export.exists else now
            state = {**state, "exportTime": at_ms}
            if not await self._store.find(self.shards_of):
                state["startTime"] = at_ms - OVERLAP_MS
            if self._stream and state["startTime"] < now - RETENTION_MS:
                await self._losses.report(
                    f"export of {at_ms}",
                    "the export is older than the 24 hours that a stream keeps; what changed between is missing until "
                    "it changes again",
                    since_ms=at_ms,
                )
            await self._store.put_state(self.global_of, self._table_arn, state)
        key = f"{self._table_arn}|{state['exportTime']}"
        lease = await self._store.get(self.export_of, key)
        if lease is None:
            progress = {
                "exportTime": state["exportTime"],
                "bucket": export.bucket,
                "prefix": export.prefix,
                "kmsKeyId": export.kms_key_id,
            }
            if await self._store.create(self.export_of, key, progress):
                self._created.add()
        elif lease.status is Status.COMPLETED and lease.progress.get("status") == FAILED and not self._begun:
            await self._store.remove(self.export_of, key)  # a new start, a new try
            del state["exportTime"]
            return await self._plan_export(state, export)
        elif (await self.loaded(lease)) is not None:
            state = await self._export_is_loaded(state)
        elif lease.progress.get("status") == COMPLETED and "loadingSince" not in state:
            state = {**state, "loadingSince": self._clock.now_ms()}
            await self._store.put_state(self.global_of, self._table_arn, state)
        self._begun = True
        return state

    async def loaded(self, lease: Lease | None = None) -> Loaded | None:
        """How far the export is loaded; None while it is not laid out. With its lease: None until it is done."""
        whole = lease is None
        if lease is None:
            state = await self.state()
            if not state or "exportTime" not in state:
                return None
            lease = await self._store.get(self.export_of, f"{self._table_arn}|{state['exportTime']}")
        if lease is None or lease.status is not Status.COMPLETED or lease.progress.get("status") != COMPLETED:
            return None
        arn = lease.progress["exportArn"]
        known = await self._store.state(self.global_of, arn) or {}
        files = file_leases(await self._store.find(self.files_of), arn)
        done = sum(1 for file in files if file.status is Status.COMPLETED)
        empty = known.get("emptyFiles", 0)
        found = Loaded(
            done + empty,
            len(files) + empty,
            sum(file.progress.get("loadedRecords", 0) for file in files),
            known.get("totalRecords", 0),
        )
        told = {**known, "loadedFiles": found.files, "loadedRecords": found.items}
        if told != known:
            await self._store.put_state(self.global_of, arn, told)
        return found if whole or found.done else None

    async def _export_is_loaded(self, state: dict[str, Any]) -> dict[str, Any]:
        state = {**state, "exportLoaded": True}
        await self._store.put_state(self.global_of, self._table_arn, state)
        for arn in state["streamArns"]:  # where other units look for it
            await self._store.put_state(self.global_of, arn, {"exportLoaded": True})
        self._log.info("All Exports are done, streaming can continue...")
        return state

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
        waits = self._export is not None and not self._during_export and not state.get("exportLoaded")
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
                if shard.parent is not None and not first:  # the link to what was read before is missing
                    await self._losses.report(
                        f"shard {shard.parent}",
                        "the shard was opened and dropped while nothing read this table",
                        since_ms=_delivered_ms(own),
                    )
            progress = {
                "startTime": state["startTime"],
                "sequenceNumber": None,
                "waitForExport": waits,
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


def _delivered_ms(own: dict[str, Lease]) -> int | None:
    """The stamp of the latest change that was delivered, milliseconds."""
    seconds = [lease.progress["second"] for lease in own.values() if "second" in lease.progress]
    return max(seconds) * 1000 if seconds else None
