"""Regular expressions in texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.core.batch import Batch
from penstock.lib import limited_loop
from penstock.plugins.processors import substitute_string
from penstock.sdk import Context
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys, texts

EXPRESSIONS = st.sampled_from(["a", "[a-z]+", "(a)|b", "", "^", ".*", "\\s", "(?<n>.)", "\\b"])
REPLACEMENTS = st.sampled_from(["", "x", "$0", "$1", "${n}", "$", "\\", "\\$"])


@given(events, keys, EXPRESSIONS, REPLACEMENTS | texts)
def test_any_event_survives(run_unharmed, before, source, expression, to):
    entry = {"source": source, "from": expression, "to": to}
    run_unharmed("substitute_string", {"entries": [entry]}, before)


def run(entry, *bodies):
    ctx = Context("p", "substitute_string")
    config = substitute_string.Config.model_validate({"entries": [entry]})
    batch = substitute_string.build(config, ctx)(Batch(list(bodies)))
    return batch.bodies, ctx.registry


def test_a_wrong_replacement_fails_where_the_expression_matches():
    bodies, registry = run({"source": "m", "from": "a(b)", "to": "$2"}, {"m": "ab"}, {"m": "b"})
    assert bodies == [{"m": "ab"}, {"m": "b"}]
    assert registry.value("p.substitute_string.processingErrors") == 1
    assert registry.value("p.substitute_string.processingErrorsByCause", cause="replacement") == 1


@pytest.mark.parametrize("to", ["x", "$9"])
def test_matching_that_runs_away_is_given_up(monkeypatch, to):
    monkeypatch.setattr(limited_loop.each_limited, "__kwdefaults__", {"seconds": 0.05})
    hostile = {"m": "a" * 60 + "!"}
    bodies, registry = run({"source": "m", "from": "(a+)+$", "to": to}, hostile, {"m": "b"})
    assert bodies == [{"m": "a" * 60 + "!"}, {"m": "b"}]
    assert registry.value("p.substitute_string.processingErrorsByCause", cause="timeout") == 1


def test_a_large_text():
    (result,) = run_processor(
        "substitute_string", {"entries": [{"source": "m", "from": "[0-9]", "to": "#"}]}, [{"m": "a1" * 500_000}]
    )
    assert result.body["m"] == "a#" * 500_000


def test_a_condition_and_a_later_entry():
    entries = [
        {"source": "m", "from": "a", "to": "b", "substitute_when": "/go == true"},
        {"source": "m", "from": "b", "to": "c"},
    ]
    results = run_processor("substitute_string", {"entries": entries}, [{"m": "a", "go": True}, {"m": "a"}])
    assert [result.body["m"] for result in results] == ["c", "a"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"source": "a", "from": "[", "to": ""}, "The value of from is not a valid regex string"),
        ({"source": "a", "to": ""}, "entries.0.from must not be null"),
        ({"source": "a", "from": "a", "to": "", "substitute_when": "=="}, "substitute_when"),
    ],
)
def test_refused_options(entry, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("substitute_string", {"entries": [entry]})
    assert message in str(caught.value)
