"""The limit of matching: the event that runs away fails, the others are handled."""

import pytest

from penstock.core.batch import Batch
from penstock.core.errors import EventError
from penstock.expr import compile_expression
from penstock.lib.limited_loop import each_limited
from penstock.lib.text_values import compile_replace

HOSTILE = "a" * 60 + "!"


@pytest.fixture
def failures():
    return []


def test_only_the_event_that_runs_away_fails(failures):
    replace = compile_replace("(a+)+$", "x")

    def change(batch, index):
        batch.bodies[index]["m"] = replace(batch.bodies[index]["m"])

    run = each_limited(
        change, when=None, fail=lambda batch, index, error: failures.append((index, error.cause)), seconds=0.05
    )
    batch = run(Batch([{"m": text} for text in ("aa", HOSTILE, "ba", HOSTILE, "b")]))
    assert [body["m"] for body in batch.bodies] == ["x", HOSTILE, "bx", HOSTILE, "b"]
    assert failures == [(1, "timeout"), (3, "timeout")]


def test_failures_and_conditions(failures):
    def change(batch, index):
        raise EventError("no", cause="none")

    when = compile_expression("/ok")
    run = each_limited(change, when=when, fail=lambda batch, index, error: failures.append((index, str(error))))
    run(Batch([{"ok": True}, {"ok": False}, {"ok": "word"}]))
    assert [index for index, _ in failures] == [0, 2]
    assert failures[0][1] == "no"
