"""One event to several: order, promises, metadata, size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.core.batch import Batch, Meta, copy_value
from penstock.core.handle import Handle
from penstock.plugins.processors import split_event
from penstock.sdk import Context
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys

DELIMITERS = st.sampled_from(
    [{}, {"delimiter": ","}, {"delimiter": " "}, {"delimiter_regex": "[a ]+"}, {"delimiter_regex": "x*"}]
)


@given(events, keys, DELIMITERS)
def test_any_event_survives(run_unharmed, before, field, delimiter):
    run_unharmed("split_event", {"field": field, **delimiter}, before)


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=5), st.data())
def test_every_part_arrives_in_order_and_each_promise_is_kept(parts, data):
    """Also with an event per handle, and events of which one is refused."""
    outcomes = {}
    handles = [Handle(lambda ok, index=index: outcomes.__setitem__(index, ok)) for index in range(len(parts))]
    batch = Batch([{"n": index, "l": list(part)} for index, part in enumerate(parts)], handles=list(handles))
    for handle in handles:
        handle.add(1)
        handle.seal()
    split = build_processor("split_event", {"field": "l"})(batch)
    expected = [(index, part) for index, some in enumerate(parts) for part in (some or [[]])]
    assert [(body["n"], body["l"]) for body in split.bodies] == expected
    assert not any(batch.handles) or split is batch
    refused = data.draw(st.sets(st.sampled_from(range(len(expected))))) if expected else set()
    for index in range(len(expected)):
        split.release([index], ok=index not in refused)
    owners = [index for index, _ in expected]
    assert outcomes == {index: not any(owners[place] == index for place in refused) for index in range(len(parts))}


texts = st.text(alphabet=",ab", max_size=6) | st.none() | st.integers()
owners = st.lists(st.integers(0, 1), min_size=8, max_size=8) | st.just([0] * 8)


@given(
    st.lists(st.fixed_dictionaries({}, optional={"a": texts, "m": texts, "n": st.just({"x": [1]})}), max_size=8), owners
)
def test_texts_at_the_top(bodies, owned_by):
    def parts_of(body):
        parts = body["m"].rstrip(",").split(",") if isinstance(body.get("m"), str) else []
        return [{**body, "m": part} for part in parts] if len(parts) > 1 else [body]

    handles = [Handle(), Handle()]
    owned = [handles[owner] for owner in owned_by[: len(bodies)]]
    for handle in owned:
        handle.add(1)
    batch = Batch(copy_value(bodies), handles=list(owned))
    for place in range(1, len(bodies), 3):
        batch.tag(place, ["third"])
    split = build_processor("split_event", {"field": "m", "delimiter": ","})(batch)
    expected = [(part, place) for place, body in enumerate(bodies) for part in parts_of(body)]
    assert [list(body.items()) for body in split.bodies] == [list(part.items()) for part, _ in expected]
    assert split.handles == [owned[place] for _, place in expected]
    assert [handle.pending for handle in handles] == [1 + split.handles.count(handle) for handle in handles]
    assert [split.peek(index).tags for index in range(len(split))] == [
        {"third"} if place % 3 == 1 else set() for _, place in expected
    ]
    own = [meta for meta in split.metas if meta is not None]
    assert len(set(map(id, own))) == len(own)
    lists = [id(body["n"]["x"]) for body in split.bodies if "n" in body]
    assert len(set(lists)) == len(lists)


def test_parts_share_nothing():
    (first, second) = run_processor(
        "split_event", {"field": "l"}, [{"l": [1, 2], "m": {"x": 1}}], metadata={"a": {"b": 1}}, tags=["t"]
    )
    first.body["m"]["x"] = 2
    first.meta.attributes["a"]["b"] = 2
    first.meta.tags.add("u")
    assert second.body == {"l": 2, "m": {"x": 1}}
    assert (second.metadata, second.tags) == ({"a": {"b": 1}}, ["t"])


def test_events_without_metadata_of_their_own_keep_the_origin():
    batch = Batch([{"l": [1, 2]}], origin=Meta(attributes={"path": "/log"}))
    split = build_processor("split_event", {"field": "l"})(batch)
    assert split.metas == [None, None]
    assert split.peek(0).attributes == {"path": "/log"}


def test_nested_fields_and_what_passes_as_it_is():
    config = {"field": "a/0", "delimiter": ","}
    bodies = [{"a": ["x,y"]}, {"a": {"0": "x,y"}}, {"a": [","]}, {"a": [""]}, {"a": [[]]}, {"a": [["x"]]}, {"a": 1}]
    assert [result.body for result in run_processor("split_event", config, bodies)] == [
        {"a": ["x"]},
        {"a": ["y"]},
        {"a": {"0": "x"}},
        {"a": {"0": "y"}},
        {"a": [","]},
        {"a": [""]},
        {"a": [[]]},
        {"a": ["x"]},
        {"a": 1},
    ]


def test_a_condition():
    config = {"field": "m", "delimiter": ",", "split_when": "/go == true"}
    results = run_processor("split_event", config, [{"m": "a,b"}, {"m": "a,b", "go": True}])
    assert [result.body["m"] for result in results] == ["a,b", "a", "b"]


def test_an_event_that_would_fill_the_memory_stays_whole():
    ctx = Context("p", "split_event")
    run = split_event.build(split_event.Config(field="m", delimiter=","), ctx)
    large = {"m": "x," * 100_000 + "x", "rest": {"list": list(range(100))}}
    batch = Batch([copy_value(large), {"m": "a,b"}])
    assert run(batch).bodies == [large, {"m": "a"}, {"m": "b"}]
    assert ctx.registry.value("p.split_event.processingErrorsByCause", cause="size") == 1
    assert len(run(Batch([{"m": "x," * 200_000 + "x"}]))) == 200_001


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"field": "a", "delimiter": ",", "delimiter_regex": ","},
            "delimiter and delimiter_regex cannot both be specified",
        ),
        ({"field": "a", "delimiter": ""}, "size must be between 1 and 1"),
        ({"field": "a", "delimiter_regex": "["}, "The value of delimiter_regex is not a valid regex string"),
        ({"field": ""}, "field"),
        ({}, "field must not be null"),
        ({"field": "a", "split_when": "=="}, "split_when"),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("split_event", config)
    assert message in str(caught.value)
