"""Copying values: what the examples do not say."""

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
    return [result.body for result in run_processor("copy_values", config, list(before))]


def test_a_copy_shares_nothing_with_its_origin():
    (body,) = bodies({"entries": [{"from_key": "a", "to_key": "b"}]}, {"a": {"list": [1]}})
    body["a"]["list"].append(2)
    assert body["b"] == {"list": [1]}


def test_an_existing_list_stays_unless_it_is_to_be_replaced():
    config = {"from_list": "l", "to_list": "m", "entries": [{"from_key": "x", "to_key": "y"}]}
    assert bodies(config, {"l": [{"x": 1}], "m": 0}) == [{"l": [{"x": 1}], "m": 0}]
    config["overwrite_if_to_list_exists"] = True
    assert bodies(config, {"l": [{"x": 1}, {}], "m": 0}) == [{"l": [{"x": 1}, {}], "m": [{"y": 1}, {}]}]


def test_the_condition_of_an_entry_is_about_the_event():
    entries = [{"from_key": "x", "to_key": "y", "copy_when": "/go == true"}, {"from_key": "x", "to_key": "z"}]
    config = {"from_list": "l", "to_list": "m", "entries": entries}
    first, second = bodies(config, {"go": True, "l": [{"x": 1}]}, {"l": [{"x": 1}]})
    assert (first["m"], second["m"]) == ([{"y": 1, "z": 1}], [{"z": 1}])


def test_lists_come_in_pairs():
    with pytest.raises(ConfigError, match="Both from_list and to_list should be specified when copying entries"):
        build_processor("copy_values", {"to_list": "m", "entries": [{"from_key": "x", "to_key": "y"}]})


@given(events, keys, keys, st.booleans(), st.booleans())
def test_any_event_survives(run_unharmed, before, source, target, overwrite, lists):
    config = {"entries": [{"from_key": source, "to_key": target, "overwrite_if_to_key_exists": overwrite}]}
    if lists:
        config |= {"from_list": source, "to_list": target, "overwrite_if_to_list_exists": overwrite}
    run_unharmed("copy_values", config, before)
