"""Dead letters that were kept: every form they are written in, filters, causes, notes of what was replayed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Permanent, Transient
from penstock.expr import compile_expression
from penstock.lib.dead_letters import Filter, Record, Volume, cause_of, open_store, parse_moment, read_records
from penstock.lib.dead_letters import record as record_module
from penstock.lib.dead_letters import store as store_module


def letter(n: int, **failed: Any) -> dict[str, Any]:
    return {
        "pluginId": "opensearch",
        "pluginName": "opensearch",
        "pipelineName": "main",
        "failedData": {
            "index": "i",
            "indexId": str(n),
            "status": 400,
            "message": "bad",
            "document": {"n": n},
            **failed,
        },
        "timestamp": f"2024-05-01T12:00:00.{n % 1000:03d}Z",
    }


LETTERS = [letter(n) for n in range(3)]


def dump(value: Any, **options: Any) -> bytes:
    return json.dumps(value, **options).encode()


def numbers(data: bytes) -> list[Any]:
    found = list(read_records(data.splitlines(keepends=True), {}))
    return [record.document["n"] if isinstance(record, Record) else record for record in found]


@pytest.mark.parametrize(
    "data",
    [
        dump({"dlqObjects": LETTERS}),
        dump({"dlqObjects": LETTERS}, indent=2),
        dump(LETTERS),
        dump(LETTERS, indent=2) + b"\n",
        b"\n".join(map(dump, LETTERS)) + b"\n\n",
        b"\n".join(dump({"Document": [each], "failure": "bad"}) for each in LETTERS),
        b"\r\n".join(map(dump, LETTERS)),
        b"".join(dump({"dlqObjects": [each]}) + b"\n" for each in LETTERS),
    ],
)
def test_every_form_is_read(data: bytes) -> None:
    assert numbers(data) == [0, 1, 2]


def test_what_is_broken_is_told_and_the_rest_is_read() -> None:
    lines = [dump(LETTERS[0])[:30], dump(LETTERS[1]), b"\xff\xfe", dump({"other": 1}), b"7", dump(LETTERS[2])]
    found = numbers(b"\n".join(lines))
    assert [each for each in found if isinstance(each, int)] == [1, 2]
    assert [each[:7] for each in found if isinstance(each, str)] == ["line 1:", "line 3:", "line 4:", "line 5:"]
    assert len(found) == 6
    assert numbers(b"") == numbers(b"\n\n") == []


def test_the_file_of_data_prepper_is_read() -> None:
    lines = [
        b'{"Document": [index {[logs-a][id-1], source[{"n":0,"t":"]}], x"}]}], "failure": failed to parse [n]}',
        b'{"Document": [index {[logs][null], source[{"n":1}]}], "failure": null}',
        b'{"Document": [index {[logs][a][b], source[{"n":2}]}], "failure": "quoted" and more}',
        b'{"Document": [index {[logs][1], source[n/a, unable to extract document]}], "failure": bad}',
    ]
    found = list(read_records([line + b"\n" for line in lines], {}))
    records = [each for each in found if isinstance(each, Record)]
    assert [each.document["n"] for each in records] == [0, 1, 2]
    assert [(each.index, each.failed_data["indexId"], each.message) for each in records] == [
        ("logs-a", "id-1", "failed to parse [n]"),
        ("logs", None, ""),
        ("logs", "a][b", '"quoted" and more'),
    ]
    assert isinstance(found[3], str) and found[3].startswith("line 4: no JSON")


def test_a_first_line_that_was_cut_short_does_not_bring_the_file_into_memory() -> None:
    given: list[int] = []

    def lines() -> Iterator[bytes]:
        for n in range(1000):
            given.append(n)
            yield (dump(letter(n)) + b"\n")[: 20 if n == 0 else None]

    records = read_records(lines(), {})
    assert str(next(records)).startswith("line 1: no JSON")
    second = next(records)
    assert isinstance(second, Record) and second.document == {"n": 1}
    assert len(given) < 5


def test_a_text_over_many_lines_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "TEXT_BYTES_MAX", 200)
    text = dump({"dlqObjects": LETTERS}, indent=2)
    assert all(isinstance(each, str) for each in numbers(text)), "it is longer than that"
    assert numbers(b"\n" + dump({"dlqObjects": LETTERS}))[0] == 0, "a single line is not meant"


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_are_read_without_an_error(pieces: list[bytes]) -> None:
    found = numbers(b"\n".join([*pieces, b"", dump(LETTERS[0])]))
    assert 0 in found or any(isinstance(each, str) for each in found)


def test_ids_are_stable_and_differ_even_for_equal_records() -> None:
    data = b"".join(dump(each) + b"\n" for each in (LETTERS[0], LETTERS[0], LETTERS[1]))
    first, second = ([record.id for record in read_records(data.splitlines(True), {})] for _ in range(2))
    assert first == second and len(set(first)) == 3
    assert first[1] == first[0] + "-2"
    other_order = dict(reversed(LETTERS[0].items()))
    (again,) = read_records([dump(other_order)], {})
    assert isinstance(again, Record) and again.id == first[0]


def record(n: int = 1, **failed: Any) -> Record:
    (made,) = read_records([dump(letter(n, **failed))], {})
    assert isinstance(made, Record)
    return made


NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Filter(), True),
        (Filter(since=NOON), True),
        (Filter(until=NOON), False),
        (Filter(since=datetime(2024, 5, 2, tzinfo=UTC)), False),
        (Filter(pipelines=["main"]), True),
        (Filter(pipelines=["other"]), False),
        (Filter(indexes=["x", "i*"]), True),
        (Filter(indexes=["x"]), False),
        (Filter(statuses=[400, 404]), True),
        (Filter(statuses=[404]), False),
        (Filter(message="BAD"), True),
        (Filter(message="good"), False),
        (Filter(message=re.compile("^b.d$")), True),
        (Filter(condition=compile_expression("/n == 1")), True),
        (Filter(condition=compile_expression("/n == 2")), False),
        (Filter(condition=compile_expression("length(/n) == 2")), False),
        (Filter(statuses=[400], message="good"), False),
    ],
)
def test_filters(wanted: Filter, matches: bool) -> None:
    assert wanted.matches(record()) is matches


def test_moments() -> None:
    assert parse_moment("2h", NOON) == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert parse_moment("3d", NOON) == datetime(2024, 4, 28, 12, tzinfo=UTC)
    assert parse_moment("90m", NOON) == parse_moment("PT90M", NOON) == datetime(2024, 5, 1, 10, 30, tzinfo=UTC)
    assert parse_moment("2024-05-01T12:00", NOON) == parse_moment("2024-05-01T14:00+02:00", NOON) == NOON
    with pytest.raises(ValueError, match="neither a time"):
        parse_moment("yesterday", NOON)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (
            "failed to parse field [x] of type [long] in document with id '7'. Preview of field's value: 'a' caused by "
            'For input string: "a"',
            "mapper_parsing_exception on field x (long)",
        ),
        (
            "object mapping for [a.b] tried to parse field [b] as object, but found a concrete value",
            "mapper_parsing_exception on field a.b (object)",
        ),
        (
            "mapping set to strict, dynamic introduction of [y] within [_doc] is not allowed",
            "strict_dynamic_mapping_exception on field y within _doc",
        ),
        ("Limit of total fields [1000] has been exceeded", "too many fields in the index (limit 1000)"),
        ("no such index [logs] and [require_alias] …", "index_not_found_exception: logs"),
        (
            "Number of retries reached the limit of max retries (configured value 16. Last exception message: 503 x7)",
            "retries used up: N xN",
        ),
        ("Number of retries reached the limit of max retries (configured value 15)", "retries used up"),
        ("something 'odd' at 12:30 with 01234567-89ab-cdef-0123-456789abcdef", "something '…' at N:N with …"),
        ("", "status 400, no message"),
    ],
)
def test_documents_refused_for_the_same_reason_have_the_same_cause(message: str, cause: str) -> None:
    assert cause_of(record(message=message)) == cause


def test_files_and_their_older_parts_are_one_volume(tmp_path: Path) -> None:
    (tmp_path / "main.jsonl.2").write_bytes(dump(LETTERS[0]) + b"\n")
    (tmp_path / "main.jsonl.1").write_bytes(dump(LETTERS[1]) + b"\n")
    (tmp_path / "main.jsonl").write_bytes(dump(LETTERS[2]) + b"\n" + b"broken\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.json").write_bytes(dump({"dlqObjects": LETTERS}))
    (tmp_path / ".hidden").write_bytes(b"x")

    async def read(place: Path) -> list[list[int]]:
        async with open_store(str(place)) as store:
            volumes = await store.volumes()
            with (tmp_path / "main.jsonl").open("ab") as file:  # what comes later is for the next run
                file.write(dump(letter(9)) + b"\n")
            found = [[record.document["n"] async for record in store.read(volume)] for volume in volumes]
            assert store.unreadable.count == 1
            return found

    assert asyncio.run(read(tmp_path)) == [[0, 1, 2], [0, 1, 2]]
    assert asyncio.run(read(tmp_path / "main.jsonl")) == [[0, 1, 2, 9]]


def test_notes_are_kept_beside_the_file_and_are_no_volume(tmp_path: Path) -> None:
    file = tmp_path / "main.jsonl"
    file.write_bytes(b"".join(dump(each) + b"\n" for each in LETTERS))

    async def run() -> None:
        async with open_store(str(tmp_path)) as store:
            (volume,) = await store.volumes()
            assert await store.replayed(volume) == set()
            await store.note(volume, {"b", "a"}, {"b", "a"})
            with (tmp_path / "main.jsonl.redriven").open("a") as note:
                note.write("tor")  # the process was killed while it wrote
            await store.note(volume, {"a", "b", "c"}, {"c"})
            assert await store.replayed(volume) == {"a", "b", "c", "tor"}
            assert await store.volumes() == [volume] == [Volume(str(file), ((str(file), file.stat().st_size),))]

    asyncio.run(run())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.jsonl", "main.jsonl.redriven"]


def test_places_that_are_none(tmp_path: Path) -> None:
    for place in (str(tmp_path / "missing"), "s3://"):
        with pytest.raises(Permanent):
            open_store(place)


class BusyBucket:
    """Sessions and client in one: the first calls of each kind fail."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = {name: list(errors) for name in ("list_objects_v2", "get_object", "put_object")}
        self.put: list[str] = []

    async def __aenter__(self) -> BusyBucket:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def client(self, *_arguments: object, **_options: object) -> BusyBucket:
        return self

    async def list_objects_v2(self, **_call: object) -> dict[str, Any]:
        self._fail("list_objects_v2")
        return {"Contents": [{"Key": "a/x.json", "Size": 10}]}

    async def get_object(self, **_call: object) -> dict[str, Any]:
        self._fail("get_object")
        return {"Body": self}

    async def read(self) -> bytes:
        return dump({"dlqObjects": LETTERS})

    async def put_object(self, **call: Any) -> None:
        self._fail("put_object")
        self.put.append(call["Key"])

    def _fail(self, name: str) -> None:
        if self.errors[name]:
            raise self.errors[name].pop(0)


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call")


def read_bucket(monkeypatch: pytest.MonkeyPatch, bucket: BusyBucket) -> list[Record]:
    monkeypatch.setattr(store_module, "sessions", lambda: bucket)
    monkeypatch.setattr(store_module, "RETRY_DELAY_S", 0.0)

    async def read() -> list[Record]:
        async with open_store("s3://bucket/a") as store:
            (volume,) = await store.volumes()
            records = [each async for each in store.read(volume)]
            await store.note(volume, {"1"}, {"1"})
            return records

    return asyncio.run(read())


def test_a_bucket_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = BusyBucket(refusal("SlowDown", 503), refusal("InternalError", 500), TimeoutError())
    assert len(read_bucket(monkeypatch, bucket)) == 3
    assert bucket.put == ["a/redriven/x.json"]


@pytest.mark.parametrize("errors", [[refusal("AccessDenied", 403)], [refusal("SlowDown", 503)] * 4])
def test_a_bucket_that_stays_closed_is_told(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> None:
    with pytest.raises(Transient, match="s3://bucket/a: "):
        read_bucket(monkeypatch, BusyBucket(*errors))


def test_of_a_data_directory_only_the_dead_letters_are_read(tmp_path: Path) -> None:
    async def names() -> list[str]:
        async with open_store(str(tmp_path)) as store:
            return [Path(volume.name).name for volume in await store.volumes()]

    (tmp_path / "lock").write_text("12")
    assert asyncio.run(names()) == []
    (tmp_path / "dead-letters").mkdir()
    (tmp_path / "dead-letters" / "main.jsonl").write_text("{}\n")
    assert asyncio.run(names()) == ["main.jsonl"]
