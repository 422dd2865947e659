"""What is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys

expressions = st.sampled_from(["a", "[a-c]", ".*", "", "(k|v).*"])


@given(events, st.lists(keys, max_size=3), st.lists(expressions, max_size=2))
def test_only_what_was_there_is_kept(run_unharmed, before, include, expressions):
    if not include and not expressions:
        include = ["a"]
    after = run_unharmed("select_entries", {"include_keys": include, "include_keys_regex": expressions}, before)
    for one, other in zip(before, after, strict=True):
        assert set(other) <= {*one, *(key.strip("/").split("/")[0] for key in include)}


def test_null_and_keys_that_lead_nowhere():
    config = {"include_keys": ["a", "b", "l/0/x", "c/d"], "include_keys_regex": ["n.*"]}
    (result,) = run_processor("select_entries", config, [{"a": None, "b": 0, "c": 7, "n1": None, "n2": 2}])
    assert result.body == {"b": 0, "n1": None, "n2": 2}


def test_a_condition():
    config = {"include_keys": ["a"], "select_when": "/b == 1"}
    results = run_processor("select_entries", config, [{"a": 1, "b": 1}, {"a": 1, "b": 2}])
    assert [result.body for result in results] == [{"a": 1}, {"a": 1, "b": 2}]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "At least one of include_keys and include_keys_regex is required."),
        ({"include_keys": []}, "At least one of include_keys and include_keys_regex is required."),
        ({"include_keys_regex": ["a", "["]}, "Invalid regex pattern found in include_keys_regex."),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("select_entries", config)
    assert message in str(caught.value)
