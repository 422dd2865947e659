"""Rows of text."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigError, EventError

VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.text('a,"\n\r', max_size=6)
CUTS = st.lists(st.integers(0, 200), max_size=6)


@given(st.lists(st.lists(VALUES, min_size=2, max_size=2), max_size=6), CUTS, st.sampled_from(["\n", "\r\n"]))
def test_what_another_library_writes_is_read_however_it_is_cut(codecs, rows, cuts, line_end):
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    batch = codecs.read("csv", text.getvalue().encode(), cuts)
    assert batch.bodies == [dict(zip(("a", "b"), row, strict=True)) for row in rows]


@given(st.binary(max_size=60) | st.text('a,"\r\n ', max_size=30).map(str.encode), CUTS)
def test_any_bytes_are_rows_or_an_error_however_they_are_cut(codecs, data, cuts):
    def outcome(cuts):
        try:
            return codecs.read("csv", data, cuts, detect_header=False).bodies
        except EventError as error:
            return str(error)

    assert outcome(cuts) == outcome(())


def test_rows_before_an_error_are_events(codecs):
    decoder = codecs.decoder("csv")
    assert decoder.feed(b"a,b\n1,2\n3,4,5\n6,7\n").bodies == [{"a": "1", "b": "2"}]
    with pytest.raises(EventError, match="Row 2 of the CSV has 3 values, there are 2 columns"):
        decoder.finish()


@given(st.lists(st.lists(VALUES, min_size=2, max_size=2), min_size=1, max_size=4), CUTS, st.sampled_from([" ", "\t "]))
def test_blanks_behind_a_closing_quote_mean_nothing(codecs, rows, cuts, blanks):
    quoted = [['"' + value.replace('"', '""') + '"' + blanks for value in row] for row in rows]
    data = "\r\n".join(["a,b", *map(",".join, quoted), ""]).encode()
    assert codecs.read("csv", data, cuts).bodies == [dict(zip("ab", row, strict=True)) for row in rows]


def test_blanks_before_a_quote_make_it_a_character_like_any_other(codecs):
    assert codecs.read("csv", b'a,b\n"x" , "y"\n').bodies == [{"a": "x", "b": ' "y"'}]


@pytest.mark.parametrize("data", [b'a\n"x', b'a\n"x\n', b'a\n"x"y\n', b'a\n"x" y\n', b'a,b\n"x" ,"y\n'])
def test_a_quote_out_of_place_is_an_error(codecs, data):
    with pytest.raises(EventError, match="cannot be read"):
        codecs.read("csv", data)


def test_columns_are_named_by_the_header_as_far_as_it_goes(codecs):
    options = {"detect_header": False, "header": ["x", "y"]}
    assert codecs.read("csv", b"1,2,3\n4,5\n", **options).bodies == [
        {"x": "1", "y": "2", "column3": "3"},
        {"x": "4", "y": "5"},
    ]
    assert codecs.read("csv", b"1\n", **options).bodies == [{"x": "1"}]
    assert codecs.read("csv", b"1\n", detect_header=False).bodies == [{"column1": "1"}]
    assert codecs.read("csv", b" a ,,c\n1,2,3\n").bodies == [{"a": "1", "column2": "2", "c": "3"}]
    assert codecs.read("csv", b"\xef\xbb\xbfa,b\n1,2", header=["x", "y"]).bodies == [{"a": "1", "b": "2"}]


def test_blank_lines_mean_nothing_but_in_one_column(codecs):
    assert codecs.read("csv", b"\na,b\n\n1,2\n\n").bodies == [{"a": "1", "b": "2"}]
    assert codecs.read("csv", b"a\n1\n\n2\n").bodies == [{"a": "1"}, {"a": ""}, {"a": "2"}]
    assert codecs.read("csv", b"").bodies == []


def test_a_long_quoted_value_takes_linear_work(codecs):
    decoder = codecs.decoder("csv")
    piece = b"line of text\n" * 500
    assert all(len(decoder.feed(data)) == 0 for data in [b'a\n"', *[piece] * 300])
    assert decoder.feed(b'"\n').bodies + decoder.finish().bodies == [{"a": (piece * 300).decode()}]


def test_writing_by_the_names_of_the_header_or_in_the_order_of_the_event(codecs):
    events = [{"age": 1, "name": 'a"b,c'}, {"x": None, "y": [1]}]
    assert codecs.write("csv", events, header=["name", "age"]) == b'name,age\n"a\\"b,c",1\nnull,[1]\n'
    assert codecs.write("csv", events[:1], header=["name", "age"], delimiter=";").splitlines()[1] == b'"a\\"b,c";1'


def test_numbers_with_a_fraction_are_written_as_java_writes_them(codecs):
    values = [1e10, 1e-5, 1e300, 9999999.0, 0.001, 1.5, -0.0, 5]
    data = codecs.write("csv", [{"a": value} for value in values], header=["a"])
    assert data.split()[1:] == b"1.0E10 1.0E-5 1.0E300 9999999.0 0.001 1.5 -0.0 5".split()


def test_events_that_do_not_fit_the_header_are_counted(codecs):
    assert codecs.write("csv", [{"a": 1, "b": 2}, {"a": 3}], header=["a"]) == b"a\n3\n"
    assert codecs.registry.value("p.csv.rowsSkipped") == 1


def test_keys_of_the_sink(codecs):
    data = codecs.write(
        "csv", [{"a": 1, "b": 2}], header=["a", "tags"], sink={"exclude_keys": ("b",), "tags_target_key": "tags"}
    )
    assert data == b"a,tags\n1,[]\n"


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.text(max_size=3), min_size=3), max_size=5))
def test_written_values_are_json(codecs, events):
    data = codecs.write("csv", events, header=["a", "b", "c"])
    rows = [json.loads(b"[" + line + b"]") for line in data.split(b"\n")[1:-1]]
    assert rows == [[event[name] for name in "abc"] for event in events]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("input", {"delimiter": ""}, "delimiter must be exactly one character."),
        ("input", {"quote_character": "''"}, "quote_character must be exactly one character."),
        ("input", {"delimiter": '"'}, "quote_character and delimiter cannot be the same character."),
        ("input", {"header": []}, "header must not be an empty list"),
        ("output", {}, "No header found. Can't proceed without header."),
        ("output", {"header": ["a"], "bucket_name": "b"}, "Header from file is not supported."),
    ],
)
def test_options(codecs, kind, options, message):
    with pytest.raises(ConfigError, match=message):
        (codecs.decoder if kind == "input" else codecs.output)("csv", **options)
