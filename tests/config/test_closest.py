from hypothesis import given
from hypothesis import strategies as st

from penstock.config.closest import closest, edit_distance

words = st.text("abc", max_size=6)


def test_the_nearest_of_several():
    assert closest("to_ky", ["from_key", "to_key", "key"]) == "to_key"
    assert closest("gork", ["grok", "sqs"], distance_max=1) == "grok"
    assert closest("something", ["else"]) is None


@given(words, words, words)
def test_the_distance_is_symmetric_and_zero_only_for_equals(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, b) <= max(len(a), len(b))
    assert edit_distance(a + c, b + c) <= edit_distance(a, b)
