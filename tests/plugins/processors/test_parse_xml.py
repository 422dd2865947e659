"""Parsing XML: what the examples and the vectors do not say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.metrics import Registry
from penstock.plugins.processors import parse_xml
from penstock.sdk import Batch, Context
from penstock.sdk.parsing import NESTING_MAX
from penstock.testing import run_processor

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BILLION_LAUGHS = f'<!DOCTYPE r [<!ENTITY l0 "lol">{LAUGHS}]><r>&l9;</r>'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<r/>", {}),
        ("<r> </r>", {}),
        ("<r>text</r>", {"": "text"}),
        ('<r a="1">text</r>', {"a": "1", "": "text"}),
        ("<r><a/><b></b><c>  </c></r>", {"a": "", "b": "", "c": "  "}),
        ("<r>\n  <a>1</a>\n  <a>2</a>\n</r>", {"a": ["1", "2"]}),
        ("<r><a>1</a><b/><a><c>2</c></a><a/></r>", {"a": ["1", {"c": "2"}, ""], "b": ""}),
        ('<r a="1"><a>2</a></r>', {"a": ["1", "2"]}),
        ("<r>x<a>1</a>y<a>2</a> </r>", {"": ["x", "y"], "a": ["1", "2"]}),
        ('<r><a b="1"/><a b="2"> </a></r>', {"a": [{"b": "1"}, {"b": "2"}]}),
        ("<r><a>x<!-- c -->y<?p i?>z<![CDATA[<&]]>&lt;&#65;</a></r>", {"a": "xyz<&<A"}),
        ('<p:r xmlns:p="u" p:a="1"><p:b xmlns="v">2</p:b></p:r>', {"a": "1", "b": "2"}),
        ('<r xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><a i:nil="true"><x>1</x></a></r>', {"a": None}),
        ('<r xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><a i:nil="false">1</a></r>', {"a": "1"}),
        ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE r SYSTEM "r.dtd"><r><a>é</a></r>', {"a": "é"}),
        ("<r>" + "<a>" * (NESTING_MAX - 1) + "</a>" * (NESTING_MAX - 1) + "</r>", None),
    ],
)
def test_documents(text, value):
    (result,) = run_processor("parse_xml", {"destination": "x", "tags_on_failure": ["bad"]}, [{"message": text}])
    assert result.tags == []
    assert value is None or result.body["x"] == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "<r>",
            "<r></s>",
            "<r>&nope;</r>",
            "<p:r/>",
            "<r/><r/>",
            "<r>\x00</r>",
            "<r>\ud800</r>",
            "<r a='1' a='2'/>",
        ),
        *("<!DOCTYPE r SYSTEM 'x'><r>&nope;</r>", "<!DOCTYPE r [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><r>&a;</r>"),
        BILLION_LAUGHS,
        BILLION_LAUGHS.replace("<r>&l9;</r>", "<r a='&l9;'/>"),
        "<a>" * 10_000 + "</a>" * 10_000,
        "<r>" + "x" * 5_000_000,
    ],
)
def test_what_is_refused_is_tagged(text):
    (result,) = run_processor("parse_xml", {"tags_on_failure": ["bad"]}, [{"message": text}])
    assert result.body == {"message": text}
    assert result.tags == ["bad"]


@pytest.mark.parametrize(
    ("text", "options", "after", "tags"),
    [
        ('<r a="1">t</r>', {}, {"a": "1"}, []),
        ("<r>t<a>1</a>u<b/></r>", {}, {"a": "1", "b": ""}, []),
        ('<r a="1"><i b="2">t</i></r>', {}, {"a": "1", "i": {"b": "2", "": "t"}}, []),
        ("<r>t</r>", {}, {}, ["bad"]),
        ('<r a="1">t</r>', {"delete_source": True}, {}, ["bad"]),
        ('<r a="1">t</r>', {"delete_source": True, "destination": "x"}, {"x": {"a": "1", "": "t"}}, []),
    ],
)
def test_text_of_the_root_has_no_name_at_the_top(text, options, after, tags):
    (result,) = run_processor("parse_xml", {"tags_on_failure": ["bad"], **options}, [{"message": text}])
    kept = {} if options.get("delete_source") and not tags else {"message": text}
    assert result.body == {**kept, **after}
    assert result.tags == tags


def test_failures_are_counted_by_kind():
    registry = Registry()
    run = parse_xml.build(parse_xml.Config(), Context("p", "parse_xml", registry=registry))
    run(Batch([{"message": "<"}, {"message": {}}, {"message": "<r><é>1</é></r>"}, {"message": "<r/>"}, {}]))
    assert registry.value("p.parse_xml.parseErrors") == 1
    assert registry.value("p.parse_xml.processingFailures") == 2


tags = st.sampled_from(["a", "b", "message"])
documents = st.recursive(
    st.text(max_size=4).map(lambda text: text.replace("<", "&lt;").replace("&", "&amp;").replace("]]>", "")),
    lambda inner: st.tuples(tags, st.lists(inner, max_size=3)).map(lambda el: f"<{el[0]}>{''.join(el[1])}</{el[0]}>"),
    max_leaves=8,
)
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | documents.map(lambda inner: f"<r k='1'>{inner}</r>"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(tags, inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["message", "a", "a/b", "message/0"])
configs = st.fixed_dictionaries(
    {"tags_on_failure": st.just(["failed"])},
    optional={"source": keys, "destination": keys, "pointer": keys, "delete_source": st.booleans()},
)


@given(st.lists(st.dictionaries(tags, values, max_size=3), max_size=4), configs)
def test_a_failed_event_stays_as_it_was(run_unharmed, events, config):
    assert len(run_unharmed("parse_xml", config, events)) == len(events)
