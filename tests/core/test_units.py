import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.units import parse_bytes, parse_duration, parse_version, version_compatible


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("100ms", 0.1),
        ("P1DT2H", 93_600),
        ("PT1.5S", 1.5),
        ("-PT1M", -60),
        ("PT-1M", -60),
        ("-PT-6H+3M", 6 * 3600 - 180),
        ("PT-0.5S", -0.5),
        ("P1D", 86_400),
        ("pt20.345s", 20.345),
        ("PT0,5S", 0.5),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1DT", "5m", "1h", "05s", "1.5s", "-1s", "P1Y", "P1W", "PT1H1D", 5, None, "s"]
)
def test_no_durations(text):
    with pytest.raises(ValueError, match="Durations must use either ISO 8601 notation"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "Byte counts must have a unit. Valid byte units include: [b, kb, mb, gb]"),
        ("1MB", "Invalid byte unit: 'MB'. Valid byte units include: [b, kb, mb, gb]"),
        ("1.5b", "The byte value '1.5b' is explicitly declared as a fractional byte which is not allowed."),
        ("1 mb", "Unable to parse bytes provided by '1 mb'"),
        ("-1b", "Unable to parse bytes provided by '-1b'"),
    ],
)
def test_messages_of_byte_counts(text, message):
    with pytest.raises(ValueError) as caught:
        parse_bytes(text)
    assert str(caught.value) == message


@given(st.integers(0, 10**6), st.sampled_from(["b", "kb", "mb", "gb"]))
def test_byte_counts_grow_by_1024(count, unit):
    assert parse_bytes(f"{count}{unit}") == count * 1024 ** ["b", "kb", "mb", "gb"].index(unit)
    if unit != "b":
        assert parse_bytes(f"{count}.5{unit}") * 2 == parse_bytes(f"{2 * count + 1}{unit}")


def test_versions():
    with pytest.raises(ValueError) as caught:
        parse_version("2.x")
    assert str(caught.value) == "Invalid Data Prepper Version provided: 2.x"
    assert version_compatible(parse_version(2), parse_version("2.17"))
    assert not version_compatible(parse_version("2.18"), parse_version("2.17"))
