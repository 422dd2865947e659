"""Tables: order, ranges, expressions, paths, types, files."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.core.batch import Batch
from penstock.lib import limited_loop
from penstock.plugins.processors import translate
from penstock.sdk import Context
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys, texts

KINDS = ["integer", "string", "double", "boolean", "long", "big_decimal"]


def config(source="s", target="t", **options):
    return {"mappings": [{"source": source, "targets": [{"target": target, **options}]}]}


def run(options, *bodies):
    return [result.body for result in run_processor("translate", options, list(bodies))]


tables = st.fixed_dictionaries(
    {},
    optional={
        "map": st.dictionaries(
            texts.filter(lambda text: "-" not in text and "," not in text), st.integers(0, 9), max_size=3
        )
        | st.just({"a,b": 1, "1-5": "2", "true": 3}),
        "regex": st.fixed_dictionaries(
            {
                "patterns": st.dictionaries(
                    st.sampled_from(["a", "[0-9]+", "(b)|c", ""]), st.sampled_from(["1", "2", 3])
                )
            },
            optional={"exact": st.booleans()},
        ),
        "default": st.sampled_from(["0", "x"]),
        "type": st.sampled_from(KINDS),
    },
)


@given(events, keys | st.lists(st.sampled_from(["a", "b", "key"]), min_size=1), keys, tables)
def test_any_event_survives(run_unharmed, before, source, target, table):
    try:
        build_processor("translate", config(source, target, **table))
    except ConfigError:
        table = {"map": {"a": 1}}
    run_unharmed("translate", config(source, target, **table), before)


def test_the_order_is_value_range_expression_default():
    table = {"map": {"7": "value", "8-9": "range"}, "regex": {"patterns": {".": "expression"}}, "default": "default"}
    bodies = run(config(**table), {"s": 7}, {"s": "8.0"}, {"s": "x"}, {"s": "xx"}, {"s": None}, {})
    assert [body.get("t") for body in bodies] == ["value", "range", "expression", "default", None, None]


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("1", True),
        ("5.0", True),
        ("5.01", False),
        ("16777217", True),
        ("16777217.5", False),
        (16777216, False),
        ("-3", True),
        (" 3", False),
        ("3e0", False),
        ("9" * 5000, False),
        (True, True),
        (2.5, True),
    ],
)
def test_ranges_are_exact(value, known):
    (body,) = run(config(map={"5-1, 16777217 - 16777217 ": "x", "-3,key-1,true": "x"}), {"s": value})
    assert body.get("t") == ("x" if known else None)


def test_keys_that_yaml_reads_as_something_else():
    assert run(config(map={200: "ok", True: "yes"}), {"s": 200}, {"s": True}) == [
        {"s": 200, "t": "ok"},
        {"s": True, "t": "yes"},
    ]


def test_a_part_is_replaced_by_the_first_expression_that_is_found():
    table = {"regex": {"exact": False, "patterns": {"a+": "<$0>", "ab": "whole", "b": 7}}}
    bodies = run(config(**table), {"s": "xaay"}, {"s": "ab"}, {"s": "aa"}, {"s": "bb"})
    assert [body["t"] for body in bodies] == ["x<aa>y", "<a>b", "<$0>", "77"]


def test_several_sources_give_a_list():
    options = config(["/m/a", "m/b", "m/c"], map={"1": "10", "2": "20"}, type="integer")
    assert run(options, {"m": {"a": 1, "b": 9, "c": "2"}}, {"m": {"b": 9}})[0]["m"]["t"] == [10, 20]
    assert "t" not in run(options, {"m": {"b": 9}})[0]["m"]
    assert run(config(["a"], map={"1": "x"}), {"a": 1}) == [{"a": 1, "t": ["x"]}]


def test_objects_in_lists_of_lists_and_their_own_condition():
    options = config("l/s", map={"1": "x"}, translate_when="/go == true")
    (body,) = run(options, {"l": [[{"s": 1, "go": True}], {"s": 1}, 7, None, {"go": True}]})
    assert body == {"l": [[{"s": 1, "go": True, "t": "x"}], {"s": 1}, 7, None, {"go": True}]}


def test_keys_made_of_the_event():
    options = config("${kind}/id", "${kind}_name", map={"1": "x"})
    assert run(options, {"kind": "user", "user": {"id": 1}}) == [
        {"kind": "user", "user": {"id": 1, "${kind}_name": "x"}}
    ]
    options = config("${kind}", "to/${kind}", map={"1": "x"})
    assert run(options, {"kind": "user", "user": 1}, {"user": 1}) == [
        {"kind": "user", "user": 1, "to": {"user": "x"}},
        {"user": 1},
    ]


def test_failures_are_counted_by_cause_and_leave_the_event():
    table = {"map": {"1": "2"}, "default": "x", "type": "integer"}
    options = config(regex={"exact": False, "patterns": {"c": "2"}}, **table)
    options["mappings"] += config(target="t2", regex={"exact": False, "patterns": {"b": "$7"}})["mappings"]
    ctx = Context("p", "translate")
    build = translate.build(translate.Config.model_validate(options), ctx)
    bodies = [{"s": value} for value in ("1", "xb", "c7x", "nothing", {"a": 1})]
    assert build(Batch(bodies)).bodies == [{"s": "1", "t": 2}, *bodies[1:]]
    causes = {
        cause: ctx.registry.value("p.translate.processingErrorsByCause", cause=cause)
        for cause in ("replacement", "convert", "type")
    }
    assert causes == {"replacement": 1, "convert": 3, "type": 2}


def test_matching_that_runs_away_is_given_up(monkeypatch):
    monkeypatch.setattr(limited_loop.each_limited, "__kwdefaults__", {"seconds": 0.05})
    hostile = {"s": "a" * 60 + "!"}
    assert run(config(regex={"patterns": {"(a+)+": "x"}}), hostile, {"s": "aa"}) == [hostile, {"s": "aa", "t": "x"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'at least one of the options, either "mappings" or "file_path", is properly configured.'),
        ({"mappings": None}, '"mappings" option should not be empty.'),
        ({"mappings": [{"targets": [{"target": "t", "map": {}}]}]}, "source option not configured"),
        ({"mappings": [{"source": "s"}]}, "targets option not configured"),
        (config(["a/b", "c/b"], map={"a": 1}), "a list of strings sharing the same parent path."),
        (config([], map={"a": 1}), "a list of strings sharing the same parent path."),
        (config(7, map={"a": 1}), "a list of strings sharing the same parent path."),
        (config(), "Either map or patterns option needs to be configured under targets."),
        (config(regex={"exact": True}), "pattern option is mandatory while configuring regex option"),
        (config(map={"a": "x"}, type="integer"), "The mapped values do not match the target type provided"),
        (config(map={"a": {}}), "The mapped values do not match the target type provided"),
        (
            config(regex={"patterns": {"a": "x"}}, type="long"),
            "The pattern values do not match the target type provided",
        ),
        (config(target="ü", map={"a": "x"}), "must contain only alphanumeric chars"),
        (config(map={"1-5": 1, "5-9": 2}), "map option contains key 5-9 that overlaps with other range entries"),
        (config(map={"1-5": 1, "4.5": 2}), "map option contains key 4.5 that overlaps with other range entries"),
        (config(map={"a": 1, "b,a": 2}), "map option contains duplicate entries of a"),
        (config(regex={"patterns": {"(": "x"}}), "not a valid regex string"),
        (config(map={"a": 1}, type="text"), "Valid options include"),
        (config(map={"a": 1}, translate_when="=="), "translate_when"),
        ({"file": {"name": "x", "aws": {"bucket": "b", "region": "r", "sts_role_arn": "a"}}}, "not supported yet"),
        ({"file": {"name": "/none"}}, 'The file specified in the "file_path" option is not properly configured.'),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("translate", options)
    assert message in str(caught.value)


def test_mappings_in_a_file(tmp_path):
    file = tmp_path / "tables.yaml"
    own = config(map={"1": "own"})
    file.write_text(
        yaml.safe_dump(
            {
                "mappings": [
                    *config(map={"1": "file"})["mappings"],
                    *config(target="t2", map={"1": "file"})["mappings"],
                    *config("o", map={"1": "other"})["mappings"],
                ]
            }
        )
    )
    assert run({**own, "file": {"name": str(file)}}, {"s": 1, "o": 1}) == [{"s": 1, "o": 1, "t": "other", "t2": "file"}]
    assert run({"file": {"name": str(file)}}, {"s": 1}) == [{"s": 1, "t": "file", "t2": "file"}]
    assert run({**own, "file": {"name": str(file)}}, {"s": 1}) == [{"s": 1, "t": "own", "t2": "file"}]
    for text in ("mappings: 7", "[", "mappings: [{source: s}]"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="is not properly configured"):
            build_processor("translate", {"file": {"name": str(file)}})
