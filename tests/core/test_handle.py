"""Delivery promises: kept exactly once, also by events that were made of others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch, concat
from penstock.core.handle import Handle, JoinedHandle


class Source:
    """Promises and what was heard of them."""

    def __init__(self, sizes):
        self.heard = [[] for _ in sizes]
        self.handles = []
        self.batches = []
        for place, size in enumerate(sizes):
            handle = Handle(self.heard[place].append)
            batch = Batch([{"from": place, "n": n} for n in range(size)])
            batch.promise(handle)
            handle.seal()
            self.handles.append(handle)
            self.batches.append(batch)


def result_of(joined, count=1):
    batch = Batch([{} for _ in range(count)])
    batch.promise(joined)
    joined.seal()
    return batch


def test_a_source_hears_when_the_result_is_delivered():
    source = Source([2, 1])
    joined = JoinedHandle()
    for batch in source.batches:
        for index in range(len(batch)):
            batch.join([index], joined)
    assert joined.parts == 2
    result = result_of(joined)
    assert source.heard == [[], []]
    result.release_all(ok=True)
    assert source.heard == [[True], [True]]


def test_a_lost_result_is_bad_news_for_every_part_and_only_for_them():
    source = Source([2, 1])
    joined = JoinedHandle()
    source.batches[0].join([0], joined)
    source.batches[1].join([0], joined)
    result_of(joined).release_all(ok=False)
    assert source.heard == [[], [False]]
    source.batches[0].release([1], ok=True)
    assert source.heard == [[False], [False]]


def test_nothing_came_of_the_parts():
    source = Source([1])
    joined = JoinedHandle()
    source.batches[0].join([0], joined)
    joined.seal()
    assert source.heard == [[True]]


def test_parts_hear_of_a_group_that_was_given_up():
    source = Source([1])
    joined = JoinedHandle()
    source.batches[0].join([0], joined)
    joined.expire()
    joined.expire()
    assert source.heard == [[False]]


def test_an_event_cannot_be_joined_twice():
    batch = Source([1]).batches[0]
    joined = JoinedHandle()
    batch.join([0], joined)
    with pytest.raises(AssertionError, match="joined twice"):
        batch.join([0], joined)


def test_events_of_a_batch_join_different_results():
    source = Source([3, 1])
    first, second = JoinedHandle(), JoinedHandle()
    batch = concat(source.batches)
    assert batch.join_each([0, 1, 2, 3], [first, second, first, first]) == [True, True, False, True]
    assert (first.parts, second.parts) == (2, 1)
    result_of(first).release_all(ok=True)
    assert source.heard == [[], [True]]
    with pytest.raises(AssertionError, match="joined twice"):
        batch.join_each([0], [second])
    with pytest.raises(AssertionError, match="has ended"):
        source.batches[0].join_each([0], [first])
    result_of(second).release_all(ok=False)
    assert source.heard == [[False], [True]]


def test_an_expired_part_does_not_hear_again():
    source = Source([2])
    joined = JoinedHandle()
    source.batches[0].join([0], joined)
    source.handles[0].expire()
    source.batches[0].join([1], joined, stays=True)
    result_of(joined).release_all(ok=True)
    source.batches[0].release([1], ok=True)
    assert source.heard == [[False]]
    assert source.handles[0].late == 2


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    choices=st.data(),
)
def test_every_promise_is_kept_once_and_only_when_everything_that_came_of_it_has_ended(sizes, choices):
    source = Source(sizes)
    groups = [JoinedHandle() for _ in range(3)]
    good = [True] * len(sizes)
    fates = st.sampled_from(["drop", "fail", "pass", "join", "both"])
    members = [set() for _ in groups]
    going = []
    for place, batch in enumerate(source.batches):
        passed = []
        for index in range(len(batch)):
            fate = choices.draw(fates)
            if fate in ("drop", "fail"):
                good[place] &= fate == "drop"
                batch.release([index], ok=fate == "drop")
            if fate in ("join", "both"):
                group = choices.draw(st.integers(0, 2))
                batch.join([index], groups[group], stays=fate == "both")
                members[group].add(place)
            if fate in ("pass", "both"):
                passed.append(index)
        going.append(batch.select(passed))
    outer = JoinedHandle()  # results are parts of results in turn
    inner = concat([result_of(group, choices.draw(st.integers(1, 3))) for group in groups])
    for index in range(len(inner)):
        inner.join([index], outer)
    results = result_of(outer, 2)
    ends = [*(batch for batch in going if len(batch)), results, results.copy()]
    for batch in choices.draw(st.permutations(ends)):
        ok = choices.draw(st.booleans())
        for place in range(len(sizes)):
            if (
                batch is going[place] or (len(batch) == 2 and batch not in going and place in set().union(*members))
            ) and not ok:
                good[place] = False
        batch.release_all(ok=ok)
    assert source.heard == [[ok] for ok in good]
    assert all(handle.pending == 0 and handle.late == 0 for handle in source.handles)
