"""Parsing Ion: what the examples and the vectors do not say."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.metrics import Registry
from penstock.plugins.processors import parse_ion
from penstock.sdk import Batch, Context
from penstock.testing import run_processor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "5",
        "null",
        "{a:1",
        "{a:1,b}",
        "{a:" * 10_000,
        "{" + "a:[" * 300 + "]" * 300 + "}",
        "\ud800",
        "x" * 5_000_000,
    ],
)
def test_what_is_no_struct_is_tagged(text):
    (result,) = run_processor("parse_ion", {"tags_on_failure": ["bad"]}, [{"message": text}])
    assert result.body == {"message": text}
    assert result.tags == ["bad"]


def test_failures_are_counted_by_kind():
    registry = Registry()
    config = parse_ion.Config.model_validate({"handle_failed_events": "skip_silently"})
    run = parse_ion.build(config, Context("p", "parse_ion", registry=registry))
    run(Batch([{"message": "{"}, {"message": 5}, {"message": ["{}"]}, {"message": '{"a|b": 1}'}, {"message": "{}"}]))
    assert registry.value("p.parse_ion.parseErrors") == 2
    assert registry.value("p.parse_ion.processingFailures") == 2


def test_numbers_keep_their_digits():
    (result,) = run_processor(
        "parse_ion", {}, [{"message": "{a: 0.12345678901234567890, b: 123456789012345678901234}"}]
    )
    assert result.body["a"] == Decimal("0.12345678901234567890")
    assert result.body["b"] == 123456789012345678901234


def test_the_source_goes_unless_the_struct_brings_it_or_nothing_was_written():
    def after(config, text):
        (result,) = run_processor("parse_ion", {"delete_source": True, **config}, [{"message": text, "d": 1}])
        return result.body

    assert after({}, "{a:1}") == {"a": 1, "d": 1}
    assert after({"overwrite_if_destination_exists": False}, "{message:x}") == {"message": "x", "d": 1}
    assert after({"destination": "message"}, "{a:1}") == {"message": {"a": 1}, "d": 1}
    kept = {"destination": "d", "overwrite_if_destination_exists": False}
    assert after(kept, "{a:1}") == {"message": "{a:1}", "d": 1}
    assert after({}, '{"a|b":1}') == {"message": '{"a|b":1}', "d": 1}


def test_pointers():
    def after(pointer, text, **before):
        (result,) = run_processor("parse_ion", {"pointer": pointer}, [{"message": text, **before}])
        return {name: value for name, value in result.body.items() if name != "message"}

    assert after("a/b", "{a:{b:1}}") == {"b": 1}
    assert after("/a/b/", "{a:{b:1}}", b=0) == {"b": 0, "a.b": 1}
    assert after("a/b/1", "{a:{b:[x,y]}}") == {"b.1": "y"}
    assert after("a/b/1", "{a:{b:[x,y]}}", b=[1, 2]) == {"b": [1, 2], "a.b.1": "y"}
    assert after("nope", "{a:1}") == {"a": 1}


names = st.sampled_from(["message", "a", "0", "a|b", ""])
values = st.recursive(
    st.none()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=9)
    | st.sampled_from(["{a:1}", "{a:{b:[1,2]}}", "{message:x,'a|b':1}", "{'0':1}", "{", '{"":1}']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["message", "a", "a/b", "message/0", "a/message"])
configs = st.fixed_dictionaries(
    {"tags_on_failure": st.just(["failed"])},
    optional={
        "source": keys,
        "destination": keys,
        "pointer": keys,
        "depth": st.integers(0, 2),
        "delete_source": st.booleans(),
        "overwrite_if_destination_exists": st.booleans(),
    },
)


@given(st.lists(st.dictionaries(names, values, max_size=4), max_size=4), configs)
def test_a_failed_event_stays_as_it_was(run_unharmed, events, config):
    assert len(run_unharmed("parse_ion", config, events)) == len(events)
