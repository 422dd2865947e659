"""Parsing JSON texts: what the examples do not say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch
from penstock.core.errors import ConfigError
from penstock.core.metrics import Registry
from penstock.plugins.processors import parse_json
from penstock.sdk import Context
from penstock.testing import run_processor
from penstock.testing.processors import build_processor

names = st.sampled_from(["a", "b", "c", "0"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
events = st.lists(st.dictionaries(names, values, max_size=4), max_size=3)
keys = st.sampled_from(["a", "b", "a/b", "b/c", "a/0", "c/a/b", "b/0/a"])


def bodies(config, *before):
    return [result.body for result in run_processor("parse_json", config, list(before))]


@pytest.mark.parametrize(
    "text", ["", " ", "[1]", "5", '"x"', "{", '{"a": NaN}', "{'a': 1}", "null", '{"a":1}}', "[" * 5000]
)
def test_what_is_no_object_is_tagged(text):
    (result,) = run_processor("parse_json", {"tags_on_failure": ["bad"]}, [{"message": text}])
    assert (result.body, result.tags) == ({"message": text}, ["bad"])


def test_failures_are_counted_by_kind():
    registry = Registry()
    config = parse_json.Config.model_validate({"handle_failed_events": "skip_silently"})
    run = parse_json.build(config, Context("p", "parse_json", registry=registry))
    run(Batch([{"message": "{"}, {"message": ["{}"]}, {"message": '{"a|b": 1}'}, {"message": "{}"}]))
    assert registry.value("p.parse_json.parseErrors") == 1
    assert registry.value("p.parse_json.processingFailures") == 2


def test_numbers_survive():
    text = '{"big": 123456789012345678901234567890, "small": 0.1}'
    assert bodies({}, {"message": text})[0]["big"] == 123456789012345678901234567890


def test_names_are_keys_at_the_top_and_names_inside():
    assert bodies({}, {"message": '{"a/b": 1, "c": 2}'})[0]["a"] == {"b": 1}
    assert bodies({"destination": "d"}, {"message": '{"a|b": 1}'})[0]["d"] == {"a|b": 1}
    assert bodies({"normalize_keys": True}, {"message": '{"a|b": {"c|d": 1}}'})[0]["a_b"] == {"c_d": 1}


def test_an_event_with_a_name_that_is_no_key_stays_as_it_was():
    event = {"message": '{"a": 1, "b|c": 2}'}
    assert bodies({"delete_source": True}, event) == [event]


def test_a_source_that_was_replaced_is_not_deleted():
    assert bodies({"delete_source": True, "destination": "message"}, {"message": '{"a": 1}'}) == [{"message": {"a": 1}}]
    assert bodies({"delete_source": True}, {"message": '{"message": "x"}'}) == [{"message": "x"}]


def test_a_source_of_which_nothing_was_written_is_not_deleted():
    config = {"delete_source": True, "destination": "d", "overwrite_if_destination_exists": False}
    assert bodies(config, {"message": '{"a": 1}', "d": 1}) == [{"message": '{"a": 1}', "d": 1}]
    assert bodies(config, {"message": '{"a": 1}'}) == [{"d": {"a": 1}}]
    config["destination"] = "a/b"  # below a value that is no object: nothing can be written there
    assert bodies(config, {"message": '{"a": 1}', "a": 5}) == [{"message": '{"a": 1}', "a": 5}]


def test_a_pointer_to_nothing_takes_the_whole():
    assert bodies({"pointer": "x/y", "delete_source": True}, {"message": '{"a": 1}'}) == [{"a": 1}]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"destination": "/"}, "destination cannot be empty, whitespace, or a front slash (/)"),
        ({"handle_failed_events": "drop"}, "handled_failed_events must be set to 'skip' or 'skip_silently'."),
        ({"depth": 11}, "depth must be less than or equal to 10"),
        ({"source": " "}, "source"),
        ({"pointer": "/"}, "pointer names nothing inside of the parsed object"),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("parse_json", config)
    assert message in str(caught.value)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3))
def test_what_json_writes_is_read_again(body):
    assert bodies({"destination": "d"}, {"message": json.dumps(body)})[0]["d"] == body


@given(st.lists(st.fixed_dictionaries({"a": st.text(max_size=9) | values.map(json.dumps) | values})), keys)
def test_any_event_survives(run_unharmed, before, destination):
    config = {"source": "a", "tags_on_failure": ["failed"], "delete_source": True}
    run_unharmed("parse_json", config, before)
    run_unharmed("parse_json", {**config, "destination": destination}, before)
