"""Every event counts, whatever the server behind the sink answers: the engine as it is run, and a server with faults.

`make faults EVENTS=1000000` does the same with more events.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.faults import CASES, Outcome, run

EVENTS = 10_000
SMALL = {"per_post": 100, "buffer_size": 1000}
"""Many small requests, so that each fault strikes often."""


def outcome_of(name: str, seed: int) -> Outcome:
    outcome = run(CASES[name], EVENTS, seed=seed, **SMALL)
    assert outcome.check(CASES[name]) == []
    return outcome


@pytest.mark.parametrize("seed", [1, 2])
def test_items_that_a_busy_server_refuses_arrive_once(seed: int) -> None:
    outcome = outcome_of("busy-items", seed)
    assert outcome.once == EVENTS
    assert outcome.busy_items > EVENTS * 0.01


@pytest.mark.parametrize("seed", [1, 2])
def test_bad_items_and_only_these_are_dead_letters(seed: int) -> None:
    outcome = outcome_of("bad-items", seed)
    assert EVENTS * 0.005 < len(outcome.refused) < EVENTS * 0.02
    assert sorted(outcome.dead_letters) == sorted(outcome.refused)
    assert outcome.once == EVENTS - len(outcome.refused)


@pytest.mark.parametrize("seed", [1, 2])
def test_requests_that_a_busy_server_refuses_are_sent_again(seed: int) -> None:
    outcome = outcome_of("busy-requests", seed)
    assert outcome.once == EVENTS
    assert outcome.busy > 0


def test_what_a_cut_connection_leaves_open_arrives_at_least_once() -> None:
    outcome = outcome_of("cuts", 1)
    assert outcome.once + outcome.more == EVENTS
    assert outcome.cuts > 0


def test_with_ids_a_cut_connection_makes_no_second_document() -> None:
    outcome = outcome_of("cuts-with-ids", 1)
    assert outcome.once == EVENTS
    assert outcome.cuts > 0
