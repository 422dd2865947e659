"""Parquet files, checked against the library that reads and writes whole ones."""

import datetime
import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch
from penstock.core.errors import ConfigError, EventError
from penstock.plugins.codecs import parquet

PERSON = {
    "type": "record",
    "name": "Person",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "age", "type": ["null", "int"], "default": None},
        {"name": "scores", "type": ["null", {"type": "array", "items": ["null", "double"]}]},
        {
            "name": "home",
            "type": ["null", {"type": "record", "name": "Home", "fields": [{"name": "zip", "type": "long"}]}],
        },
        {"name": "labels", "type": ["null", {"type": "map", "values": "string"}]},
        {"name": "since", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
    ],
}
PEOPLE = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text(max_size=8),
            "age": st.none() | st.integers(-(1 << 31), (1 << 31) - 1),
            "scores": st.none() | st.lists(st.none() | st.floats(allow_nan=False), max_size=3),
            "home": st.none() | st.fixed_dictionaries({"zip": st.integers(0, 1 << 60)}),
            "labels": st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
            "since": st.none() | st.integers(0, 1 << 42),
            "price": st.none() | st.decimals(0, 9_999, places=2),
        }
    ),
    max_size=20,
)


def file_of(table, **options):
    data = io.BytesIO()
    pq.write_table(table, data, **options)
    return data.getvalue()


@given(people=PEOPLE, cut=st.integers(0, 500), sizes=st.lists(st.integers(1, 8), max_size=4))
@pytest.mark.parametrize("compression", parquet.COMPRESSIONS)
def test_what_is_written_is_read_back(codecs, compression, people, cut, sizes):
    encoder = codecs.output("parquet", schema=json.dumps(PERSON)).encoder(compression)
    data, rest = encoder.start(), list(people)
    for size in sizes:
        data += encoder.write(Batch(rest[:size]))
        rest = rest[size:]
    data += encoder.write(Batch(rest)) + encoder.finish()
    batch = codecs.read("parquet", data, [cut])
    assert batch.bodies == people
    assert batch.origin.event_type == "event"


def test_rows_come_in_batches_and_groups(codecs, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_ROWS_MAX", 1_000)
    monkeypatch.setattr(parquet, "MEMORY_BYTES_MAX", 100)  # put aside on disk
    events = [{"n": n} for n in range(5_000)]
    data = codecs.write("parquet", *(events[start : start + 500] for start in range(0, 5_000, 500)), auto_schema=True)
    assert pq.ParquetFile(io.BytesIO(data)).num_row_groups == 5
    decoder = codecs.decoder("parquet")
    assert len(decoder.feed(data)) == 0
    batches = list(decoder.rest())
    assert max(map(len, batches)) <= parquet.ROWS_MAX
    assert [body for batch in batches for body in batch.bodies] == events


def test_values_of_every_type(codecs):
    when = datetime.datetime(2024, 1, 1, 0, 0, 0, 5_000, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "ms": pa.array([when, None], pa.timestamp("ms", "UTC")),
            "us": pa.array([when, None], pa.timestamp("us")),
            "day": pa.array([when.date(), None], pa.date32()),
            "time": pa.array([when.time(), None], pa.time64("us")),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "text": pa.array([b"text", None], pa.binary()),
            "raw": pa.array([b"\xff\x00", None], pa.binary(2)),
            "word": pa.array(["a", None]).dictionary_encode(),
            "list": pa.array(
                [[{"at": when, "raw": b"\xff"}], None],
                pa.list_(pa.struct([("at", pa.timestamp("ms")), ("raw", pa.binary())])),
            ),
            "map": pa.array([[("k", when)], None], pa.map_(pa.string(), pa.timestamp("ms"))),
        }
    )
    ms = 1_704_067_200_005
    first, second = codecs.read("parquet", file_of(table)).bodies
    assert first == {
        "ms": ms,
        "us": ms * 1_000,
        "day": 19_723,
        "time": 5_000,
        "price": Decimal("1.50"),
        "text": "text",
        "raw": "/wA=",
        "word": "a",
        "list": [{"at": ms, "raw": "/w=="}],
        "map": {"k": ms},
    }
    assert second == dict.fromkeys(first)


def test_numbers_of_single_precision_have_the_digits_they_are_written_with(codecs):
    kind = pa.float32()
    table = pa.table(
        {
            "n": pa.array([0.1, None], kind),
            "list": pa.array([[3.14159, None], []], pa.list_(kind)),
            "struct": pa.array([{"x": 1e30, "raw": b"t"}, None], pa.struct([("x", kind), ("raw", pa.binary())])),
            "map": pa.array([[("k", 0.3)], None], pa.map_(pa.string(), kind)),
            "double": [0.10000000149011612, 0.1],
        }
    )
    assert codecs.read("parquet", file_of(table)).bodies == [
        {
            "n": 0.1,
            "list": [3.14159, None],
            "struct": {"x": 1e30, "raw": "t"},
            "map": {"k": 0.3},
            "double": 0.10000000149011612,
        },
        {"n": None, "list": [], "struct": None, "map": None, "double": 0.1},
    ]


def test_outdated_time_stamps_are_text(codecs):
    when = datetime.datetime(2024, 1, 1, 0, 0, 0, 5_000, tzinfo=datetime.UTC)
    table = pa.table({"at": pa.array([when, None], pa.timestamp("ns")), "n": [1, 2]})
    bodies = codecs.read("parquet", file_of(table, use_deprecated_int96_timestamps=True)).bodies
    assert bodies == [{"at": "2024-01-01T00:00:00.005000000Z", "n": 1}, {"at": None, "n": 2}]


@given(st.binary(max_size=50), st.integers(0, 300))
def test_what_is_no_parquet_is_an_error(codecs, noise, place):
    for data in (noise, file_of(pa.table({"n": [1, 2]}))[:-1]):
        if data:
            with pytest.raises(EventError):
                codecs.read("parquet", data)
    assert codecs.read("parquet", b"").bodies == []


def test_files_have_a_limit(codecs, monkeypatch):
    monkeypatch.setattr(parquet, "FILE_BYTES_MAX", 100)
    with pytest.raises(EventError, match="larger than 100 bytes"):
        codecs.decoder("parquet").feed(b"x" * 101)


def test_a_schema_made_of_the_first_event(codecs):
    event = {"a": 1, "b": 1 << 40, "c": 1.5, "d": True, "e": "x", "f": {"g": ["y"]}}
    data = codecs.write("parquet", [event, {"a": None, "c": Decimal("2.5")}], auto_schema=True)
    assert pq.read_table(io.BytesIO(data)).to_pylist() == [event, {**dict.fromkeys(event), "c": 2.5}]
    assert codecs.write("parquet", auto_schema=True) == b""


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"name": None}, "name must not be null"),
        ({"name": 1}, "'1' is no text"),
        ({"name": "a", "age": 1.5}, "'1.5' is no integer"),
        ({"name": "a", "age": True}, "'True' is no integer"),
        ({"name": "a", "age": 1 << 31}, "does not fit the schema"),
        ({"name": "a", "scores": 1}, "'1' is no array"),
        ({"name": "a", "scores": ["x"]}, "'x' is no number"),
        ({"name": "a", "home": []}, "is no object"),
        ({"name": "a", "home": {}}, "zip must not be null"),
        ({"name": "a", "price": Decimal("1.234")}, "does not fit the schema"),
    ],
)
def test_nothing_is_changed_to_fit_and_a_refused_batch_leaves_nothing_behind(codecs, event, message):
    encoder = codecs.output("parquet", schema=json.dumps(PERSON)).encoder()
    data = encoder.start() + encoder.write(Batch([{"name": "Ada"}]))
    with pytest.raises(EventError, match=message):
        encoder.write(Batch([{"name": "Bob"}, event]))
    data += encoder.finish()
    assert [row["name"] for row in pq.read_table(io.BytesIO(data)).to_pylist()] == ["Ada"]


def test_a_key_that_the_first_event_did_not_have(codecs):
    with pytest.raises(EventError, match=r"The event has a key \('b'\) which is not included in the schema"):
        codecs.write("parquet", [{"a": 1}], [{"a": 1, "b": 1}], auto_schema=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "requires either defining a schema or setting auto_schema to true"),
        ({"schema": "{"}, "There is an error in the schema"),
        ({"schema": '{"type": "record", "name": "A", "fields": [{"name": "a", "type": "x"}]}'}, "x is no type"),
        (
            {"schema": '{"type": "record", "name": "A", "fields": [{"name": "a", "type": ["int", "string"]}]}'},
            "a is a union of several types",
        ),
    ],
)
def test_options(codecs, options, message):
    with pytest.raises(ConfigError, match=message):
        codecs.output("parquet", **options)


def test_a_schema_of_ones_own_and_keys_of_the_sink(codecs):
    with pytest.raises(ConfigError, match="Providing a user-defined schema and using sink include or exclude keys"):
        codecs.output("parquet", {"exclude_keys": ("a",)}, schema=json.dumps(PERSON))
