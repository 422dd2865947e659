"""Leases in a DynamoDB table, for units on several machines.

The items are laid out as Data Prepper's are: key `sourceIdentifier` and `sourcePartitionKey`, index `source-status`
over `sourceStatusCombinationKey` and `partitionPriority`. One table serves many pipelines and both engines; a pipeline
has its own items, told apart by name and prefix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from penstock.core.clock import Clock
from penstock.core.errors import Permanent, Transient
from penstock.lib import aws
from penstock.lib.lease.item import Lease, LeaseLost, Status
from penstock.lib.lease.owner import is_dead
from penstock.lib.lease.transitions import Transitions

INDEX = "source-status"
TTL_ATTRIBUTE = "expirationTime"
TTL_S_MIN = 48 * 3600
"""A finished item is kept at least this long: a shard is listed for a day, and must not be read twice."""
TABLE_WAIT_S = 60
CANDIDATES_MAX = 100
"""Free items looked at in one go: most are taken by the first who asks."""


@dataclass(frozen=True, slots=True)
class DynamodbLeases:
    """Where the table is and how it is made."""

    table_name: str
    region: str | None
    sts_role_arn: str | None = None
    sts_external_id: str | None = None
    sts_header_overrides: Mapping[str, str] | None = None
    skip_table_creation: bool = False
    read_capacity_units: int = 10
    write_capacity_units: int = 10
    ttl_s: float | None = None


class DynamodbStore(Transitions):
    """All calls see the newest state, but the search for free items, which may lag a moment behind."""

    look_s = 10.0

    def __init__(self, options: DynamodbLeases, clock: Clock | None = None) -> None:
        self._options = options
        self._clock = clock or Clock()
        self._stack = AsyncExitStack()
        self._opened: asyncio.Task[Any] | None = None
        self._last: tuple[int, int] = (0, 0)
        self._shut = False

    async def create(
        self, source: str, key: str, progress: dict[str, Any] | None = None, *, status: Status = Status.UNASSIGNED
    ) -> bool:
        created = self._stamp()
        item = {
            **_key(source, key),
            "sourcePartitionStatus": {"S": status},
            "sourceStatusCombinationKey": {"S": f"{source}|{status}"},
            "partitionPriority": {"S": created},
            "partitionProgressState": {"S": _json(progress or {})},
            "closedCount": {"N": "0"},
            "version": {"N": "0"},
            "createdAt": {"S": created},
        }
        try:
            await self._call("put_item", Item=item, ConditionExpression="attribute_not_exists(sourceIdentifier)")
        except LeaseLost:
            return False
        return True

    async def get(self, source: str, key: str) -> Lease | None:
        reply = await self._call("get_item", Key=_key(source, key), ConsistentRead=True)
        item = reply.get("Item")
        return _lease(item) if item and "sourcePartitionStatus" in item else None

    async def find(self, source: str) -> list[Lease]:
        items = await self._query(
            KeyConditionExpression="sourceIdentifier = :source",
            ExpressionAttributeValues={":source": {"S": source}},
            ConsistentRead=True,
        )
        leases = [item for item in items if "sourcePartitionStatus" in item]
        leases.sort(key=lambda item: _text(item, "createdAt"))
        return [_lease(item) for item in leases]

    async def acquire(self, source: str, owner: str, span_s: float, *, prefix: str = "") -> Lease | None:
        for item in await self._free(source, owner, prefix):
            lease = _lease(item)
            until = self._until(span_s)
            try:
                return await self._change(lease, status=Status.ASSIGNED, owner=owner, until_ms=until)
            except LeaseLost:
                continue  # someone was quicker
        return None

    async def remove(self, source: str, key: str) -> None:
        await self._call("delete_item", Key=_key(source, key))

    async def state(self, source: str, key: str) -> dict[str, Any] | None:
        reply = await self._call("get_item", Key=_key(source, key), ConsistentRead=True)
        item = reply.get("Item")
        if not item or "sourcePartitionStatus" in item:
            return None
        state: dict[str, Any] = orjson.loads(_text(item, "partitionProgressState") or "{}")
        return state

    async def put_state(self, source: str, key: str, state: dict[str, Any]) -> None:
        item = {**_key(source, key), "partitionProgressState": {"S": _json(state)}}
        await self._call("put_item", Item=item)

    async def shut(self) -> None:
        self._shut = True
        if self._opened is not None:
            await asyncio.gather(self._opened, return_exceptions=True)
        await self._stack.aclose()

    # items

    async def _free(self, source: str, owner: str, prefix: str) -> list[dict[str, Any]]:
        """Items that can be taken, those that were made first first."""
        now = _iso(self._clock.now_ms())
        found: list[dict[str, Any]] = []
        for status in (Status.UNASSIGNED, Status.CLOSED, Status.ASSIGNED):
            condition, values = "sourceStatusCombinationKey = :status", {":status": {"S": f"{source}|{status}"}}
            if status is Status.CLOSED:
                condition += " AND partitionPriority <= :now"
                values[":now"] = {"S": now}
            items = await self._query(
                limit=CANDIDATES_MAX if status is not Status.ASSIGNED and not prefix else None,
                IndexName=INDEX,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
            )
            if status is Status.ASSIGNED:
                items = [item for item in items if _has_run_out(item, owner, now)]
            found += [item for item in items if _text(item, "sourcePartitionKey").startswith(prefix)]
        found.sort(key=lambda item: _text(item, "createdAt"))
        return found

    async def _change(self, lease: Lease, progress: dict[str, Any] | None = None, **values: Any) -> Lease:
        changed = _with(lease, values, progress)
        sets = {
            "sourcePartitionStatus": {"S": changed.status},
            "sourceStatusCombinationKey": {"S": f"{lease.source}|{changed.status}"},
            "version": {"N": str(changed.version)},
            "closedCount": {"N": str(changed.closed_count)},
        }
        removes = []
        for name, text in (
            ("partitionOwner", changed.owner),
            ("partitionOwnershipTimeout", _iso(changed.until_ms) if changed.until_ms else None),
            ("reOpenAt", _iso(changed.reopen_ms) if changed.reopen_ms else None),
        ):
            if text is None:
                removes.append(name)
            else:
                sets[name] = {"S": text}
        if progress is not None:
            sets["partitionProgressState"] = {"S": _json(progress)}
        if changed.status is Status.ASSIGNED:
            sets["partitionPriority"] = {"S": _iso(changed.until_ms)}
        elif changed.status is Status.CLOSED:
            sets["partitionPriority"] = {"S": _iso(changed.reopen_ms)}
        if changed.status is Status.COMPLETED and self._options.ttl_s is not None:
            ttl_s = max(self._options.ttl_s, TTL_S_MIN)
            sets[TTL_ATTRIBUTE] = {"N": str(self._clock.now_ms() // 1000 + round(ttl_s))}
        update = "SET " + ", ".join(f"#{name} = :{name}" for name in sets)
        if removes:
            update += " REMOVE " + ", ".join(f"#{name}" for name in removes)
        await self._call(
            "update_item",
            Key=_key(lease.source, lease.key),
            UpdateExpression=update,
            ConditionExpression="#version = :expected",
            ExpressionAttributeNames={f"#{name}": name for name in [*sets, *removes]},
            ExpressionAttributeValues={
                **{f":{name}": value for name, value in sets.items()},
                ":expected": {"N": str(lease.version)},
            },
        )
        return changed

    def _stamp(self) -> str:
        """Now, later than any stamp that this store gave before."""
        now = self._clock.now_ms()
        number = self._last[1] + 1 if now <= self._last[0] else 0
        self._last = (max(now, self._last[0]), number)
        return f"{_iso(self._last[0])[:-1]}{number:06d}Z"

    # calls

    async def _query(self, *, limit: int | None = None, **parameters: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        more = {} if limit is None else {"Limit": limit}
        while True:
            reply = await self._call("query", **parameters, **more)
            items += reply.get("Items", [])
            last = reply.get("LastEvaluatedKey")
            if not last or (limit is not None and len(items) >= limit):
                return items
            more = {**more, "ExclusiveStartKey": last}

    async def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Raises `LeaseLost` when a condition does not hold, `Transient` and `Permanent`."""
        if self._shut:
            raise Transient(f"the lease table {self._options.table_name} is closed")
        if self._opened is None or (self._opened.done() and (self._opened.cancelled() or self._opened.exception())):
            self._opened = asyncio.ensure_future(self._open())
        client = await asyncio.shield(self._opened)
        return await self._ask(client, operation, TableName=self._options.table_name, **parameters)

    async def _ask(self, client: Any, operation: str, **parameters: Any) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = await getattr(client, operation)(**parameters)
        except Exception as error:
            if aws.code_of(error) == "ConditionalCheckFailedException":
                raise LeaseLost(f"{parameters.get('Key', {})} has another owner") from error
            known = aws.verdict(error)
            if known is None:
                raise
            if aws.code_of(error) == "ResourceNotFoundException":
                raise Transient(f"there is no lease table {self._options.table_name}: {error}") from error
            raise known from error
        return reply

    async def _open(self) -> Any:
        options = self._options
        opened = await self._stack.enter_async_context(aws.sessions())
        client = await opened.client("dynamodb", options, wire=True)
        if not options.skip_table_creation:
            await self._make_table(client)
        return client

    async def _make_table(self, client: Any) -> None:
        name = self._options.table_name
        try:
            await self._ask(client, "describe_table", TableName=name)
        except Transient as error:
            if "there is no lease table" not in str(error):
                raise
            try:
                await self._ask(client, "create_table", **self._definition())
            except Permanent as refused:  # another unit makes it at the same time
                if "ResourceInUseException" not in str(refused):
                    raise
        deadline = self._clock.monotonic() + TABLE_WAIT_S
        described = await self._ask(client, "describe_table", TableName=name)
        while described["Table"].get("TableStatus", "ACTIVE") != "ACTIVE":
            if self._clock.monotonic() > deadline:
                raise Transient(f"the lease table {name} is not ready yet")
            await asyncio.sleep(1)
            described = await self._ask(client, "describe_table", TableName=name)
        if self._options.ttl_s is not None:
            await self._expire_items(client)

    async def _expire_items(self, client: Any) -> None:
        name = self._options.table_name
        told = await self._ask(client, "describe_time_to_live", TableName=name)
        if told.get("TimeToLiveDescription", {}).get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
            return
        specification = {"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
        try:
            await self._ask(client, "update_time_to_live", TableName=name, TimeToLiveSpecification=specification)
        except Permanent as refused:  # another unit has done it
            if "already enabled" not in str(refused):
                raise

    def _definition(self) -> dict[str, Any]:
        options = self._options
        capacity = {
            "ReadCapacityUnits": options.read_capacity_units,
            "WriteCapacityUnits": options.write_capacity_units,
        }
        names = ("sourceIdentifier", "sourcePartitionKey", "sourceStatusCombinationKey", "partitionPriority")
        schema = [
            {"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE") * 2, strict=True)
        ]
        return {
            "TableName": options.table_name,
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
            "KeySchema": schema[:2],
            "ProvisionedThroughput": capacity,
            "GlobalSecondaryIndexes": [
                {
                    "IndexName": INDEX,
                    "KeySchema": schema[2:],
                    "Projection": {"ProjectionType": "ALL"},
                    "ProvisionedThroughput": capacity,
                }
            ],
        }


def _key(source: str, key: str) -> dict[str, Any]:
    return {"sourceIdentifier": {"S": source}, "sourcePartitionKey": {"S": key}}


def _text(item: dict[str, Any], name: str) -> str:
    value: str = item.get(name, {}).get("S", "")
    return value


def _has_run_out(item: dict[str, Any], owner: str, now: str) -> bool:
    holder = _text(item, "partitionOwner")
    return _text(item, "partitionOwnershipTimeout") <= now or (holder not in ("", owner) and is_dead(holder))


def _lease(item: dict[str, Any]) -> Lease:
    progress = _text(item, "partitionProgressState")
    return Lease(
        source=_text(item, "sourceIdentifier"),
        key=_text(item, "sourcePartitionKey"),
        status=Status(_text(item, "sourcePartitionStatus")),
        owner=_text(item, "partitionOwner") or None,
        until_ms=_milliseconds(_text(item, "partitionOwnershipTimeout")),
        progress=orjson.loads(progress) if progress else {},
        version=int(item.get("version", {}).get("N", "0")),
        reopen_ms=_milliseconds(_text(item, "reOpenAt")),
        closed_count=int(item.get("closedCount", {}).get("N", "0")),
    )


def _with(lease: Lease, values: dict[str, Any], progress: dict[str, Any] | None) -> Lease:
    if progress is not None:
        values = {**values, "progress": deepcopy(progress)}
    return replace(lease, version=lease.version + 1, **values)


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(text: str) -> int:
    if not text:
        return 0
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
