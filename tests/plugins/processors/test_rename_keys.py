"""Moving values: what the examples do not say."""

from collections import Counter

import pytest
from hypothesis import example, given
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
    return [result.body for result in run_processor("rename_keys", config, list(before))]


def renamed(before, source, target, **options):
    return bodies({"entries": [{"from_key": source, "to_key": target, **options}]}, *before)


def test_null_is_a_value():
    assert renamed([{"a": None}], "a", "b") == [{"b": None}]


def test_a_name_that_is_a_number_is_not_lost():
    event = {"a": {"0": 1}, "b": "text"}
    assert renamed([event], "a/0", "b/c") == [event]
    assert renamed([event], "a/0", "c") == [{"a": {}, "b": "text", "c": 1}]


def test_an_element_of_a_list_is_copied():
    event = {"a": [{"b": 1}, 2]}
    assert renamed([event], "/a/0", "c") == [{"a": [{"b": 1}, 2], "c": {"b": 1}}]
    assert renamed([event], "a/2", "c") == [event]
    assert renamed([event], "a/0", "a/1/c") == [event]
    assert renamed([event], "a/0", "a/0/c") == [{"a": [{"b": 1, "c": {"b": 1}}, 2]}]
    assert renamed([event], "a/0", "a", overwrite_if_to_key_exists=True) == [{"a": {"b": 1}}]
    (result,) = renamed([event], "a/0", "c")
    assert result["a"][0] is not result["c"]


def test_without_overwriting_only_the_first_match_is_renamed():
    config = {"entries": [{"from_key_regex": "x.*", "to_key": "x"}]}
    assert bodies(config, {"x1": 1, "x2": 2}) == [{"x2": 2, "x": 1}]
    config["entries"][0]["overwrite_if_to_key_exists"] = True
    assert bodies(config, {"x1": 1, "x2": 2, "x": 0}) == [{"x": 2}]


def test_names_inside_lists_keep_their_case():
    config = {"transform_key": "uppercase"}
    assert bodies(config, {"a": {"b": [{"c": 1}]}}) == [{"A": {"B": [{"c": 1}]}}]
    assert bodies({"transform_key": "capitalize"}, {"userName": 1, "": 2}) == [{"UserName": 1, "": 2}]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "entries and transform_key are mutually exclusive options. entries or transform_key is required."),
        ({"entries": [{"to_key": "b"}]}, "Either from_key or from_key_regex must be specified."),
        (
            {"entries": [{"from_key": "a", "from_key_regex": "a", "to_key": "b"}]},
            "Only one of from_key or from_key_regex should be specified.",
        ),
        (
            {"entries": [{"from_key_regex": "[", "to_key": "b"}]},
            "The value of from_key_regex is not a valid regex string",
        ),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("rename_keys", config)
    assert message in str(caught.value)


def leaves(value):
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [repr(value)]


@example([{"a": [None]}], "a/0", "b", False)  # an element of a list is copied
@given(events, keys, keys, st.booleans())
def test_a_move_loses_nothing(run_unharmed, before, source, target, overwrite):
    config = {"entries": [{"from_key": source, "to_key": target, "overwrite_if_to_key_exists": overwrite}]}
    after = run_unharmed("rename_keys", config, before)
    if not overwrite:
        for one, other in zip(before, after, strict=True):
            assert Counter(leaves(one)) <= Counter(leaves(other))


@example([{"b": None, "a": [None]}], "[a-b]", "a/0", True)
@given(events, st.sampled_from(["a", "[a-b]", ".*"]), keys, st.booleans())
def test_any_event_survives_a_regular_expression(run_unharmed, before, expression, target, overwrite):
    entry = {"from_key_regex": expression, "to_key": target, "overwrite_if_to_key_exists": overwrite}
    run_unharmed("rename_keys", {"entries": [entry]}, before)
