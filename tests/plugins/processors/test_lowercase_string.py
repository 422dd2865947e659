"""Lower case, under any key."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.testing import run_processor
from penstock.testing.strategies import events, keys, nested


@given(events, st.lists(keys, min_size=1, max_size=3))
def test_any_event_survives(run_unharmed, before, with_keys):
    run_unharmed("lowercase_string", {"with_keys": with_keys}, before)


def test_elements_of_lists_and_names_of_digits():
    config = {"with_keys": ["list/1", "map/0", "A"]}
    (result,) = run_processor("lowercase_string", config, [{"list": ["A", "B"], "map": {"0": "C"}, "A": "İß"}])
    assert result.body == {"list": ["A", "b"], "map": {"0": "c"}, "A": "i̇ß"}


def test_large_and_deep():
    results = run_processor("lowercase_string", {"with_keys": ["a"]}, [{"a": "X" * 5_000_000}, nested(3000)])
    assert results[0].body["a"] == "x" * 5_000_000
    assert "a" in results[1].body
