"""Elements to objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys

flags = st.booleans()


@given(events, keys, st.none() | keys, flags, flags)
def test_any_event_survives(run_unharmed, before, source, target, exclude, append):
    config = {"source": source, "target": target, "key": "k", "exclude_null_empty_values": exclude}
    run_unharmed("wrap_entries", {**config, "append_if_target_exists": append}, before)


def run(config, body):
    (result,) = run_processor("wrap_entries", {"source": "l", "key": "k", "tags_on_failure": ["bad"], **config}, [body])
    return result


def test_appending():
    config = {"target": "t", "append_if_target_exists": True}
    assert run(config, {"l": [1], "t": ["x"]}).body == {"l": [1], "t": ["x", {"k": 1}]}
    assert run(config, {"l": [1]}).body == {"l": [1], "t": [{"k": 1}]}
    result = run(config, {"l": [1], "t": "x"})
    assert (result.body, result.tags) == ({"l": [1], "t": "x"}, ["bad"])
    assert run({"append_if_target_exists": True}, {"l": [1]}).body == {"l": [1, {"k": 1}]}


def test_an_existing_target_is_replaced_and_an_empty_list_changes_nothing():
    assert run({"target": "t"}, {"l": [1], "t": 7}).body["t"] == [{"k": 1}]
    assert run({"target": "t"}, {"l": [], "t": 7}).body == {"l": [], "t": 7}


def test_null_is_no_list():
    assert run({}, {"l": None}).tags == ["bad"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"target": ""}, "target must not be empty when specified."),
        ({"key": ""}, "key must not be empty"),
        ({"source": ""}, "source"),
        ({"wrap_entries_when": "=="}, "wrap_entries_when"),
    ],
)
def test_refused_options(more, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("wrap_entries", {"source": "l", "key": "k", **more})
    assert message in str(caught.value)
