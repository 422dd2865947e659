"""Ranges of characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys, nested

numbers = st.none() | st.integers(0, 6)


@given(events, st.none() | st.lists(keys, max_size=3), numbers, st.integers(0, 6), st.booleans())
def test_any_event_survives(run_unharmed, before, source_keys, start, length, recursive):
    entry = {"start_at": start, "length": length, "recursive": recursive}
    if source_keys is not None:
        entry["source_keys"] = source_keys
    after = run_unharmed("truncate", {"entries": [entry]}, before)
    if source_keys is None:
        for body, cut in zip(before, after, strict=True):
            for name, value in body.items():
                if isinstance(value, str):
                    assert cut[name] == (value[start or 0 :][:length] if len(value) >= (start or 0) else value)


def test_a_short_text_does_not_keep_the_others_from_being_cut():
    config = {"entries": [{"source_keys": ["a", "b/c"], "start_at": 3}]}
    (result,) = run_processor("truncate", config, [{"a": "ab", "b": {"c": "abcde"}}])
    assert result.body == {"a": "ab", "b": {"c": "de"}}


def test_a_text_as_long_as_the_start_becomes_empty():
    (result,) = run_processor("truncate", {"entries": [{"source_keys": ["a"], "start_at": 2}]}, [{"a": "ab"}])
    assert result.body == {"a": ""}


def test_objects_in_lists_are_left_alone_and_depth_is_no_problem():
    config = {"entries": [{"length": 1, "recursive": True}]}
    deep = value = {}
    for _ in range(5000):
        value["a"] = value = {}
    value["a"] = "xyz"
    first, second = run_processor("truncate", config, [{"a": [{"b": "xyz"}, ["xyz"], "xyz"]}, deep])
    assert first.body == {"a": [{"b": "xyz"}, ["xyz"], "x"]}
    value = second.body
    while isinstance(value, dict):
        value = value["a"]
    assert value == "x"
    run_processor("truncate", config, [nested(3000)])


def test_no_character_is_cut_in_half():
    (result,) = run_processor("truncate", {"entries": [{"length": 1}]}, [{"a": "😀😀"}])
    assert result.body == {"a": "😀"}


@pytest.mark.parametrize("entry", [{}, {"source_keys": ["a"]}, {"start_at": -1}, {"start_at": 1, "length": -1}])
def test_refused_options(entry):
    with pytest.raises(ConfigError) as caught:
        build_processor("truncate", {"entries": [entry]})
    assert (
        "At least one of start_at or length or both must be specified and the values must be positive integers"
        in str(caught.value)
    )
    with pytest.raises(ConfigError, match="entries must not be empty"):
        build_processor("truncate", {"entries": []})
