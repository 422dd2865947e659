"""Upper case, under any key."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.testing import run_processor
from penstock.testing.strategies import events, keys


@given(events, st.lists(keys, min_size=1, max_size=3))
def test_any_event_survives(run_unharmed, before, with_keys):
    run_unharmed("uppercase_string", {"with_keys": with_keys}, before)


def test_one_letter_may_become_two():
    (result,) = run_processor("uppercase_string", {"with_keys": ["a/b"]}, [{"a": {"b": "straße"}}])
    assert result.body == {"a": {"b": "STRASSE"}}
