"""Objects to lists of keys and values."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.testing import run_processor
from penstock.testing.strategies import events, keys, names

flags = st.booleans()


@st.composite
def configs(draw):
    return {
        "source": draw(st.just("") | keys),
        "target": draw(keys),
        "remove_processed_fields": draw(flags),
        "convert_field_to_list": draw(flags),
        "exclude_keys": draw(st.lists(names, max_size=2)),
    }


@given(events, configs())
def test_any_event_survives(run_unharmed, before, config):
    run_unharmed("map_to_list", config, before)


def run(config, body):
    (result,) = run_processor("map_to_list", {"tags_on_failure": ["bad"], **config}, [body])
    return result


def test_excluded_keys_stay_when_the_others_go():
    config = {"source": "m", "target": "l", "remove_processed_fields": True, "exclude_keys": ["x"]}
    config |= {"key_name": "k", "value_name": "v"}
    assert run(config, {"m": {"a": 1, "x": 2}}).body == {"m": {"x": 2}, "l": [{"k": "a", "v": 1}]}
    config |= {"source": ""}
    assert run(config, {"a": 1, "x": 2}).body == {"x": 2, "l": [{"k": "a", "v": 1}]}


def test_a_target_that_cannot_be_written_leaves_the_source():
    for remove in (True, False):
        config = {"source": "m", "target": "x/y", "remove_processed_fields": remove}
        result = run(config, {"m": {"a": 1}, "x": 7})
        assert result.body == {"m": {"a": 1}, "x": 7}
        assert result.tags == ["bad"]


def test_the_list_shares_nothing_with_the_object():
    body = run({"source": "m", "target": "l"}, {"m": {"a": [1]}}).body
    body["l"][0]["value"].append(2)
    assert body["m"] == {"a": [1]}


def test_what_is_no_object():
    for value in ("text", None, [1]):
        assert run({"source": "m", "target": "l"}, {"m": value}).tags == ["bad"]
    assert run({"source": "m", "target": "l"}, {}).tags == ["bad"]
