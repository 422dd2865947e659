"""Adding values: what the examples do not say."""

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
    return [result.body for result in run_processor("add_entries", {"entries": config}, list(before))]


def test_events_do_not_share_a_value():
    first, second = bodies([{"key": "list", "value": [{}]}], {}, {})
    assert first["list"] is not second["list"]
    assert first["list"][0] is not second["list"][0]


def test_what_is_missing_in_a_format_is_nothing():
    assert bodies([{"key": "x", "format": "<${gone}>"}], {}, {"gone": None}) == [{"x": "<>"}, {"gone": None, "x": "<>"}]
    assert bodies([{"key": "x", "format": "<${/gone}>"}], {}) == [{"x": "<>"}]


def test_an_entry_that_fails_does_not_keep_the_next_from_running():
    assert bodies([{"key": "a/b", "value": 1}, {"key": "c", "value": 2}], {"a": "text"}) == [{"a": "text", "c": 2}]


def test_an_expression_that_cannot_be_evaluated_leaves_the_event_alone():
    assert bodies([{"key": "x", "value_expression": "/a + /b"}], {"a": 1}) == [{"a": 1}]


def test_a_list_with_something_else_in_it_is_left_alone():
    entry = {"key": "x", "value": 1, "iterate_on": "list"}
    assert bodies([entry], {"list": [{}, 1]}, {"list": "no"}, {}) == [{"list": [{}, 1]}, {"list": "no"}, {}]


def test_metadata_can_be_read_by_the_next_entry():
    entries = [
        {"metadata_key": "app", "value": "shop"},
        {"key": "index", "format": 'logs-${getMetadata("app")}'},
    ]
    (result,) = run_processor("add_entries", {"entries": entries}, [{}])
    assert (result.body, result.metadata) == ({"index": "logs-shop"}, {"app": "shop"})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"key": "k"}, "Exactly one of value, format, or value_expression must be specified"),
        (
            {"key": "k", "value": 1, "format": "x"},
            "Exactly one of value, format, or value_expression must be specified",
        ),
        (
            {"key": "k", "value": 1, "overwrite_if_key_exists": True, "append_if_key_exists": True},
            "overwrite_if_key_exists and append_if_key_exists can not be set to true at the same time.",
        ),
        ({"key": "k", "value": 1, "flatten_key": False}, "flatten_key=false must be used with iterate_on."),
        (
            {"key": "k", "value": 1, "disable_root_keys": False},
            "disable_root_keys=false only applies when iterate_on is configured.",
        ),
        (
            {"key": "k", "value": 1, "iterate_on": "l", "evaluate_when_on_element": True},
            "evaluate_when_on_element only applies when both iterate_on and add_to_element_when are configured.",
        ),
        ({"value": 1}, "Exactly one of key or metadata_key must be specified."),
        ({"key": "a|b", "value": 1}, "key a|b must contain only alphanumeric chars"),
    ],
)
def test_refused_options(entry, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("add_entries", {"entries": [entry]})
    assert message in str(caught.value)


@given(events, keys, st.booleans(), st.booleans(), st.sampled_from([{"value": [1]}, {"format": "${a}-${/b}"}]))
def test_any_event_survives(run_unharmed, before, key, overwrite, iterate, what):
    entry = {"key": key, "overwrite_if_key_exists": overwrite, "append_if_key_exists": not overwrite, **what}
    if iterate:
        entry |= {"iterate_on": "a", "flatten_key": False}
    run_unharmed("add_entries", {"entries": [entry]}, before)


@given(events, keys)
def test_what_is_there_stays_unless_it_is_to_be_replaced(before, key):
    once = bodies([{"key": key, "value": "new"}], *before)
    assert bodies([{"key": key, "value": "other"}], *once) == once
