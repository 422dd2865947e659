"""Hiding: what is written where, time limits, failures."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigError
from penstock.core.metrics import Registry
from penstock.plugins.processors import obfuscate
from penstock.sdk import Batch, Context
from penstock.testing import run_processor
from penstock.testing.plugins import checked
from penstock.testing.strategies import events, keys, texts


def hidden(value, *patterns, **options):
    config = {"source": "s", "patterns": list(patterns) or None, "tags_on_match_failure": ["clean"], **options}
    (result,) = run_processor("obfuscate", config, [{"s": value}])
    return result.body, result.tags


def test_patterns_see_what_the_one_before_left():
    assert hidden("abc", "b", r"a\*+") == ({"s": "***c"}, [])
    assert hidden("a", "b*") == ({"s": "***a***"}, [])


def test_values_of_other_types():
    assert hidden(12345, r"\d{3}") == ({"s": "***45"}, [])
    assert hidden(True) == ({"s": "***"}, [])
    assert hidden(12345, "x") == ({"s": 12345}, ["clean"])
    assert hidden(12345, "x", target="t") == ({"s": 12345, "t": "12345"}, ["clean"])
    assert hidden(None) == ({"s": None}, [])
    assert hidden(["1"], r"\d") == ({"s": ["1"]}, ["clean"])
    assert hidden("x", target="") == ({"s": "***"}, [])
    assert hidden("x", target="s/t") == ({"s": "x"}, ["clean"])


def test_regular_expressions_are_those_of_java():
    assert hidden("٣3", r"\d") == ({"s": "٣***"}, [])
    assert hidden("a.b", r"\Q.\E") == ({"s": "a***b"}, [])
    assert hidden("été x", "t", single_word_only=True) == ({"s": "été x"}, ["clean"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": "s", "patterns": ["%{NOPE}"]}, 'Unable to find a predefined pattern for "%{NOPE}".'),
        ({"source": "s", "patterns": ["a("]}, 'Invalid Pattern: "a(" for source field s'),
        (
            {"source": "s", "patterns": ["a("], "single_word_only": True},
            r'Invalid Pattern: "\ba(\b" for source field s',
        ),
        ({"source": "s", "action": {"mask": {"mask_character": "$"}}}, "Valid characters are *, #, $, %, &, ! and @"),
        ({"source": "s", "action": {"mask": {"mask_character_length": 11}}}, "mask_character_length"),
        ({"source": "s", "action": {"hash": {"salt": "short"}}}, "Minimum size of salt string is 16."),
        ({"source": "s", "action": {"hash": {"salt": "x" * 65}}}, "Maximum size of salt string is 64"),
        ({"source": "s", "action": {"hash": {"format": "MD5"}}}, "Valid values: `SHA-512`"),
        ({"source": "s", "action": {"blur": {}}}, "blur"),
        ({"source": ""}, "source"),
        ({}, "source"),
    ],
)
def test_rules(config, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_processor("obfuscate", config, [])


def test_a_text_that_takes_too_long_is_hidden_as_a_whole_and_the_others_are_not(monkeypatch):
    monkeypatch.setattr(obfuscate, "EVENT_SECONDS_MAX", 0.05)
    registry = Registry()
    options = {"source": "s", "patterns": ["(a|aa)+!", "b"], "action": "mask"}
    found, config = checked("processor", "obfuscate", options)
    run = found.module.build(config, Context("p", "obfuscate", registry=registry))
    batch = run(Batch([{"s": "ab"}, {"s": "a" * 60 + "?!"}, {"s": "ba"}]))
    assert batch.bodies == [{"s": "a***"}, {"s": "***"}, {"s": "***a"}]
    assert registry.value("p.obfuscate.processingTimeouts") == 1


def test_large_texts_without_what_a_match_needs_are_not_searched():
    assert hidden("a" * 5_000_000, "%{EMAIL_ADDRESS}") == ({"s": "a" * 5_000_000}, ["clean"])


def test_hashes():
    salted = {"action": {"hash": {"salt": "0123456789abcdef", "salt_key": "salt"}}, "source": "s"}
    before = [{"s": "x", "salt": "k"}, {"s": "x"}, {"s": "x", "salt": None}, {"s": "\ud800"}, {"s": "?"}]
    own, fixed, null, half, question = (result.body["s"] for result in run_processor("obfuscate", salted, before))
    assert fixed == null != own
    assert half == question
    (long,) = run_processor("obfuscate", salted, [{"s": "x", "salt": "k" * 64 + "ignored"}])
    (cut,) = run_processor("obfuscate", salted, [{"s": "x", "salt": "k" * 64}])
    assert long.body["s"] == cut.body["s"]
    (refused,) = run_processor("obfuscate", {**salted, "tags_on_match_failure": ["bad"]}, [{"s": "x", "salt": {}}])
    assert (refused.body, refused.tags) == ({"s": "x", "salt": {}}, ["bad"])
    random = [
        run_processor("obfuscate", {"source": "s", "action": "hash"}, [{"s": "x"}])[0].body["s"] for _ in range(2)
    ]
    assert random[0] != random[1]


@given(texts)
def test_nothing_of_a_match_is_left(text):
    body, _ = hidden(text, "[a-z0-9]+", action={"mask": {"mask_character": "#"}})
    assert not re.search("[a-z0-9]", body["s"])


configs = st.fixed_dictionaries(
    {"source": keys},
    optional={
        "target": keys,
        "patterns": st.lists(st.sampled_from(["a", "[0-9]+", "", r"(\w)\1"]), max_size=2),
        "single_word_only": st.booleans(),
        "action": st.sampled_from(["mask", {"hash": {"salt": "0123456789abcdef", "salt_key": "a"}}]),
    },
)


@given(events, configs)
def test_a_failed_event_stays_as_it_was(run_unharmed, events, config):
    assert len(run_unharmed("obfuscate", config, events)) == len(events)
