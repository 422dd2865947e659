"""Values as JSON text."""

import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch
from penstock.plugins.processors import write_json
from penstock.sdk import Context
from penstock.testing import run_processor
from penstock.testing.strategies import events, keys, nested


@given(events, st.just("") | keys, keys)
def test_any_event_survives(run_unharmed, before, source, target):
    for body in run_unharmed("write_json", {"source": source, "target": target}, before):
        assert isinstance(body, dict)


def test_what_is_written():
    values = ["text", 2**70, Decimal("1.50"), float("nan"), True, [None], {"é": "\ud800"}]
    results = run_processor("write_json", {"source": "a"}, [{"a": value} for value in values])
    assert [result.body["a"] for result in results] == [
        '"text"',
        str(2**70),
        "1.50",
        "null",
        "true",
        "[null]",
        '{"é":"\ufffd"}',
    ]


def test_the_whole_event_and_null():
    config = {"source": "", "target": "json"}
    (result,) = run_processor("write_json", config, [{"a": None}])
    assert json.loads(result.body["json"]) == {"a": None}
    (result,) = run_processor("write_json", {"source": "a", "target": "json"}, [{"a": None}])
    assert result.body == {"a": None}


def test_failures_are_counted():
    ctx = Context("p", "write_json")
    run = write_json.build(write_json.Config.model_validate({"source": "a", "target": "b/c"}), ctx)
    batch = run(Batch([{"a": 1, "b": 2}, nested(20_000), {"a": 1}]))
    assert batch.bodies[0] == {"a": 1, "b": 2}
    assert list(batch.bodies[1]) == ["a"]
    assert batch.bodies[2] == {"a": 1, "b": {"c": "1"}}
    assert ctx.registry.value("p.write_json.writeJsonFailedCounter") == 2
