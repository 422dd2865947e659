"""All texts at the top."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.testing.strategies import events


@given(events, st.booleans())
def test_texts_change_and_nothing_else(run_unharmed, before, upper):
    after = run_unharmed("string_converter", {"upper_case": upper}, before)
    for one, other in zip(before, after, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            expected = (value.upper() if upper else value.lower()) if isinstance(value, str) else value
            assert repr(other[name]) == repr(expected)
