"""Every processor tells of an event that it cannot handle in the same way: tags, a counter, a counter by cause."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.batch import Batch, copy_value
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.plan import catalog
from penstock.sdk import Context
from penstock.testing.plugins import checked

ERRORS = "processingErrors"
# processor, options, an event it cannot handle, the option that names the tags, counter, cause
FAILING: list[tuple[str, dict[str, Any], dict[str, Any], str, str, str]] = [
    ("add_entries", {"entries": [{"key": "a/b", "value": 1}]}, {"a": 1}, "", ERRORS, "key"),
    ("convert_type", {"key": "a"}, {"a": "x"}, "tags_on_failure", ERRORS, "convert"),
    ("copy_values", {"entries": [{"from_key": "a", "to_key": "a/b"}]}, {"a": 1}, "", ERRORS, "key"),
    ("csv", {"source": "a"}, {"a": '"x'}, "", "csvInvalidEvents", "quote"),
    ("date", {"match": [{"key": "a", "patterns": ["yyyy"]}]}, {"a": "x"}, "", "dateProcessingMatchFailure", "no_match"),
    ("decompress", {"keys": ["a"], "type": "gzip"}, {"a": "x"}, "tags_on_failure", ERRORS, "decode"),
    ("delete_entries", {"with_keys": ["a/0"]}, {"a": [1]}, "", ERRORS, "key"),
    ("dissect", {"map": {"a": "%{b}"}}, {"a": []}, "", ERRORS, "type"),
    ("filter_list", {"iterate_on": "a", "keep_element_when": "true"}, {"a": 1}, "tags_on_failure", ERRORS, "type"),
    ("flatten", {"source": "a", "target": "b/c"}, {"a": {"x": 1}, "b": 1}, "tags_on_failure", ERRORS, "key"),
    ("grok", {"match": {"a": ["%{WORD:b}"]}}, {"a": []}, "tags_on_match_failure", "grokProcessingErrors", "type"),
    ("key_value", {"source": "a"}, {"a": [1]}, "tags_on_failure", ERRORS, "type"),
    ("list_to_map", {"source": "a", "key": "k"}, {"a": 1}, "tags_on_failure", ERRORS, "type"),
    ("map_to_list", {"source": "a", "target": "b"}, {"a": 1}, "tags_on_failure", ERRORS, "type"),
    ("obfuscate", {"source": "a"}, {"a": {}}, "", ERRORS, "type"),
    ("parse_ion", {"source": "a"}, {"a": "{"}, "tags_on_failure", "parseErrors", "parse"),
    ("parse_ion", {"source": "a"}, {"a": {}}, "tags_on_failure", "processingFailures", "type"),
    ("parse_json", {"source": "a"}, {"a": "{"}, "tags_on_failure", "parseErrors", "parse"),
    ("parse_json", {"source": "a"}, {"a": {}}, "tags_on_failure", "processingFailures", "type"),
    ("parse_xml", {"source": "a"}, {"a": "<"}, "tags_on_failure", "parseErrors", "parse"),
    ("parse_xml", {"source": "a"}, {"a": {}}, "tags_on_failure", "processingFailures", "type"),
    ("python", {"module": "math", "function": "sqrt"}, {"a": 1}, "tags_on_failure", ERRORS, "TypeError"),
    ("rename_keys", {"entries": [{"from_key": "a", "to_key": "b/c"}]}, {"a": 1, "b": 1}, "", ERRORS, "key"),
    ("select_entries", {"include_keys": ["a/0"]}, {"a": [1]}, "", ERRORS, "key"),
    ("user_agent", {"source": "a"}, {"a": []}, "tags_on_parse_failure", ERRORS, "type"),
    ("wrap_entries", {"source": "a", "key": "k"}, {"a": 1}, "tags_on_failure", ERRORS, "type"),
]
DEFAULT_TAGS = {"decompress": ["_decompression_failure"], "python": ["_python_failure"]}
OTHER_TAGS = {
    ("aggregate", "aggregated_events_tag"): "marks results, not failures",
    ("geoip", "tags_on_engine_failure"): "needs databases: test_geoip.py",
    ("geoip", "tags_on_ip_not_found"): "needs databases: test_geoip.py",
    ("geoip", "tags_on_no_valid_ip"): "needs databases: test_geoip.py",
    ("grok", "tags_on_timeout"): "test_grok.py",
    ("obfuscate", "tags_on_match_failure"): "no failure, but no match: test_obfuscate.py",
}
CASES = [pytest.param(*case, id=f"{case[0]}-{case[4]}-{case[5]}") for case in FAILING]


def run(name: str, config: dict[str, Any], event: dict[str, Any]) -> tuple[Batch, Registry]:
    found, options = checked("processor", name, config)
    registry = Registry()
    batch = Batch([copy_value(event)])
    batch.promise(Handle())
    return found.module.build(options, Context("p", name, registry=registry))(batch), registry


@pytest.mark.parametrize(("name", "config", "event", "option", "counter", "cause"), CASES)
def test_a_failed_event_is_tagged_counted_by_cause_and_goes_on_as_it_was(
    name: str, config: dict[str, Any], event: dict[str, Any], option: str, counter: str, cause: str
) -> None:
    chosen = {**config, option: ["one", "two"]} if option else config
    batch, registry = run(name, chosen, event)
    assert batch.bodies == [event]
    assert batch.peek(0).tags == ({"one", "two"} if option else set())
    assert registry.value(f"p.{name}.{counter}") == 1
    causes = {labels[0][1]: meter for key, labels, meter in registry if key == f"p.{name}.{counter}ByCause"}
    assert list(causes) == [cause]
    assert registry.value(f"p.{name}.{counter}ByCause", cause=cause) == 1


@pytest.mark.parametrize(("name", "config", "event", "option", "counter", "cause"), CASES)
def test_tags_that_nobody_chose(
    name: str, config: dict[str, Any], event: dict[str, Any], option: str, counter: str, cause: str
) -> None:
    batch, _ = run(name, config, event)
    assert sorted(batch.peek(0).tags) == DEFAULT_TAGS.get(name, [])


def test_every_option_for_tags_is_tried() -> None:
    options = {
        (name, option)
        for name in catalog.names("processor")
        for option in catalog.find("processor", name).config.model_fields
        if "tag" in option
    }
    assert options - {(case[0], case[3]) for case in FAILING} == set(OTHER_TAGS)


@pytest.mark.parametrize(
    ("name", "config", "metrics"),
    [
        ("csv", {}, ["csvInvalidEvents"]),
        ("date", {"from_time_received": True}, ["dateProcessingMatchFailure", "dateProcessingMatchSuccess"]),
        ("decompress", {"keys": ["a"], "type": "gzip"}, ["processingErrors"]),
        (
            "grok",
            {"match": {"a": ["%{WORD}"]}},
            [
                *("grokProcessingErrors", "grokProcessingMatch", "grokProcessingMismatch"),
                *("grokProcessingTime", "grokProcessingTimeouts"),
            ],
        ),
        ("parse_ion", {}, ["parseErrors", "processingFailures"]),
        ("parse_json", {}, ["parseErrors", "processingFailures"]),
        ("parse_xml", {}, ["parseErrors", "processingFailures"]),
        ("write_json", {"source": "a"}, ["writeJsonFailedCounter"]),
        (
            "aggregate",
            {"identification_keys": ["a"], "action": {"put_all": None}},
            [
                *("actionConcludeGroupEventsDropped", "actionConcludeGroupEventsOut"),
                *("actionConcludeGroupProcessingErrors", "actionHandleEventsDropped", "actionHandleEventsOut"),
                *("actionHandleEventsProcessingErrors", "currentAggregateGroups"),
            ],
        ),
    ],
)
def test_meters_are_there_before_anything_happens(name: str, config: dict[str, Any], metrics: list[str]) -> None:
    found, options = checked("processor", name, config)
    registry = Registry()
    found.module.build(options, Context("p", name, registry=registry))
    assert [metric for metric in metrics if registry.get(f"p.{name}.{metric}") is None] == []
