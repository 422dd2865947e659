"""What runs inside a loop does the same as what is called: values at the top of an event, and the same ones below."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.core.batch import Batch, Meta, copy_value
from penstock.plugins.processors.dissect.pattern import Pattern
from penstock.testing import build_processor, run_processor
from penstock.testing.result import batch_of

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.sampled_from([0, 7, 200, 299, 10**9, 2**31, -(2**31), 2**63, -1, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "200", "0200", " 7 ", "12.5", ".5", "1.", "1e3", "TRUE", "²", "١٢", "a=1&b=2&a", "a,,b,,", "x"]
    )
    | st.text(max_size=12)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("kvab"), inner, max_size=3)
)
objects = st.lists(
    st.fixed_dictionaries({"k": st.sampled_from("ab"), "v": scalars}, optional={"n": values}), max_size=4
)
holders = st.fixed_dictionaries({}, optional={"from": values | objects, "to": values, "more": values})

TAGS = {"tags_on_failure": ["failed"]}
CONFIGS = {
    "add_entries": lambda at: {"entries": [{"key": at("to"), "value": [1]}, {"key": at("more"), "value": 1}]},
    "add_entries append": lambda at: {"entries": [{"key": at("to"), "value": 1, "append_if_key_exists": True}]},
    "add_entries over": lambda at: {"entries": [{"key": at("to"), "value": {}, "overwrite_if_key_exists": True}]},
    "add_entries format": lambda at: {
        "entries": [{"key": at("to"), "format": f"<${{{at('from')}}}>${{{at('more')}}}"}]
    },
    "convert_type integer": lambda at: {"keys": [at("from"), at("to")], "type": "integer", **TAGS},
    "convert_type long": lambda at: {"key": at("from"), "type": "long", **TAGS},
    "convert_type double": lambda at: {"key": at("from"), "type": "double", **TAGS},
    "convert_type boolean": lambda at: {"key": at("from"), "type": "boolean", **TAGS},
    "convert_type string": lambda at: {"key": at("from"), "type": "string", **TAGS},
    "copy_values": lambda at: {"entries": [{"from_key": at("from"), "to_key": at("to")}]},
    "copy_values over": lambda at: {
        "entries": [{"from_key": at("from"), "to_key": at("to"), "overwrite_if_to_key_exists": True}]
    },
    "delete_entries": lambda at: {"with_keys": [at("from"), at("to")]},
    "detect_format": lambda at: {"source": at("from"), "target_key": at("to")},
    "filter_list": lambda at: {
        "iterate_on": at("from"),
        "target": at("to"),
        "keep_element_when": '/k == "a" or /value > 1 or /v >= 7',
        **TAGS,
    },
    "flatten": lambda at: {"source": at("from"), "target": at("to"), **TAGS},
    "key_value": lambda at: {"source": at("from"), "destination": at("to"), **TAGS},
    "list_to_map": lambda at: {"source": at("from"), "target": at("to"), "key": "k", **TAGS},
    "list_to_map first": lambda at: {"source": at("from"), "target": at("to"), "key": "k", "flatten": True, **TAGS},
    "list_to_map last": lambda at: {
        "source": at("from"),
        "target": at("to"),
        "key": "k",
        "value_key": "n",
        "flatten": True,
        "flattened_element": "last",
        **TAGS,
    },
    "lowercase_string": lambda at: {"with_keys": [at("from"), at("to")]},
    "map_to_list": lambda at: {"source": at("from"), "target": at("to"), **TAGS},
    "map_to_list pairs": lambda at: {"source": at("from"), "target": at("from"), "convert_field_to_list": True, **TAGS},
    "rename_keys": lambda at: {"entries": [{"from_key": at("from"), "to_key": at("to")}]},
    "rename_keys over": lambda at: {
        "entries": [{"from_key": at("from"), "to_key": at("to"), "overwrite_if_to_key_exists": True}]
    },
    "replace_string": lambda at: {"entries": [{"source": at("from"), "from": "a", "to": "bb"}]},
    "split_string": lambda at: {"entries": [{"source": at("from"), "delimiter": ","}]},
    "substitute_string": lambda at: {"entries": [{"source": at("from"), "from": "[a-f]+", "to": "<$0>"}]},
    "trim_string": lambda at: {"with_keys": [at("from")]},
    "truncate": lambda at: {"entries": [{"source_keys": [at("from")], "start_at": 1, "length": 2}]},
    "wrap_entries": lambda at: {"source": at("from"), "target": at("to"), "key": "w", **TAGS},
    "write_json": lambda at: {"source": at("from"), "target": at("to")},
}


@pytest.mark.parametrize("title", CONFIGS)
def test_values_at_the_top_are_treated_like_those_below(title):
    config = CONFIGS[title]
    top = build_processor(title.split(" ")[0], config(lambda name: name))
    below = build_processor(title.split(" ")[0], config(lambda name: f"in/{name}"))

    @settings(max_examples=60)
    @given(st.lists(holders, max_size=4))
    def same(bodies):
        flat, nested = batch_of(copy_value(bodies)), batch_of([{"in": body} for body in copy_value(bodies)])
        top(flat)
        below(nested)
        assert repr(flat.bodies) == repr([body["in"] for body in nested.bodies])
        assert [flat.peek(place).tags for place in range(len(bodies))] == [
            nested.peek(place).tags for place in range(len(bodies))
        ]

    same()


@given(st.lists(values, max_size=4), st.sampled_from(["string", "integer"]), st.sampled_from([None, "7", "no number"]))
def test_translations_that_are_remembered_are_those_of_the_table(sources, kind, default):
    targets = [{"target": "to", "map": {"1-250": 1, "299": 0, "x": 1}, "type": kind, "default": default}]
    events = [{"from": value} for value in [*sources, *sources]]
    alone, in_list = (
        run_processor("translate", {"mappings": [{"source": source, "targets": targets}]}, events)
        for source in ("from", ["from"])
    )
    for one, listed in zip(alone, in_list, strict=True):
        assert repr(listed.body.get("to")) == repr([one.body["to"]] if "to" in one.body else None)


fields = st.sampled_from(
    ["%{a}", "%{b}", "%{c->}", "%{}", "%{?a}", "%{?k}", "%{+j}", "%{+j/1}", "%{&a}", "%{&k}", "%{&j}", "%{x/y}"]
)
between = st.sampled_from([" ", "  ", ", ", "=", "] [", " \x01", "\t", "-"])
patterns = st.tuples(
    st.sampled_from(["", "", " ", "[", "="]), st.lists(st.tuples(fields, between), min_size=1, max_size=6)
)
lines = st.lists(
    st.sampled_from(["a", "b/c", "12", "0", "ü", " ", "  ", "\t", "\x01", ", ", "=", "] [", "[", "-", "]"])
)


@given(patterns, st.booleans(), st.lists(lines, min_size=1, max_size=5), st.booleans(), st.booleans())
def test_dissect_at_the_top_and_below(pattern, ends_with_field, texts, delete, typed):
    lead, pairs = pattern
    text = lead + "".join(field + delimiter for field, delimiter in pairs)
    if ends_with_field:
        text = text[: -len(pairs[-1][1])]
    types = {"a": "integer", "j": "integer", "c": "double"} if typed else {}
    options = {"delete_source": delete, "target_types": types}
    bodies = ["".join(line) for line in texts]
    bodies += [text.replace("%", "").replace("{", "").replace("}", "")]
    top = run_processor("dissect", {"map": {"m": text}, **options}, [{"m": line} for line in bodies])
    below = run_processor("dissect", {"map": {"o/m": text}, **options}, [{"o": {"m": line}} for line in bodies])
    for above, inner in zip(top, below, strict=True):
        holder = inner.body.pop("o")
        assert above.body == {**inner.body, **holder}


@given(patterns, lines)
def test_dissect_finds_what_its_pattern_finds(pattern, line):
    lead, pairs = pattern
    text = lead + "".join(field + delimiter for field, delimiter in pairs)
    assume("/" not in text)
    found = Pattern(text).dissect("".join(line))
    (result,) = run_processor("dissect", {"map": {"m": text}}, [{"m": "".join(line)}])
    if found is None or all(name and "/" not in name and not name.isdecimal() and name.isascii() for name in found):
        assert result.body == {"m": "".join(line), **(found or {})}


def test_conditions_see_the_metadata_of_their_event():
    run = build_processor("add_entries", {"entries": [{"key": "a", "value": 1, "add_when": 'hasTags("x")'}]})
    batch = Batch([{}, {}, {}])
    batch.tag(1, ["x"])
    assert run(batch).bodies == [{}, {"a": 1}, {}]
    assert run(Batch([{}], origin=Meta(tags=["x"]))).bodies == [{"a": 1}]
