"""The export part of the dynamodb source: exports, S3 and streams in memory, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import gzip
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import sdk
from penstock.lib.lease import Lease, MemoryStore, Status
from penstock.plugins.sources import dynamodb
from penstock.plugins.sources.dynamodb import attributes, data_file, ion_items
from penstock.plugins.sources.dynamodb.data_file import LINES_MAX
from penstock.plugins.sources.dynamodb.export import CLOSED_MAX, ExportOptions
from penstock.plugins.sources.dynamodb.export_items import OVERLAP_MS, ItemReader, Items
from penstock.plugins.sources.dynamodb.reader import Pace
from penstock.plugins.sources.dynamodb.source import FILES_MAX, DynamodbSource
from penstock.testing import dynamodb_export
from penstock.testing.dynamodb import FakeDynamodb
from penstock.testing.dynamodb_export import Change, export_files, ion_line, json_line
from penstock.testing.virtual import LoopClock, run_virtual

ACCESS = sdk.AwsOptions(region="us-east-1")
OPTIONS = ExportOptions("exports", "music/")
SLOW = Pace(stop=1.0, idle=30.0, save=30.0, acquire_max=300.0)
"""Reads idle shards rarely, where days are to pass quickly."""


class Index:
    """A sink with external versions that forgets removals after a minute, as OpenSearch does."""

    acknowledgments = True
    events_max = 10_000
    bytes_max = 10**9

    def __init__(self, clock: sdk.Clock) -> None:
        self._clock = clock
        self._found: dict[str, tuple[int, dict[str, Any] | None, int]] = {}
        self.events: list[tuple[dict[str, Any], sdk.Meta]] = []
        self.answer: Callable[[sdk.Batch], bool | None] = lambda _batch: True
        self.held: list[sdk.Batch] = []
        self.ready = asyncio.Event()

    def started(self) -> None:
        self.ready.set()

    def handle(self, on_done: Callable[[bool], None] | None = None) -> sdk.Handle:
        return sdk.Handle(on_done)

    def write_now(self, batch: sdk.Batch, size_bytes: int, *, reserved: bool = False) -> bool:
        return False

    async def write(
        self, batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None, *, reserved: bool = False
    ) -> None:
        ok = self.answer(batch)
        if ok is None:
            self.held.append(batch)
            return
        if ok:
            self.apply(batch)
        batch.release_all(ok=ok)

    def reserve_now(self, size_bytes: int) -> bool:
        return True

    async def reserve(self, size_bytes: int, timeout_s: float | None = None) -> None:
        pass

    def give_back(self, size_bytes: int) -> None:
        pass

    def set_aside(self, size_bytes: int) -> None:
        pass

    def apply(self, batch: sdk.Batch) -> None:
        now = self._clock.now_ms()
        for place, body in enumerate(batch.bodies):
            meta = batch.peek(place)
            self.events.append((body, meta))
            key, version = meta.attributes["primary_key"], meta.attributes["document_version"]
            known, document, at = self._found.get(key, (-1, None, now))
            if document is None and now - at > 60_000:
                known = -1  # the removal is forgotten
            if version > known:
                removed = meta.attributes["opensearch_action"] == "delete"
                self._found[key] = (version, None if removed else body, now)

    def documents(self) -> dict[str, dict[str, Any]]:
        return {key: body for key, (_, body, _) in self._found.items() if body is not None}

    def sent(self) -> Counter[tuple[str, int]]:
        """How often each item of each table has come."""
        return Counter((meta.attributes["table_name"], body["id"]) for body, meta in self.events)

    def exported(self) -> list[Any]:
        return [body["id"] for body, meta in self.events if meta.event_type == "EXPORT"]


class World:
    """A table, its exports, a pipeline around the source, and virtual time."""

    def __init__(self, items: int = 0, **table: Any) -> None:
        loop = asyncio.get_running_loop()
        self.clock = LoopClock(loop)
        self.db = FakeDynamodb(self.clock, **table)
        self.db.exports.takes_s = 120
        self.ctx = sdk.Context("pipe", "dynamodb", kind="source", clock=self.clock, chance=random.Random(0))
        self.store = MemoryStore(self.clock)
        self.index = Index(self.clock)
        self.source: DynamodbSource | None = None
        self._task: asyncio.Task[None] | None = None
        for number in range(items):
            self.db.put(id=number, text=f"old {number}")

    def counter(self, name: str) -> float:
        return self.ctx.registry.value(f"pipe.dynamodb.{name}")

    async def start(self, **options: Any) -> None:
        if options.get("pace") is SLOW:
            self.store.look_s = 300.0
        self.source = DynamodbSource(
            self.ctx,
            **{
                "table_arn": self.db.table_arn,
                "access": ACCESS,
                "clients": self.db,
                "store": self.store,
                "pace": Pace(stop=1.0),
                "export": OPTIONS,
                **options,
            },
        )
        self._task = asyncio.create_task(self.source.run(self.index))

    async def stop(self) -> None:
        assert self.source is not None and self._task is not None
        await self.source.stop()
        await self._task

    async def crash(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], within_s: float = 3600.0) -> None:
        async with asyncio.timeout(within_s):
            span = 0.5
            while not condition():
                await asyncio.sleep(span)
                span = min(span * 1.2, 20)
        await asyncio.sleep(3)

    def table(self) -> dict[str, dict[str, Any]]:
        return {key[0]: attributes.item(item) for key, item in self.db.items.items()}

    async def loaded(self) -> bool:
        state = await self.store.state("pipe|GLOBAL", self.db.table_arn)
        return bool(state and state.get("exportLoaded"))


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(test(**fixtures))  # type: ignore[arg-type]

    return run


# lines

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.one_of(
    st.integers(-(10**37), 10**37).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=5, min_value=-(10**9), max_value=10**9).map(str),
    st.sampled_from(["3.937E+4", "1E-130", "9.9E+125", "0", "-0.5"]),
)
scalars = st.one_of(
    texts.map(lambda text: {"S": text}),
    numbers.map(lambda text: {"N": text}),
    st.booleans().map(lambda value: {"BOOL": value}),
    st.just({"NULL": True}),
    st.sampled_from(["", "AAH/", "AA=="]).map(lambda text: {"B": text}),
    st.lists(texts, min_size=1, max_size=3).map(lambda values: {"SS": values}),
    st.lists(numbers, min_size=1, max_size=3).map(lambda values: {"NS": values}),
    st.just({"BS": ["AA==", "/w=="]}),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda entries: {"L": entries}),
        st.dictionaries(texts, inner, max_size=3).map(lambda entries: {"M": entries}),
    ),
    max_leaves=8,
)


def reader(form: str = "DYNAMODB_JSON", **changes: Any) -> ItemReader:
    options: dict[str, Any] = {
        "table_name": "orders",
        "partition_key": "id",
        "sort_key": None,
        "form": form,
        "incremental": False,
        "at_ms": 1_700_000_000_000,
        "view_on_remove": "NEW_IMAGE",
        "log": logging.getLogger("test"),
        **changes,
    }
    return ItemReader(**options)


def converted(items: ItemReader, *lines: str) -> Items:
    return items.compile()("\n".join(lines).encode(), len(lines), 7)


@given(st.dictionaries(texts, values, max_size=6), st.sampled_from(["103", "3.937E+4", "-1.5"]))
def test_both_formats_give_what_the_stream_gives(image: dict[str, Any], key: str) -> None:
    image = {**image, "id": {"N": key}}
    body = attributes.item(image)
    for form, line in (("DYNAMODB_JSON", json_line), ("ION", ion_line)):
        found = converted(reader(form), line(image))
        assert found.failed == 0
        assert found.batch.bodies == [body]
        assert found.batch.peek(0).attributes["primary_key"] == attributes.key_text({"N": key})


def test_the_example_of_the_service_in_ion() -> None:
    line = b'$ion_1_0 {Item:{Id:103.,Tags:$dynamodb_SS::["a","b"],Ok:false,Big:3937d1,Half:0.5,B:{{ AAH/ }},' + (
        rb"'a/b':{x:[],y:{},z:null},N:$dynamodb_NS::[1.,2.5],E:'quo' }}".replace(b"'quo'", rb'"q\"\n\x07\u00fc"')
    )
    found = ion_items.read_item(line.decode())["Item"]
    assert found == {
        "Id": 103,
        "Tags": ["a", "b"],
        "Ok": False,
        "Big": 39370,
        "Half": Decimal("0.5"),
        "B": "AAH/",
        "a/b": {"x": [], "y": {}, "z": None},
        "N": [1, Decimal("2.5")],
        "E": 'q"\n\x07ü',
    }
    assert all(type(found[name]) is int for name in ("Id", "Big"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "x", "{Item:{a:1.}", "{Item:{a:1. b:2.}}", "{Item:{1.}}", "{Item:[a:1.]}", "{Item:{a:1.]}", "{a:1.}}",
     "{a:1.} x", "{a:1.},", "{a:0x}", "{a:nulls}", '{a:"x}', r'{a:"\q"}', "{a:1d9999999999}", "[" * 5000,
     "{a:" * 5000, '{a:{{"x"}}}'],
)  # fmt: skip
def test_what_is_no_ion_of_an_export_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ion_items.read_item(text)


@given(st.text("{}[]:,'\"\\ .d1aN$_/é\n", max_size=40))
def test_ion_never_fails_in_another_way(text: str) -> None:
    try:
        ion_items.read_item("{" + text)
    except ValueError:
        return


pieces = st.sampled_from(
    [*"{}[],: .7é", "::", "a:", "b1d2:", "$x:", "'a.,b':", "'q\"r':", '"x"', '"a,b:c"', "1.", "-2.5", "3d1", "1e5",
     "$dynamodb_SS::[", "$ion_1_0 ", "{{AAH/}}", "null", "true", "null.string",
     '"it\'s"', r'"\n"', r'"\x41"', r'"a\"b"', r'"\\"', r'"\ud83d\ude00"']
)  # fmt: skip


@given(st.lists(pieces, max_size=12).map("".join))
def test_the_short_way_through_ion_never_finds_another_value_than_the_long_one(text: str) -> None:
    text = "{" + text + "}"
    (found,) = ion_items.read_lines(text.encode(), 1)
    try:
        expected = ion_items.read_item(text)
    except ValueError:
        return  # names in quotes and floats are read the short way only
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize("text", ["A", "'", "{{A", "'A", "{A:", "A:[", "A::", '"A', "1d1", "{{ ", "A'", "$", '"",'])
def test_hostile_ion_takes_no_more_time_than_its_length(text: str) -> None:
    (found,) = ion_items.read_lines(b"{Item:{a:" + text.encode() * 200_000, 1)
    assert isinstance(found, ValueError)


@given(st.lists(st.dictionaries(texts, values, max_size=3), min_size=1, max_size=4), st.sampled_from(["{", "{a:}"]))
def test_a_bad_line_of_ion_leaves_its_neighbours_as_they_are(images: list[dict[str, Any]], bad: str) -> None:
    lines = [ion_line(image).encode() for image in images]
    alone = [ion_items.read_lines(line, 1)[0] for line in lines]
    text, count = b"\n".join(lines), len(lines)
    assert ion_items.read_lines(text, count) == alone == [{"Item": attributes.item(image)} for image in images]
    *found, error = ion_items.read_lines(text + b"\n" + bad.encode(), count + 1)
    assert found == alone
    assert isinstance(error, ValueError)


EVERYTHING: dict[str, Any] = {
    "text": {"S": 'line\nof "text" with \\ and \x07, {Item:1.}, $dynamodb_SS::'},
    "whole": {"N": "12345678901234567890123456789012345678"},
    "fraction": {"N": "-0.00000000000000012345678901234567890123"},
    "large": {"N": "9.9E+125"},
    "small": {"N": "1E-130"},
    "exponent": {"N": "3.937E+4"},
    "yes": {"BOOL": True},
    "no": {"BOOL": False},
    "none": {"NULL": True},
    "bytes": {"B": "AAH/"},
    "texts": {"SS": ["b", "a", ""]},
    "numbers": {"NS": ["1", "2.50", "3E+2"]},
    "blobs": {"BS": ["AA==", "/w=="]},
    "empty": {"M": {"text": {"S": ""}, "map": {"M": {}}, "list": {"L": []}, "bytes": {"B": ""}}},
    "list": {"L": [{"M": {"a/b": {"L": [{"N": "1"}, {"NULL": True}]}}}, {"SS": ["x"]}, {"BOOL": False}]},
    **{
        name: {"S": "odd name"}
        for name in ("a/b", "a.b", "a b", "it's", 'quo"te', "null", "1st", "N", "größe", "M", "")
    },
}
NESTED: dict[str, Any] = {"S": "deep"}
for _ in range(31):  # as deep as the service allows
    NESTED = {"L": [NESTED]} if "M" in NESTED else {"M": {"in/side": NESTED}}


@pytest.mark.parametrize("way", ["STREAM", "DYNAMODB_JSON", "ION"])
@pytest.mark.parametrize(
    "image",
    [
        pytest.param(EVERYTHING, id="all types and odd names"),
        pytest.param({}, id="nothing but the key"),
        pytest.param({"deep": NESTED}, id="nested"),
        pytest.param({"text": {"S": 'a"\\\n' * 100_000}}, id="400 KB in one text"),
        pytest.param({f"attribute {n}": {"N": f"{n}.5"} for n in range(16_000)}, id="400 KB in many attributes"),
        pytest.param({"bytes": {"B": "QUJD" * 133_000}}, id="400 KB of bytes"),
    ],
)
def test_an_item_is_the_same_event_by_stream_and_by_export(way: str, image: dict[str, Any]) -> None:
    async def scenario() -> None:
        world = World()
        item = {**image, "id": {"N": "38E+1"}}
        if way == "STREAM":
            await world.start(export=None)
            await world.index.ready.wait()
            world.db.put(**item)
        else:
            world.db.items["380",] = item
            await world.start(export=ExportOptions("exports", form=way), stream=False)  # type: ignore[arg-type]
        await world.until(lambda: bool(world.index.events), 600)
        await world.stop()
        ((body, meta),) = world.index.events
        assert meta.attributes["primary_key"] == "380"
        assert body == as_told(item)
        told = sdk.decode(sdk.encode(body))
        assert list(told) == list(item)
        assert world.counter("exportRecordProcessingErrors") == world.counter("changeEventsProcessingErrors") == 0
        if image is EVERYTHING:
            text = sdk.encode(body).decode()
            for number in (
                '"whole":12345678901234567890123456789012345678,',
                '"fraction":-0.00000000000000012345678901234567890123,',
                '"exponent":39370,',
                '"numbers":[1,2.50,300]',
                '"large":99' + "0" * 124 + ",",
                '"small":0.' + "0" * 129 + "1,",
            ):
                assert number in text

    run_virtual(scenario())


def as_told(image: dict[str, Any]) -> dict[str, Any]:
    """What an event holds of an item, said once more: numbers by `Decimal`, sets as lists, the rest as it is."""

    def value(tagged: dict[str, Any]) -> Any:
        ((kind, raw),) = tagged.items()
        if kind in ("N", "NS"):
            return Decimal(raw) if kind == "N" else [Decimal(text) for text in raw]
        if kind in ("M", "L"):
            return as_told(raw) if kind == "M" else [value(entry) for entry in raw]
        return None if kind == "NULL" else raw

    return {name: value(tagged) for name, tagged in image.items()}


def test_export_events_have_their_metadata() -> None:
    found = converted(reader(sort_key="at"), '{"Item":{"id":{"N":"3.937E+4"},"at":{"S":"x"}}}')
    meta = found.batch.peek(0)
    assert meta.attributes == {
        "table_name": "orders",
        "partition_key": "39370",
        "sort_key": "x",
        "primary_key": "39370|x",
        "dynamodb_timestamp": 1_700_000_000_000,
        "document_version": (1_700_000_000_000 - 300_000) * 1000,
        "dynamodb_event_name": None,
        "opensearch_action": "index",
        "ttl_delete": False,
    }
    assert (meta.event_type, meta.origination_ms, meta.received_ms) == ("EXPORT", None, 7)


def test_a_line_that_is_no_item_is_left_out_alone(caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        '{"Item":{"id":{"N":"1"}}}',
        "{",
        '{"Item":{"id":{"Q":"2"}}}',
        '{"Item":{}}',
        "",
        "[]",
        '{"Item":{"id":{"N":"3"}}}',
    ]
    found = converted(reader(), *lines)
    assert [body["id"] for body in found.batch.bodies] == [1, 3]
    assert found.failed == 4
    assert sum(text.startswith("Failed to parse and convert data from export due to") for text in caplog.messages) == 4


@pytest.mark.parametrize(("form", "line"), [("DYNAMODB_JSON", json_line), ("ION", ion_line)])
def test_incremental_exports_write_and_remove(form: str, line: Callable[[Any], str]) -> None:
    keys, new, old = {"id": {"N": "1"}}, {"id": {"N": "1"}, "a": {"S": "x"}}, {"id": {"N": "1"}, "a": {"S": "w"}}
    lines = [line(Change(keys, 5_000_001, new, old)), line(Change(keys, 6_000_000, None, old))]
    changed, removed = (converted(reader(form, incremental=True), text).batch for text in lines)
    assert (changed.bodies, removed.bodies) == ([{"id": 1, "a": "x"}], [{}])
    assert changed.peek(0).attributes["document_version"] == (5_000_001 - OVERLAP_MS) * 1000
    assert changed.peek(0).attributes["opensearch_action"] == "index"
    assert removed.peek(0).attributes["opensearch_action"] == "delete"
    old_image = converted(reader(form, incremental=True, view_on_remove="OLD_IMAGE"), lines[1]).batch
    assert old_image.bodies == [{"id": 1, "a": "w"}]


# the whole way


@pytest.mark.parametrize("form", ["DYNAMODB_JSON", "ION"])
def test_the_index_ends_as_the_table(form: Any) -> None:
    async def scenario() -> None:
        world = World(items=50)
        await asyncio.sleep(600)  # older than what the stream part would read
        await world.start(export=ExportOptions("exports", "music/", form=form))
        await world.index.ready.wait()
        world.db.put(id=1, text="changed while it was exported")
        world.db.delete(id=2)
        await asyncio.sleep(5)
        assert world.index.events == []
        await world.until(lambda: len(world.index.events) >= 52)
        world.db.put(id=60, text="after")
        await world.until(lambda: len(world.index.events) >= 53)
        await world.stop()
        assert world.index.documents() == world.table()
        assert sorted(world.index.exported()) == list(range(50))
        kinds = [meta.event_type for _, meta in world.index.events]
        assert kinds == ["EXPORT"] * 50 + ["STREAM"] * 3, "no change before the export is loaded"
        for name, value in {
            "exportJobSuccess": 1,
            "exportJobFailure": 0,
            "exportS3ObjectsTotal": 3,
            "exportS3ObjectsProcessed": 3,
            "exportRecordsTotal": 50,
            "exportRecordsProcessed": 50,
            "exportRecordProcessingErrors": 0,
        }.items():
            assert world.counter(name) == value, name
        (asked,) = world.db.exports.exports
        assert asked.parameters["ExportFormat"] == form
        assert (asked.parameters["S3Bucket"], asked.parameters["S3Prefix"]) == ("exports", "music/")
        assert asked.parameters["S3SseAlgorithm"] == "AES256"

    run_virtual(scenario())


@virtual
async def test_an_export_alone_needs_no_stream(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(view_type=None)
    world.db.put(id=1)
    await world.start(stream=False, export=ExportOptions("exports", kms_key_id="arn:aws:kms:us-east-1:1:key/k"))
    await world.until(lambda: bool(world.index.events))
    await asyncio.sleep(200)
    await world.stop()
    assert world.index.documents() == {"1": {"id": 1}}
    assert world.db.exports.exports[0].parameters["S3SseAlgorithm"] == "KMS"
    assert "All Exports are done, streaming can continue..." in caplog.messages
    assert any("is completed with final status COMPLETED" in text for text in caplog.messages)


@virtual
async def test_start_up_checks_heal_without_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    world = World(items=3)
    arn = world.db.table_arn
    world.db.exports.recovery = False
    await world.start()
    await asyncio.sleep(5)
    assert any(
        f"Exception occurred in primary scheduling loop: Point-in-time recovery (PITR) needs to be enabled for "
        f"exporting data from table {arn}" in text
        for text in caplog.messages
    )
    world.db.fail("describe_continuous_backups", "AccessDeniedException")
    await asyncio.sleep(65)
    assert any(
        text.startswith(f"Unable to call describeContinuousBackupsRequest for table {arn}") for text in caplog.messages
    )
    assert any(
        text.endswith(
            f"Unable to check if point in time recovery is enabled or not for {arn}. "
            "Please make sure the permission is properly set"
        )
        for text in caplog.messages
    )
    world.db.exports.recovery = True
    await world.until(lambda: len(world.index.exported()) == 3)
    world.db.exports.recovery = False  # it is of no use any more
    world.db.put(id=8, text="PITRtest")
    await world.until(lambda: "8" in world.index.documents())
    await world.stop()


class StumblingStore(MemoryStore):
    """Fails at one of its calls, whichever it is, and then works on."""

    def __init__(self, clock: sdk.Clock, at: int) -> None:
        super().__init__(clock)
        self.calls = 0
        self.at = at

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("create", "save", "complete", "close", "put_state", "acquire", "find", "state", "get"):
            return found

        async def stumbling(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise sdk.Transient("the store is away")
            return await found(*arguments, **options)

        return stumbling


@pytest.mark.parametrize("at", range(1, 70))
def test_changes_never_come_before_the_export_wherever_its_leases_stumble(at: int) -> None:
    async def scenario() -> None:
        world = World(items=9)
        await asyncio.sleep(600)
        world.store = StumblingStore(world.clock, at)
        world.db.exports.takes_s = 5
        await world.start()
        await asyncio.sleep(3)
        world.db.put(id=1, text="changed")
        await world.until(lambda: "changed" in str(world.index.documents().get("1")), 7200)
        await world.stop()
        kinds = [meta.event_type for _, meta in world.index.events]
        assert kinds.index("STREAM") >= 9, "all files are loaded first"
        assert "EXPORT" not in kinds[kinds.index("STREAM") :]
        assert world.index.documents() == world.table()
        assert len(world.db.exports.exports) == 1
        assert await world.loaded()

    run_virtual(scenario())


@virtual
async def test_the_checks_can_be_asked_without_starting_anything(caplog: pytest.LogCaptureFixture) -> None:
    world = World(view_type="KEYS_ONLY")
    world.db.exports.recovery = False
    table = {"table_arn": world.db.table_arn, "export": {"s3_bucket": "b"}, "stream": {}}
    config = dynamodb.Config.model_validate({"tables": [table], "aws": {"region": "us-east-1"}})
    found = await dynamodb.check_tables(config, world.ctx.log, world.db)
    assert [finding.message.split(" ")[0] for finding in found] == ["Point-in-time", "Stream"]
    assert all(finding.hint for finding in found)
    assert world.db.exports.exports == []


@virtual
async def test_the_checks_warn_of_what_is_no_obstacle() -> None:
    world = World(view_type="NEW_IMAGE")
    world.db.exports.recovery = False
    table = {"table_arn": world.db.table_arn, "stream": {"view_on_remove": "OLD_IMAGE"}}
    config = dynamodb.Config.model_validate({"tables": [table], "aws": {"region": "us-east-1"}})
    found = await dynamodb.check_tables(config, world.ctx.log, world.db)
    assert [finding.severity for finding in found] == ["warning", "warning"]
    assert "carries no old images" in found[0].message
    assert "(PITR) is off" in found[1].message
    world.db.exports.recovery = True
    table["stream"] = {}
    config = dynamodb.Config.model_validate({"tables": [table], "aws": {"region": "us-east-1"}})
    for operation, call in (
        ("describe_stream", "DescribeStream"),
        ("get_shard_iterator", "GetShardIterator"),
        ("get_records", "GetRecords"),
    ):
        world.db.fail(operation, "AccessDeniedException")
        (finding,) = await dynamodb.check_tables(config, world.ctx.log, world.db)
        assert finding.severity == "error"
        assert finding.hint == f"allow dynamodb:{call} on {world.db.table_arn}/stream/*"
    assert await dynamodb.check_tables(config, world.ctx.log, world.db) == []


@virtual
async def test_a_restart_does_not_ask_for_a_second_export() -> None:
    world = World(items=5)
    await world.start()
    await world.until(lambda: bool(world.db.exports.exports))
    for _ in range(3):
        await world.crash()
        await world.start()
        await asyncio.sleep(10)
    await world.until(lambda: len(world.index.exported()) == 5)
    await world.stop()
    assert len(world.db.exports.exports) == 1


@virtual
async def test_an_answer_that_was_lost_does_not_make_a_second_export() -> None:
    world = World(items=5)
    ask = world.db.exports.export_table_to_point_in_time
    lost = iter([True])

    def answer_lost(**parameters: Any) -> dict[str, Any]:
        reply = ask(**parameters)
        if next(lost, False):
            raise ConnectionResetError("the answer was lost")
        return reply

    world.db.exports.export_table_to_point_in_time = answer_lost  # type: ignore[method-assign]
    await world.start()
    await world.until(lambda: len(world.index.exported()) == 5)
    await world.stop()
    assert len(world.db.exports.exports) == 1


@virtual
async def test_a_failed_export_is_asked_for_again_after_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    world = World(items=5)
    world.db.exports.fail_next = [("S3NoSuchBucket", "no bucket"), ("InternalServerError", "sorry")]
    await world.start()
    await world.until(lambda: len(world.index.exported()) == 5)
    await world.stop()
    first, second, third = world.db.exports.exports
    assert all(later.at_ms - earlier.at_ms >= 600_000 for earlier, later in ((first, second), (second, third)))
    assert (world.counter("exportJobFailure"), world.counter("exportJobSuccess")) == (2, 1)
    failed = [
        text for text in caplog.messages if text.startswith("The export from DynamoDb to S3 failed, it will be retried")
    ]
    assert len(failed) == 2 and "S3NoSuchBucket: no bucket" in failed[0]
    assert world.index.events[0][1].attributes["document_version"] == (third.at_ms - OVERLAP_MS) * 1000


@virtual
async def test_a_question_that_is_refused_follows_the_same_rule(caplog: pytest.LogCaptureFixture) -> None:
    world = World(items=1)
    world.db.fail("export_table_to_point_in_time", "ValidationException", times=CLOSED_MAX + 1)
    await world.start()
    await world.until(lambda: any("is given up; a restart begins anew" in text for text in caplog.messages), 100 * 3600)
    assert world.db.calls["export_table_to_point_in_time"] == CLOSED_MAX + 1
    assert any(text.startswith("Failed to submit an export job with error: ") for text in caplog.messages)
    await world.stop()
    await world.start()
    await world.until(lambda: world.index.exported() == [0])
    await world.stop()


# loading


def big(world: World, items: int) -> None:
    for number in range(items):
        world.db.items[str(number),] = {"id": {"N": str(number)}}


class SlowStore(MemoryStore):
    """A checkpoint takes a while; what was not written when the process died is gone."""

    async def save(self, lease: Lease, progress: dict[str, Any], span_s: float) -> Lease:
        await asyncio.sleep(random.Random(lease.version).uniform(0, 0.2))
        return await super().save(lease, progress, span_s)

    def as_of_now(self) -> MemoryStore:
        kept = MemoryStore(self._clock)
        kept._items, kept._states = dict(self._items), dict(self._states)
        return kept


class TableStore:
    """Stands for leases in a table, where each call has its price."""

    def __init__(self, inner: MemoryStore) -> None:
        self._inner = inner
        self.saves = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def save(self, *arguments: Any) -> Lease:
        self.saves += 1
        return await self._inner.save(*arguments)


def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of forty lines, five in a delivery; returns how many a chunk has."""
    monkeypatch.setattr(data_file, "LINES_MAX", 5)
    monkeypatch.setattr(data_file, "CHUNK_LINES_MAX", 40)
    return 40


def lines_of_files(world: World) -> dict[str, set[int]]:
    """What each file of the export holds."""
    objects = world.db.s3.objects
    return {
        key: {
            int(sdk.decode(line)["Item"]["id"]["N"]) for line in gzip.decompress(objects["exports", key]).splitlines()
        }
        for key in world.db.s3.data_keys()
    }


@pytest.mark.parametrize("acknowledged", [True, False], ids=["acknowledgments", "none"])
@pytest.mark.parametrize(("files", "tables"), [(1, 1), (4, 1), (16, 1), (40, 1), (4, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_after_a_kill_at_most_one_chunk_of_each_file_comes_again(
    seed: int, files: int, tables: int, acknowledged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = small_chunks(monkeypatch)
    chance = random.Random(f"{seed} {files} {tables}")

    async def scenario() -> None:
        first = World(table="one")
        store = first.store = SlowStore(first.clock)
        worlds = [first, *(World(table="two") for _ in range(tables - 1))]
        for world in worlds:
            world.store, world.index = store, first.index
            world.db.exports.files = files + (files > 1)  # the last one is empty then
            big(world, files * chunk * 5 + chance.randrange(chunk))
        timeout_s = 900.0 if acknowledged else None

        async def start(world: World) -> None:
            await world.start(stream=False, leader_key=world.db.table_arn, file_acknowledgment_timeout_s=timeout_s)

        index = first.index
        index.answer = slowly(index, chance)
        for world in worlds:
            await start(world)
        expected = sum(len(world.db.items) for world in worlds)
        enough = chance.uniform(0.1, 0.9) * expected
        while len(index.events) < enough:
            await asyncio.sleep(0.05)
        kept = store.as_of_now()
        while index.held:  # the server has got it, the answer comes too late
            index.apply(index.held.pop())
        index.answer = lambda _batch: None
        for world in worlds:
            await world.crash()
        index.held.clear()
        before = index.sent()
        assert 0 < sum(before.values()) < expected
        assert set(before.values()) == {1}
        index.answer = slowly(index, chance)
        for world in worlds:
            world.store = kept
            await start(world)
        await first.until(lambda: len(index.sent()) == expected)
        for world in worlds:
            await world.stop()
        again = {item for item, times in index.sent().items() if times > 1}
        for world, name in zip(worlds, ("one", "two"), strict=False):
            of_files = lines_of_files(world)
            assert len(of_files) >= files
            for held_by in of_files.values():
                assert len(again & {(name, number) for number in held_by}) <= chunk

    run_virtual(scenario())


def slowly(index: Index, chance: random.Random) -> Callable[[sdk.Batch], bool | None]:
    """An answer now and then at once, else after a while; one delivery overtakes the other."""

    def answer(batch: sdk.Batch) -> bool | None:
        if chance.random() < 0.3:
            return True
        asyncio.get_running_loop().call_later(chance.uniform(0, 0.5), arrive, batch)
        return None

    def arrive(batch: sdk.Batch) -> None:
        if batch in index.held:
            index.held.remove(batch)
            index.apply(batch)
            batch.release_all(ok=True)

    return answer


@pytest.mark.parametrize("files", [1, 4])
def test_a_whole_chunk_of_each_open_file_is_on_its_way(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = small_chunks(monkeypatch)

    async def scenario() -> None:
        world = World()
        world.db.exports.files = files + (files > 1)
        big(world, files * chunk * 3)
        world.index.answer = lambda _batch: None
        await world.start()
        on_their_way = 0
        while on_their_way < files * chunk:
            await asyncio.sleep(0.5)
            on_their_way = sum(map(len, world.index.held))
        await asyncio.sleep(5)
        assert sum(map(len, world.index.held)) == files * chunk
        await asyncio.sleep(10)
        assert sum(map(len, world.index.held)) == files * chunk * 3, "a processor may wait for what is still to come"
        await world.crash()

    run_virtual(scenario())


@virtual
async def test_a_lease_table_is_not_asked_for_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = small_chunks(monkeypatch)
    world = World()
    world.db.exports.files = 1
    big(world, 40 * chunk)
    table = TableStore(world.store)
    world.store = table  # type: ignore[assignment]
    chance = random.Random(1)
    world.index.answer = slowly(world.index, chance)
    await world.start(stream=False)
    await world.until(lambda: len(world.index.exported()) > 20 * chunk)
    await world.until(lambda: len(world.index.exported()) == 40 * chunk)
    await world.stop()
    assert Counter(world.index.exported()).most_common(1)[0][1] == 1
    assert table.saves < 40


@virtual
async def test_a_store_that_is_away_stops_a_file_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = small_chunks(monkeypatch)
    world = World()
    world.db.exports.files = 1
    big(world, 5 * chunk)
    save, away = world.store.save, True

    async def stumble(lease: Lease, *arguments: Any) -> Lease:
        if away and "DATAFILE" in lease.source:
            raise sdk.Transient("the store is away")
        return await save(lease, *arguments)

    world.store.save = stumble  # type: ignore[method-assign]
    await world.start(stream=False)
    await world.until(lambda: len(world.index.exported()) >= chunk)
    await asyncio.sleep(60)
    assert len(world.index.exported()) == chunk
    away = False
    await world.until(lambda: len(world.index.exported()) == 5 * chunk)
    await world.stop()


@virtual
async def test_a_checkpoint_never_passes_what_is_on_its_way() -> None:
    world = World()
    big(world, 6 * LINES_MAX)
    world.db.exports.files = 1
    answers = iter([True, None, True, True])
    world.index.answer = lambda _batch: next(answers, True)
    await world.start()
    await world.until(lambda: bool(world.index.held))
    await asyncio.sleep(5)
    (lease,) = await world.store.find("pipe|DATAFILE")
    assert (lease.progress["loadedRecords"], lease.status) == (LINES_MAX, Status.ASSIGNED)
    world.index.apply(world.index.held[0])
    world.index.held[0].release_all(ok=True)
    await asyncio.sleep(5)
    (lease,) = await world.store.find("pipe|DATAFILE")
    assert (lease.progress["loadedRecords"], lease.status) == (6 * LINES_MAX, Status.COMPLETED)
    await world.stop()


@virtual
async def test_refused_items_are_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(items=3)
    answers = iter([False, True])
    world.index.answer = lambda _batch: next(answers, True)
    await world.start()
    await world.until(lambda: len(set(world.index.exported())) == 3)
    await world.stop()
    assert any(
        text.startswith("Negative acknowledgment received for data file ") and text.endswith(", retrying")
        for text in caplog.messages
    )


@virtual
async def test_a_failing_file_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    world = World(items=40)
    world.db.exports.files = 10
    await world.start()
    await world.until(lambda: bool(world.db.s3.objects))
    bad, gone, cut, *_ = world.db.s3.data_keys()
    await world.stop()
    await world.crash()
    world = await restarted(world)
    kept = dict(world.db.s3.objects)
    world.db.s3.objects["exports", bad] = gzip.compress(b'{"Item":{"id":{"N":"77"}}}\n')
    del world.db.s3.objects["exports", gone]
    world.db.s3.objects["exports", cut] = kept["exports", cut][:-9]
    world.index.events.clear()
    await world.start()
    world.db.put(id=5, text="a change that waits for the bad files too")
    await asyncio.sleep(30)
    assert not await world.loaded(), "streaming must wait for all files"
    assert {meta.event_type for _, meta in world.index.events} == {"EXPORT"}
    assert len(set(world.index.exported()) - {77}) >= 25
    assert sum("cannot be loaded and is tried again" in text for text in caplog.messages) >= 3
    world.db.s3.objects.update(kept)
    await world.until(lambda: set(range(40)) <= set(world.index.exported()))
    await asyncio.sleep(130)
    assert await world.loaded()
    await world.stop()


async def restarted(world: World) -> World:
    """The same table and exports, with nothing loaded."""
    fresh = World()
    fresh.db, fresh.clock = world.db, world.clock
    arn = world.db.exports.exports[0].arn
    key = f"music/AWSDynamoDB/{arn.rpartition('/')[2]}"
    start = fresh.start

    async def begin(**options: Any) -> None:
        await start(**{"export": ExportOptions("exports", existing_prefix=key), **options})

    fresh.start = begin  # type: ignore[method-assign]
    return fresh


@virtual
async def test_a_download_that_is_cut_goes_on_where_it_ended() -> None:
    world = World()
    big(world, 4 * LINES_MAX)
    world.db.exports.files = 1
    world.db.s3.read_bytes_max = 1000
    await world.start()
    await world.until(lambda: bool(world.db.exports.exports))
    export = world.db.exports.exports[0]
    prepared = export_files(
        export.entries, arn=export.arn, table_arn=world.db.table_arn, bucket="exports", prefix="music/",
        at_ms=export.at_ms, files=1,
    )  # fmt: skip
    (key,) = [key for key in prepared if "/data/" in key]
    world.db.s3.cuts[key] = [3000, 500]
    world.db.s3.faults[key] = [("SlowDown", 503), ("AccessDenied", 403)]
    await world.until(lambda: len(world.index.exported()) == 4 * LINES_MAX)
    await world.stop()
    assert Counter(world.index.exported()).most_common(1)[0][1] == 1
    assert world.counter("exportRecordProcessingErrors") == 0


@virtual
async def test_empty_and_overlong_lines_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_file, "LINE_BYTES_MAX", 1_500_000)
    long = '{"Item":{"id":{"S":"' + "x" * 4_000_000 + '"}}}'

    def line(entry: Any) -> str:
        text = json_line(entry)
        return {0: f"\n{text}\n\n", 2: f"{long}\n{text}", 5: f"{text}\n{long}"}.get(int(entry["id"]["N"]), text)

    monkeypatch.setattr(dynamodb_export, "json_line", line)
    world = World(items=6)
    world.db.exports.files = 1
    await world.start(stream=False)
    await world.until(lambda: len(world.index.exported()) == 6)
    await world.stop()
    assert world.index.exported() == list(range(6))
    assert world.counter("exportRecordProcessingErrors") == 2
    assert await world.loaded()


@virtual
async def test_files_time_out_with_acknowledgments(caplog: pytest.LogCaptureFixture) -> None:
    world = World(items=3)
    answers = iter([None, True])
    world.index.answer = lambda _batch: next(answers, True)
    await world.start(file_acknowledgment_timeout_s=900.0)
    await world.until(lambda: len(world.index.exported()) == 3, 3000)
    await world.stop()
    assert any(text.startswith("Acknowledgment timed out for data file ") for text in caplog.messages)


@virtual
async def test_an_export_that_exists_is_loaded_by_its_arn() -> None:
    world = World(items=4)
    told = world.db.exports.export_table_to_point_in_time(TableArn=world.db.table_arn, S3Bucket="other")
    arn = told["ExportDescription"]["ExportArn"]
    world.db.exports.recovery = False
    await world.start(export=ExportOptions("exports", arn=arn))
    world.db.delete(id=3)
    await world.until(lambda: len(world.index.events) >= 5)
    await world.stop()
    assert len(world.db.exports.exports) == 1
    assert world.index.documents() == world.table()


@virtual
async def test_two_units_share_the_files() -> None:
    world, other = World(), World()
    big(world, 40)
    world.db.exports.files = 20
    other.db, other.store = world.db, world.store
    await world.start()
    await other.start()
    await world.until(lambda: len(set(world.index.exported() + other.index.exported())) == 40)
    await asyncio.sleep(120)
    world.db.put(id=99)
    await world.until(lambda: "99" in {**world.index.documents(), **other.index.documents()})
    await world.stop()
    await other.stop()
    assert len(world.index.exported() + other.index.exported()) == 40
    assert len(world.db.exports.exports) == 1


# export and stream


@virtual
async def test_what_waits_for_a_long_export_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(items=2)
    world.db.exports.takes_s = 20 * 3600
    await world.start(pace=SLOW)
    await world.index.ready.wait()
    world.db.put(id=5)
    await asyncio.sleep(19 * 3600)
    waits = [(record.levelno, record.message) for record in caplog.records if "waits for the export" in record.message]
    assert waits[0][0] == logging.INFO and "is kept for 2" in waits[0][1]
    assert waits[-1][0] == logging.WARNING and "stream.during_export" in waits[-1][1]
    await world.until(lambda: "5" in world.index.documents(), 10_000)
    await world.stop()
    assert world.index.documents() == world.table()


@virtual
async def test_what_waited_too_long_is_reported_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.db.items["0",] = {"id": {"N": "0"}}
    world.db.exports.takes_s = 25 * 3600
    await world.start(pace=SLOW)
    await world.index.ready.wait()
    for number in (5, 6, 7):
        world.db.put(id=number)
    await asyncio.sleep(24 * 3600)
    world.db.trim(world.db.open_shards()[0], keep=1)
    await world.until(lambda: "7" in world.index.documents(), 10_000)
    await world.stop()
    assert set(world.index.documents()) == {"0", "7"}
    assert any("are lost" in text for text in caplog.messages)
    assert world.counter("changeEventsProcessingErrors") == 1


@virtual
async def test_changes_that_wait_go_on_when_they_are_told_not_to() -> None:
    world = World(items=2)
    world.db.exports.takes_s = 10 * 3600
    await asyncio.sleep(600)
    await world.start()
    await world.index.ready.wait()
    world.db.put(id=5)
    await asyncio.sleep(60)
    assert world.index.events == []
    await world.stop()
    await world.start(during_export=True)
    await world.until(lambda: "5" in world.index.documents(), 60)
    await world.stop()


@virtual
async def test_closed_shards_are_read_after_the_export_too() -> None:
    world = World(items=2)
    await asyncio.sleep(600)
    await world.start()
    await world.index.ready.wait()
    for number in range(10, 16):
        world.db.put(id=number)
        world.db.roll_over()
    await world.until(lambda: len(world.index.documents()) == 8, 3600)
    await world.stop()
    assert world.index.documents() == world.table()


@virtual
async def test_a_slow_sink_holds_the_loader_up() -> None:
    world = World()
    big(world, 40 * LINES_MAX)
    world.db.exports.files = 10
    world.db.s3.read_bytes_max = 1000
    room = asyncio.Event()
    asked: list[int] = []
    write = world.index.write

    async def wait_for_room(batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None, **_more: Any) -> None:
        asked.append(len(batch))
        await room.wait()
        await write(batch, size_bytes, timeout_s)

    world.index.write = wait_for_room  # type: ignore[method-assign]
    await world.start()
    await asyncio.sleep(3600)
    assert len(asked) == FILES_MAX, "one chunk of each file that is open, and no more"
    assert sum(world.db.s3.calls[key] for key in world.db.s3.data_keys()) == FILES_MAX
    room.set()
    await world.until(lambda: len(world.index.exported()) == 40 * LINES_MAX)
    await world.stop()


@virtual
async def test_changes_during_an_export_of_more_than_a_day() -> None:
    world = World(items=10)
    world.db.exports.takes_s = 30 * 3600
    await asyncio.sleep(600)
    await world.start(during_export=True, pace=SLOW)
    await world.index.ready.wait()
    for number in range(10, 20):
        world.db.put(id=number)
    world.db.put(id=1, text="new")
    world.db.delete(id=2)
    await world.until(lambda: len(world.index.events) == 12, 60)
    await world.crash()
    await world.start(during_export=True, pace=SLOW)
    await asyncio.sleep(25 * 3600)
    world.db.trim(world.db.open_shards()[0])
    world.db.delete(id=3)
    await world.until(lambda: len(world.index.exported()) == 10, 10 * 3600)
    await asyncio.sleep(300)
    await world.stop()
    removals = [meta.attributes["primary_key"] for _, meta in world.index.events].count("2")
    assert removals >= 3, "the removal, the item of the export that brought the document back, and the removal again"
    assert world.index.documents() == world.table()
    assert await world.store.find("pipe|REMOVAL") == []


@virtual
async def test_removals_that_could_not_be_kept_are_read_again() -> None:
    world = World(items=3)
    world.db.exports.takes_s = 3600
    await asyncio.sleep(600)
    create, failures = world.store.create, [sdk.Transient("the store stumbles")] * 3

    async def stumble(source: str, *arguments: Any, **more: Any) -> bool:
        if source.endswith("REMOVAL") and failures:
            raise failures.pop()
        return await create(source, *arguments, **more)

    world.store.create = stumble  # type: ignore[method-assign]
    await world.start(during_export=True, pace=SLOW)
    await world.index.ready.wait()
    world.db.put(id=7)
    world.db.delete(id=1)
    world.db.put(id=2, text="new")
    await world.until(lambda: len(world.index.events) == 3, 60)
    assert not failures
    world.db.put(id=8)
    await world.until(lambda: len(world.index.exported()) == 3, 10 * 3600)
    await asyncio.sleep(300)
    await world.stop()
    assert world.index.documents() == world.table()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_index_ends_as_the_table(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)
        world = World()
        during = chance.random() < 0.5
        options = {
            "during_export": during,
            "pace": Pace(stop=1.0, idle=5.0, save=5.0),
            "export": ExportOptions("exports", form=chance.choice(["ION", "DYNAMODB_JSON"])),
        }
        for number in range(30):
            world.db.items[str(number),] = {"id": {"S": str(number)}}
        world.db.exports.takes_s = chance.choice([5, 60, 900])
        world.db.exports.fail_next = [("InternalServerError", "")] * chance.choice([0, 0, 1])
        refusals = 0

        def answer(_batch: sdk.Batch) -> bool | None:
            nonlocal refusals
            mood = chance.random()
            refusals = refusals + 1 if mood > 0.9 and refusals < 2 else 0
            if refusals:
                return False
            if mood < 0.2:
                asyncio.get_running_loop().call_later(chance.uniform(0, 4), late)
                return None
            return True

        def late() -> None:
            batch = world.index.held.pop()
            world.index.apply(batch)
            batch.release_all(ok=True)

        world.index.answer = answer
        await world.start(**options)
        await world.index.ready.wait()
        for step in range(80):
            match chance.choices(
                ["put", "delete", "sleep", "roll", "fault", "crash", "restart"], [40, 15, 20, 2, 5, 3, 2]
            )[0]:
                case "put":
                    world.db.put(id=str(chance.randrange(40)), step=step)
                case "delete":
                    world.db.delete(id=str(chance.randrange(40)))
                case "sleep":
                    await asyncio.sleep(chance.choice([0.1, 1.0, 10.0, 90.0]))
                case "roll":
                    world.db.roll_over()
                case "fault":
                    operation = chance.choice(["get_records", "describe_export", "export_table_to_point_in_time"])
                    world.db.fail(operation, chance.choice(["LimitExceededException", "InternalServerError"]), times=2)
                case "crash":
                    await world.crash()
                    await world.start(**options)
                case "restart":
                    await world.stop()
                    await world.start(**options)
        world.index.answer = lambda _batch: True
        world.db.heal()
        await asyncio.sleep(3600)
        await world.stop()
        assert world.index.documents() == world.table()
        assert await world.loaded()

    run_virtual(scenario())


# several tables


def test_several_tables_stand_side_by_side() -> None:
    async def scenario() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        databases = {name: FakeDynamodb(clock, table=name) for name in ("orders", "songs")}
        store, index = MemoryStore(clock), Index(clock)
        ctx = sdk.Context("pipe", "dynamodb", kind="source", clock=clock, open_leases=lambda: store)
        tables = [{"table_arn": db.table_arn, "stream": {}, "export": {"s3_bucket": "b"}} for db in databases.values()]
        config = dynamodb.Config.model_validate({"tables": tables, "aws": {"region": "us-east-1"}})
        source = dynamodb.build(config, ctx)
        for one in source._sources:  # type: ignore[attr-defined]
            one._clients = databases[one._table_arn.rpartition("/")[2]]
        for db in databases.values():
            db.put(id=1)
        task = asyncio.create_task(source.run(index))
        await index.ready.wait()
        await asyncio.sleep(300)
        for db in databases.values():
            db.put(id=2)
        await asyncio.sleep(60)
        await source.stop()
        await task
        seen = Counter((meta.attributes["table_name"], body["id"], meta.event_type) for body, meta in index.events)
        assert {(name, 1, "EXPORT") for name in databases} | {(name, 2, "STREAM") for name in databases} <= set(seen)
        assert len(await store.find("pipe|LEADER")) == 2

    run_virtual(scenario())
