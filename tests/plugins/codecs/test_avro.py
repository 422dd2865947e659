"""Avro containers, checked against the library that reads and writes whole ones."""

import datetime
import io
import json
import sys
from decimal import Decimal

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch
from penstock.core.errors import ConfigError, EventError
from penstock.lib import avro

PERSON = {
    "type": "record",
    "name": "Person",
    "fields": [{"name": "name", "type": "string"}, {"name": "age", "type": ["null", "int"], "default": None}],
}
PEOPLE = st.lists(
    st.fixed_dictionaries({"name": st.text(max_size=8), "age": st.none() | st.integers(-(1 << 31), (1 << 31) - 1)}),
    max_size=30,
)


def container(schema, records, **options):
    data = io.BytesIO()
    fastavro.writer(data, schema, records, **options)
    return data.getvalue()


@given(
    people=PEOPLE,
    cuts=st.lists(st.integers(0, 400), max_size=5),
    codec=st.sampled_from(["null", "deflate", "bzip2"]),
    interval=st.integers(1, 100),
)
def test_containers_are_read_however_they_are_cut(codecs, people, cuts, codec, interval):
    data = container(PERSON, people, codec=codec, sync_interval=interval)
    assert codecs.read("avro", data, cuts).bodies == people


@given(people=PEOPLE, sizes=st.lists(st.integers(1, 10), max_size=5))
def test_the_library_reads_what_is_written(codecs, people, sizes):
    batches, rest = [], list(people)
    for size in sizes:
        batches.append(Batch(rest[:size]))
        rest = rest[size:]
    data = codecs.write("avro", *batches, rest, schema=json.dumps(PERSON))
    assert list(fastavro.reader(io.BytesIO(data))) == people
    assert codecs.read("avro", data).bodies == people


def test_events_come_with_the_blocks(codecs):
    people = [{"name": str(n), "age": n} for n in range(1_000)]
    data = container(PERSON, people, sync_interval=100)
    decoder = codecs.decoder("avro")
    assert 400 < len(decoder.feed(data[: len(data) // 2])) < 600


def test_values_of_every_type(codecs):
    schema = {
        "type": "record",
        "name": "All",
        "fields": [
            {"name": "when", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}},
            {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "raw", "type": {"type": "array", "items": "bytes"}},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
            {"name": "counts", "type": {"type": "map", "values": "double"}},
        ],
    }
    record = {
        "when": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        "day": datetime.date(2024, 1, 1),
        "price": Decimal("12.50"),
        "id": "6f1ed002-ab5a-41f0-9a4f-5d7f6d9d5c5e",
        "raw": [b"\xff\x00"],
        "kind": "B",
        "counts": {"x": 0.5},
    }
    assert codecs.read("avro", container(schema, [record])).bodies == [
        {
            "when": 1_704_067_200_000,
            "day": 19_723,
            "price": Decimal("12.50"),
            "id": "6f1ed002-ab5a-41f0-9a4f-5d7f6d9d5c5e",
            "raw": ["/wA="],
            "kind": "B",
            "counts": {"x": 0.5},
        }
    ]


def test_a_foreign_file_gives_no_events_and_is_counted(codecs):
    before = codecs.registry.value("p.avro.notContainers")
    assert codecs.read("avro", b"Obj").bodies == []
    assert codecs.read("avro", b"Something else", cuts=[3, 8]).bodies == []
    assert codecs.read("avro", b"").bodies == []
    assert codecs.registry.value("p.avro.notContainers") == before + 2


@given(st.data())
def test_a_damaged_container_is_an_error_or_its_records_and_nothing_else(codecs, data):
    people = [{"name": "Ada", "age": 36}, {"name": "Bob", "age": None}]
    whole = container(PERSON, people)
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(len(avro.MAGIC), len(whole) - 1))]
        header_end = avro.header_at_start(whole)[1]
        if len(damaged) == header_end:
            assert codecs.read("avro", damaged).bodies == []
            return
        with pytest.raises(EventError):
            codecs.read("avro", damaged)
        return
    place = data.draw(st.integers(len(avro.MAGIC), len(whole) - 1))
    damaged = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    try:
        bodies = codecs.read("avro", damaged).bodies
    except EventError:
        return
    assert all(type(body) is dict for body in bodies)


def test_a_schema_made_of_the_first_event(codecs):
    event = {"a": 1, "b": 1 << 40, "c": 1.5, "d": True, "e": "x", "f": {"g": ["y"]}, "h": {"f": {"i": 1}}}
    data = codecs.write("avro", [event, {"a": None}], auto_schema=True)
    reader = fastavro.reader(io.BytesIO(data))
    assert list(reader) == [event, {**dict.fromkeys(event), "a": None}]
    types = {field["name"]: field["type"][1] for field in reader.writer_schema["fields"]}
    assert (types["a"], types["b"], types["c"], types["d"], types["e"]) == (
        "int",
        "long",
        "double",
        "boolean",
        "string",
    )
    assert (types["f"]["name"], types["h"]["name"], types["h"]["fields"][0]["type"][1]["name"]) == ("F", "H", "F_2")


def test_names_of_fields_may_have_letters_of_any_script(codecs):
    event = {"größe": 1, "名前": {"é_2": "x"}}
    data = codecs.write("avro", [event], auto_schema=True)
    assert list(fastavro.reader(io.BytesIO(data))) == [event] == codecs.read("avro", data).bodies


def field_of(kind):
    return {"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}


LINKED = {
    "type": "record",
    "name": "Node",
    "namespace": "n",
    "fields": [{"name": "v", "type": "float"}, {"name": "next", "type": ["null", "n.Node"]}],
}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("float", 0.1),
        ("float", 1e30),
        (["null", "float"], 3.14159),
        (["null", "float"], None),
        (["float", "string"], "x"),
        ({"type": "array", "items": ["null", "float"]}, [0.1, None]),
        ({"type": "map", "values": {"type": "array", "items": "float"}}, {"a": [0.3]}),
        (LINKED, {"v": 0.1, "next": {"v": 0.2, "next": None}}),
        (["null", LINKED], {"v": 0.7, "next": None}),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "A"),
        ("double", 0.10000000149011612),
    ],
)
def test_numbers_of_single_precision_have_the_digits_they_are_written_with(codecs, kind, value):
    single = {"name": "single", "type": "float"}
    schema = {**field_of(kind), "fields": [*field_of(kind)["fields"], single]}
    assert codecs.read("avro", container(schema, [{"f": value, "single": 0.6}])).bodies == [{"f": value, "single": 0.6}]


def test_a_number_that_may_be_of_either_precision_stays_as_it_is(codecs):
    read = codecs.read(
        "avro", container(field_of(["float", "double"]), [{"f": ("float", 0.1)}, {"f": ("double", 0.1)}])
    )
    assert read.bodies == [{"f": 0.10000000149011612}, {"f": 0.1}]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"a": None}], "a provided value is null. key='a'"),
        ([{"a": []}], "a provided list is empty"),
        ([{"a": 1 << 70}], "not a recognized type"),
        ([{"a b": 1}], "'a b' is no name of a field"),
        ([{"a": 1}, {"a": 1, "b": 2}], r"The event has a key \('b'\) which is not included in the schema"),
        ([{"a": {"b": 1}}, {"a": {"c": 1}}], r"The event has a key \('c'\) which is not included in the schema"),
        ([{"a": 1}, {"a": "x"}], "The event does not fit the schema"),
    ],
)
def test_events_that_a_made_schema_cannot_take(codecs, events, message):
    with pytest.raises(EventError, match=message):
        codecs.write("avro", events, auto_schema=True)


def test_a_refused_batch_leaves_nothing_behind(codecs):
    encoder = codecs.output("avro", schema=json.dumps(PERSON)).encoder()
    data = encoder.start() + encoder.write(Batch([{"name": "Ada"}]))
    with pytest.raises(EventError):
        encoder.write(Batch([{"name": "Bob"}, {"name": None}]))
    data += encoder.write(Batch([{"name": "Cyd", "unknown": 1}])) + encoder.finish()
    assert [record["name"] for record in fastavro.reader(io.BytesIO(data))] == ["Ada", "Cyd"]


def schema_of_a(kind):
    return json.dumps({"type": "record", "name": "E", "fields": [{"name": "a", "type": kind}]})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("boolean", [None, 0, 1, "true", {}]),
        ("int", [True, "1", 1 << 31, -(1 << 31) - 1, 1.5, 1e300, float("nan"), Decimal("0.5"), None]),
        ("long", [False, "1", 1 << 63, 2.5, float("inf"), Decimal("NaN")]),
        ("float", [True, "1.5", None]),
        ("double", [False, "1", []]),
        ({"type": "array", "items": "int"}, [{}, "ab", [1, True], [1 << 40]]),
        ({"type": "map", "values": "boolean"}, [[], {"k": 1}]),
        ({"type": "record", "name": "A", "fields": [{"name": "b", "type": "int"}]}, [{"b": "1"}, [], {"b": 1 << 31}]),
        (["null", "int"], [True, "1", 1 << 31, 1.5]),
        ("null", [0, "", False]),
        ({"type": "int", "logicalType": "date"}, [1 << 31, True]),
    ],
)
def test_no_value_is_changed_to_fit_a_schema(codecs, kind, values):
    for value in values:
        with pytest.raises(EventError, match="The event does not fit the schema"):
            codecs.write("avro", [{"a": value}], schema=schema_of_a(kind))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", 3.0),
        ("int", Decimal("-7")),
        ("long", 1 << 62),
        ("double", 5),
        ("double", Decimal("2.5")),
        ({"type": "map", "values": {"type": "array", "items": "boolean"}}, {"k": [True]}),
        ({"type": "record", "name": "A", "fields": [{"name": "n", "type": ["null", "A"]}]}, {"n": {"n": None}}),
        ({"type": "long", "logicalType": "timestamp-millis"}, 5),
    ],
)
def test_values_that_fit_a_schema(codecs, kind, value):
    data = codecs.write("avro", [{"a": value}], schema=schema_of_a(kind))
    assert codecs.read("avro", data).bodies == [{"a": value}]


def test_keys_of_the_sink(codecs):
    sink = {"include_keys": ("a",), "tags_target_key": "tags"}
    batch = Batch([{"a": 1, "b": 2}])
    batch.tag(0, ["t"])
    data = codecs.write("avro", batch, sink=sink, auto_schema=True)
    assert list(fastavro.reader(io.BytesIO(data))) == [{"a": 1, "tags": ["t"]}]
    with pytest.raises(ConfigError, match="Providing a user-defined schema and using sink include or exclude keys"):
        codecs.output("avro", {"include_keys": ("a",)}, schema=json.dumps(PERSON))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "requires either defining a schema or setting auto_schema to true"),
        (
            {"schema": json.dumps(PERSON), "auto_schema": True},
            "requires either defining a schema or setting auto_schema",
        ),
        ({"schema": "{"}, "There is an error in the schema"),
        ({"schema": '"string"'}, "There is an error in the schema: it is no record"),
        ({"schema": '{"type": "record", "name": "A", "fields": [{"name": "a", "type": "x"}]}'}, "There is an error"),
    ],
)
def test_options(codecs, options, message):
    with pytest.raises(ConfigError, match=message):
        codecs.output("avro", **options)


def test_nothing_written_is_no_container_or_an_empty_one(codecs):
    assert codecs.write("avro", auto_schema=True) == b""
    assert codecs.read("avro", codecs.write("avro", schema=json.dumps(PERSON))).bodies == []


@pytest.mark.parametrize(("name", "package"), [("avro", "fastavro"), ("parquet", "pyarrow")])
def test_without_the_library_the_extra_is_named(codecs, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the Python package {package}; .*penstock\[{name}\]"):
        codecs.decoder(name)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers(value):
    data = avro.long_bytes(value)
    assert avro.long_at(data + b"\x7f", 0) == (value, len(data))
