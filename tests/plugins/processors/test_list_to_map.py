"""Lists of objects to one object."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.plugins.processors import list_to_map
from penstock.testing import run_processor
from penstock.testing.strategies import events, keys, names, values

flags = st.booleans()
lists = st.lists(st.dictionaries(names, values, max_size=3), max_size=3)


@st.composite
def configs(draw):
    config = {"source": draw(keys), "use_source_key": draw(flags), "extract_value": draw(flags), "flatten": draw(flags)}
    config["flattened_element"] = draw(st.sampled_from(["first", "last"]))
    config["key"] = draw(st.none() | names)
    config["value_key"] = draw(st.none() | names)
    config["target"] = draw(st.none() | keys)
    return config


@given(events, lists, configs())
def test_any_event_survives(run_unharmed, before, elements, config):
    run_unharmed("list_to_map", config, [*before, *({**body, "a": elements} for body in before)])


def run(config, body):
    (result,) = run_processor("list_to_map", {"source": "l", "tags_on_failure": ["bad"], **config}, [body])
    return result


ELEMENTS = [{"n": "a", "v": 1}, {"n": "b", "v": 2}, {"n": "a", "v": 3}]


def test_first_and_last():
    config = {"key": "n", "value_key": "v", "flatten": True, "target": "m"}
    assert run(config, {"l": ELEMENTS}).body["m"] == {"a": 1, "b": 2}
    assert run({**config, "flattened_element": "last"}, {"l": ELEMENTS}).body["m"] == {"a": 3, "b": 2}


def test_source_keys_flattened():
    assert run({"use_source_key": True, "flatten": True, "extract_value": True, "target": "m"}, {"l": ELEMENTS}).body[
        "m"
    ] == {"n": "a", "v": 1}


def test_the_result_shares_nothing_with_the_list():
    body = run({"use_source_key": True, "target": "m"}, {"l": [{"x": 1, "y": 2}]}).body
    body["m"]["x"][0]["x"] = 5
    assert body["m"]["y"] == [{"x": 1, "y": 2}] == body["l"]


def test_failures_leave_the_event_as_it_was():
    for elements in ("text", None, [1], [{"n": 7}], [{"v": 1}], [{"n": "a"}, {"n": "no key: \u00e9"}]):
        result = run({"key": "n"}, {"l": elements})
        assert result.body == {"l": elements}
        assert result.tags == ["bad"]
    assert run({"key": "n"}, {}).tags == ["bad"]
    assert run({}, {"l": ELEMENTS}).tags == ["bad"]


def test_copies_have_a_limit(monkeypatch):
    monkeypatch.setattr(list_to_map, "COPIED_BYTES_MAX", 1000)
    result = run({"use_source_key": True}, {"l": [{str(n): "x" * 20 for n in range(20)}]})
    assert result.tags == ["bad"]
    assert list(result.body) == ["l"]
