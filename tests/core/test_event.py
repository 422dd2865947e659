import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import event
from penstock.core.batch import Meta
from penstock.core.errors import EventError
from penstock.core.key import Key, valid_key

names = st.sampled_from(["a", "b", "ab", "c"])
values = st.recursive(
    st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=9,
)
bodies = st.dictionaries(names, values, max_size=4)
paths = st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=4)


def leaves(value, path=()):
    """Every scalar with its path; elements of an array share the path of the array."""
    if isinstance(value, dict):
        return [leaf for name, item in value.items() for leaf in leaves(item, (*path, name))]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item, path)]
    return [(path, value)]


def below(path, filters):
    return any(path[: len(wanted)] == wanted for wanted in (tuple(text.split("/")) for text in filters))


@given(bodies, paths)
def test_filters_keep_and_drop_exactly_what_they_name(body, filters):
    meta = Meta()
    kept = json.loads(event.to_json(body, meta, include_keys=filters))
    left = json.loads(event.to_json(body, meta, exclude_keys=filters))
    if not filters:
        assert kept == left == body
        return
    assert leaves(kept) == [leaf for leaf in leaves(body) if below(leaf[0], filters)]
    assert leaves(left) == [leaf for leaf in leaves(body) if not below(leaf[0], filters)]


@given(bodies, paths)
def test_picking_a_document_leaves_the_event_alone(body, filters):
    before = json.dumps(body)
    event.to_json(body, Meta(tags=["t"]), include_keys=filters, tags_target_key="tags")
    event.to_json(body, Meta(tags=["t"]), exclude_keys=filters, tags_target_key="tags")
    assert json.dumps(body) == before


def test_tags_can_be_added_to_an_empty_object_and_replace_a_key():
    meta = Meta(tags=["b", "a"])
    assert event.to_json({}, meta, tags_target_key="tags") == b'{"tags":["a","b"]}'
    assert event.to_json({"tags": 1, "x": 2}, meta, tags_target_key="tags") == b'{"tags":["a","b"],"x":2}'
    assert event.to_json({"x": [1]}, meta, root_key="x", tags_target_key="tags") == b"[1]"


def test_a_missing_root_key_means_the_whole_event():
    assert event.to_json({"a": 1}, Meta(), root_key="b") == b'{"a":1}'
    assert event.to_json({"a": None}, Meta(), root_key="/a/") == b"null"


def test_scalars_in_arrays_survive_a_filter_that_excludes_below_them():
    assert event.to_json({"a": [1, {"b": 2, "c": 3}]}, Meta(), exclude_keys=["a/b"]) == b'{"a":[1,{"c":3}]}'


def test_merging_shares_nothing():
    body, other = {"a": 1}, {"a": {"x": [1]}, "b": 2}
    event.merge(body, other)
    body["a"]["x"].append(2)
    assert other == {"a": {"x": [1]}, "b": 2}
    event.merge(body, other, [Key.parse("a/x"), Key.parse("missing")])
    assert body == {"a": {"x": [1]}, "b": 2}
    with pytest.raises(EventError, match="Keys list must not be null or empty for selective merge"):
        event.merge(body, other, [])


@given(st.text(min_size=1, max_size=30))
def test_replaced_keys_are_valid_and_valid_ones_stay(text):
    replaced = event.replace_invalid_characters(text)
    assert valid_key(replaced)
    assert len(replaced) == len(text)
    assert event.replace_invalid_characters(replaced) == replaced
    if valid_key(text):
        assert replaced == text


def test_keys_inside_lists_are_not_replaced():
    body = {}
    event.put_replacing(body, "a b,c", {"x y": 1, "p$,": {"q&": [{"r&": 1}]}})
    assert body == {"a_b_c": {"x y": 1, "p__": {"q_": [{"r&": 1}]}}}


def test_attributes_are_found_by_path_or_by_literal_name():
    meta = Meta(attributes={"a": {"b": {"c": 1}}, "n": None})
    event.set_attribute(meta, "x/y", 2)
    assert event.get_attribute(meta, "/a/b/c") == event.get_attribute(meta, "a/b/c/") == 1
    assert event.get_attribute(meta, "x/y") == 2
    assert event.get_attribute(meta, "n/a") is None
    assert event.get_attribute(meta, "a/x/c") is None


def test_failure_metadata_is_extended():
    body = {}
    event.add_failure_metadata(body, {"pluginId": "p", "errorMessage": "old"})
    event.add_failure_metadata(body, {"errorMessage": "new"})
    assert body == {"_failure_metadata": {"pluginId": "p", "errorMessage": "new"}}


def test_lists_and_types():
    body = {"list": [1], "text": "x", "none": None}
    assert event.get_list(body, Key.parse("list")) == [1]
    assert event.get_list(body, Key.parse("none")) is None
    with pytest.raises(EventError, match="Unable to map text to List"):
        event.get_list(body, Key.parse("text"))
    assert event.as_json_string(body, Key.parse("none")) == "null"
    assert event.as_json_string(body, Key.parse("missing")) is None


@pytest.mark.parametrize("data", ["[1]", "{", b"\xff", 5])
def test_only_objects_become_events(data):
    with pytest.raises(EventError, match="Unable to convert data into an event"):
        event.new_event(data, "LOG")


def test_attributes_are_lifted_below_existing_keys():
    body = {"a": 1, "attributes": {"a": 2, "b": 3}}
    assert event.lift_attributes(body) == {"a": 1, "b": 3}
    assert body == {"a": 1, "attributes": {"a": 2, "b": 3}}
    assert event.lift_attributes({"attributes": [1]}) == {"attributes": [1]}
