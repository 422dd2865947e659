"""JSON and lines, however the bytes are cut into pieces."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.batch import Batch, Meta
from penstock.core.errors import ConfigError, EventError
from penstock.plugins.codecs import json as json_codec
from penstock.plugins.codecs import ndjson as ndjson_codec
from penstock.sdk import Context, SinkOptions
from penstock.testing import decode
from penstock.testing.plugins import checked

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=6)
bodies = st.dictionaries(st.text(max_size=4), scalars | st.lists(scalars, max_size=2), max_size=3)
cuts = st.lists(st.integers(0, 400), max_size=8)


def pieces(data, places):
    bounds = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[a:b] for a, b in pairwise(bounds)]


def decoded(codec, config, data, places=(), **patched):
    """Bodies and attributes of the events, fed piece by piece."""
    found, options = checked("input_codec", codec, config)
    decoder = found.module.build_decoder(options, Context("p", codec)).decoder()
    batches = [decoder.feed(piece) for piece in pieces(data, places)] + [decoder.finish()]
    return [(body, batch.peek(place).attributes) for batch in batches for place, body in enumerate(batch.bodies)]


def bodies_of(*args, **kwargs):
    return [body for body, _ in decoded(*args, **kwargs)]


@settings(max_examples=80)
@given(st.lists(bodies, max_size=5), st.sampled_from(["\n", "\r\n", "", "\n\n ", " "]), st.booleans(), cuts)
def test_ndjson_however_it_is_cut(events, between, pretty, places):
    data = between.join(json.dumps(event, indent=2 if pretty else None) for event in events).encode()
    assert bodies_of("ndjson", {"include_empty_objects": True}, data, places) == events


@settings(max_examples=80)
@given(st.lists(bodies, max_size=4), st.lists(bodies, max_size=3), bodies, cuts)
def test_json_documents_however_they_are_cut_and_whatever_their_size(first, second, other, places):
    data = json.dumps({"a": first, "b": {"c": [other], "d": 1}, "e": second, "f": [1, "x", [other]]}).encode()
    expected = [*first, other, *second, other]
    assert bodies_of("json", {}, data, places) == expected
    assert walked({}, data, places) == expected
    assert bodies_of("json", {"key_name": "e"}, data, places) == second == walked({"key_name": "e"}, data, places)


def walked(config, data, places):
    """As for documents too large to be decoded at once."""
    before = json_codec.WHOLE_BYTES_MAX
    json_codec.WHOLE_BYTES_MAX = 0
    try:
        return bodies_of("json", config, data, places)
    finally:
        json_codec.WHOLE_BYTES_MAX = before


@pytest.mark.parametrize("whole", [True, False])
def test_fields_are_copied_into_the_events_behind_them(whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(json_codec, "WHOLE_BYTES_MAX", 0)
    document = {
        "n": 1.50,
        "yes": True,
        "no": None,
        "first": [{"a": 1}],
        "late": "x",
        "deep": {"n": 2, "more": [{"b": 2}]},
    }
    config = {"include_keys": ["n", "yes", "late", "no", "absent"], "include_keys_metadata": ["yes", "late"]}
    assert decoded("json", config, json.dumps(document).encode(), (7, 30, 55)) == [
        ({"a": 1, "n": "1.5", "yes": "true", "no": None}, {"yes": "true"}),
        ({"b": 2, "n": "1.5", "yes": "true", "no": None, "late": "x"}, {"yes": "true", "late": "x"}),
    ]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[]", []),
        (b'[{"a": 1}, [{"b": 2}], 3, null, "x"]', [{"a": 1}, {"b": 2}]),
        (b'{"a":[{"n":1}]}{"a":[{"n":2}]}\n', [{"n": 1}, {"n": 2}]),
        (b' \n{"a" : [ {"n" : 123456789012345678901234567890} ] } \n', [{"n": 123456789012345678901234567890}]),
        (b'{"esc\\"aped]}": [{"k": "]}\\\\"}]}', [{"k": "]}\\"}]),
        (b"12", []),
    ],
)
def test_unusual_documents(data, expected, whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(json_codec, "WHOLE_BYTES_MAX", 0)
    for cut in range(0, len(data), 3):
        assert bodies_of("json", {}, data, (cut,)) == expected


@pytest.mark.parametrize("codec", ["json", "ndjson"])
@pytest.mark.parametrize(
    "data", [b'{"a": [{"b": 1}', b'{"a": [{"b": }]}', b"{'a': 1}", b"\xff\xfe", b'{"a": [{"b": 1}]']
)
def test_what_is_no_json_is_an_error(codec, data):
    with pytest.raises(EventError):
        decode(codec, {}, data)


@pytest.mark.parametrize("data", [b"[1]\n", b'"text"\n', b"3\n", b"null"])
def test_ndjson_holds_objects_only(data):
    with pytest.raises(EventError, match="no object"):
        decode("ndjson", {}, data)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":[' * 600 + b"1"])
@pytest.mark.parametrize("codec", ["json", "ndjson"])
def test_deep_nesting_is_an_error_like_any_other(codec, data):
    with pytest.raises(EventError):
        decode(codec, {}, data)
    with pytest.raises(EventError):
        walked({}, data, range(0, 400, 50))


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(ndjson_codec, "VALUE_BYTES_MAX", 1000)
    with pytest.raises(EventError, match="larger than 1000 bytes"):
        bodies_of("ndjson", {}, b'{"a": "' + b"x" * 2000, (500, 900, 1500))
    monkeypatch.setattr(json_codec, "WHOLE_BYTES_MAX", 0)
    monkeypatch.setattr(json_codec, "EVENT_BYTES_MAX", 1000)
    with pytest.raises(EventError, match="larger than 1000 bytes"):
        bodies_of("json", {}, b'{"a": [{"x": "' + b"x" * 2000, (500, 900, 1500))


def test_a_large_document_over_many_lines_takes_linear_time():
    """Each byte is looked at a bounded number of times: a quadratic reader would not end here."""
    event = {"rows": [{"n": n, "text": "x" * 20} for n in range(20_000)]}
    data = json.dumps(event, indent=1).encode()
    assert bodies_of("ndjson", {}, data, range(0, len(data), 4096)) == [event]


@settings(max_examples=80)
@given(st.text(alphabet="ab\r\nü€", max_size=40), cuts)
def test_lines_however_they_are_cut(text, places):
    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if expected[-1] == "":
        expected.pop()
    assert [body["message"] for body in bodies_of("newline", {}, text.encode(), places)] == expected


def test_lines_that_are_no_utf8_are_kept_as_well_as_possible():
    assert bodies_of("newline", {}, b"a\xffb\n", (2,)) == [{"message": "a\ufffdb"}]


@pytest.mark.parametrize(
    ("codec", "config", "message"),
    [
        ("newline", {"skip_lines": -1}, "skipLines must be non-negative."),
        ("newline", {"header_destination": ""}, "header_destination must be either null or length greater than 0."),
        ("json", {"key_name": ""}, "key_name"),
        ("json", {"max_event_length": 5}, "max_event_length"),
    ],
)
def test_rules(codec, config, message):
    with pytest.raises(ConfigError, match=message):
        decode(codec, config, b"")


@settings(max_examples=40)
@given(st.lists(bodies, max_size=6), st.randoms(use_true_random=False))
def test_what_is_written_is_read_back(events, chance: random.Random):
    for codec in ("json", "ndjson"):
        found, options = checked("output_codec", codec, {})
        encoder = found.module.build_encoder(options, Context("p", codec)).encoder()
        cut = chance.randint(0, len(events))
        data = (
            encoder.start() + encoder.write(Batch(events[:cut])) + encoder.write(Batch(events[cut:])) + encoder.finish()
        )
        config = {} if codec == "json" else {"include_empty_objects": True}
        assert bodies_of(codec, config, data) == events


def test_lines_of_messages():
    found, options = checked("output_codec", "newline", {})
    events = [{"message": "a"}, {"other": 1}, {"message": ""}, {"message": 5}, {"message": {"x": 1}}]
    encoder = found.module.build_encoder(options, Context("p", "newline")).encoder()
    assert encoder.write(Batch(events)) == b'a\n5\n{"x":1}\n'
    found, options = checked("output_codec", "newline", {"include_empty_objects": True})
    encoder = found.module.build_encoder(options, Context("p", "newline")).encoder()
    assert encoder.write(Batch(events)) == b'a\n\n\n5\n{"x":1}\n'


def test_encoders_write_tags_where_the_sink_wants_them():
    found, options = checked("output_codec", "ndjson", {})
    ctx = Context("p", "ndjson", sink_options=SinkOptions(tags_target_key="t", exclude_keys=("b",)))
    encoder = found.module.build_encoder(options, ctx).encoder()
    assert encoder.write(Batch([{"a": 1, "b": 2}], [Meta(tags=["y", "x"])])) == b'{"a":1,"t":["x","y"]}\n'


@pytest.mark.parametrize("places", [(), (1,), (2, 4)])
def test_a_byte_order_mark_means_nothing(places):
    assert bodies_of("json", {}, b'\xef\xbb\xbf[{"a": 1}]', places) == [{"a": 1}]
    assert walked({}, b'\xef\xbb\xbf[{"a": 1}]', ()) == [{"a": 1}], "in a large document"
    assert bodies_of("ndjson", {}, b'\xef\xbb\xbf{"a": 1}\n{"b": 2}\n', places) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("whole", [True, False])
def test_a_document_that_is_an_array_without_objects_is_an_error(whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(json_codec, "WHOLE_BYTES_MAX", 0)
    for data in (b'[1, "x", [null]]', b"[true]"):
        with pytest.raises(EventError, match="array without objects"):
            bodies_of("json", {}, data)
    assert bodies_of("json", {}, b'[1, {"a": 1}]') == [{"a": 1}]
    assert bodies_of("json", {}, b'{"tags": ["x"], "rows": []}') == []


def test_half_a_surrogate_pair_does_not_cut_a_document_off():
    assert bodies_of("json", {}, b'[{"a": "\\ud800"}]') == [{"a": "\ufffd"}]
    with pytest.raises(EventError, match="ends too early"):
        bodies_of("json", {}, b'[{"a": "\\ud800"}')
