"""Removing values: what the examples do not say."""

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


def bodies(config, *before):
    return [result.body for result in run_processor("delete_entries", config, list(before))]


def test_all_keys_or_none():
    event = {"a": 1, "b": ["text"], "d": {"e": 2}}
    assert bodies({"with_keys": ["d/e", "a", "b/0"]}, event) == [event], "an element of a list: the event stays"
    assert bodies({"with_keys": ["a", "b/c"]}, {"a": 1, "b": {"c": 2}}) == [{"b": {}}]


@pytest.mark.parametrize("keys", [["a", "b/c"], ["b/c", "a"], ["b/c", "b/c/d", "a"]])
def test_below_a_value_that_is_no_object_there_is_nothing_to_remove(keys):
    assert bodies({"with_keys": keys}, {"a": 1, "b": "text"}, {"a": 1, "b": None}) == [{"b": "text"}, {"b": None}]


def test_a_regular_expression_has_to_match_the_whole_name():
    assert bodies({"with_keys_regex": ["a"]}, {"a": 1, "ab": 2, "ba": 3}) == [{"ab": 2, "ba": 3}]


def test_elements_of_a_list_are_searched_by_regular_expression_too():
    config = {"with_keys_regex": ["x.*"], "exclude_from_delete": ["x2"], "iterate_on": "list"}
    assert bodies(config, {"x": 0, "list": [{"x1": 1, "x2": 2}, {}]}) == [{"x": 0, "list": [{"x2": 2}, {}]}]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "One of the following must be provided: 'entries', 'with_keys', or 'with_keys_regex'."),
        (
            {"with_keys": ["a"], "with_keys_regex": ["b"]},
            "You can only use one of the following at a time: 'entries', 'with_keys', or 'with_keys_regex'",
        ),
        (
            {"with_keys": ["a"], "exclude_from_delete": ["b"]},
            "exclude_from_delete only applies when with_keys_regex is configured.",
        ),
        ({"with_keys_regex": ["["]}, "Invalid regex pattern in 'with_keys_regex'"),
        ({"entries": [{"with_keys_regex": ["["]}]}, "Invalid regex pattern found in with_keys_regex."),
        (
            {"with_keys": ["a"], "delete_from_element_when": "true"},
            "delete_from_element_when only applies when iterate_on is configured.",
        ),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("delete_entries", config)
    assert message in str(caught.value)


@given(events, st.lists(keys, min_size=1, max_size=3), st.booleans())
def test_any_event_survives(run_unharmed, before, chosen, iterate):
    config = {"with_keys": chosen, **({"iterate_on": "a"} if iterate else {})}
    after = run_unharmed("delete_entries", config, before)
    again = run_unharmed("delete_entries", config, after)
    assert after == again, "what is gone is gone"


def test_a_name_that_yaml_reads_as_a_number_is_a_key():
    [event] = run_processor("delete_entries", {"with_keys": [404, True]}, [{"404": 1, "true": 2, "a": 3}])
    assert event.body == {"a": 3}
