"""Nested objects to dotted names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.plugins.processors import flatten
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys, nested

flags = st.booleans()


@st.composite
def configs(draw):
    config = {
        "source": draw(st.just("") | keys),
        "target": draw(st.just("") | keys),
        "remove_source_keys": draw(flags),
        "exclude_keys": draw(st.lists(keys, max_size=2)),
    }
    config["remove_list_elements"] = draw(flags)
    config["remove_brackets"] = config["remove_list_elements"] and draw(flags)
    return config


@given(events, configs())
def test_any_event_survives(run_unharmed, before, config):
    run_unharmed("flatten", config, before)


def leaves(value):
    if isinstance(value, dict | list) and value:
        return [leaf for item in (value.values() if isinstance(value, dict) else value) for leaf in leaves(item)]
    return [repr(value)]


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.recursive(
            st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner), max_leaves=9
        ),
    )
)
def test_every_value_is_kept(value):
    (result,) = run_processor("flatten", {"source": "a", "target": "flat"}, [{"a": value}])
    assert list(map(repr, result.body["flat"].values())) == ([] if not value else leaves(value))


def run(config, *bodies):
    return [result.body for result in run_processor("flatten", config, list(bodies))]


def test_single_values_empty_ones_and_lists():
    config = {"source": "a", "target": "t"}
    sources = [7, None, [], {}, [{"b": 1}], {"b": {}, "c": []}]
    flat = [body["t"] for body in run(config, *({"a": source} for source in sources))]
    assert flat == [{"root": 7}, {"root": None}, {"root": []}, {}, {"[0].b": 1}, {"b": {}, "c": []}]


def test_the_result_shares_nothing_with_the_source():
    (body,) = run({"source": "a", "target": "t"}, {"a": {"b": {}, "c": []}})
    assert body["a"]["b"] is not body["t"]["b"]
    assert body["a"]["c"] is not body["t"]["c"]


def test_names_are_written_as_they_are():
    (body,) = run({"source": "a", "target": ""}, {"a": {"ключ": {"x/y": 1, "z:": 2}}})
    assert body == {"a": {"ключ": {"x/y": 1, "z:": 2}}, "ключ.x/y": 1, "ключ.z:": 2}


def test_another_separator():
    assert run({"source": "a", "target": "t", "flatten_separator": "_"}, {"a": {"b": {"c": 1}}})[0]["t"] == {"b_c": 1}


def test_values_of_one_name_become_a_list():
    config = {"source": "a", "target": "t", "remove_list_indices": True, "remove_processed_fields": True}
    (body,) = run(config, {"a": {"l": [{"n": 1}, {"n": [2, 3]}, {"m": 4}]}})
    assert body == {"a": {}, "t": {"l[].n": 1, "l[].n[]": [2, 3], "l[].m": 4}}


def test_a_target_that_cannot_be_written_leaves_the_source():
    config = {"source": "a", "target": "b/c", "remove_source_keys": True, "tags_on_failure": ["bad"]}
    (result,) = run_processor("flatten", config, [{"a": {"x": 1}, "b": 7}])
    assert result.body == {"a": {"x": 1}, "b": 7}
    assert result.tags == ["bad"]


def test_depth_and_size(monkeypatch):
    config = {"source": "", "target": "t", "exclude_keys": ["b"]}
    (body,) = run(config, {**nested(1500), "b": nested(1500)})
    assert list(body["t"].values()) == [1]
    assert "b" in body
    monkeypatch.setattr(flatten, "NAME_CHARACTERS_MAX", 1000)
    (result,) = run_processor(
        "flatten", {**config, "tags_on_failure": ["big"]}, [{"a" * 100: {str(n): n for n in range(20)}}]
    )
    assert result.tags == ["big"]
    assert "t" not in result.body


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"remove_brackets": True}, "remove_brackets can not be true if remove_list_indices is false."),
        ({"flatten_separator": "--"}, "flatten_separator must be exactly one character."),
        ({"flatten_separator": ""}, "flatten_separator must be exactly one character."),
        ({"flatten_separator": None}, "flatten_separator must not be null."),
        ({"flatten_when": "=="}, "flatten_when"),
        ({"source": None}, "source"),
    ],
)
def test_refused_options(more, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("flatten", {"source": "a", "target": "b", **more})
    assert message in str(caught.value)
