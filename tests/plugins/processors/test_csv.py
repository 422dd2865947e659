"""Separated values: what the examples and the vectors do not say."""

import csv as stdlib_csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigError, EventError
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.lib.csv_rows import compile_row_reader
from penstock.plugins.processors import csv
from penstock.sdk import Batch, Context, copy_value
from penstock.testing import run_processor


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("a", ["a"]),
        ("a,", ["a", ""]),
        (",", ["", ""]),
        (" a , b ", [" a ", " b "]),
        ("a\nb,c", ["a"]),
        ("\na", [""]),
        ("a\r\nb", ["a"]),
        ('a,"b\nc",d\ne', ["a", "b\nc", "d"]),
        ('"a""b"', ['a"b']),
        ('"a" \t, "b"', ["a", ' "b"']),
        ('a"b,c""', ['a"b', 'c""']),
        ('"",""', ["", ""]),
        ('"a"\r\n', ["a"]),
        ('"' + "x" * 200_000 + '",y', ["x" * 200_000, "y"]),
    ],
)
def test_lines(text, row):
    assert csv.compile_row(",", '"')(text) == row


@pytest.mark.parametrize(
    "text", ['"', '"a', '"a"b', '"a""', 'a,"b" c', '"' * 5_000_001, "," * 5_000_000, '"a",' * 20_000]
)
def test_what_cannot_be_split_is_an_error_of_the_event(text):
    with pytest.raises(EventError):
        csv.compile_row(",", '"')(text)


@given(
    st.lists(st.text(st.sampled_from("ab ,;'\"\t|\\"), max_size=6), min_size=1, max_size=5),
    st.sampled_from([",", "\t", "|", ";", "\\", " ", "^", "-", "]"]),
    st.sampled_from(['"', "'"]),
)
def test_what_was_written_is_read(row, delimiter, quote):
    text = io.StringIO()
    stdlib_csv.writer(text, delimiter=delimiter, quotechar=quote, quoting=stdlib_csv.QUOTE_ALL).writerow(row)
    assert csv.compile_row(delimiter, quote)(text.getvalue()) == row
    assert compile_row_reader(delimiter, quote, 9)(text.getvalue(), 0)[0] == row


@given(st.text(st.sampled_from('ab ,"\r\n'), max_size=12))
def test_the_fast_way_and_the_exact_one_agree(text):
    def outcome(read):
        try:
            return read(text)
        except EventError as error:
            return error.cause

    exactly = compile_row_reader(",", '"', 99)
    assert outcome(csv.compile_row(",", '"')) == outcome(lambda text: exactly(text, 0)[0])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"delimiter": ",,"}, "delimiter must be exactly one character."),
        ({"delimiter": ""}, "delimiter must be exactly one character."),
        ({"quote_character": ""}, "quote_character must be exactly one character."),
        ({"delimiter": '"'}, "quote_character and delimiter cannot be the same character"),
        ({"source": " "}, "source"),
    ],
)
def test_rules(config, message):
    with pytest.raises(ConfigError, match=message):
        run_processor("csv", config, [])


def bodies(config, *before):
    return [result.body for result in run_processor("csv", config, list(before))]


def test_names_are_keys():
    assert bodies({"column_names": ["a/b", "c"]}, {"message": "1,2"}) == [{"message": "1,2", "a": {"b": "1"}, "c": "2"}]
    assert bodies({"column_names": ["a%", "c"]}, {"message": "1,2"}) == [{"message": "1,2"}]
    assert bodies({"column_names": ["a", "c%"]}, {"message": "1"}) == [{"message": "1", "a": "1"}]
    assert bodies({"column_names": ["a%", "0"], "normalize_keys": True}, {"message": "1"}) == [
        {"message": "1", "a_": "1"}
    ]


def test_columns_named_like_the_source_or_the_header_stay():
    delete = {"delete_source": True, "column_names": ["message", "x"]}
    assert bodies(delete, {"message": "1"}) == [{"message": "1"}]
    header = {"delete_source": True, "column_names_source_key": "h"}
    assert bodies(header, {"message": "1,2", "h": "h,message"}) == [{"h": "1", "message": "2"}]


def test_a_header_that_cannot_be_read_names_no_columns():
    config = {"column_names_source_key": "h", "column_names": ["unused"]}
    for header in ("", '"', None):
        assert bodies(config, {"message": "1", "h": header}) == [{"message": "1", "column1": "1"}]
    assert bodies(config, {"message": "1", "h": {}}) == [{"message": "1", "h": {}}]


def test_numbers_are_text_and_an_empty_text_loses_header_and_source():
    assert bodies({}, {"message": 12}) == [{"message": 12, "column1": "12"}]
    assert bodies({"delete_source": True, "column_names_source_key": "h"}, {"message": "", "h": "a"}) == [{}]


def test_invalid_events_are_counted_and_unchanged():
    registry = Registry()
    run = csv.build(csv.Config(), Context("p", "csv", registry=registry))
    events = [{"message": '"'}, {"message": ["1,2"]}, {"message": "," * 20_000}, {"message": "1"}, {}]
    result = run(Batch([dict(event) for event in events]))
    assert result.bodies[:3] == events[:3]
    assert registry.value("p.csv.csvInvalidEvents") == 3


def test_rows_carry_the_promise_of_their_text():
    outcomes = []
    registry = Registry()
    options = {"multiline": True, "csv_when": "/skip == null"}
    run = csv.build(csv.Config.model_validate(options), Context("p", "csv", registry=registry))
    events = [
        {"message": "a,b\r\n\r\n1,2\n3"},
        {"message": "only a header\n"},
        {"message": "a\n1", "skip": True},
        {"other": 1},
        {"message": 'a\n1\n"'},
        {"message": "\na\n1"},
    ]
    batch, handle = Batch(events), Handle(outcomes.append)
    batch.promise(handle)
    handle.seal()
    batch.tag(0, ["seen"])
    result = run(batch)
    text = events[0]["message"]
    rows = [{"message": text, "a": "1", "b": "2"}, {"message": text, "a": "3"}]
    assert result.bodies == [*rows, *events[2:5], {"message": "\na\n1", "a": "1"}]
    assert [sorted(result.peek(place).tags) for place in range(3)] == [["seen"], ["seen"], []]
    assert handle.pending == len(result) == 6
    assert registry.value("p.csv.csvEventsWithoutRows") == 1
    assert registry.value("p.csv.csvInvalidEvents") == 1
    result.tag(0, ["own"])
    assert "own" not in result.peek(1).tags
    result.release_all(ok=True)
    assert outcomes == [True]


def test_rows_of_one_text_have_a_limit():
    (result,) = run_processor("csv", {"multiline": True}, [{"message": "a\n" + "1\n" * 2_000_000}])
    assert set(result.body) == {"message"}


names = st.sampled_from(["message", "h", "a", "0", "a|b", ""])
lines = st.text(st.sampled_from('ah0/,"\n |'), max_size=10)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | lines | st.text(st.characters(codec=None), max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["message", "a", "h", "a/h", "message/0"])
configs = st.fixed_dictionaries(
    {},
    optional={
        "source": keys,
        "column_names_source_key": keys,
        "column_names": st.lists(names, max_size=3),
        "delete_source": st.booleans(),
        "delete_header": st.booleans(),
        "normalize_keys": st.booleans(),
        "multiline": st.booleans(),
    },
)


@given(st.lists(st.dictionaries(names, values, max_size=4), max_size=4), configs)
def test_events_are_handled_whole_or_not_at_all(run_unharmed, events, config):
    registry = Registry()
    run = csv.build(csv.Config.model_validate(config), Context("p", "csv", registry=registry))
    for event in events:
        failed_before = registry.value("p.csv.csvInvalidEvents")
        batch = Batch([copy_value(event)])
        batch.promise(Handle())
        result = run(batch)
        if registry.value("p.csv.csvInvalidEvents") > failed_before:
            assert repr(result.bodies) == repr([event])
    run_unharmed("csv", config, events)
