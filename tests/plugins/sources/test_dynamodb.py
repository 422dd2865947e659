"""The dynamodb source against streams in memory, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock import sdk
from penstock.lib.lease import MemoryStore, Status
from penstock.plugins.sources import dynamodb
from penstock.plugins.sources.dynamodb import attributes
from penstock.plugins.sources.dynamodb.export import ExportOptions
from penstock.plugins.sources.dynamodb.reader import REREADS_MAX, Pace
from penstock.plugins.sources.dynamodb.records import Recorder, Versions
from penstock.plugins.sources.dynamodb.source import SHARDS_MAX, DynamodbSource
from penstock.testing.dynamodb import FakeDynamodb
from penstock.testing.virtual import EPOCH_NS, LoopClock, VirtualLoop, run_virtual

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/orders"
ACCESS = sdk.AwsOptions(region="us-east-1")
NOW_S = EPOCH_NS // 10**9


class Sink:
    """The rest of the pipeline: keeps events and answers each promise with `answer`, at once or later."""

    acknowledgments = True

    def __init__(self, *, events_max: int = 10_000, bytes_max: int = 10**9) -> None:
        self.events_max = events_max
        self.bytes_max = bytes_max
        self.bodies: list[dict[str, Any]] = []
        self.metas: list[sdk.Meta] = []
        self.writes: list[int] = []
        self.held: list[sdk.Batch] = []
        self.answer: Callable[[sdk.Batch], bool | None] = lambda _batch: True
        """None: the events stay on their way."""
        self.ready = asyncio.Event()
        self.times: list[float] = []

    def started(self) -> None:
        self.ready.set()

    def handle(self, on_done: Callable[[bool], None] | None = None) -> sdk.Handle:
        return sdk.Handle(on_done)

    def write_now(self, batch: sdk.Batch, size_bytes: int) -> bool:
        return False

    async def write(self, batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None) -> None:
        if size_bytes > self.bytes_max:
            raise sdk.BufferTooSmall("too large")
        self.writes.append(len(batch))
        ok = self.answer(batch)
        if ok is not False:
            self.bodies += batch.bodies
            self.metas += [batch.peek(index) for index in range(len(batch))]
            self.times += [asyncio.get_running_loop().time()] * len(batch)
        if ok is None:
            self.held.append(batch)
        else:
            batch.release_all(ok=ok)

    def ids(self) -> list[Any]:
        return [body.get("id") for body in self.bodies]

    def versions(self) -> list[int]:
        return [meta.attributes["document_version"] for meta in self.metas]


class World:
    """A table, a pipeline around the source, and virtual time."""

    def __init__(self, **table: Any) -> None:
        loop = asyncio.get_running_loop()
        self.clock = LoopClock(loop)
        self.db = FakeDynamodb(self.clock, **table)
        self.ctx = sdk.Context("pipe", "dynamodb", kind="source", clock=self.clock, chance=random.Random(0))
        self.store = MemoryStore(self.clock)  # a thread and virtual time do not go together
        self.sink = Sink()
        self.source: DynamodbSource | None = None
        self._task: asyncio.Task[None] | None = None

    def counter(self, name: str) -> float:
        return self.ctx.registry.value(f"pipe.dynamodb.{name}")

    async def start(self, *, ready: bool = True, **options: Any) -> None:
        self.source = DynamodbSource(
            self.ctx,
            **{
                "table_arn": self.db.table_arn,
                "access": ACCESS,
                "clients": self.db,
                "store": self.store,
                "pace": Pace(stop=1.0),
                **options,
            },
        )
        self._task = asyncio.create_task(self.source.run(self.sink))
        if ready:
            await self.sink.ready.wait()

    async def stop(self) -> None:
        assert self.source is not None and self._task is not None
        await self.source.stop()
        await self._task

    async def crash(self) -> None:
        """As if the process had been cut off: nothing is waited for."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def events(self, count: int, within_s: float = 120.0) -> None:
        """Wait for that many events, then for a checkpoint."""
        async with asyncio.timeout(within_s):
            while len(self.sink.bodies) < count:
                await asyncio.sleep(0.05)
        await asyncio.sleep(2)


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in virtual time."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(test(**fixtures))  # type: ignore[arg-type]

    return run


# options


def config(**changes: Any) -> dict[str, Any]:
    return {"tables": [{"table_arn": ARN, "stream": {}}], "aws": {"region": "us-east-1"}, **changes}


def message_of(options: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        dynamodb.Config.model_validate(options)
    (error,) = caught.value.errors()
    return error["msg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (config(tables=[]), "Exactly one table must be configured for the DynamoDb source."),
        (
            config(tables=[{"table_arn": ARN, "stream": {}}] * 2),
            "Exactly one table must be configured for the DynamoDb source.",
        ),
        (
            config(tables=[{"table_arn": "", "stream": {}}]),
            "DynamoDB Table ARN cannot be null or empty",
        ),
        (
            config(tables=[{"table_arn": ARN, "stream": {"shard_discovery_interval": "100ms"}}]),
            "shard_discovery_interval must be at least 1 second.",
        ),
        (
            config(tables=[{"table_arn": ARN, "export": {"s3_bucket": "b", "s3_sse_kms_key_id": "key"}}]),
            "KMS Key ID must be a valid one.",
        ),
        (config(aws={"region": ""}), "Region cannot be empty string"),
        (config(aws={"sts_role_arn": "short"}), "awsStsRoleArn length should be between 1 and 2048 characters"),
        (config(aws={"sts_external_id": "x"}), "awsStsExternalId length should be between 2 and 1224 characters"),
        (
            config(aws={"sts_header_overrides": {str(n): "x" for n in range(6)}}),
            "sts_header_overrides supports a maximum of 5 headers to override",
        ),
    ],
)
def test_options_are_refused_in_the_words_of_the_original(options: dict[str, Any], message: str) -> None:
    assert message_of(options) == message


def test_a_table_of_which_nothing_is_read_is_named() -> None:
    assert ARN in message_of(config(tables=[{"table_arn": ARN}]))


def test_export_options_have_their_own_messages() -> None:
    with pytest.raises(ValidationError, match="Bucket Name is required for export"):
        dynamodb.Export.model_validate({"s3_bucket": " "})


def test_defaults() -> None:
    options = dynamodb.Config.model_validate(config())
    assert (options.acknowledgments, options.shard_acknowledgment_timeout) == (False, 1800)
    assert options.s3_data_file_acknowledgment_timeout == 900
    stream = options.tables[0].stream
    assert stream is not None
    assert (stream.start_position, stream.view_on_remove, stream.disable_checkpointing) == (
        "LATEST",
        "NEW_IMAGE",
        False,
    )
    assert stream.shard_discovery_interval == 60


# attributes


def test_attribute_types() -> None:
    image = {
        "s": {"S": "1"},
        "n": {"N": "7"},
        "e": {"N": "3.937E+4"},
        "d": {"N": "0.1000000000000000000000000000000000001"},
        "t": {"BOOL": True},
        "z": {"NULL": True},
        "b": {"B": "AAH/"},
        "ss": {"SS": ["a", "b"]},
        "ns": {"NS": ["1", "2.5"]},
        "bs": {"BS": ["AA=="]},
        "l": {"L": [{"N": "1"}, {"M": {"a/b": {"S": "x"}}}, {"NULL": True}]},
        "m": {"M": {"deep.er key": {"L": []}}},
    }
    assert attributes.item(image) == {
        "s": "1",
        "n": 7,
        "e": 39370,
        "d": Decimal("0.1000000000000000000000000000000000001"),
        "t": True,
        "z": None,
        "b": "AAH/",
        "ss": ["a", "b"],
        "ns": [1, Decimal("2.5")],
        "bs": ["AA=="],
        "l": [1, {"a/b": "x"}, None],
        "m": {"deep.er key": []},
    }


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None).filter(lambda n: abs(n.adjusted()) <= 130))
def test_numbers_keep_every_digit(value: Decimal) -> None:
    result = attributes.number(str(value))
    assert result == value
    assert type(result) is (int if value == value.to_integral_value() else Decimal)
    assert "E" not in attributes.plain(str(value))
    assert Decimal(attributes.plain(str(value))) == value


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1E999999999", "x", ""])
def test_what_is_no_number_is_refused_quickly(text: str) -> None:
    with pytest.raises(sdk.EventError):
        attributes.item({"n": {"N": text}})


@pytest.mark.parametrize("value", [{"X": "1"}, [], {"S": "a", "N": "1"}, None, {"L": [{"Q": 1}]}, {"NS": "12a"}])
def test_what_is_no_attribute_is_refused(value: Any) -> None:
    with pytest.raises(sdk.EventError):
        attributes.item({"a": value})


def test_empty_maps_are_written_without_a_type_by_dynamodb_local() -> None:
    assert attributes.item({"a": {}, "b": {"L": [{}, {"M": {}}]}}) == {"a": {}, "b": [{}, {}]}


@given(st.lists(st.integers(0, 4), max_size=60))
def test_versions_rise_whatever_the_stamps_and_restarts(seconds: list[int]) -> None:
    versions, seen = Versions(), []
    for place, second in enumerate(seconds):
        seen.append(versions.next(second))
        if place % 3 == 0:
            versions = Versions.of(versions.progress())
    assert seen == sorted(set(seen))


def test_versions_count_within_a_second() -> None:
    versions = Versions()
    assert [versions.next(second) for second in (5, 5, 6, 6, 9)] == [
        5_000_000,
        5_000_001,
        6_000_000,
        6_000_001,
        9_000_000,
    ]


# events


@virtual
async def test_changes_become_events_with_their_metadata() -> None:
    world = World(key_names=("id", "at"))
    await world.start()
    world.db.put(id=7, at="x", Artist="sample", Awards="1")
    await asyncio.sleep(5)
    world.db.put(id=7, at="x", Artist="other")
    world.db.delete(id=7, at="x")
    world.db.put(id={"N": "3.937E+4"}, at="x")
    world.db.delete(ttl=True, id={"N": "3.937E+4"}, at="x")
    await world.events(5)
    await world.stop()

    assert world.sink.bodies == [
        {"id": 7, "at": "x", "Artist": "sample", "Awards": "1"},
        {"id": 7, "at": "x", "Artist": "other"},
        {},
        {"id": 39370, "at": "x"},
        {},
    ]
    first, second, third, fourth, fifth = (meta.attributes for meta in world.sink.metas)
    stamp = first["dynamodb_timestamp"]
    assert first == {
        "table_name": "orders",
        "partition_key": "7",
        "sort_key": "x",
        "primary_key": "7|x",
        "dynamodb_timestamp": stamp,
        "document_version": stamp * 1000,
        "dynamodb_event_name": "INSERT",
        "opensearch_action": "index",
        "ttl_delete": False,
    }
    assert stamp % 1000 == 0 and stamp // 1000 == NOW_S
    assert (second["dynamodb_event_name"], second["opensearch_action"]) == ("MODIFY", "index")
    assert (third["dynamodb_event_name"], third["opensearch_action"], third["ttl_delete"]) == (
        "REMOVE",
        "delete",
        False,
    )
    assert fourth["primary_key"] == "39370|x"
    assert (fifth["opensearch_action"], fifth["ttl_delete"]) == ("delete", True)
    assert [
        meta["document_version"] - 1000 * meta["dynamodb_timestamp"] for meta in (second, third, fourth, fifth)
    ] == [
        0,
        1,
        2,
        3,
    ]
    assert {(meta.event_type, meta.origination_ms) for meta in world.sink.metas[:1]} == {("STREAM", stamp)}
    assert world.counter("changeEventsProcessed") == 5
    assert world.counter("changeEventsProcessingErrors") == 0
    assert world.counter("shardProgress") > 0
    assert world.counter("bytesReceived") == world.counter("bytesProcessed") == 5


@virtual
async def test_a_table_without_sort_key_has_none_in_the_metadata() -> None:
    world = World()
    await world.start()
    world.db.put(id={"B": "AAH/"})
    await world.events(1)
    await world.stop()
    found = world.sink.metas[0].attributes
    assert "sort_key" not in found
    assert found["primary_key"] == found["partition_key"] == "AAH/"


@virtual
async def test_old_images_of_removed_items(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start(view_on_remove="OLD_IMAGE")
    world.db.put(id=1, name="x")
    world.db.delete(id=1)
    world.db.append({"eventName": "REMOVE", "dynamodb": {"Keys": {"id": {"N": "2"}}}})
    await world.events(3)
    await world.stop()
    assert world.sink.bodies[1:] == [{"id": 1, "name": "x"}, {}]
    assert (
        "view_on_remove with OLD_IMAGE is enabled, but no old image can be found on the stream record, using NEW_IMAGE"
        in caplog.messages
    )


@virtual
async def test_a_record_that_cannot_be_converted_is_left_out_alone(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start()
    world.db.put(id=1)
    for broken in (
        {"eventName": "INSERT", "dynamodb": {"Keys": {"id": {"N": "2"}}, "NewImage": {"id": {"Q": "2"}}}},
        {"eventName": "INSERT", "dynamodb": {"Keys": {"id": {"N": "2"}}}},
        {"eventName": "INSERT", "dynamodb": {"Keys": {}, "NewImage": {}}},
        {"eventName": "SPLIT", "dynamodb": {"Keys": {"id": {"N": "2"}}, "NewImage": {}}},
    ):
        world.db.append(broken)
    world.db.put(id=3)
    await world.events(2)
    await world.stop()
    assert world.sink.ids() == [1, 3]
    assert world.counter("changeEventsProcessingErrors") == 4
    failures = [
        text for text in caplog.messages if text.startswith("Failed to parse and convert data from stream due to ")
    ]
    assert len(failures) == 4


def test_expired_items_of_dynamodb_local() -> None:
    recorder = Recorder("orders", "id", None, "OLD_IMAGE", 0, 60_000, sdk.Counter(), logging.getLogger("test"))
    record = {
        "eventName": "UNKNOWN_TO_SDK_VERSION",
        "dynamodb": {
            "Keys": {"id": {"N": "2"}},
            "OldImage": {"id": {"N": "2"}, "ttl": {"N": "5"}},
            "ApproximateCreationDateTime": 60,
            "SequenceNumber": "1",
        },
    }
    page = recorder.page([record], Versions(), 0)
    assert page.batch.bodies == [{"id": 2, "ttl": 5}]
    found = page.batch.peek(0).attributes
    assert (found["dynamodb_event_name"], found["opensearch_action"], found["ttl_delete"]) == ("REMOVE", "delete", True)


# where reading starts and goes on


@pytest.mark.parametrize(("resolution_ms", "late_ms"), [(1000, 1000), (1, 1)])
def test_what_is_older_than_the_first_start_is_skipped(resolution_ms: int, late_ms: int) -> None:
    async def scenario() -> None:
        world = World(resolution_ms=resolution_ms)
        world.clock.skew_ns += 500_000_000  # start in the middle of a second
        await asyncio.sleep(10)
        world.db.put(id="old")
        world.db.roll_over()
        world.db.put(id="old too")
        await asyncio.sleep(late_ms / 1000)
        world.db.put(id="of the same second" if resolution_ms == 1000 else "of the same millisecond")
        await world.start()
        world.db.put(id="new")
        await world.events(2)
        await world.stop()
        assert world.sink.ids()[-1] == "new"
        assert not {"old", "old too"} & set(world.sink.ids())
        assert len(world.sink.ids()) == 2

    run_virtual(scenario())


@virtual
async def test_a_stream_that_is_enabled_after_the_start_is_read_from_its_beginning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(view_type=None)
    await world.start(ready=False)
    await asyncio.sleep(100)
    assert not world.sink.ready.is_set()
    world.db.enable_stream("KEYS_ONLY")
    await asyncio.sleep(100)
    assert not world.sink.ready.is_set()
    world.db.disable_stream()
    world.db.enable_stream("NEW_IMAGE")
    world.db.put(id=1)
    await world.events(1)
    await world.stop()
    assert world.sink.ids() == [1]
    log = "\n".join(caplog.messages)
    assert f"Exception occurred in primary scheduling loop: Stream is not enabled for table {ARN}" in log
    assert f"Stream {ARN} is enabled with KEYS_ONLY. Supported types are [NEW_IMAGE, NEW_AND_OLD_IMAGES]" in log


@pytest.mark.parametrize("view_type", [None, "KEYS_ONLY", "OLD_IMAGE", "NEW_IMAGE", "NEW_AND_OLD_IMAGES"])
@pytest.mark.parametrize("stream_is_read", [True, False])
def test_a_table_is_checked_for_what_is_read_of_it(
    view_type: str | None, stream_is_read: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        world = World(view_type=view_type)
        world.db.exports.recovery = stream_is_read
        world.db.put(id=1)
        export = None if stream_is_read else ExportOptions("exports")
        await world.start(ready=False, stream=stream_is_read, export=export)
        await asyncio.sleep(60)
        await world.stop()
        told = {text for text in caplog.messages if text.startswith("Exception occurred in primary scheduling loop: ")}
        if not stream_is_read:
            expected = f"Point-in-time recovery (PITR) needs to be enabled for exporting data from table {ARN}"
        elif view_type is None:
            expected = f"Stream is not enabled for table {ARN}"
        elif view_type in ("KEYS_ONLY", "OLD_IMAGE"):
            expected = f"Stream {ARN} is enabled with {view_type}. Supported types are [NEW_IMAGE, NEW_AND_OLD_IMAGES]"
        else:
            assert told == set()
            assert world.sink.ready.is_set()
            return
        (message,) = told
        assert message.removeprefix("Exception occurred in primary scheduling loop: ").startswith(expected)
        assert not world.sink.ready.is_set()
        assert world.sink.bodies == []

    run_virtual(scenario())


@virtual
async def test_missing_rights_heal_without_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.db.fail("describe_table", "AccessDeniedException", times=3)
    world.db.fail("describe_stream", "AccessDeniedException", times=2)
    world.db.fail("get_shard_iterator", "AccessDeniedException", times=2)
    world.db.fail("get_records", "AccessDeniedException", times=2)
    await world.start(ready=False)
    await asyncio.sleep(1.5)
    world.db.put(id=1)
    await world.events(1)
    await world.stop()
    assert world.sink.ids() == [1]
    assert any(
        text.startswith(f"Unable to call DescribeTableRequest to get information for table {ARN} due to ")
        for text in caplog.messages
    )
    assert (
        "Exception occurred in primary scheduling loop: "
        f"Unable to get table information for {ARN}. Please make sure the permission is properly set"
    ) in caplog.messages
    assert world.ctx.registry.value("dynamodb.stream4xxErrors") == 9
    assert world.ctx.registry.value("dynamodb.streamApiInvocations") > 9


@virtual
async def test_a_restart_goes_on_behind_the_last_delivered_record_with_higher_versions() -> None:
    world = World(region="ddblocal", resolution_ms=60_000)  # stamps of one minute: only n tells the versions apart
    await world.start()
    for number in range(3):
        world.db.put(id=number)
    await world.events(3)
    await world.stop()
    for number in range(3, 6):
        world.db.put(id=number)
    await world.start()
    await world.events(6)
    await world.stop()
    assert world.sink.ids() == [0, 1, 2, 3, 4, 5]
    assert world.sink.versions() == sorted(set(world.sink.versions()))
    assert [kind for _, kind, _ in world.db.iterators] == ["TRIM_HORIZON", "AFTER_SEQUENCE_NUMBER"]


@virtual
async def test_after_a_crash_nothing_is_missing_and_versions_repeat() -> None:
    world = World()
    await world.start()
    world.db.put(id=1)
    await world.events(1)
    world.sink.answer = lambda _batch: None  # the sink hangs
    world.db.put(id=2)
    await asyncio.sleep(0.3)
    world.db.put(id=3)
    await world.events(3)
    await world.crash()
    world.sink.answer = lambda _batch: True
    world.sink.ready.clear()
    await world.start()
    await world.events(5)
    await world.stop()
    assert world.sink.ids() == [1, 2, 3, 2, 3]
    versions = world.sink.versions()
    assert versions[1:3] == versions[3:5]


@virtual
async def test_disabled_checkpoints_read_a_shard_again() -> None:
    world = World()
    await world.start(use_checkpoints=False)
    world.db.put(id=1)
    await world.events(1)
    await world.stop()
    await world.start(use_checkpoints=False)
    await world.events(2)
    await world.stop()
    assert world.sink.ids() == [1, 1]


@virtual
async def test_without_a_data_directory_the_log_warns(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start(store=None)
    await world.stop()
    assert any("There is no data directory" in text for text in caplog.messages)


# shards


@virtual
async def test_children_follow_when_their_parent_is_delivered() -> None:
    world = World()
    await world.start()
    world.sink.answer = lambda _batch: None
    for number in range(4):
        world.db.put(id=number)
    world.db.roll_over(children=2)
    for number in range(4):
        world.db.put(id=number, again=True)
    await world.events(4)
    await asyncio.sleep(200)
    assert world.sink.ids() == [0, 1, 2, 3]  # the parent is not delivered yet
    world.sink.answer = lambda _batch: True
    for batch in world.sink.held:
        batch.release_all(ok=True)
    await world.events(8, within_s=10)  # well before the next regular listing
    world.db.roll_over()
    world.db.put(id="grandchild")
    await world.events(9)
    await world.stop()
    assert sorted(world.sink.ids()[4:8]) == [0, 1, 2, 3]
    by_id: dict[str, list[int]] = {}
    for meta in world.sink.metas:
        by_id.setdefault(meta.attributes["primary_key"], []).append(meta.attributes["document_version"])
    assert all(versions == sorted(set(versions)) for versions in by_id.values())
    assert world.counter("partitionsCreated") == 5
    assert world.counter("partitionsComplete") == 3


@virtual
async def test_a_closed_shard_is_read_to_its_end_through_reads_that_bring_nothing() -> None:
    world = World()
    await world.start()
    read, empty = world.db.get_records, itertools.count()

    async def now_and_then(ShardIterator: str) -> dict[str, Any]:
        return (
            await read(ShardIterator) if next(empty) % 4 == 3 else {"Records": [], "NextShardIterator": ShardIterator}
        )

    world.db.get_records = now_and_then  # type: ignore[method-assign]
    world.db.page_records_max = 1
    for number in range(6):
        world.db.put(id=number)
        if number % 2:
            world.db.roll_over()
    await world.events(6)
    await world.stop()
    assert world.sink.ids() == list(range(6))


@virtual
async def test_more_shards_than_a_page_lists() -> None:
    world = World()
    world.db.roll_over(children=220)
    await world.start()
    for number in range(600):
        world.db.put(id=number)
    await asyncio.sleep(20)
    assert world.counter("activeShardsInProcessing") == SHARDS_MAX  # the others are left to other units for a while
    await world.events(600)
    assert world.counter("activeShardsInProcessing") == 220
    before = world.db.calls["get_records"]
    await asyncio.sleep(10)
    assert world.db.calls["get_records"] - before < 1200  # each shard begins anew every 2.2 s
    await world.stop()
    assert sorted(world.sink.ids()) == list(range(600))


@virtual
async def test_a_stream_that_was_switched_off_and_on_again_is_found() -> None:
    world = World(region="ddblocal", resolution_ms=60_000)
    await world.start()
    world.db.put(id=1, n=1)
    await world.events(1)
    world.db.put(id=1, n=2)
    world.db.disable_stream()
    world.db.enable_stream()
    world.db.put(id=1, n=3)
    await world.events(3, within_s=300)
    await world.stop()
    assert [body["n"] for body in world.sink.bodies] == [1, 2, 3]
    assert world.sink.versions() == sorted(set(world.sink.versions()))


@virtual
async def test_expired_iterators_are_renewed() -> None:
    world = World()
    await world.start()
    world.db.put(id=1)
    await world.events(1)
    world.db.fail("get_records", "ExpiredIteratorException", times=2)
    await asyncio.sleep(5)
    world.db.put(id=2)
    await world.events(2)
    await world.stop()
    assert world.sink.ids() == [1, 2]
    assert "AFTER_SEQUENCE_NUMBER" in [kind for _, kind, _ in world.db.iterators]


@virtual
async def test_trimmed_records_are_reported_and_reading_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start()
    world.db.put(id=1)
    await world.events(1)
    await world.stop()
    for number in range(2, 6):
        world.db.put(id=number)
    world.db.trim(world.db.open_shards()[0], keep=2)
    await world.start()
    await world.events(3)
    await world.stop()
    assert world.sink.ids() == [1, 4, 5]
    assert any("are lost" in text and "24 hours" in text for text in caplog.messages)
    assert world.counter("changeEventsProcessingErrors") == 1


@virtual
async def test_a_shard_that_is_gone_makes_room_for_its_children(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start()
    world.db.put(id=1)
    await world.events(1)
    await world.stop()
    parent = world.db.open_shards()[0]
    world.db.roll_over()
    world.db.put(id=2)
    world.db.forget(parent)
    await world.start()
    await world.events(2)
    await world.stop()
    assert world.sink.ids() == [1, 2]
    assert any("exists no more" in text for text in caplog.messages)


@virtual
async def test_throttled_reads_back_off() -> None:
    world = World()
    await world.start()
    await asyncio.sleep(1)
    world.db.fail("get_records", "LimitExceededException", times=10_000)
    before = world.db.calls["get_records"]
    await asyncio.sleep(60)
    assert world.db.calls["get_records"] - before < 25
    world.db.heal()
    world.db.put(id=1)
    await world.events(1, within_s=15)
    await world.stop()
    assert world.sink.ids() == [1]


@virtual
async def test_an_idle_shard_is_read_five_times_a_second_at_most() -> None:
    world = World()
    await world.start()
    await asyncio.sleep(9)
    times = [at for _, at in world.db.reads]
    assert all(later - earlier >= 0.199 for earlier, later in itertools.pairwise(times))
    assert len(times) > 40
    await asyncio.sleep(10)
    world.db.reads.clear()
    await asyncio.sleep(20)
    assert 39 <= len(world.db.reads) <= 41, "half a second apart where nothing changes"
    chance, waits = random.Random(1), []
    for number in range(60):
        await asyncio.sleep(chance.uniform(11, 15))
        put_at = asyncio.get_running_loop().time()
        world.db.put(id=number)
        await world.events(number + 1)
        waits.append(world.sink.times[-1] - put_at)
    assert sorted(waits)[30] <= 0.4
    assert max(waits) <= 0.51
    world.db.reads.clear()
    await asyncio.sleep(5)
    assert len(world.db.reads) >= 24, "as often as before once something has changed"
    await world.stop()


@virtual
async def test_a_busy_shard_is_read_on_at_once() -> None:
    world = World()
    await world.start()
    for number in range(10_000):
        world.db.put(id=number)
    before = world.clock.monotonic()
    while len(world.sink.bodies) < 10_000:
        await asyncio.sleep(0.01)
    assert world.clock.monotonic() - before < 0.5  # virtual seconds
    await world.stop()
    assert world.sink.ids() == list(range(10_000))


@virtual
async def test_the_service_seeks_by_time_where_it_can() -> None:
    world = World(endpoint="https://streams.dynamodb.us-east-1.amazonaws.com")
    world.db.put(id="old")
    await asyncio.sleep(1000)
    await world.start()
    world.db.put(id=1)
    await world.events(1)
    await world.stop()
    assert world.sink.ids() == [1]
    assert [kind for _, kind, _ in world.db.iterators] == ["AT_TIMESTAMP"]


# delivery


@virtual
async def test_refused_events_are_read_again_and_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.db.page_records_max = 1
    await world.start()
    world.sink.answer = lambda batch: batch.bodies[0]["id"] != 2
    for number in range(1, 5):
        world.db.put(id=number)
    await world.events(3)
    while world.sink.ids()[-1] != 4:
        await asyncio.sleep(1)
    await world.stop()
    delivered = world.sink.ids()
    assert set(delivered) == {1, 3, 4}
    assert delivered.count(1) == 1  # the checkpoint stood behind it
    refusals = [text for text in caplog.messages if text.startswith("Received negative acknowledgment for partition ")]
    assert len(refusals) == REREADS_MAX
    assert all("with sequence number" in text and text.endswith(", giving up partition") for text in refusals)
    assert world.counter("changeEventsProcessingErrors") == 1


@virtual
async def test_a_refusal_that_heals_loses_nothing_and_keeps_the_order() -> None:
    world = World()
    world.db.page_records_max = 2
    await world.start()
    answers = iter([True, False, None, False])
    world.sink.answer = lambda _batch: next(answers, True)
    for number in range(8):
        world.db.put(id=number)
    await asyncio.sleep(5)
    world.sink.held[0].release_all(ok=True)
    while world.sink.ids()[-1] != 7:
        await asyncio.sleep(1)
    await world.stop()
    last = {body["id"]: place for place, body in enumerate(world.sink.bodies)}
    assert sorted(last, key=lambda number: last[number]) == list(range(8))
    assert world.counter("changeEventsProcessingErrors") == 0


@virtual
async def test_events_that_take_too_long_are_read_again_with_acknowledgments(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    await world.start(acknowledgment_timeout_s=1800.0)
    world.sink.answer = lambda _batch: None
    world.db.put(id=1)
    await asyncio.sleep(1790)
    assert world.sink.ids() == [1]
    for _ in range(REREADS_MAX + 2):  # time-outs never make events count as refused
        await asyncio.sleep(1810)
    assert set(world.sink.ids()) == {1}
    assert len(world.sink.ids()) > REREADS_MAX + 2
    assert all(batch.handles[0].done for batch in world.sink.held[:-1])  # type: ignore[union-attr]
    world.sink.answer = lambda _batch: True
    await asyncio.sleep(1810)
    await world.stop()
    assert world.counter("changeEventsProcessingErrors") == 0
    assert any(
        text.startswith("Acknowledgment timed out for partition ") and text.endswith(", giving up partition")
        for text in caplog.messages
    )


@virtual
async def test_without_acknowledgments_nothing_times_out() -> None:
    world = World()
    await world.start()
    world.sink.answer = lambda _batch: None
    world.db.put(id=1)
    await asyncio.sleep(5_000)
    assert world.sink.ids() == [1]
    world.sink.held[0].release_all(ok=True)
    await world.stop()


@virtual
async def test_stopping_waits_for_what_is_on_its_way() -> None:
    world = World()
    await world.start()
    world.sink.answer = lambda _batch: None
    world.db.put(id=1)
    await world.events(1)
    asyncio.get_running_loop().call_later(0.5, lambda: world.sink.held[0].release_all(ok=True))
    await world.stop()
    (lease,) = await world.store.find("pipe|STREAM")
    (leader,) = await world.store.find("pipe|LEADER")
    assert (lease.status, lease.owner) == (Status.UNASSIGNED, None)
    assert lease.progress["sequenceNumber"] is not None
    assert leader.status is Status.UNASSIGNED


@virtual
async def test_what_a_processor_holds_is_checkpointed_after_the_run() -> None:
    world = World()
    await world.start()
    world.sink.answer = lambda _batch: None
    world.db.put(id=1)
    await world.events(1)
    await world.stop()  # returns, although the events are still held
    world.sink.held[0].release_all(ok=True)  # the drain flushes them
    assert world.source is not None
    await world.source.stop()
    world.sink.answer = lambda _batch: True
    await world.start()
    world.db.put(id=2)
    await world.events(2)
    await world.stop()
    assert world.sink.ids() == [1, 2]


@virtual
async def test_a_page_is_cut_to_what_the_buffer_takes(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.sink = Sink(events_max=30, bytes_max=1000)
    await world.start()
    for number in range(100):
        world.db.put(id=number)
    await world.events(100)
    world.db.append(
        {
            "eventName": "INSERT",
            "dynamodb": {"Keys": {"id": {"N": "7777"}}, "NewImage": {"id": {"N": "7777"}}, "SizeBytes": 2000},
        }
    )
    world.db.put(id=101)
    await world.events(101)
    await world.stop()
    assert max(world.sink.writes) == 10
    assert world.sink.ids() == [*range(100), 101]
    assert any("7777 was dropped" in text for text in caplog.messages)
    assert world.counter("changeEventsProcessingErrors") == 1


@virtual
async def test_two_units_share_the_shards_and_take_over() -> None:
    world = World()
    world.db.roll_over(children=3)
    await world.start()
    other = World()
    other.db, other.store = world.db, world.store
    await other.start()
    for number in range(30):
        world.db.put(id=number)
    await asyncio.sleep(30)
    await world.stop()
    for number in range(30, 60):
        world.db.put(id=number)
    await asyncio.sleep(60)
    await other.stop()
    assert sorted(world.sink.ids() + other.sink.ids()) == list(range(60))


@virtual
async def test_a_unit_that_joins_gets_its_share_and_one_that_leaves_gives_it_back() -> None:
    world = World()
    world.db.roll_over(children=6)
    await world.start()
    world.db.put(id=0)
    await world.events(1)
    await asyncio.sleep(10)

    async def held() -> list[int]:
        owners = [lease.owner for lease in await world.store.find("pipe|STREAM") if lease.status is Status.ASSIGNED]
        return sorted(owners.count(owner) for owner in {*owners})

    assert await held() == [6], "a unit alone reads everything"
    others = [World(), World()]
    for other in others:
        other.db, other.store = world.db, world.store
    await others[0].start()
    await asyncio.sleep(10)
    assert await held() == [3, 3]
    await asyncio.sleep(60)
    await others[1].start()
    await asyncio.sleep(15)
    assert await held() == [2, 2, 2]
    for number in range(1, 40):
        world.db.put(id=number)
    await asyncio.sleep(10)
    await world.stop()
    await asyncio.sleep(5)
    assert await held() == [3, 3]
    for number in range(40, 60):
        others[0].db.put(id=number)
    await asyncio.sleep(10)
    for other in others:
        await other.stop()
    assert await world.store.find(f"pipe|UNIT|{world.db.table_arn}") == []
    found = [world.sink.ids(), *(other.sink.ids() for other in others)]
    assert all(found), "each unit has delivered something"
    assert sorted(number for numbers in found for number in numbers) == list(range(60))


class SeveredStore:
    """A lease store that a unit reaches until its machine is gone."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.look_s = 10.0  # as over a network
        self.severed = False

    async def shut(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if self.severed:
            raise sdk.Transient("the machine is gone")
        return getattr(self._store, name)


@virtual
async def test_what_a_machine_owned_that_is_gone_is_taken_over_within_a_minute() -> None:
    world, other = World(), World()
    other.db, other.store = world.db, world.store
    store = SeveredStore(world.store)
    world.db.roll_over(children=3)
    await world.start(store=store)
    await other.start(store=SeveredStore(world.store))
    await asyncio.sleep(100)
    owners = {lease.owner for lease in await world.store.find("pipe|STREAM") if lease.status is Status.ASSIGNED}
    assert len(owners) == 2, "both read"
    (lead,) = await world.store.find("pipe|LEADER")
    assert lead.owner in owners
    store.severed = True
    await world.crash()
    gone = lead.owner
    for number in range(30):
        world.db.put(id=number)
        if number % 10 == 9:
            world.db.roll_over()  # children have to be laid out by a new leader
    await asyncio.sleep(60)
    assert sorted(other.sink.ids()) == list(range(30))
    (lead,) = await world.store.find("pipe|LEADER")
    assert lead.owner not in (gone, None)
    await other.stop()


@virtual
async def test_a_lost_lease_withdraws_what_is_on_its_way(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start()
    world.db.put(id=1)
    await world.events(1)
    world.sink.answer = lambda _batch: None
    world.db.put(id=2)
    await world.events(2)
    (lease,) = await world.store.find("pipe|STREAM")
    await world.store.save(lease, lease.progress, 60)  # someone else writes
    await asyncio.sleep(40)
    assert world.sink.held[0].handles[0].done  # type: ignore[union-attr]
    assert any("has another owner now" in text for text in caplog.messages)
    world.sink.answer = lambda _batch: True
    await world.events(3)  # read again once the other's lease has run out
    await world.stop()
    assert world.sink.ids() == [1, 2, 2]


class Index:
    """What a sink with external versions makes of the events."""

    def __init__(self) -> None:
        self._documents: dict[str, tuple[int, dict[str, Any] | None]] = {}

    def apply(self, batch: sdk.Batch) -> None:
        for place, body in enumerate(batch.bodies):
            found = batch.peek(place).attributes
            key, version = found["primary_key"], found["document_version"]
            if version > self._documents.get(key, (-1, None))[0]:
                self._documents[key] = (version, body if found["opensearch_action"] == "index" else None)

    def documents(self) -> dict[str, dict[str, Any]]:
        return {key: body for key, (_, body) in self._documents.items() if body is not None}


class ShakySink:
    """Answers late, refuses now and then, and writes some events although they were withdrawn."""

    def __init__(self, chance: random.Random, index: Index) -> None:
        self._chance = chance
        self._index = index
        self._refused = 0
        self.healed = False

    def __call__(self, batch: sdk.Batch) -> bool | None:
        mood = 0.0 if self.healed else self._chance.random()
        if mood > 0.9 and self._refused < 2:
            self._refused += 1
            return False
        self._refused = 0
        if mood < 0.5:
            self._index.apply(batch)
            return True
        asyncio.get_running_loop().call_later(self._chance.uniform(0, 4), self._later, batch)
        return None

    def _later(self, batch: sdk.Batch) -> None:
        withdrawn = all(handle is None or handle.done for handle in batch.handles)
        if not withdrawn or self._chance.random() < 0.5:
            self._index.apply(batch)
        batch.release_all(ok=True)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_the_index_ends_as_the_table(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)
        world = World(region=chance.choice(["ddblocal", "eu-west-1"]), resolution_ms=chance.choice([1, 1000, 60_000]))
        if world.db.table_arn.split(":")[3] != "ddblocal":
            world.db.resolution_ms = min(world.db.resolution_ms, 1000)
        world.db.page_records_max = chance.choice([1, 3, 1000])
        index = Index()
        world.sink.answer = sink = ShakySink(chance, index)
        await world.start()
        for step in range(150):
            match chance.choices(
                ["put", "delete", "sleep", "roll", "fault", "crash", "restart", "stream"],
                [50, 15, 20, 3, 5, 2, 2, 1],
            )[0]:
                case "put":
                    world.db.put(id=str(chance.randrange(6)), step=step)
                case "delete":
                    world.db.delete(id=str(chance.randrange(6)))
                case "sleep":
                    await asyncio.sleep(chance.choice([0.0, 0.1, 1.0, 10.0]))
                case "roll":
                    world.db.roll_over(children=chance.choice([1, 2]) if len(world.db.open_shards()) < 16 else 1)
                case "fault":
                    operation = chance.choice(["get_records", "get_shard_iterator", "describe_stream"])
                    code = chance.choice(["LimitExceededException", "InternalServerError", "ExpiredIteratorException"])
                    world.db.fail(operation, code, times=chance.randrange(1, 4))
                case "crash":
                    await world.crash()
                    await world.start(ready=False)
                case "restart":
                    await world.stop()
                    await world.start(ready=False)
                case "stream":
                    world.db.disable_stream()
                    world.db.enable_stream()
                    await asyncio.sleep(150)  # a stream that lives shorter than a round of the leader is never seen
        sink.healed = True
        world.db.heal()
        await asyncio.sleep(600)
        await world.stop()
        table = {key[0]: attributes.item(item) for key, item in world.db.items.items()}
        assert index.documents() == table
        assert world.counter("changeEventsProcessingErrors") == 0

    run_virtual(scenario())


@pytest.mark.parametrize("seed", range(15))
def test_whatever_happens_to_two_units_the_index_ends_as_the_table(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)
        units = [World(), World()]
        db, leases, index = units[0].db, units[0].store, Index()
        db.page_records_max = chance.choice([1, 3, 1000])
        sinks = [ShakySink(chance, index) for _ in units]
        stores = [SeveredStore(leases) for _ in units]
        for number, unit in enumerate(units):
            unit.db, unit.sink.answer = db, sinks[number]
            await unit.start(store=stores[number])
        for step in range(150):
            number = chance.randrange(2)
            match chance.choices(
                ["put", "delete", "sleep", "roll", "fault", "gone", "cut", "restart"], [50, 15, 25, 4, 4, 2, 2, 1]
            )[0]:
                case "put":
                    db.put(id=str(chance.randrange(6)), step=step)
                case "delete":
                    db.delete(id=str(chance.randrange(6)))
                case "sleep":
                    await asyncio.sleep(chance.choice([0.0, 0.1, 1.0, 10.0, 30.0]))
                case "roll":
                    db.roll_over(children=chance.choice([1, 2]) if len(db.open_shards()) < 8 else 1)
                case "fault":
                    operation = chance.choice(["get_records", "get_shard_iterator", "describe_stream"])
                    db.fail(operation, "InternalServerError", times=chance.randrange(1, 4))
                case "gone":  # with all that it owned
                    stores[number].severed = True
                    await units[number].crash()
                    stores[number] = SeveredStore(leases)
                    await units[number].start(ready=False, store=stores[number])
                case "cut":  # it reads on and delivers, while others take it for gone
                    stores[number].severed = not stores[number].severed
                case "restart":
                    await units[number].stop()
                    await units[number].start(ready=False, store=stores[number])
        db.heal()
        for store, sink in zip(stores, sinks, strict=True):
            store.severed, sink.healed = False, True
        await asyncio.sleep(600)
        for unit in units:
            await unit.stop()
        assert index.documents() == {key[0]: attributes.item(item) for key, item in db.items.items()}
        assert [unit.counter("changeEventsProcessingErrors") for unit in units] == [0, 0]

    run_virtual(scenario())


@virtual
async def test_stop_before_and_after_run_is_harmless() -> None:
    world = World()
    source = DynamodbSource(world.ctx, table_arn=ARN, access=ACCESS, clients=world.db)
    await source.stop()
    await source.stop()
    await source.run(world.sink)
    assert not world.sink.ready.is_set()


def test_the_loop_of_these_tests_is_virtual() -> None:
    async def hour() -> None:
        assert isinstance(asyncio.get_running_loop(), VirtualLoop)
        await asyncio.sleep(3600)

    run_virtual(hour())


async def losses(world: World) -> dict[str, dict[str, Any]]:
    """What the store keeps of changes that were lost."""
    return {lease.progress["what"]: lease.progress for lease in await world.store.find("pipe|LOSS")}


@virtual
async def test_a_loss_is_kept_told_once_and_names_the_way_to_mend_it(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start()
    world.db.put(id=1)
    await world.events(1)
    await world.stop()
    delivered_ms = world.sink.metas[-1].attributes["dynamodb_timestamp"]
    for number in range(2, 6):
        world.db.put(id=number)
    world.db.trim(world.db.open_shards()[0], keep=2)
    await world.start()
    await world.events(3)
    await world.stop()
    ((what, kept),) = (await losses(world)).items()
    assert "behind sequence number" in what
    assert (kept["since"], kept["certain"]) == (delivered_ms, True)
    assert world.counter("streamGaps") == 1
    told = [record for record in caplog.records if "resync" in record.message]
    assert [record.levelname for record in told] == ["ERROR"]
    assert "penstock dynamodb resync PIPELINES --pipeline pipe --table orders" in told[0].message


@virtual
async def test_a_stream_that_is_made_again_may_have_lost_changes(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start(discovery_interval_s=5.0)
    world.db.put(id=1)
    await world.events(1)
    world.db.disable_stream()
    world.db.put(id=2)  # is in no stream
    world.db.enable_stream()
    world.db.put(id=3)
    await world.events(2, within_s=300)
    await asyncio.sleep(60)
    await world.stop()
    assert world.sink.ids() == [1, 3]
    assert {what: kept["certain"] for what, kept in (await losses(world)).items()} == {"stream label-2": False}
    assert [record.levelname for record in caplog.records if "resync" in record.message] == ["WARNING"]


@virtual
async def test_a_table_that_is_made_again_is_told_of() -> None:
    world = World()
    await world.start(discovery_interval_s=5.0)
    world.db.put(id=1)
    await world.events(1)
    world.db.make_anew()
    world.db.put(id=2)
    await world.events(2, within_s=300)
    await world.stop()
    kept = await losses(world)
    assert [what for what in kept if what.startswith("table ")] == [f"table {world.db.table_id}"]
    assert "deleted and made again" in kept[f"table {world.db.table_id}"]["why"]


@virtual
async def test_shards_that_came_and_went_while_nobody_read_are_missed(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await world.start()
    world.db.put(id=1)
    await world.events(1)
    first = world.db.open_shards()[0]
    world.db.roll_over()
    await asyncio.sleep(90)  # the first shard is read to its end
    await world.stop()
    second = world.db.open_shards()[0]
    world.db.roll_over()
    third = world.db.open_shards()[0]
    world.db.put(id=2)
    world.db.roll_over()
    for shard in (first, second, third):
        world.db.forget(shard)
    await asyncio.sleep(2 * 24 * 3600)
    world.db.put(id=3)
    await world.start()
    await world.events(2)
    await world.stop()
    assert world.sink.ids() == [1, 3]
    assert f"shard {third.id}" in await losses(world)
    assert world.counter("streamGaps") == len(await losses(world))


@virtual
async def test_until_when_changes_are_delivered() -> None:
    world = World()
    world.sink.answer = lambda _batch: None
    await world.start()
    assert world.source is not None
    assert not await world.source.delivered_until(world.clock.now_ms())
    world.db.put(id=1)
    await asyncio.sleep(60)
    moment_ms = world.clock.now_ms()
    assert not await world.source.delivered_until(moment_ms)  # it is on its way
    assert 0 < world.counter("streamRetentionLeft") < 24 * 3600 - 55
    for batch in world.sink.held:
        batch.release_all(ok=True)
    await asyncio.sleep(1)
    assert world.counter("streamRetentionLeft") == 24 * 3600
    await asyncio.sleep(15)
    assert await world.source.delivered_until(moment_ms)
    assert not await world.source.delivered_until(world.clock.now_ms())  # one empty read proves nothing
    world.db.roll_over()  # a shard that is not laid out yet may hold anything
    assert not await world.source.delivered_until(moment_ms)
    await asyncio.sleep(120)
    assert await world.source.delivered_until(moment_ms)
    await world.stop()


@virtual
async def test_changes_that_cannot_be_delivered_are_told_of_before_they_are_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.sink.answer = lambda _batch: None
    await world.start(pace=Pace(stop=1.0, idle=60.0, save=60.0))
    world.db.put(id=1)
    await asyncio.sleep(17 * 3600)
    assert not [text for text in caplog.messages if "is kept for" in text]
    await asyncio.sleep(2 * 3600)
    (first, *_) = [text for text in caplog.messages if "is kept for" in text]
    assert "not delivered" in first
    assert "6 h 0" in first or "5 h 59" in first or "5 h 58" in first
    await world.crash()
