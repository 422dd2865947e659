"""Dead letters in S3: one object for a flush, retries, refusals, and what happens to the events then."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from penstock.core.clock import ManualClock
from penstock.core.errors import ConfigError, Transient
from penstock.core.metrics import Registry
from penstock.lib.aws import S3Style
from penstock.plugins.dlq import s3
from penstock.sdk import Context, DeadLetter
from penstock.testing.plugins import checked

NOW_NS = 1_680_708_379_152_938_123  # 2023-04-05T15:26:19.152938123Z
DENIED = ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject")
BUSY = ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject")
NO_BUCKET = ClientError({"Error": {"Code": "NoSuchBucket"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "PutObject")
AWAY = EndpointConnectionError(endpoint_url="http://s3")


class FakeS3:
    """Sessions and client in one; `answers` are raised one after the other, then everything succeeds."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []
        self.styles: list[S3Style] = []
        self.users = 0

    async def __aenter__(self) -> FakeS3:
        self.users += 1
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.users -= 1

    async def client(self, service: str, access: Any, *, s3_style: S3Style, session_prefix: str) -> FakeS3:
        assert session_prefix == "s3-dlq"
        assert service == "s3"
        self.styles.append(s3_style)
        return self

    async def put_object(self, **call: Any) -> None:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.answers:
            raise self.answers.pop(0)

    def objects(self) -> list[list[Any]]:
        return [json.loads(call["Body"])["dlqObjects"] for call in self.calls]


def letters(*numbers: int) -> list[DeadLetter]:
    return [DeadLetter("opensearch", "opensearch", "p", NOW_NS, {"document": {"n": n}}) for n in numbers]


def write(
    monkeypatch: pytest.MonkeyPatch, fake: FakeS3, *flushes: list[DeadLetter], **options: Any
) -> tuple[list[Any], Registry]:
    monkeypatch.setattr(s3, "sessions", lambda: fake)
    monkeypatch.setattr(s3, "RETRY_DELAY_S_MIN", 0.0)
    registry = Registry()
    _, config = checked("dlq", "s3", {"bucket": "s3://my-bucket", **options})
    ctx = Context("p", "opensearch", kind="sink", clock=ManualClock(NOW_NS), registry=registry)

    async def run() -> list[Any]:
        queue = s3.build(config, ctx)
        outcomes = await asyncio.gather(*map(queue.write, flushes), return_exceptions=True)
        await queue.close()
        await queue.close()
        return outcomes

    outcomes = asyncio.run(run())
    assert fake.users == 0, "the session is given back"
    return outcomes, registry


def test_the_letters_of_a_flush_share_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeS3()
    outcomes, registry = write(monkeypatch, fake, letters(1, 2, 3), key_path_prefix="dlq/%{yyyy}/%{MM}/%{dd}/%{HH}")
    assert outcomes == [None]
    (call,) = fake.calls
    assert call["Bucket"] == "my-bucket"
    assert re.fullmatch(
        r"dlq/2023/04/05/15/dlq-v2-p-opensearch-2023-04-05T15:26:19\.152938Z-"
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.json",
        call["Key"],
    )
    assert json.loads(call["Body"])["dlqObjects"][2] == {
        "pluginId": "opensearch",
        "pluginName": "opensearch",
        "pipelineName": "p",
        "failedData": {"document": {"n": 3}},
        "timestamp": "2023-04-05T15:26:19.152Z",
    }
    assert registry.value("p.opensearch.s3.dlqS3RecordsSuccess") == 3
    assert registry.value("p.opensearch.s3.dlqS3RequestSuccess") == 1
    assert registry.value("p.opensearch.s3.dlqS3RequestSizeBytes") == 1


def test_what_comes_while_an_object_is_written_goes_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeS3()
    outcomes, _ = write(monkeypatch, fake, *(letters(n) for n in range(10)))
    assert outcomes == [None] * 10
    written = [record["failedData"]["document"]["n"] for records in fake.objects() for record in records]
    assert written == list(range(10))
    assert len(fake.calls) <= 2


def test_objects_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "OBJECT_BYTES_MAX", 400)
    fake = FakeS3()
    write(monkeypatch, fake, *(letters(n) for n in range(10)))
    assert sum(map(len, fake.objects())) == 10
    assert max(map(len, fake.objects())) <= 3


@pytest.mark.parametrize("error", [BUSY, AWAY])
def test_what_may_pass_is_tried_three_times(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fake = FakeS3(error, error)
    outcomes, _ = write(monkeypatch, fake, letters(1))
    assert outcomes == [None] and len(fake.calls) == 3
    assert len({call["Key"] for call in fake.calls}) == 1, (
        "a put that was carried out unheard is not repeated elsewhere"
    )
    fake = FakeS3(error, error, error)
    ((failure,), registry) = write(monkeypatch, fake, letters(1, 2))
    assert isinstance(failure, Transient)
    assert registry.value("p.opensearch.s3.dlqS3RecordsFailed") == 2
    assert registry.value("p.opensearch.s3.dlqS3RequestFailed") == 1


@pytest.mark.parametrize("error", [DENIED, NO_BUCKET])
def test_a_refusal_fails_at_once_and_names_the_object(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fake = FakeS3(error)
    (failure, *rest), registry = write(monkeypatch, fake, letters(1))
    assert f"s3://my-bucket/{fake.calls[0]['Key']}" in str(failure)
    assert len(fake.calls) == 1
    assert registry.value("p.opensearch.s3.dlqS3RecordsFailed") == 1
    assert not rest


def test_a_bug_reaches_the_one_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    (failure,), _ = write(monkeypatch, FakeS3(KeyError("bug")), letters(1))
    assert isinstance(failure, KeyError)


def test_how_the_store_is_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeS3()
    write(
        monkeypatch,
        fake,
        letters(1),
        force_path_style=True,
        legacy_md5_checksum=True,
        bucket_owner="123456789012",
    )
    (call,) = fake.calls
    assert fake.styles == [S3Style(path_style=True, md5_checksum=True)]
    assert call["ExpectedBucketOwner"] == "123456789012"
    assert base64.b64decode(call["ContentMD5"]) == hashlib.md5(call["Body"]).digest()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bucket": "bu"}, "bucket length should be at least 3 characters"),
        ({"bucket": "b" * 501}, "bucket length should be at most 500 characters"),
        ({"bucket": "s3://bucket/path"}, "a path belongs into key_path_prefix"),
        ({"key_path_prefix": ""}, "key_path_prefix length should be between 1 and 1024 characters"),
        ({"key_path_prefix": "a/%{mm}"}, "less than one hour"),
        ({"key_path_prefix": "a/%{yyyy/MM}"}, "special characters"),
        ({"region": ""}, "region cannot be empty string"),
        ({"sts_role_arn": "foobar"}, "sts_role_arn length should be between 1 and 2048 characters"),
        ({"sts_role_arn": "arn:aws:iam::123456789012:user/me"}, "sts_role_arn must be an IAM Role"),
        ({"sts_external_id": "x"}, "sts_external_id length should be between 2 and 1224 characters"),
        ({"sts_header_overrides": dict.fromkeys("abcdef", "x")}, "a maximum of 5 headers"),
        ({"bucket_owner": "12"}, "bucket_owner must be a 12-digit AWS account id"),
        ({"buckt": "x"}, "buckt"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        checked("dlq", "s3", {"bucket": "my-bucket", **options})
