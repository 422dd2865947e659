"""The dynamodb source on the streams of DynamoDB Local and moto."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from penstock import sdk
from penstock.plugins.sources import dynamodb

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/"
"""Neither region nor account are those of DynamoDB Local: people configure the ARN of production."""


class Sink:
    """Delivers at once, and says yes."""

    acknowledgments = True
    events_max = 10_000
    bytes_max = 64_000_000

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.ready = asyncio.Event()

    def started(self) -> None:
        self.ready.set()

    def handle(self, on_done: Callable[[bool], None] | None = None) -> sdk.Handle:
        return sdk.Handle(on_done)

    def write_now(self, batch: sdk.Batch, size_bytes: int) -> bool:
        self.events += [(body, batch.peek(place).attributes) for place, body in enumerate(batch.bodies)]
        batch.release_all(ok=True)
        return True

    async def write(self, batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None) -> None:
        raise AssertionError("there is always room")

    async def wait(self, count: int) -> None:
        while len(self.events) < count:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(table: str, data_dir: Path, **stream: Any) -> AsyncIterator[tuple[Sink, sdk.Context]]:
    """The source, built from its options, until the block ends."""
    config = dynamodb.Config.model_validate(
        {
            "acknowledgments": True,
            "tables": [{"table_arn": ARN + table, "stream": {"start_position": "LATEST", **stream}}],
            "aws": {"region": "us-east-1"},
        }
    )
    ctx = sdk.Context("pipe", "dynamodb", kind="source", data_dir=data_dir)
    source, sink = dynamodb.build(config, ctx), Sink()
    task = asyncio.create_task(source.run(sink))
    ready = asyncio.create_task(sink.ready.wait())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield sink, ctx
    finally:
        ready.cancel()
        await source.stop()
        await task


def make_table(client: Any, name: str, *, view: str = "NEW_AND_OLD_IMAGES", sort_key: bool = False) -> None:
    schema = [{"AttributeName": "id", "KeyType": "HASH"}]
    attributes = [{"AttributeName": "id", "AttributeType": "N"}]
    if sort_key:
        schema.append({"AttributeName": "at", "KeyType": "RANGE"})
        attributes.append({"AttributeName": "at", "AttributeType": "S"})
    client.create_table(
        TableName=name,
        KeySchema=schema,
        AttributeDefinitions=attributes,
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
    )


@pytest.fixture(autouse=True)
def own_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "123456789012")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def local(dynamodb_local: Any, aws_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A blocking client of DynamoDB Local, which the source finds by the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", dynamodb_local.url)
    return aws_client("dynamodb", dynamodb_local.url)


def put(client: Any, table: str, number: int, **attributes: Any) -> None:
    client.put_item(TableName=table, Item={"id": {"N": str(number)}, **attributes})


def test_changes_arrive_as_they_were_made(local: Any, prefix: str, tmp_path: Path) -> None:
    table = prefix + "types"
    make_table(local, table, sort_key=True)
    values = {
        "big": {"N": "12345678901234567890123456789012345678"},
        "small": {"N": "-0.00000000000000000000000000001"},
        "text": {"S": "1\u0000\t/ü"},
        "bytes": {"B": b"\x00\x01\xff"},
        "names": {"SS": ["b", "a"]},
        "numbers": {"NS": ["39370", "0.5"]},
        "nested/key": {"M": {"list": {"L": [{"N": "1.5"}, {"NULL": True}, {"BOOL": False}]}}},
    }

    async def scenario() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        async with running(table, tmp_path, view_on_remove="OLD_IMAGE") as (sink, _):
            key = {"id": {"N": "7"}, "at": {"S": "x|y"}}
            await asyncio.to_thread(local.put_item, TableName=table, Item={**key, **values})
            await asyncio.to_thread(
                local.update_item,
                TableName=table,
                Key=key,
                UpdateExpression="REMOVE big, small, #b, numbers, #n",
                ExpressionAttributeNames={"#b": "bytes", "#n": "names"},
            )
            await asyncio.to_thread(local.delete_item, TableName=table, Key=key)
            await sink.wait(3)
            return sink.events

    (first, made), (second, changed), (third, removed) = asyncio.run(scenario())
    assert sorted(first.pop("names")) == ["a", "b"]
    assert sorted(first.pop("numbers")) == sorted([39370, Decimal("0.5")])
    assert first.pop("small") == Decimal("-1E-29")
    assert first == {
        "id": 7,
        "at": "x|y",
        "big": 12345678901234567890123456789012345678,
        "text": "1\u0000\t/ü",
        "bytes": "AAH/",
        "nested/key": {"list": [Decimal("1.5"), None, False]},
    }
    assert second == third
    assert set(second) == {"id", "at", "text", "nested/key"}
    assert made == {
        "table_name": table,
        "partition_key": "7",
        "sort_key": "x|y",
        "primary_key": "7|x|y",
        "dynamodb_timestamp": made["dynamodb_timestamp"],
        "document_version": made["document_version"],
        "dynamodb_event_name": "INSERT",
        "opensearch_action": "index",
        "ttl_delete": False,
    }
    assert [found["dynamodb_event_name"] for found in (made, changed, removed)] == ["INSERT", "MODIFY", "REMOVE"]
    assert removed["opensearch_action"] == "delete"
    assert made["document_version"] < changed["document_version"] < removed["document_version"]


def test_shards_that_roll_over_and_restarts_keep_every_change_in_order(
    local: Any, dynamodb_local: Any, prefix: str, tmp_path: Path
) -> None:
    table = prefix + "rolling"
    make_table(local, table)

    async def scenario() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        events: list[tuple[dict[str, Any], dict[str, Any]]] = []
        count = 0
        for _ in range(3):
            async with running(table, tmp_path) as (sink, _ctx):
                for step in range(2):
                    for _ in range(20):
                        await asyncio.to_thread(put, local, table, count % 5, n={"N": str(count)})
                        count += 1
                    if step == 0:
                        await asyncio.to_thread(dynamodb_local.roll_shards_over)
                await sink.wait(count - len(events))
                events += sink.events
            for _ in range(7):  # while nobody reads
                put(local, table, count % 5, n={"N": str(count)})
                count += 1
            dynamodb_local.roll_shards_over()
        return events

    events = asyncio.run(scenario())
    assert [body["n"] for body, _ in events] == list(range(len(events)))
    assert len(events) == 3 * 40 + 2 * 7
    versions = [found["document_version"] for _, found in events]
    assert versions == sorted(set(versions))


def test_items_from_before_the_first_start_are_not_replicated(
    local: Any, dynamodb_local: Any, prefix: str, tmp_path: Path
) -> None:
    table = prefix + "latest"
    make_table(local, table)
    put(local, table, 1)
    dynamodb_local.age_stream_events(1)

    async def scenario() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        async with running(table, tmp_path) as (sink, _):
            await asyncio.to_thread(put, local, table, 2)
            await sink.wait(1)
            return sink.events

    assert [body for body, _ in asyncio.run(scenario())] == [{"id": 2}]


def test_a_stream_that_is_switched_off_and_on_again_is_found(local: Any, prefix: str, tmp_path: Path) -> None:
    table = prefix + "reenabled"
    make_table(local, table)

    def switch(on: bool) -> None:
        view = {"StreamViewType": "NEW_IMAGE"} if on else {}
        local.update_table(TableName=table, StreamSpecification={"StreamEnabled": on, **view})

    async def scenario() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        async with running(table, tmp_path, shard_discovery_interval="1s") as (sink, _):
            await asyncio.to_thread(put, local, table, 1, n={"N": "1"})
            await sink.wait(1)
            await asyncio.to_thread(put, local, table, 1, n={"N": "2"})
            await asyncio.to_thread(switch, False)
            await asyncio.to_thread(switch, True)
            await asyncio.to_thread(put, local, table, 1, n={"N": "3"})
            await sink.wait(3)
            return sink.events

    events = asyncio.run(scenario())
    assert [body["n"] for body, _ in events] == [1, 2, 3]
    versions = [found["document_version"] for _, found in events]
    assert versions == sorted(set(versions))


def test_expired_items_are_deletes(local: Any, prefix: str, tmp_path: Path) -> None:
    table = prefix + "ttl"
    make_table(local, table)
    local.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "gone_at"})

    async def scenario() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        async with running(table, tmp_path) as (sink, _):
            await asyncio.to_thread(put, local, table, 1, gone_at={"N": str(int(time.time()) - 60)})
            await sink.wait(2)
            return sink.events

    (_, made), (body, removed) = asyncio.run(scenario())
    assert (made["ttl_delete"], removed["ttl_delete"]) == (False, True)
    assert (body, removed["opensearch_action"], removed["primary_key"]) == ({}, "delete", "1")


HARNESS = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_dynamodb_source as own

class Printing(own.Sink):
    def write_now(self, batch, size_bytes):
        for body in batch.bodies:
            print(body["id"], flush=True)
        return super().write_now(batch, size_bytes)

own.Sink = Printing

async def main():
    async with own.running(sys.argv[2], Path(sys.argv[3])):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_nothing_is_lost_when_the_process_is_killed(local: Any, prefix: str, tmp_path: Path) -> None:
    table = prefix + "killed"
    make_table(local, table)
    seen: list[str] = []
    total, kills = 300, 3

    def start() -> tuple[subprocess.Popen[str], threading.Thread, threading.Event]:
        process = subprocess.Popen(
            [sys.executable, "-c", HARNESS, str(Path(__file__).parent), table, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        ready = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line == "ready\n":
                    ready.set()
                elif line.endswith("\n"):
                    seen.append(line.strip())

        reader = threading.Thread(target=read)
        reader.start()
        return process, reader, ready

    process, reader, ready = start()
    try:
        assert ready.wait(60)
        for number in range(total):
            put(local, table, number)
            if number % (total // (kills + 1)) == total // (kills + 1) - 1:
                process.send_signal(signal.SIGKILL)
                process.wait()
                reader.join()
                assert process.stdout is not None
                process.stdout.close()
                process, reader, ready = start()
        while len(set(seen)) < total:  # the test's own time limit ends this
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
    assert set(seen) == set(map(str, range(total)))


def test_stamps_with_milliseconds(
    moto: Any, aws_client: Callable[..., Any], prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", moto.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", moto.url)
    client = aws_client("dynamodb", moto.url)
    table = prefix + "moto"
    make_table(client, table)
    put(client, table, 1)
    time.sleep(0.01)

    async def scenario() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        async with running(table, tmp_path) as (sink, _):
            await asyncio.to_thread(put, client, table, 2, n={"N": "3.937E+4"})
            await asyncio.to_thread(client.delete_item, TableName=table, Key={"id": {"N": "2"}})
            await sink.wait(2)
            return sink.events

    (body, made), (_, removed) = asyncio.run(scenario())
    assert body == {"id": 2, "n": 39370}
    assert made["document_version"] // 1_000_000 == made["dynamodb_timestamp"] // 1000
    assert removed["document_version"] > made["document_version"]
