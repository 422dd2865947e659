"""What is read from the answer to a bulk request, however it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.plugins.sinks.opensearch.reply import DISTINCT_MAX, Answer, BulkReplyError, Verdict, read_bulk_reply

REASONS = st.sampled_from(["busy", 'a "quoted" }},{"index":{ reason', '"status":201', "ß\n\\"]) | st.text(max_size=8)
CAUSES = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(["rejected_execution_exception", "x"]), "reason": REASONS}),
    lambda cause: st.fixed_dictionaries({"type": st.just("outer"), "reason": REASONS, "caused_by": cause}),
    max_leaves=3,
)
WRITTEN = st.fixed_dictionaries({"_index": st.sampled_from(["logs", "b"]), "status": st.sampled_from([200, 201])})
REFUSED = st.fixed_dictionaries(
    {"_index": st.just("logs"), "status": st.sampled_from([400, 404, 409, 413, 429, 503]), "error": CAUSES | REASONS}
)
OUTCOMES = st.lists(WRITTEN | REFUSED, min_size=1, max_size=12)
ACTIONS = st.sampled_from(["index", "create", "update", "delete"])


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def by_place(body: bytes, count: int, *, external_version: bool = False) -> dict[int, Answer]:
    answers = read_bulk_reply(body, count, external_version=external_version)
    assert all(places == sorted(places) for places, _ in answers)
    return {place: answer for places, answer in answers for place in places}


@given(OUTCOMES, ACTIONS, st.booleans())
def test_an_answer_means_the_same_however_it_is_written(outcomes, action, external_version):
    reply = {"took": 3, "errors": True, "items": [{action: outcome} for outcome in outcomes]}
    tight = by_place(compact(reply), len(outcomes), external_version=external_version)
    assert tight == by_place(json.dumps(reply, indent=1).encode(), len(outcomes), external_version=external_version)
    assert list(sorted(tight)) == [place for place, outcome in enumerate(outcomes) if outcome["status"] >= 300]


@given(st.lists(st.tuples(ACTIONS, WRITTEN | REFUSED), min_size=1, max_size=6))
def test_actions_of_several_kinds(answers):
    reply = {"took": 3, "errors": True, "items": [{action: outcome} for action, outcome in answers]}
    found = by_place(compact(reply), len(answers))
    assert {place: answer.status for place, answer in found.items()} == {
        place: outcome["status"] for place, (_, outcome) in enumerate(answers) if outcome["status"] >= 300
    }


def test_a_server_that_says_something_else_of_each():
    count = DISTINCT_MAX + 1
    outcomes = [{"_index": "logs", "status": 429, "error": {"type": "t", "reason": str(n)}} for n in range(count)]
    body = compact({"errors": True, "items": [{"index": outcome} for outcome in outcomes]})
    assert {place: answer.reason for place, answer in by_place(body, count).items()} == {
        n: str(n) for n in range(count)
    }


def test_items_before_other_members():
    body = b'{"items":[{"index":{"status":201}},{"index":{"status":429,"error":"busy"}}],"errors":true,"took":1}'
    assert {place: answer.verdict for place, answer in by_place(body, 2).items()} == {1: Verdict.RETRY}


@pytest.mark.parametrize(
    "body",
    [
        b'{"errors":true,"items":[{"index":{"status":429}}]}',
        b'{"errors":true,"items":[{"index":{"status":429}},{"index":{"status":201}},{"index":{"status":201}}]}',
        b'{"errors":true,"items":[{"index":{"status":429}},{"index":{"status":20',
        b'{"errors":true,"items":[{"index":{"status":429}},{"index":{"status":x}}]}',
        b'{"errors":true,"items":[{"index":{"status":429}},{}]}',
        b'{"errors":true,"items":[{"index":{"status":429,"error":"\xff"}},{"index":{"status":201}}]}',
        b'{"errors":true}',
        b"",
    ],
)
def test_what_is_no_answer_to_two_items(body):
    with pytest.raises(BulkReplyError):
        read_bulk_reply(body, 2, external_version=False)


def test_refusals_are_told_in_the_order_of_their_documents():
    reasons = [f"reason {n}" for n in range(40)]
    outcomes = [{"_index": "logs", "status": 400, "error": {"type": "t", "reason": reason}} for reason in reasons]
    body = compact({"errors": True, "items": [{"index": outcome} for outcome in outcomes]})
    answers = read_bulk_reply(body, len(reasons), external_version=False)
    assert [answer.reason for _, answer in answers] == reasons
