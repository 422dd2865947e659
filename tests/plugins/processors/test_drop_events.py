"""Dropping events: what the examples do not say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.testing import run_processor

names = st.sampled_from(["a", "b", "c", "0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
events = st.lists(st.dictionaries(names, values, max_size=4), max_size=3)
keys = st.sampled_from(["a", "b", "a/b", "b/c", "a/0", "c/a/b", "b/0/a"])


def left(config, *before):
    return [result.body for result in run_processor("drop_events", config, list(before))]


def test_yaml_may_say_true():
    assert left({"drop_when": True}, {}, {"a": 1}) == []


def test_a_condition_without_a_boolean_does_what_the_option_says():
    event = {"a": "text"}
    assert left({"drop_when": "/a"}, event) == [event]
    for kept in ("skip", "SKIP_SILENTLY"):
        assert left({"drop_when": "/a", "handle_failed_events": kept}, event) == [event]
    for dropped in ("drop", "drop_silently"):
        assert left({"drop_when": "/a", "handle_failed_events": dropped}, event) == []


def test_a_condition_that_cannot_be_evaluated_is_false():
    assert left({"drop_when": "length(/a) == 1", "handle_failed_events": "drop"}, {"a": 5}) == [{"a": 5}]


@given(events, st.sampled_from(["/a == 1", '/b == "x"', "/a > /b", "length(/a) > 0", "/c"]))
def test_every_event_is_kept_or_dropped(run_unharmed, before, condition):
    kept = run_unharmed("drop_events", {"drop_when": condition}, before)
    remaining = list(kept)
    for body in before:
        if remaining and remaining[0] == body:
            remaining.pop(0)
    assert not remaining, "what is kept is unchanged and in order"


@pytest.mark.parametrize("condition", [None, ""])
def test_a_condition_is_needed(condition):
    with pytest.raises(ConfigError, match=r"must not be (empty|null)"):
        left({"drop_when": condition})
