"""Dead letters as objects in Amazon S3: `{"dlqObjects": […]}`, one object for all that is refused at the same time.

Keys are `<key_path_prefix>/dlq-v2-<pipeline>-<plugin>-<time>-<uuid>.json`. While the bucket cannot be written to, the
events count as undelivered and the source asks again; `dlqS3RecordsFailed` and the log tell. Calls are tried three
times. `penstock dlq` reads, counts and replays what was written.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import field_validator

from penstock import sdk
from penstock.lib.aws import AwsSessions, S3Style, sessions, status_of, verdict
from penstock.lib.dated_path import compile_dated_path

VERSION = 2
"""Major version of the record format."""
OBJECT_BYTES_MAX = 16 * 1024 * 1024
SESSION_PREFIX = "s3-dlq"
ATTEMPTS_MAX = 3
RETRY_DELAY_S_MIN = 0.2
_ROLE = re.compile(r"arn:[^:]+:iam:[^:]*:[^:]*:role/.+")
_OWNER = re.compile(r"[0-9]{12}", re.ASCII)


class Config(sdk.PluginConfig):
    bucket: str
    """Bucket; `s3://` before its name is left out."""
    key_path_prefix: str | None = None
    """Start of the keys. May hold `%{…}` date patterns, filled with the time in UTC, no finer than an hour."""
    region: str = "us-east-1"
    """Region of the bucket."""
    sts_role_arn: str | None = None
    """Role to assume; without it the credentials of the process are used (environment, profile, instance role)."""
    sts_external_id: str | None = None
    """External id that the role's trust policy asks for."""
    sts_header_overrides: dict[str, str] | None = None
    """Further headers of the request that assumes the role."""
    bucket_owner: str | None = None
    """Account that must own the bucket, else nothing is written."""
    force_path_style: bool = False
    """Put the bucket into the path of the address instead of the host name."""
    legacy_md5_checksum: bool = False
    """Send `Content-MD5` instead of newer checksums, for stores that do not know these."""

    @field_validator("bucket")
    @classmethod
    def _bucket_name(cls, value: str) -> str:
        if len(value) < 3:
            raise ValueError("bucket length should be at least 3 characters")
        if len(value) > 500:
            raise ValueError("bucket length should be at most 500 characters")
        name = value.removeprefix("s3://").rstrip("/")
        if not name or "/" in name:
            raise ValueError("bucket is the name of a bucket; a path belongs into key_path_prefix")
        return name

    @field_validator("key_path_prefix")
    @classmethod
    def _prefix(cls, value: str | None) -> str | None:
        if value is not None:
            if not 1 <= len(value) <= 1024:
                raise ValueError("key_path_prefix length should be between 1 and 1024 characters")
            compile_dated_path(value)
        return value

    @field_validator("region")
    @classmethod
    def _region(cls, value: str) -> str:
        if not value:
            raise ValueError("region cannot be empty string")
        return value

    @field_validator("sts_role_arn")
    @classmethod
    def _role(cls, value: str | None) -> str | None:
        if not value:
            return None
        if not 20 <= len(value) <= 2048:
            raise ValueError("sts_role_arn length should be between 1 and 2048 characters")
        if not _ROLE.fullmatch(value):
            raise ValueError("sts_role_arn must be an IAM Role")
        return value

    @field_validator("sts_external_id")
    @classmethod
    def _external_id(cls, value: str | None) -> str | None:
        if value is not None and not 2 <= len(value) <= 1224:
            raise ValueError("sts_external_id length should be between 2 and 1224 characters")
        return value

    @field_validator("sts_header_overrides")
    @classmethod
    def _few_headers(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is not None and len(value) > 5:
            raise ValueError("sts_header_overrides supports a maximum of 5 headers to override")
        return value

    @field_validator("bucket_owner")
    @classmethod
    def _owner(cls, value: str | None) -> str | None:
        if value is not None and not _OWNER.fullmatch(value):
            raise ValueError("bucket_owner must be a 12-digit AWS account id")
        return value


def build(config: Config, ctx: sdk.Context) -> sdk.DeadLetterWriter:
    return S3DeadLetters(config, ctx)


EXAMPLES = [
    sdk.Example(
        "A folder for each day, written with a role of its own",
        config="""
bucket: my-dlq-bucket
key_path_prefix: dlq-files/%{yyyy}/%{MM}/%{dd}
region: us-west-2
sts_role_arn: "arn:aws:iam::123456789012:role/dlq-role"
""",
    ),
]

Flush = tuple[list[bytes], "asyncio.Future[None]"]


class S3DeadLetters:
    """Writes what was handed over while the last object was on its way as one further object."""

    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._clock = ctx.clock
        self._random = ctx.random
        self._prefix = compile_dated_path(config.key_path_prefix or "")
        self._name = f"dlq-v{VERSION}-{ctx.pipeline}-{ctx.plugin}"
        self._style = S3Style(config.force_path_style, config.legacy_md5_checksum)
        self._sessions: AwsSessions | None = None
        self._waiting: list[Flush] = []
        self._task: asyncio.Task[None] | None = None
        metrics = ctx.metrics.scope("s3")
        self._records_written = metrics.counter("dlqS3RecordsSuccess")
        self._records_failed = metrics.counter("dlqS3RecordsFailed")
        self._requests_done = metrics.counter("dlqS3RequestSuccess")
        self._requests_failed = metrics.counter("dlqS3RequestFailed")
        self._latency = metrics.timer("dlqS3RequestLatency")
        self._size = metrics.summary("dlqS3RequestSizeBytes")

    async def write(self, letters: Sequence[sdk.DeadLetter]) -> None:
        if not letters:
            return
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(([sdk.encode(letter.to_object()) for letter in letters], written))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_all())
        await written

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        waiting, self._waiting = self._waiting, []
        for _, written in waiting:
            written.cancel()
        held, self._sessions = self._sessions, None
        if held is not None:
            await held.__aexit__()

    def key(self) -> str:
        """A key that no other object has."""
        now_ns = self._clock.now_ns()
        time = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        prefix = self._prefix(now_ns)
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        micros = now_ns // 1000 % 1_000_000
        unique = uuid.UUID(int=self._random.getrandbits(128), version=4)
        return f"{prefix}{self._name}-{time}.{micros:06d}Z-{unique}.json"

    async def _write_all(self) -> None:
        while self._waiting:
            flushes = self._next()
            records = [record for part, _ in flushes for record in part]
            try:
                error = await self._put(records)
            except BaseException as bug:
                for _, written in flushes:
                    _settle(written, bug)
                raise
            for _, written in flushes:
                _settle(written, error)

    def _next(self) -> list[Flush]:
        """What goes into the next object: all that waits, as far as it fits."""
        size, count = 0, 0
        for records, _ in self._waiting:
            size += sum(map(len, records))
            if count and size > OBJECT_BYTES_MAX:
                break
            count += 1
        flushes, self._waiting = self._waiting[:count], self._waiting[count:]
        return flushes

    async def _put(self, records: list[bytes]) -> sdk.Transient | sdk.Permanent | None:
        """Write an object. Returns why it could not be written."""
        body = b'{"dlqObjects":[' + b",".join(records) + b"]}"
        call: dict[str, Any] = {"Bucket": self._config.bucket, "Key": self.key(), "ContentType": "application/json"}
        if self._config.bucket_owner is not None:
            call["ExpectedBucketOwner"] = self._config.bucket_owner
        if self._config.legacy_md5_checksum:
            digest = hashlib.md5(body, usedforsecurity=False).digest()
            call["ContentMD5"] = base64.b64encode(digest).decode()
        error = await self._call({**call, "Body": body})
        if error is None:
            self._requests_done.add()
            self._records_written.add(len(records))
            self._size.observe(len(body))
            return None
        self._requests_failed.add()
        self._records_failed.add(len(records))
        reason = f"s3://{self._config.bucket}/{call['Key']}: {error}"
        return type(error)(reason) if isinstance(error, sdk.Transient) else sdk.Permanent(reason)

    async def _call(self, call: dict[str, Any]) -> sdk.Transient | sdk.Permanent | None:
        delay_s = RETRY_DELAY_S_MIN
        attempt = 1
        while True:
            begin = self._clock.monotonic()
            try:
                if self._sessions is None:
                    self._sessions = await sessions().__aenter__()
                client = await self._sessions.client(
                    "s3", self._config, s3_style=self._style, session_prefix=SESSION_PREFIX
                )
                await client.put_object(**call)
            except Exception as raised:
                error = raised if isinstance(raised, sdk.Permanent) else verdict(raised)
                if not isinstance(error, (sdk.Transient, sdk.Permanent)):
                    raise
                refused = isinstance(error, sdk.Permanent) or status_of(raised) in (401, 403)
                if refused or attempt == ATTEMPTS_MAX:
                    return error
            else:
                return None
            finally:
                self._latency.observe(self._clock.monotonic() - begin)
            await asyncio.sleep(delay_s)
            delay_s *= 2
            attempt += 1


def _settle(written: asyncio.Future[None], error: BaseException | None) -> None:
    if written.done():
        return
    if error is None:
        written.set_result(None)
    elif isinstance(error, asyncio.CancelledError):
        written.cancel()
    else:
        written.set_exception(error)
