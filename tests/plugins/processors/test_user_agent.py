"""User agents: limits, copies, failures."""

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import ConfigError
from penstock.plugins.processors import user_agent
from penstock.testing import run_processor
from penstock.testing.strategies import events, keys

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 Firefox/115.0"
NOTHING = {
    "name": "Other",
    "version": "",
    "os": {"name": "Other", "version": "", "full": "Other"},
    "device": {"name": "Other"},
}


def test_results_are_not_shared_between_events():
    one, other = run_processor("user_agent", {"source": "a"}, [{"a": FIREFOX}, {"a": FIREFOX}])
    assert one.body == other.body
    one.body["user_agent"]["os"]["name"] = "changed"
    one.body["user_agent"]["device"]["name"] = "changed"
    assert other.body["user_agent"]["os"]["name"] == "Linux"
    assert other.body["user_agent"]["device"]["name"] == "Other"


@pytest.mark.parametrize("text", ["", "-", 12345, True, "\ud800", "\0" * 100, "é" * 2000])
def test_unknown_agents_are_other(text):
    (result,) = run_processor("user_agent", {"source": "a", "exclude_original": True}, [{"a": text}])
    assert result.body["user_agent"] == NOTHING


def test_what_is_no_text_is_tagged():
    config = {"source": "a", "tags_on_parse_failure": ["bad"]}
    before = [{}, {"a": None}, {"a": [FIREFOX]}, {"a": {}}]
    results = run_processor("user_agent", config, before)
    assert [result.body for result in results] == before
    assert [result.tags for result in results] == [["bad"]] * 4


def test_huge_texts_cost_a_bounded_time_and_are_not_remembered():
    user_agent._agent("warm up")
    text = "Mozilla/5.0 ( ; Android 4.4; " * 200_000
    begin = time.process_time()
    (small,) = run_processor("user_agent", {"source": "a"}, [{"a": text[: user_agent.CHARACTERS_MAX]}])
    (huge,) = run_processor("user_agent", {"source": "a"}, [{"a": text}])
    assert huge.body["user_agent"] == {**small.body["user_agent"], "original": text}
    assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    "config", [{}, {"source": ""}, {"source": "a", "target": ""}, {"source": "a", "cache_size": -1}]
)
def test_rules(config):
    with pytest.raises(ConfigError):
        run_processor("user_agent", config, [])


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ua_parser.regex", None)
    with pytest.raises(ConfigError, match=r"penstock\[useragent\]"):
        run_processor("user_agent", {"source": "a"}, [])


configs = st.fixed_dictionaries({"source": keys}, optional={"target": keys, "cache_size": st.integers(0, 2)})


@settings(max_examples=50)
@given(events, configs)
def test_a_failed_event_stays_as_it_was(run_unharmed, events, config):
    assert len(run_unharmed("user_agent", config, events)) == len(events)
