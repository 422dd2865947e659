"""Instants in events."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import EventError
from penstock.lib.instants import instant_text, read_instant


@given(st.integers(-62_135_596_800_000_000_000, 253_402_300_799_999_999_999))
def test_what_is_written_is_read(nanos):
    assert read_instant(instant_text(nanos)) == nanos


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_500_000_000, "1970-01-01T00:00:01.500Z"),
        (1_000_001_000, "1970-01-01T00:00:01.000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (253_402_300_800_000_000_000, "+10000-01-01T00:00:00Z"),
    ],
)
def test_digits_of_the_fraction_come_in_threes(nanos, text):
    assert instant_text(nanos) == text


def test_numbers_are_seconds_or_milliseconds_by_their_size():
    assert read_instant(10_000_000_000) == 10_000_000_000 * 10**9
    assert read_instant(10_000_000_001) == 10_000_000_001 * 10**6
    assert read_instant(1.25) == read_instant(Decimal("1.25")) == 1_250_000_000


@pytest.mark.parametrize("value", [None, True, [], {}, "soon", "", float("inf"), 10**30])
def test_what_is_no_instant(value):
    with pytest.raises(EventError):
        read_instant(value)
