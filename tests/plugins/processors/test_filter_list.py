"""Elements that satisfy a condition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.core.batch import Batch, copy_value
from penstock.core.handle import Handle
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys

conditions = st.sampled_from(["true", "/value > 0", '/a == "b"', "/value", "/a", "/value == null", "/a > /b"])


@given(events, keys, st.none() | keys, conditions)
def test_any_event_survives(before, source, target, condition):
    config = {"iterate_on": source, "target": target, "keep_element_when": condition, "tags_on_failure": ["failed"]}
    batch, handle = Batch(copy_value(before)), Handle()
    batch.promise(handle)
    result = build_processor("filter_list", config)(batch)
    assert len(result) == len(before) == handle.pending - 1
    result.release_all(ok=True)
    assert handle.pending == 1
    for one, body, meta in zip(before, result.bodies, result.metas, strict=True):
        if meta is not None and "failed" in meta.tags and not meta.attributes:
            assert body == one


def run(config, body):
    config = {"iterate_on": "l", "keep_element_when": "/value > 1", "tags_on_failure": ["bad"], **config}
    (result,) = run_processor("filter_list", config, [body])
    return result


def test_elements_that_fail_are_left_out_and_listed():
    result = run({"keep_element_when": "/ok"}, {"l": [{"ok": True}, {"ok": 7}, {"ok": False}, 3]})
    assert result.body == {"l": [{"ok": True}]}
    assert result.tags == ["bad"]
    assert result.metadata == {
        "filter_list_processor_failed_elements": [{"ok": 7}, 3],
        "filter_list_processor_failed_elements_count": 2,
    }


def test_missing_and_null_lists_are_left_alone():
    for body in ({}, {"l": None}):
        result = run({}, body)
        assert (result.body, result.tags) == (body, [])


def test_an_element_knows_nothing_of_the_event():
    result = run({"keep_element_when": '/env == null and not hasTags("x")'}, {"env": 1, "l": [{"n": 1}]})
    assert result.body["l"] == [{"n": 1}]


def test_another_target_shares_nothing_and_may_fail():
    result = run({"keep_element_when": "true", "target": "t"}, {"l": [{"a": 1}]})
    result.body["t"][0]["a"] = 2
    assert result.body["l"] == [{"a": 1}]
    result = run({"target": "t/x"}, {"l": [2], "t": 1})
    assert (result.body, result.tags) == ({"l": [2], "t": 1}, ["bad"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"keep_element_when": "=="}, "keep_element_when"),
        ({"keep_element_when": ""}, "keep_element_when must not be empty"),
        ({"keep_element_when": None}, "keep_element_when must not be null"),
        ({"filter_list_when": "=="}, "filter_list_when"),
        ({"iterate_on": ""}, "iterate_on"),
    ],
)
def test_refused_options(more, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("filter_list", {"iterate_on": "l", "keep_element_when": "true", **more})
    assert message in str(caught.value)
