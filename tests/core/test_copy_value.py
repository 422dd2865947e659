"""Copies share nothing, whatever their depth."""

from hypothesis import given

from penstock.core.batch import copy_value
from penstock.testing.strategies import nested, values


def holders(value):
    found, pending = [], [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            found.append(value)
            pending += value.values() if isinstance(value, dict) else value
    return found


def assert_independent(value, copied):
    assert [len(holder) for holder in holders(value)] == [len(holder) for holder in holders(copied)]
    assert not {id(holder) for holder in holders(value)} & {id(holder) for holder in holders(copied)}


@given(values)
def test_a_copy_is_equal_and_shares_no_object(value):
    copied = copy_value(value)
    assert repr(copied) == repr(value)
    assert_independent(value, copied)


def test_depth_is_no_problem():
    value = nested(20_000, [1, {"b": 2}])
    assert_independent(value, copy_value(value))
