"""Events that are stored and come back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch, Meta
from penstock.core.errors import EventError
from penstock.plugins.codecs import event_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
METAS = st.builds(
    Meta,
    received_ms=st.integers(0, 4_000_000_000_000),
    attributes=BODIES,
    tags=st.sets(st.text(max_size=5), max_size=3),
    origination_ms=st.none() | st.integers(0, 4_000_000_000_000),
)
EVENTS = st.lists(st.tuples(BODIES, METAS), max_size=5)


@given(events=EVENTS, cuts=st.lists(st.integers(0, 2_000), max_size=6), whole=st.booleans())
def test_what_is_written_is_read_back(codecs, events, cuts, whole):
    data = codecs.write("event_json", Batch([body for body, _ in events], [meta for _, meta in events]), [])
    before = event_json.WHOLE_BYTES_MAX
    event_json.WHOLE_BYTES_MAX = before if whole else 0
    try:
        batch = codecs.read("event_json", data, cuts, override_time_received=True)
    finally:
        event_json.WHOLE_BYTES_MAX = before
    assert batch.bodies == [body for body, _ in events]
    for place, (_, meta) in enumerate(events):
        read = batch.peek(place)
        assert (read.attributes, read.tags) == (meta.attributes, meta.tags)
        assert (read.received_ms, read.origination_ms) == (meta.received_ms, meta.origination_ms)
        assert read.event_type == "LOG"


def test_the_form_of_a_document(codecs):
    meta = Meta("LOG", 1_700_000_000_123, {"a": 1}, ["t", "s"], 1_600_000_000_000)
    assert json.loads(codecs.write("event_json", Batch([{"n": 1}], [meta]))) == {
        "version": "2.17",
        "events": [
            {
                "data": {"n": 1},
                "metadata": {
                    "event_type": "LOG",
                    "time_received": 1700000000.123,
                    "external_origination_time": 1600000000,
                    "attributes": {"a": 1},
                    "tags": ["s", "t"],
                },
            }
        ],
    }
    assert codecs.write("event_json") == b'{"version":"2.17","events":[]}'
    assert codecs.output("event_json").extension == "event_json"


def test_the_time_of_receipt_is_now_unless_that_of_the_document_is_wanted(codecs):
    document = {"version": "2", "events": [{"data": {}, "metadata": {"time_received": "2024-01-02T03:04:05.678Z"}}]}
    data = json.dumps(document).encode()
    assert codecs.read("event_json", data).peek(0).received_ms == codecs.clock.now_ms()
    assert codecs.read("event_json", data, override_time_received=True).peek(0).received_ms == 1_704_164_645_678


def test_several_documents_in_any_order_of_members(codecs):
    data = b'{"events": [{"data": {"n": 1}}], "version": "1.0"} {"version": "2.0", "events": [{"data": {"n": 2}}]}'
    assert codecs.read("event_json", data).bodies == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("whole", [True, False])
def test_documents_of_another_version_are_left_out_and_counted(codecs, monkeypatch, whole):
    monkeypatch.setattr(event_json, "WHOLE_BYTES_MAX", 1_000_000 if whole else 0)
    before = codecs.registry.value("p.event_json.incompatibleDocuments")
    for version in ("3.0", "2.99", "next"):
        data = json.dumps({"version": version, "events": [{"data": {"n": 1}}]}).encode()
        assert codecs.read("event_json", data).bodies == []
    assert codecs.registry.value("p.event_json.incompatibleDocuments") == before + 3


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        b'{"version": "2.0", "events": [{"data": {}}',
        b'{"version": "2.0", "events": [{"data": {}',
        b'{"version": "2.0", "events": [1]}',
        b'{"version": "2.0", "events": [{"data": 1}]}',
        b'{"version": "2.0", "events": [{"data": {}, "metadata": {"tags": "t"}}]}',
        b'{"version": "2.0", "events": [{"data": {}, "metadata": {"external_origination_time": "t"}}]}',
        b'{"version": "2.0", "events": {}}',
        b'{"events": []}',
        b"[]",
        b"nonsense",
    ],
)
def test_what_is_no_such_document_is_an_error(codecs, monkeypatch, whole, data):
    monkeypatch.setattr(event_json, "WHOLE_BYTES_MAX", 1_000_000 if whole else 0)
    with pytest.raises(EventError):
        codecs.read("event_json", data, cuts=range(0, len(data), 7))


def test_an_event_without_end_is_refused(codecs, monkeypatch):
    monkeypatch.setattr(event_json, "WHOLE_BYTES_MAX", 0)
    monkeypatch.setattr(event_json, "EVENT_BYTES_MAX", 1_000)
    decoder = codecs.decoder("event_json")
    with pytest.raises(EventError, match="larger than 1000 bytes"):
        decoder.feed(b'{"version": "2.0", "events": [{"data": {"a": "' + b"x" * 2_000)
