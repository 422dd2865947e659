"""DynamoDB, its streams and exports in memory: shards that split, records that age, calls that fail when told to.

`FakeDynamodb` stands in for `penstock.lib.aws.sessions()`: its clients answer in wire form and raise botocore's
`ClientError` with the service's codes. What needs no fault is better tested against DynamoDB Local.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

from penstock.core.clock import Clock
from penstock.testing.dynamodb_export import ApiError, ExportApi, FakeS3, client_error

RETENTION_S = 24 * 3600
ITERATOR_LIFE_S = 15 * 60
PAGE_RECORDS_MAX = 1000
SHARDS_PER_PAGE = 100

Item = dict[str, Any]
"""Attributes in wire form: `{"id": {"N": "7"}}`."""


@dataclass(slots=True)
class FakeShard:
    id: str
    parent: str | None
    records: list[dict[str, Any]] = field(default_factory=list)
    starting: str = ""
    trimmed: str = ""
    """Sequence number of the last record that was forgotten."""
    ending: str | None = None


@dataclass(slots=True)
class FakeStream:
    arn: str
    view_type: str
    root: FakeShard
    enabled: bool = True
    shards: list[FakeShard] = field(default_factory=list)
    """Those that are still listed."""
    children: dict[str, list[FakeShard]] = field(default_factory=dict)


class FakeDynamodb:
    """One table with a string or number key `key_names[0]` and, where given, a sort key `key_names[1]`."""

    def __init__(
        self,
        clock: Clock,
        *,
        table: str = "orders",
        region: str = "us-east-1",
        key_names: tuple[str, ...] = ("id",),
        view_type: str | None = "NEW_AND_OLD_IMAGES",
        resolution_ms: int = 1000,
        endpoint: str = "http://127.0.0.1:8000",
    ) -> None:
        self.clock = clock
        self.table_arn = f"arn:aws:dynamodb:{region}:123456789012:table/{table}"
        self.table_id = "table-1"
        self.key_names = key_names
        self.items: dict[tuple[str, ...], Item] = {}
        self.streams: list[FakeStream] = []
        self.calls: Counter[str] = Counter()
        """How often each operation was called."""
        self.iterators: list[tuple[str, str, str | None]] = []
        """Shard, type and sequence number of each iterator that was asked for."""
        self.reads: list[tuple[str, float]] = []
        """Shard and time of each `get_records`."""
        self.page_records_max = PAGE_RECORDS_MAX
        self.resolution_ms = resolution_ms
        """Time stamps are cut to it."""
        self._numbers = itertools.count(1)
        self._labels = itertools.count(1)
        self._faults: dict[str, list[tuple[str, int]]] = {}
        self._open_iterators: dict[str, tuple[FakeStream, FakeShard, str, float]] = {}
        self._endpoint = endpoint
        self.s3 = FakeS3()
        """Where exports are written to."""
        self.exports = ExportApi(self.table_arn, lambda: list(self.items.values()), self.s3.put, clock)
        if view_type is not None:
            self.enable_stream(view_type)

    # what a test does

    def put(self, **item: Any) -> None:
        """Put an item; values are given in wire form, or as `str` (S), `int` (N) and `bool` for short."""
        new = {name: _wire(value) for name, value in item.items()}
        keys = {name: new[name] for name in self.key_names}
        old = self.items.get(_key(keys))
        self.items[_key(keys)] = new
        if new != old:
            self._record("MODIFY" if old else "INSERT", keys, old, new)

    def delete(self, *, ttl: bool = False, **keys: Any) -> None:
        """Delete an item, by `ttl` as the service itself does."""
        wired = {name: _wire(value) for name, value in keys.items()}
        old = self.items.pop(_key(wired), None)
        if old is not None:
            user = {"type": "Service", "principalId": "dynamodb.amazonaws.com"} if ttl else None
            self._record("REMOVE", wired, old, None, user)

    def append(self, record: dict[str, Any], shard: FakeShard | None = None) -> None:
        """Add a stream record made by hand; a missing sequence number and time are filled in."""
        change = record.setdefault("dynamodb", {})
        change.setdefault("SequenceNumber", self._sequence())
        change.setdefault("ApproximateCreationDateTime", self._stamp())
        (shard or self.open_shards()[0]).records.append(record)

    def open_shards(self) -> list[FakeShard]:
        return [shard for shard in self.streams[-1].shards if shard.ending is None]

    def roll_over(self, children: int = 1) -> None:
        """Close every open shard; each gets `children`."""
        stream = self.streams[-1]
        for shard in self.open_shards():
            shard.ending = self._sequence()
            stream.children[shard.id] = [self._shard(shard.id) for _ in range(children)]
            stream.shards += stream.children[shard.id]

    def trim(self, shard: FakeShard, keep: int = 0) -> None:
        """Forget all but the last `keep` records of a shard, as if they were older than 24 hours."""
        gone = len(shard.records) - keep
        if gone > 0:
            shard.trimmed = _sequences(shard)[gone - 1]
            del shard.records[:gone]

    def forget(self, shard: FakeShard) -> None:
        """The shard is no longer listed."""
        for stream in self.streams:
            stream.shards = [other for other in stream.shards if other is not shard]

    def enable_stream(self, view_type: str = "NEW_AND_OLD_IMAGES") -> None:
        """Switch the stream on: always a new one."""
        root = self._shard(None)
        arn = f"{self.table_arn}/stream/label-{next(self._labels)}"
        self.streams.append(FakeStream(arn, view_type, root, shards=[root]))

    def disable_stream(self) -> None:
        stream = self.streams[-1]
        stream.enabled = False
        for shard in stream.shards:
            shard.ending = shard.ending or self._sequence()

    def make_anew(self, view_type: str = "NEW_AND_OLD_IMAGES") -> None:
        """The table is deleted, its stream with it, and made again under its name."""
        self.disable_stream()
        self.items.clear()
        self.table_id = f"table-{next(self._labels)}"
        self.enable_stream(view_type)

    def fail(self, operation: str, code: str, *, times: int = 1, status: int = 400) -> None:
        """The next `times` calls of `operation` end with that error."""
        self._faults.setdefault(operation, []).extend([(code, status)] * times)

    def heal(self) -> None:
        """No more failures."""
        self._faults.clear()

    # what a plugin sees

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def client(self, service: str, access: object, *, wire: bool = False) -> Any:
        if service == "s3":
            return self.s3
        assert service in ("dynamodb", "dynamodbstreams") and wire, "only what reads tables is built"
        return self

    @property
    def meta(self) -> SimpleNamespace:
        return SimpleNamespace(endpoint_url=self._endpoint)

    async def describe_table(self, TableName: str) -> dict[str, Any]:
        self._enter("describe_table")
        if TableName not in (self.table_arn, self.table_arn.rpartition("/")[2]):
            raise _error("ResourceNotFoundException", "describe_table", f"no table {TableName}")
        kinds = ("HASH", "RANGE")
        table: dict[str, Any] = {
            "TableName": self.table_arn.rpartition("/")[2],
            "TableArn": self.table_arn,
            "TableId": self.table_id,
            "KeySchema": [
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(self.key_names, kinds, strict=False)
            ],
        }
        if self.streams:
            stream = self.streams[-1]
            table["LatestStreamArn"] = stream.arn
            if stream.enabled:
                table["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": stream.view_type}
        return {"Table": table}

    async def describe_continuous_backups(self, TableName: str) -> dict[str, Any]:
        self._enter("describe_continuous_backups")
        try:
            return self.exports.describe_continuous_backups(TableName)
        except ApiError as error:
            raise client_error(error, "DescribeContinuousBackups") from None

    async def export_table_to_point_in_time(self, **parameters: Any) -> dict[str, Any]:
        self._enter("export_table_to_point_in_time")
        asked = {**parameters, "ExportTime": parameters["ExportTime"].timestamp()}
        try:
            return self.exports.export_table_to_point_in_time(**asked)
        except ApiError as error:
            raise client_error(error, "ExportTableToPointInTime") from None

    async def describe_export(self, ExportArn: str) -> dict[str, Any]:
        self._enter("describe_export")
        try:
            return self.exports.describe_export(ExportArn)
        except ApiError as error:
            raise client_error(error, "DescribeExport") from None

    async def describe_stream(
        self,
        StreamArn: str,
        ExclusiveStartShardId: str | None = None,
    ) -> dict[str, Any]:
        self._enter("describe_stream")
        shards = self._stream(StreamArn, "describe_stream").shards
        start = 0
        if ExclusiveStartShardId is not None:
            start = next(place for place, shard in enumerate(shards, 1) if shard.id == ExclusiveStartShardId)
        page = shards[start : start + SHARDS_PER_PAGE]
        described = []
        for shard in page:
            span = {"StartingSequenceNumber": shard.starting}
            if shard.ending is not None:
                span["EndingSequenceNumber"] = shard.ending
            entry: dict[str, Any] = {"ShardId": shard.id, "SequenceNumberRange": span}
            if shard.parent is not None:
                entry["ParentShardId"] = shard.parent
            described.append(entry)
        description: dict[str, Any] = {"StreamArn": StreamArn, "Shards": described}
        if start + len(page) < len(shards):
            description["LastEvaluatedShardId"] = page[-1].id
        return {"StreamDescription": description}

    async def get_shard_iterator(
        self,
        StreamArn: str,
        ShardId: str,
        ShardIteratorType: str,
        SequenceNumber: str | None = None,
        Timestamp: Any = None,
    ) -> dict[str, Any]:
        self._enter("get_shard_iterator")
        stream = self._stream(StreamArn, "get_shard_iterator")
        shard = next((shard for shard in stream.shards if shard.id == ShardId), None)
        if shard is None:
            raise _error("ResourceNotFoundException", "get_shard_iterator", f"no shard {ShardId}")
        self.iterators.append((ShardId, ShardIteratorType, SequenceNumber))
        match ShardIteratorType:
            case "TRIM_HORIZON":
                after = ""
            case "LATEST":
                after = self._sequence()
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER":
                assert SequenceNumber is not None
                if SequenceNumber <= shard.trimmed:
                    raise _error("TrimmedDataAccessException", "get_shard_iterator", "the data has been trimmed")
                at = ShardIteratorType == "AT_SEQUENCE_NUMBER"
                after = f"{int(SequenceNumber) - 1:021d}" if at else SequenceNumber
            case "AT_TIMESTAMP":
                older = [record["dynamodb"] for record in shard.records if _is_older(record, Timestamp.timestamp())]
                after = older[-1]["SequenceNumber"] if older else ""
            case _:
                raise _error("ValidationException", "get_shard_iterator", f"no iterator type {ShardIteratorType}")
        return {"ShardIterator": self._iterator(stream, shard, after)}

    async def get_records(self, ShardIterator: str) -> dict[str, Any]:
        self._enter("get_records")
        stream, shard, after, made_at = self._open_iterators[ShardIterator]
        self.reads.append((shard.id, self.clock.monotonic()))
        if self.clock.monotonic() - made_at > ITERATOR_LIFE_S:
            raise _error("ExpiredIteratorException", "get_records", "the iterator exceeds the maximum age allowed")
        if shard not in stream.shards:
            raise _error("ResourceNotFoundException", "get_records", f"no shard {shard.id}")
        if after and after < shard.trimmed:
            raise _error("TrimmedDataAccessException", "get_records", "the data has been trimmed")
        rest = [record for record in shard.records if record["dynamodb"]["SequenceNumber"] > after]
        page = rest[: self.page_records_max]
        reply: dict[str, Any] = {"Records": page}
        if shard.ending is None or len(page) < len(rest):
            last = page[-1]["dynamodb"]["SequenceNumber"] if page else after
            reply["NextShardIterator"] = self._iterator(stream, shard, last)
        return reply

    def _enter(self, operation: str) -> None:
        self.calls[operation] += 1
        faults = self._faults.get(operation)
        if faults:
            code, status = faults.pop(0)
            raise _error(code, operation, "as told", status)

    def _stream(self, arn: str, operation: str) -> FakeStream:
        for stream in self.streams:
            if stream.arn == arn:
                return stream
        raise _error("ResourceNotFoundException", operation, f"no stream {arn}")

    def _iterator(self, stream: FakeStream, shard: FakeShard, after: str) -> str:
        name = f"iterator-{next(self._numbers)}"
        self._open_iterators[name] = (stream, shard, after, self.clock.monotonic())
        return name

    def _shard(self, parent: str | None) -> FakeShard:
        number = self._sequence()
        return FakeShard(f"shardId-{number}", parent, starting=number)

    def _record(
        self, name: str, keys: Item, old: Item | None, new: Item | None, user: Mapping[str, str] | None = None
    ) -> None:
        if not self.streams or not self.streams[-1].enabled:
            return
        change: dict[str, Any] = {"Keys": keys, "SizeBytes": 100, "StreamViewType": self.streams[-1].view_type}
        if old is not None and "OLD" in self.streams[-1].view_type:
            change["OldImage"] = old
        if new is not None and "NEW" in self.streams[-1].view_type:
            change["NewImage"] = new
        record: dict[str, Any] = {"eventName": name, "awsRegion": "us-east-1", "dynamodb": change}
        if user is not None:
            record["userIdentity"] = dict(user)
        self.append(record, self._shard_of(keys))

    def _shard_of(self, keys: Item) -> FakeShard:
        """An item stays with the descendants of its shard."""
        stream = self.streams[-1]
        place = zlib.crc32("|".join(_key(keys)).encode())
        shard = stream.root
        while shard.ending is not None:
            children = stream.children[shard.id]
            place, turn = divmod(place, len(children))
            shard = children[turn]
        return shard

    def _stamp(self) -> float:
        now = self.clock.now_ms()
        return (now - now % self.resolution_ms) / 1000

    def _sequence(self) -> str:
        return f"{next(self._numbers):021d}"


def _wire(value: Any) -> Any:
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)}
    return value


def _key(keys: Item) -> tuple[str, ...]:
    return tuple(next(iter(value.values())) for value in keys.values())


def _is_older(record: dict[str, Any], than_s: float) -> bool:
    return bool(record["dynamodb"]["ApproximateCreationDateTime"] < than_s)


def _sequences(shard: FakeShard) -> list[str]:
    return [record["dynamodb"]["SequenceNumber"] for record in shard.records]


def _error(code: str, operation: str, message: str, status: int = 400) -> Exception:
    return client_error(ApiError(code, message, status), operation)
