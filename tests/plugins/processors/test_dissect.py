"""Patterns: pieces, delimiters, what does not fit."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.core.batch import Batch
from penstock.plugins.processors import dissect
from penstock.sdk import Context
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys, texts

pieces = st.sampled_from(
    ["%{a}", "%{b/c}", "%{}", "%{?a}", "%{+b}", "%{+b/1}", "%{&a}", "%{c->}", "%{0}", "%{ü}", " ", ", ", "-", "=", "  "]
)


@given(events, keys, st.lists(pieces, min_size=1, max_size=7), st.booleans())
def test_any_event_survives(run_unharmed, before, key, pattern, delete):
    config = {"map": {key: "".join(pattern)}, "delete_source": delete, "target_types": {"a": "integer", "b": "double"}}
    run_unharmed("dissect", config, before)


def fields(pattern, text, **options):
    (result,) = run_processor("dissect", {"map": {"m": pattern}, **options}, [{"m": text}])
    result.body.pop("m", None)
    return result.body


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=6), st.sampled_from(["|", ", ", "]["]))
def test_what_was_joined_is_taken_apart(values, delimiter):
    pattern = delimiter.join(f"%{{f{place}}}" for place in range(len(values)))
    assert fields(pattern, delimiter.join(values)) == {f"f{place}": value for place, value in enumerate(values)}


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("%{a} %{b}", "x   y", {"a": "x  ", "b": "y"}),
        ("%{a->} %{b}", "x \t  y", {"a": "x", "b": "y"}),
        ("%{a}  %{b}", "x y", {}),
        ("%{a}: %{b}", "x: ", {"a": "x"}),
        ("[%{a}] %{b}", "[x] y", {"a": "x", "b": "y"}),
        ("%{a}]", "x] y", {}),
        ("%{all}", "the whole text", {"all": "the whole text"}),
        ("no field", "no field", {}),
        ("%{a} %{a}", "x y", {"a": "y"}),
        ("%{+a/2} %{+b} %{+a/1}", "x y z", {"a": "zx", "b": "y"}),
        ("%{+a->/2} %{+a/1}", "x  z", {"a": "zx"}),
        ("%{?k}=%{&k}", "name=ada", {"name": "ada"}),
        ("%{&k}=%{?k}", "ada=name", {"name": "ada"}),
        ("%{?k}=%{&k}", "=ada", {}),
        ("%{+k} %{+k}=%{&k}", "x y=1", {"k": "xy", "xy": "1"}),
        ("%{&none} %{a}", "x y", {"a": "y"}),
        ("%{a/b} %{a/c}", "x y", {"a": {"b": "x", "c": "y"}}),
        ("%{a},%{b},%{c}", ",2,3", {"a": "", "b": "2", "c": "3"}),
        (" %{a} %{b}", "x y", {}),
        ("-%{a}-%{b}", "-x-y", {"a": "x", "b": "y"}),
        ("%{?} %{b}", "x y", {}),
        ("%{a},%{b}", "1,2,3", {"a": "1", "b": "2,3"}),
        ("%{} %{a}", "x y", {"a": "y"}),
        ("%{a} %{b}", 7, {}),
        ("%{a}.%{b}", 1.5, {"a": "1", "b": "5"}),
    ],
)
def test_patterns(pattern, text, expected):
    assert fields(pattern, text) == expected


def test_types_and_values_that_have_another():
    types = {"a": "integer", "b": "big_decimal", "c": "boolean", "d": "long", "e": "double", "f": "string"}
    pattern = "%{a} %{b} %{c} %{d} %{e} %{f}"
    assert fields(pattern, "1 1.50 true 9 2 3", target_types=types) == {
        "a": 1,
        "b": Decimal("1.50"),
        "c": True,
        "d": 9,
        "e": 2.0,
        "f": "3",
    }
    assert fields("%{a} %{d}", "x 1.5", target_types=types) == {"a": "x", "d": "1.5"}


def test_several_keys_in_order_and_the_source_is_deleted():
    config = {"map": {"m": "%{n} %{o}", "n": "%{p}-%{q}"}, "delete_source": True}
    results = run_processor("dissect", config, [{"m": "a-b c"}, {"m": "x", "n": "y"}])
    assert [result.body for result in results] == [{"o": "c", "p": "a", "q": "b"}, {"m": "x", "n": "y"}]


def test_the_condition_is_asked_once():
    config = {"map": {"m": "%{a} %{z}", "b": "%{q} %{r}"}, "dissect_when": '/a == "1"'}
    (result,) = run_processor("dissect", config, [{"a": "1", "m": "x y", "b": "3 4"}])
    assert result.body == {"a": "x", "z": "y", "m": "x y", "b": "3 4", "q": "3", "r": "4"}


def test_misses_and_failures_are_counted():
    ctx = Context("p", "dissect")
    run = dissect.build(dissect.Config.model_validate({"map": {"m": "%{?k}=%{&k} %{x/y}"}}), ctx)
    bodies = [{"m": "a=1 2"}, {"m": "none"}, {"m": {"a": 1}}, {"m": "ü=1 2"}, {"m": "a=1 2", "x": 7}, {"m": None}, {}]
    after = run(Batch([dict(body) for body in bodies])).bodies
    assert after == [{"m": "a=1 2", "a": "1", "x": {"y": "2"}}, *bodies[1:]]
    assert ctx.registry.value("p.dissect.dissectMismatch") == 1
    assert ctx.registry.value("p.dissect.processingErrorsByCause", cause="key") == 2
    assert ctx.registry.value("p.dissect.processingErrorsByCause", cause="type") == 1


def test_large_texts():
    assert fields("%{a} %{b}", "x" * 2_500_000 + " " * 2_500_000 + "y")["b"] == "y"
    assert fields(" ".join(["%{a}"] * 100), " " * 2_500_000) == {}


@given(texts)
def test_any_pattern_can_be_read(pattern):
    build_processor("dissect", {"map": {"m": pattern}})


def test_refused_options():
    with pytest.raises(ConfigError, match="target_type must be a Map<String, TargetType>"):
        build_processor("dissect", {"map": {"m": "%{a}"}, "target_types": {"a": "number"}})
    with pytest.raises(ConfigError, match="must contain only alphanumeric chars"):
        build_processor("dissect", {"map": {"ü": "%{a}"}})
    with pytest.raises(ConfigError, match="dissect_when"):
        build_processor("dissect", {"map": {}, "dissect_when": "=="})


def test_a_source_that_cannot_be_deleted_leaves_the_event_as_it_was():
    event = {"lines": ["x y"], "a": 1}
    (result,) = run_processor("dissect", {"map": {"lines/0": "%{a} %{b}"}, "delete_source": True}, [event])
    assert result.body == event
