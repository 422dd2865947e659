"""Encoding: whatever a body holds, an operation is two lines of JSON that say the same."""

import json
import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.batch import Batch, Meta, copy_value
from penstock.core.clock import ManualClock
from penstock.core.metrics import Registry
from penstock.sdk import Context
from penstock.testing.plugins import checked

numbers = st.integers() | st.integers().map(lambda n: Decimal(n) / 1000) | st.floats(allow_nan=False)
texts = st.text(max_size=8)
scalars = st.none() | st.booleans() | numbers | texts
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(texts, scalars, max_size=3)
bodies = st.dictionaries(texts, values, max_size=4)


def documents(registry=None, **options):
    found, config = checked("sink", "opensearch", {"hosts": ["http://localhost:9200"], **options})
    ctx = Context("p", "opensearch", kind="sink", clock=ManualClock(), chance=random.Random(1), registry=registry)
    return found.module.build(config, ctx)


def parsed(item):
    line, document, end = item.split(b"\n")
    assert end == b""
    return json.loads(line, parse_float=Decimal), json.loads(document, parse_float=Decimal)


def plain(value):
    """The value as it is read back: floats and decimals by their exact decimal value."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return None if value in (float("inf"), float("-inf")) else Decimal(repr(value))
    return value


PLAIN, WITH_ID = documents(index="logs"), documents(index="logs-${/t}", document_id="${/id}", routing="${/r}")


@settings(max_examples=60)
@given(st.lists(bodies, min_size=1, max_size=3))
def test_a_batch_becomes_two_lines_for_each_event(events):
    before = copy_value(events)
    items = PLAIN.encode(Batch(events))
    assert events == before
    assert items.keys is None and not items.rejected and list(items.slots) == list(range(len(events)))
    for item, event in zip(items.data, events, strict=True):
        assert parsed(item) == ({"index": {"_index": "logs"}}, plain(event))


@settings(max_examples=60)
@given(bodies, st.text(min_size=1, max_size=30), st.text(max_size=30))
def test_ids_and_routing_are_escaped(event, id_, routing):
    body = {**event, "t": "x", "id": id_, "r": routing}
    items = WITH_ID.encode(Batch([body]))
    target = {"_index": "logs-x", "_id": id_} | ({"routing": routing} if routing else {})
    assert parsed(items.data[0]) == ({"index": target}, plain(body))
    assert items.keys == [("logs-x", id_)]


KEYED = documents(
    index="logs",
    document_id="${/id}",
    action="${/action}",
    document_version="${/version}",
    document_version_type="external",
)
usual = st.fixed_dictionaries(
    {
        "id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4),
        "action": st.sampled_from(["index", "create", "delete"]),
        "version": st.sampled_from([0, 7, "7", "007", 10**17]),
    },
    optional={"value": values},
)
unusual = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["", "\ud800", "x" * 128, "ü" * 300, 5]),
        "action": st.sampled_from(["index", "create", "update", "upsert", "INDEX", "other"]),
        "version": st.sampled_from([-5, "x", 10**18, 2**63, 1.5, ""]),
        "value": values,
    },
)


@given(st.lists(usual | usual | unusual, max_size=5))
def test_operations_are_the_same_whether_made_the_quick_way_or_one_by_one(events):
    made = KEYED._documents
    made._rest_batches = 0
    found, expected = KEYED.encode(Batch(events)), made._encode_each(Batch(events), "logs", 0)
    assert list(found.data) == expected.data
    assert list(found.slots) == expected.slots
    assert found.keys == expected.keys
    assert found.rejected == expected.rejected


def test_operations_of_the_usual_kind_are_made_the_quick_way():
    events = [{"id": f"{n}", "action": "delete" if n == 3 else "index", "version": n} for n in range(5)]
    KEYED._documents._rest_batches = 0
    items = KEYED.encode(Batch(events))
    assert KEYED._documents._rest_batches == 0
    assert items.data[3] == b'{"delete":{"_index":"logs","_id":"3","version":3,"version_type":"external"}}\n'
    target = {"_index": "logs", "_id": "4", "version": 4, "version_type": "external"}
    assert parsed(items.data[4]) == ({"index": target}, events[4])
    assert items.keys == [("logs", f"{n}") for n in range(5)]


def test_numbers_survive():
    body = {"big": 2**200, "decimal": Decimal("1234567890123456789012345678901234567.5"), "e": Decimal("1E+3")}
    (item,) = PLAIN.encode(Batch([body])).data
    assert item.endswith(b'{"big":%d,"decimal":1234567890123456789012345678901234567.5,"e":1000}\n' % 2**200)


def test_an_event_that_cannot_be_written_does_not_stop_the_others():
    items = PLAIN.encode(Batch([{"n": 1}, {"bad": object()}, {"n": 3}]))
    assert [parsed(item)[1] for item in items.data] == [{"n": 1}, {"n": 3}]
    assert list(items.slots) == [0, 2]
    (failure,) = items.rejected
    assert (failure.index, failure.details["index"]) == (1, "logs")


@pytest.mark.parametrize(
    ("event", "action"),
    [({"op": "add"}, "create"), ({"op": "change", "n": 1}, "upsert"), ({"op": "drop"}, "delete"), ({}, "index")],
)
def test_the_first_action_that_matches_is_used_else_the_default(event, action):
    sink = documents(
        index="i",
        document_id="1",
        actions=[
            {"type": "create", "when": '/op == "add"'},
            {"type": "upsert", "when": '/op == "change"'},
            {"type": "${/op2}", "when": '/op == "dynamic"'},
            {"type": "delete", "when": '/op == "drop"'},
        ],
    )
    (item,) = sink.encode(Batch([event])).data
    lines = item.split(b"\n")
    ((wire, _),) = json.loads(lines[0]).items()
    assert wire == {"upsert": "update"}.get(action, action)
    if action == "upsert":
        assert json.loads(lines[1]) == {"doc": event, "upsert": event}


@pytest.mark.parametrize(
    ("options", "event", "reason", "counter"),
    [
        ({"action": "${/op}"}, {"op": "vanish"}, 'action "vanish" is invalid.', "invalidActionErrors"),
        ({"action": "delete"}, {}, "the action delete needs a document id", None),
        ({"document_id": "${/id}", "action": "update"}, {"n": 1}, "the action update needs a document id", None),
        ({"document_id": "${/id}"}, {"id": "x" * 513}, "id is too long, must be no longer than 512 bytes", None),
        (
            {"document_id": "1", "document_version": "${/v}", "document_version_type": "external"},
            {"v": "1.5"},
            "Unable to convert the result of evaluating document_version '${/v}' to Long for an Event. The evaluation "
            "result '1.5' must be a valid Long type",
            "dynamicDocumentVersionDroppedEvents",
        ),
        (
            {"document_version": "${/v}", "document_version_type": "external"},
            {"v": 3},
            "a document version needs a document id",
            None,
        ),
        (
            {"index": "x-${nothing}"},
            {},
            "The key nothing could not be found in the Event when formatting",
            "dynamicIndexDroppedEvents",
        ),
    ],
)
def test_events_that_can_never_be_written_are_rejected_alone(options, event, reason, counter):
    registry = Registry()
    sink = documents(registry, **{"index": "i", **options})
    good = {"op": "index", "id": "1", "v": 2, "nothing": "here"}
    items = sink.encode(Batch([event, good]))
    assert items.rejected[0].index == 0 and items.rejected[0].reason.startswith(reason)
    if counter is not None:
        assert registry.value(f"p.opensearch.{counter}") == 1


def test_an_id_that_cannot_be_made_is_left_to_the_server():
    sink = documents(index="i", document_id="${id}-${other}", routing="${r}")
    items = sink.encode(Batch([{"id": 1}, {"id": 1, "other": 2, "r": "z"}]))
    assert [parsed(item)[0]["index"] for item in items.data] == [
        {"_index": "i"},
        {"_index": "i", "_id": "1-2", "routing": "z"},
    ]
    assert items.keys == [None, ("i", "1-2")]


def test_scripts_take_the_document_as_a_parameter():
    sink = documents(
        index="i",
        document_id="1",
        action="upsert",
        script={"source": "// merge\n\n  ctx._source.putAll(params.doc);\n", "params": {"n": 3, "who": "${/user}"}},
    )
    (item,) = sink.encode(Batch([{"user": "ann"}])).data
    assert parsed(item) == (
        {"update": {"_index": "i", "_id": "1", "retry_on_conflict": 3}},
        {
            "script": {
                "lang": "painless",
                "source": "ctx._source.putAll(params.doc);",
                "params": {"doc": {"user": "ann"}, "n": 3, "who": "ann"},
            },
            "scripted_upsert": True,
            "upsert": {"user": "ann"},
        },
    )


def test_the_deprecated_fields_read_nested_values():
    sink = documents(index="i", document_id_field="info/id", routing_field="metadata/id")
    body = {"info": {"id": "json001"}, "metadata": {"id": "abcd"}}
    (item,) = sink.encode(Batch([body], [Meta()])).data
    assert parsed(item)[0] == {"index": {"_index": "i", "_id": "json001", "routing": "abcd"}}
