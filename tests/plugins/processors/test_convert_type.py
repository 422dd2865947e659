"""Converting values: what the examples do not say."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigError
from penstock.testing import run_processor
from penstock.testing.processors import build_processor

names = st.sampled_from(["a", "b", "c", "0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
events = st.lists(st.dictionaries(names, values, max_size=4), max_size=3)
keys = st.sampled_from(["a", "b", "a/b", "b/c", "a/0", "c/a/b", "b/0/a"])
types = st.sampled_from(["integer", "string", "double", "boolean", "long", "big_decimal"])
STAYS = object()


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        ("integer", "+7", 7),
        ("integer", " 7", STAYS),
        ("integer", "7.5", STAYS),
        ("integer", "2147483648", STAYS),
        ("integer", 2147483648, STAYS),
        ("integer", 1.0, STAYS),
        ("integer", True, 1),
        ("integer", Decimal("1.9"), 1),
        ("long", "9223372036854775807", 2**63 - 1),
        ("long", 2**63, STAYS),
        ("long", -(2**63) - 1, STAYS),
        ("long", -(2**63), -(2**63)),
        ("long", 1.9, 1),
        ("long", -1e30, -(2**63)),
        ("double", " 1e3 ", 1000.0),
        ("double", "1,5", STAYS),
        ("double", False, 0.0),
        ("boolean", "TRUE", True),
        ("boolean", "yes", False),
        ("boolean", 0.0, False),
        ("string", 1e7, "1.0E7"),
        ("string", True, "true"),
        ("string", {"a": 1}, STAYS),
        ("big_decimal", "1.50", Decimal("1.50")),
        ("big_decimal", "1_0", STAYS),
        ("big_decimal", "NaN", STAYS),
        ("string", [1, "a"], ["1", "a"]),
        ("integer", ["1", "x"], STAYS),
        ("integer", None, None),
    ],
)
def test_conversions(target, value, expected):
    config = {"key": "k", "type": target, "tags_on_failure": ["bad"]}
    (result,) = run_processor("convert_type", config, [{"k": value}])
    wanted = value if expected is STAYS else expected
    assert result.body["k"] == wanted
    assert type(result.body["k"]) is type(wanted)
    assert result.tags == (["bad"] if expected is STAYS else [])


def test_the_old_name_still_works():
    assert run_processor("convert_entry_type", {"key": "k"}, [{"k": "1"}])[0].body == {"k": 1}


def test_one_bad_element_does_not_keep_the_others():
    config = {"key": "n", "iterate_on": "list", "tags_on_failure": ["bad"]}
    (result,) = run_processor("convert_type", config, [{"list": [{"n": "x"}, {"n": "2"}]}])
    assert (result.body, result.tags) == ({"list": [{"n": "x"}, {"n": 2}]}, ["bad"])


def test_guessing():
    before = {
        "deep": [{"t": "True"}, "1.5e3"],
        "big": "9223372036854775808",
        "v": "1.2.3",
        "d": "5f",
        "e": "",
        "x": "-12",
    }
    (result,) = run_processor("convert_type", {"coerce_strings": None}, [before])
    assert result.body == {
        "deep": [{"t": True}, 1500.0],
        "big": "9223372036854775808",
        "v": "1.2.3",
        "d": "5f",
        "e": "",
        "x": -12,
    }
    config = {"coerce_strings": {"time_formats": ["yyyy/MM/dd"]}}
    assert run_processor("convert_type", config, [{"d": "1970/01/02"}])[0].body == {"d": 86_400_000}


def test_the_condition_is_asked_once():
    config = {"keys": ["a", "bad", "b"], "convert_when": '/a == "1"', "tags_on_failure": ["failed"]}
    results = run_processor("convert_type", config, [{"a": "1", "bad": "x", "b": "2"}, {"a": "2", "b": "2"}])
    assert [result.body for result in results] == [{"a": 1, "bad": "x", "b": 2}, {"a": "2", "b": "2"}]
    assert [result.tags for result in results] == [["failed"], []]


@pytest.mark.parametrize("when", [{}, {"convert_when": '/a == "5"'}])
def test_a_type_that_is_named_wins_over_a_guess(when):
    config = {"coerce_strings": {}, "keys": ["a"], "type": "string", **when}
    (result,) = run_processor("convert_type", config, [{"a": "5", "b": "5"}])
    assert result.body == {"a": "5", "b": 5}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "key, keys, and coerceStrings all cannot be null. One must be provided."),
        ({"key": "a", "keys": ["b"]}, "key and keys cannot both be defined."),
        ({"key": ""}, "key cannot be empty."),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("convert_type", config)
    assert message in str(caught.value)


@given(events, keys, types, st.sampled_from([0, 3, -2]))
def test_any_event_survives(run_unharmed, before, key, target, scale):
    config = {"key": key, "type": target, "scale": scale, "tags_on_failure": ["failed"]}
    once = run_unharmed("convert_type", config, before)
    if target not in ("integer", "long", "big_decimal"):
        again = run_unharmed("convert_type", config, once)
        assert [repr(body) for body in again] == [repr(body) for body in once], "converting twice changes nothing"


@given(events)
def test_guessing_survives_any_event(run_unharmed, before):
    run_unharmed("convert_type", {"coerce_strings": {}}, before)


def test_a_number_that_would_fill_the_memory_with_zeros_fails() -> None:
    config = {"key": "n", "type": "big_decimal", "scale": 2, "tags_on_failure": ["bad"]}
    (result,) = run_processor("convert_type", config, [{"n": "1E+999999999"}])
    assert (result.body, result.tags) == ({"n": "1E+999999999"}, ["bad"])


def test_values_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    run_processor("convert_type", {"key": "n", "type": "integer"}, [{"n": "secret 4711"}])
    assert "Unable to convert key: n to integer" in caplog.text
    assert "4711" not in caplog.text
