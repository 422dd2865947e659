import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import json_text
from penstock.core.errors import EventError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
def test_what_was_written_is_read_again(value):
    text = json_text.encode(value)
    assert json_text.decode(text) == value
    assert json.loads(text) == value


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_are_plain_numbers_without_loss(number):
    text = json_text.encode({"n": number}).decode()
    digits = text.removeprefix('{"n":').removesuffix("}")
    assert Decimal(digits) == number
    assert "E" not in digits.upper() or abs(number.adjusted()) > json_text.PLAIN_DIGITS_MAX


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("3.937E+4"), "39370"),
        (Decimal("1.10"), "1.10"),
        (Decimal("NaN"), "null"),
        (float("inf"), "null"),
        ([2**64, Decimal("1E+2"), float("nan"), None, True], "[18446744073709551616,100,null,null,true]"),
        ({"\ud800": ["\udfff", 10**30]}, '{"\ufffd":["\ufffd",1000000000000000000000000000000]}'),
    ],
)
def test_unusual_values(value, text):
    assert json_text.encode(value).decode() == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (rb'{"\ud800":"\udc00x"}', {"\ufffd": "\ufffdx"}),
        (b"[1e400]", [Decimal("1e400")]),
        ("[-0, 1.0]", [0, 1.0]),
    ],
)
def test_valid_but_unusual_text(text, value):
    assert json_text.decode(text) == value


@given(st.binary(max_size=40) | st.text('[]{}",:\\u d8019eE+-.NaIfty', max_size=40))
def test_any_input_decodes_or_is_a_value_error(text):
    try:
        json_text.decode(text)
    except ValueError:
        return


@pytest.mark.parametrize(
    "text", [b"NaN", b"[Infinity]", b"{", b"", b"1" * 5000, b"[1e9999999999999999999999]", b"\xff"]
)
def test_malformed_text(text):
    with pytest.raises(ValueError):
        json_text.decode(text)


def test_deep_nesting_is_an_error_and_no_crash():
    with pytest.raises(ValueError, match="nested too deeply"):
        json_text.decode(b"[" * 100_000)
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(EventError, match="nested too deeply"):
        json_text.encode(nested)
    while nested:  # taken apart by hand: freeing it at once would recurse as deep
        nested = nested[0]


def test_nesting_beyond_the_fast_encoder_is_written():
    nested = []
    for _ in range(400):
        nested = [nested]
    assert json_text.decode(json_text.encode(nested)) == nested


@pytest.mark.parametrize("value", [{1: 2}, {"a": b"bytes"}, {"a": object()}, [10**5000]])
def test_what_json_cannot_hold_is_an_event_error(value):
    with pytest.raises(EventError, match="cannot be written as JSON"):
        json_text.encode(value)


@pytest.mark.parametrize(
    "value", [{"a": 1}, {"d": Decimal("12.50")}, {"d": Decimal("1E+3")}, {"d": Decimal("NaN")}, {"n": 2**70}, "\ud800"]
)
def test_a_line_is_the_text_and_a_newline(value):
    assert json_text.encode_line(value) == json_text.encode(value) + b"\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Decimal("12.50"), b"12.50"),
        (Decimal("1E-9"), b"0.000000001"),
        (Decimal("-0"), b"-0"),
        (Decimal("3.937E+4"), b"39370"),
        (Decimal("sNaN12"), b"null"),
        (Decimal("-Infinity"), b"null"),
    ],
)
def test_decimals_are_plain_numbers(number, text):
    assert json_text.encode(number) == text
