"""The calls that reading a table needs, with their errors told apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from penstock import sdk
from penstock.lib import aws

_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


class Throttled(sdk.Transient):
    """Too many requests."""


class IteratorExpired(sdk.Transient):
    """The iterator is older than 15 minutes: a new one from the same position goes on."""


class Trimmed(sdk.Permanent):
    """The position is older than the 24 hours that a stream keeps."""


class ShardGone(sdk.Permanent):
    """The shard or its stream exists no more."""


class Missing(sdk.Permanent):
    """The object or the export is not there."""


_OWN_ERRORS: dict[str, type[sdk.Transient] | type[sdk.Permanent]] = {
    "ExpiredIteratorException": IteratorExpired,
    "ResourceNotFoundException": ShardGone,
    "TrimmedDataAccessException": Trimmed,
    "ExportNotFoundException": Missing,
    "NoSuchKey": Missing,
    "NoSuchBucket": Missing,
}


@dataclass(frozen=True, slots=True)
class Shard:
    id: str
    parent: str | None
    ending_sequence: str | None
    """None while the shard is open."""


@dataclass(slots=True)
class _Count:
    """The meters of one group of calls."""

    calls: sdk.Counter
    client_errors: sdk.Counter
    server_errors: sdk.Counter

    @classmethod
    def of(cls, meters: sdk.Scope, name: str) -> _Count:
        counters = (meters.counter(name + end) for end in ("ApiInvocations", "4xxErrors", "5xxErrors"))
        return cls(*counters)


class TableApi:
    """DynamoDB, DynamoDB Streams and, where there is an export, S3 for one table."""

    def __init__(self, table_arn: str, dynamodb: Any, streams: Any, meters: sdk.Scope, s3: Any = None) -> None:
        self._table = table_arn
        self._dynamodb = dynamodb
        self._streams = streams
        self._s3 = s3
        self._stream_count = _Count.of(meters, "stream")
        self._export_count = _Count.of(meters, "export")
        host = urlsplit(str(dynamodb.meta.endpoint_url)).hostname or ""
        self.is_aws = host.endswith(_AWS_HOSTS)
        """Whether this is the service itself and not a stand-in."""

    async def describe_table(self) -> dict[str, Any]:
        """The description of the table. Raises `Transient`, `Permanent`."""
        try:
            return await self._describe_table()
        except sdk.Permanent:
            # Stand-ins know names only. Never so on AWS: the name may be that of another table of this account.
            if self.is_aws or not self._table.startswith("arn:"):
                raise
        arn, self._table = self._table, self._table.rpartition("/")[2]
        try:
            return await self._describe_table()
        except sdk.Permanent:
            self._table = arn
            raise

    async def _describe_table(self) -> dict[str, Any]:
        reply = await self._call(self._dynamodb.describe_table, TableName=self._table)
        table: dict[str, Any] = reply["Table"]
        return table

    async def shards(self, stream_arn: str) -> list[Shard]:
        """All shards that the stream still lists, parents before their children."""
        shards: list[Shard] = []
        page: dict[str, Any] = {}
        while True:
            reply = await self._call(self._streams.describe_stream, StreamArn=stream_arn, **page)
            description = reply["StreamDescription"]
            for shard in description.get("Shards", ()):
                ending = shard.get("SequenceNumberRange", {}).get("EndingSequenceNumber")
                shards.append(Shard(shard["ShardId"], shard.get("ParentShardId"), ending))
            last = description.get("LastEvaluatedShardId")
            if not last:
                return shards
            page = {"ExclusiveStartShardId": last}

    async def iterator(self, stream_arn: str, shard_id: str, **position: Any) -> str:
        """An iterator at `ShardIteratorType` (with `SequenceNumber` or `Timestamp`)."""
        reply = await self._call(self._streams.get_shard_iterator, StreamArn=stream_arn, ShardId=shard_id, **position)
        iterator: str = reply["ShardIterator"]
        return iterator

    async def records(self, iterator: str) -> tuple[list[dict[str, Any]], str | None]:
        """Records from `iterator` on, and the iterator behind them; None at the end of a closed shard."""
        reply = await self._call(self._streams.get_records, ShardIterator=iterator)
        return reply.get("Records", []), reply.get("NextShardIterator")

    async def recovery_is_on(self) -> bool:
        """Whether point-in-time recovery of the table is on."""
        count = self._export_count
        reply = await self._call(self._dynamodb.describe_continuous_backups, count=count, TableName=self._table)
        described = reply["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return bool(described.get("PointInTimeRecoveryStatus") == "ENABLED")

    async def export(self, at_ms: int, **parameters: Any) -> str:
        """Ask for an export of the table as it was at `at_ms`; returns its ARN."""
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        operation = self._dynamodb.export_table_to_point_in_time
        reply = await self._call(operation, count=self._export_count, ExportTime=at, **parameters)
        arn: str = reply["ExportDescription"]["ExportArn"]
        return arn

    async def describe_export(self, arn: str) -> dict[str, Any]:
        """What the service says of an export."""
        reply = await self._call(self._dynamodb.describe_export, count=self._export_count, ExportArn=arn)
        description: dict[str, Any] = reply["ExportDescription"]
        return description

    async def object(self, bucket: str, key: str, *, start: int = 0) -> tuple[Any, str]:
        """The content of an object from byte `start` on, to be read piece by piece, and its ETag."""
        span: dict[str, Any] = {"Range": f"bytes={start}-"} if start else {}
        reply = await self._call(self._s3.get_object, count=self._export_count, Bucket=bucket, Key=key, **span)
        return reply["Body"], reply.get("ETag", "").strip('"')

    async def text(self, bucket: str, key: str, bytes_max: int) -> bytes:
        """A whole object. Raises `Permanent` when it is larger than `bytes_max`."""
        body, _ = await self.object(bucket, key)
        data = bytearray()
        try:
            while piece := await read_piece(body, 1024 * 1024):
                data += piece
                if len(data) > bytes_max:
                    raise sdk.Permanent(f"s3://{bucket}/{key} is larger than {bytes_max} bytes")
        finally:
            body.close()
        return bytes(data)

    async def _call(self, operation: Any, *, count: _Count | None = None, **parameters: Any) -> dict[str, Any]:
        count = count or self._stream_count
        count.calls.add()
        try:
            reply: dict[str, Any] = await operation(**parameters)
        except Exception as error:
            status = aws.status_of(error)
            if status >= 500:
                count.server_errors.add()
            elif status >= 400:
                count.client_errors.add()
            code = aws.code_of(error)
            if code in _OWN_ERRORS:
                raise _OWN_ERRORS[code](str(error)) from error
            if code in aws.THROTTLED:
                raise Throttled(str(error)) from error
            known = aws.verdict(error)
            if known is None:
                raise
            raise known from error
        return reply


async def read_piece(body: Any, size: int) -> bytes:
    """The next bytes of an object, empty at its end. Raises `Transient` when the connection is cut."""
    try:
        piece: bytes = await body.read(size)
    except Exception as error:
        known = aws.verdict(error)
        if known is not None:
            raise known from error
        if type(error).__module__.partition(".")[0] in ("aiohttp", "aiobotocore", "urllib3"):
            raise sdk.Unreachable(f"the connection was cut: {error}") from error
        raise
    return piece
