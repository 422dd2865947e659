import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.nodes import DEPTH_MAX, DUPLICATES_MAX, YamlError, locate, read_nodes, value_of


def load(text):
    node = read_nodes(text.encode() if isinstance(text, str) else text).root
    return None if node is None else value_of(node)


def refused(text):
    with pytest.raises(YamlError) as error:
        load(text)
    return error.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("~", None),
        ("''", ""),
        ("0x1F", 31),
        ("-0b101", -5),
        ("010", 8),
        ("08", "08"),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("12:30:45", "12:30:45"),
        ("2024-02-05", "2024-02-05"),
        ("1.2.3", "1.2.3"),
        ("-", [None]),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("! 5", "5"),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_1_says(text, value):
    assert load(text) == value
    assert type(load(text)) is type(value)


def test_keys_are_texts_whatever_they_look_like():
    assert load("1: a\ntrue: b\n~: c\n'x y': d") == {"1": "a", "true": "b", "~": "c", "x y": "d"}


def test_every_value_knows_its_line():
    node = read_nodes(b"a:\n  b:\n    - c\n    - d: 1\n      e: 2\n").root
    assert [locate(node, path) for path in [(), ("a",), ("a", "b"), ("a", "b", 1), ("a", "b", 1, "e"), ("a", "x")]] == [
        1,
        1,
        2,
        4,
        5,
        1,
    ]


def test_anchors_and_merge_keys():
    text = "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nlist: [*b, &s text, *s]\nmany: {<<: [{z: 1}, {z: 2, w: 3}]}"
    assert load(text) == {
        "base": {"x": 1, "y": 2},
        "use": {"x": 1, "y": 3},
        "list": [{"x": 1, "y": 2}, "text", "text"],
        "many": {"z": 1, "w": 3},
    }


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: [1, 2\nb: 3\n", 2, "flow sequence"),
        ("a:\n\t- b", 2, "token"),
        ("a: *x", 1, "anchor"),
        ("a: &x [1, *x]", 1, "inside its own anchor"),
        ("? [a]\n: b", 1, "a key must be a text"),
        ("a:\n  b: !python/object:os.system x", 2, "not supported"),
        ("a: !!binary aGk=", 1, "not supported"),
        ("a: 1\nb: \x00", 2, "not allowed"),
        (b"a: 1\nb: \xff\xfe", 2, "UTF-8"),
        ("<<: 5", 1, "merge key"),
    ],
)
def test_what_cannot_be_read_is_located(text, line, reason):
    error = refused(text)
    assert error.line == line
    assert reason in str(error)


def test_aliases_cannot_blow_up():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert "values" in str(refused("\n".join(lines)))


def test_nesting_is_bounded_with_and_without_aliases():
    assert "levels" in str(refused("[" * 5000 + "]" * 5000))
    assert "levels" in str(refused("\n".join("  " * n + "a:" for n in range(500))))
    half = DEPTH_MAX // 2 + 1
    deep = "a: &a " + "[" * half + "]" * half + "\nb: " + "[" * half + "*a" + "]" * half
    assert "levels" in str(refused(deep))


def test_a_second_document_is_not_read_but_told():
    node, warnings, _ = read_nodes(b"a: 1\n---\nb: 2\n")
    assert value_of(node) == {"a": 1}
    assert [warning.line for warning in warnings] == [2]


def test_byte_order_marks_and_empty_texts():
    assert load("\ufeffa: 1") == {"a": 1}
    assert load("a: ü".encode("utf-16")) == {"a": "ü"}
    assert load("") is None
    assert load("# nothing\n") is None


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "value", "duplicates"),
    [
        ("a: 1\nb: 2\na: 3\n", {"a": 1, "b": 2}, [(3, "Duplicate field 'a'", "a stands in line 1 already")]),
        (
            "a: {b: 1, b: [{c: 2}], d: 3}",
            {"a": {"b": 1, "d": 3}},
            [(1, "Duplicate field 'b'", "b stands in line 1 alr")],
        ),
        (
            "a: &x 1\na: &y 2\nb: *y\n*x : 5\n? *x\n: 6",
            {"a": 1, "b": 2, "1": 5},
            [(2, "field 'a'", ""), (5, "'1'", "")],
        ),
        ("a:\n  b: 1\na:\n  b: 2\n  b: 3", {"a": {"b": 1}}, [(3, "field 'a'", ""), (5, "field 'b'", "line 4")]),
    ],
)
def test_a_key_that_stands_twice_is_told_and_the_rest_is_read(text, value, duplicates):
    reading = read_nodes(text.encode())
    assert value_of(reading.root) == value
    assert len(reading.duplicates) == len(duplicates)
    for found, (line, message, suggestion) in zip(reading.duplicates, duplicates, strict=True):
        assert found.line == line
        assert message in str(found)
        assert suggestion in found.suggestion


def test_no_more_than_so_many_duplicates_are_told():
    assert len(read_nodes(b"a: 1\n" * 5000).duplicates) == DUPLICATES_MAX


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n\t- b", "spaces"),
        ("a:\n  b: 1\n\tc: 2", "spaces"),
        ("a: @timestamp", "quotes around values that"),
        ("a: %{x}", "%, @"),
        ("a: %{x}\n" * 3, "%, @"),
        ("a:\n  b: 1\n c: 2", "same column"),
        ("a: b: c", "colon"),
        (b"a: \xfc", "UTF-8"),
    ],
)
def test_usual_slips_come_with_a_hint(text, hint):
    assert hint in refused(text).suggestion


@given(plain)
def test_what_is_dumped_is_read_back(value):
    text = yaml.safe_dump(value)
    assert load(text) == _with_text_keys(value)


def _with_text_keys(value):
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


@given(st.text() | st.binary())
def test_any_text_is_read_or_refused(text):
    try:
        load(text)
    except YamlError as error:
        assert str(error)
    except UnicodeEncodeError:
        assert isinstance(text, str)  # half a surrogate pair is no text that a file could hold
