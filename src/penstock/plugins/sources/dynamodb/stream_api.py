"""The five calls that following a stream needs, with their errors told apart."""

from __future__ import annotations

from dataclasses import dataclass
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


_OWN_ERRORS: dict[str, type[sdk.Transient] | type[sdk.Permanent]] = {
    "ExpiredIteratorException": IteratorExpired,
    "ResourceNotFoundException": ShardGone,
    "TrimmedDataAccessException": Trimmed,
}


@dataclass(frozen=True, slots=True)
class Shard:
    id: str
    parent: str | None
    ending_sequence: str | None
    """None while the shard is open."""


class StreamApi:
    """DynamoDB and DynamoDB Streams for one table."""

    def __init__(self, table_arn: str, dynamodb: Any, streams: Any, meters: sdk.Scope) -> None:
        self._table = table_arn
        self._dynamodb = dynamodb
        self._streams = streams
        self._calls = meters.counter("streamApiInvocations")
        self._client_errors = meters.counter("stream4xxErrors")
        self._server_errors = meters.counter("stream5xxErrors")
        host = urlsplit(str(streams.meta.endpoint_url)).hostname or ""
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
        page: dict[str, str] = {}
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

    async def _call(self, operation: Any, **parameters: Any) -> dict[str, Any]:
        self._calls.add()
        try:
            reply: dict[str, Any] = await operation(**parameters)
        except Exception as error:
            status = aws.status_of(error)
            if status >= 500:
                self._server_errors.add()
            elif status >= 400:
                self._client_errors.add()
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
