"""What counts as a blank."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.testing import run_processor
from penstock.testing.strategies import events, keys


@given(events, st.lists(keys, min_size=1, max_size=3))
def test_any_event_survives(run_unharmed, before, with_keys):
    run_unharmed("trim_string", {"with_keys": with_keys}, before)


def test_control_characters_go_and_other_blanks_stay():
    (result,) = run_processor("trim_string", {"with_keys": ["a"]}, [{"a": "\x00\t \u00a0x\u2003\r\n"}])
    assert result.body == {"a": "\u00a0x\u2003"}
