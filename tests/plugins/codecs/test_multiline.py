"""Lines that belong together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigError, EventError
from penstock.plugins.codecs import multiline

TRACE = b"2024-01-01 ERROR\n  at A\n  at B\n2024-01-02 INFO\n"


def messages(batch):
    return [body["message"] for body in batch.bodies]


def test_continuation_at_the_start_of_a_line(codecs):
    batch = codecs.read("multiline", TRACE, continuation_line_start_pattern=r"^\s")
    assert messages(batch) == ["2024-01-01 ERROR\n  at A\n  at B", "2024-01-02 INFO"]


def test_continuation_at_the_end_of_a_line(codecs):
    batch = codecs.read("multiline", b"a \\\nb \\\nc\nd\n", continuation_line_end_pattern=r"\\$")
    assert messages(batch) == ["a \\\nb \\\nc", "d"]
    options = {"omit_matched_section": True, "line_separator": " "}
    batch = codecs.read("multiline", b"a\\\nb\\\nc\nd", continuation_line_end_pattern=r"\\$", **options)
    assert messages(batch) == ["a b c", "d"]


def test_a_matched_line_of_which_nothing_is_left(codecs):
    batch = codecs.read("multiline", b"a\nEND\nEND\nb\n", event_end_pattern="^END$", omit_matched_section=True)
    assert messages(batch) == ["a", "b"]


def test_line_ends_and_empty_lines(codecs):
    data = b"> a\r\n\r\nb\rc\n\n> d"
    assert messages(codecs.read("multiline", data, event_start_pattern="^>")) == ["> a\nb\nc", "> d"]


def test_events_are_cut_by_lines_and_by_characters_and_lines_never(codecs):
    data = b"> 1\n2\n3\n4\n> 5\n"
    assert messages(codecs.read("multiline", data, event_start_pattern="^>", max_lines=3)) == ["> 1\n2\n3", "4", "> 5"]
    data = b"> 12345\n678\n90\n" + b"x" * 30 + b"\ny\n"
    assert messages(codecs.read("multiline", data, event_start_pattern="^>", max_length=11)) == [
        "> 12345\n678",
        "90",
        "x" * 30,
        "y",
    ]


def test_encodings(codecs):
    options = {"event_start_pattern": "^é"}
    assert messages(codecs.read("multiline", "é\nü".encode("latin-1"), encoding="ISO-8859-1", **options)) == ["é\nü"]
    assert messages(codecs.read("multiline", "é\nü".encode("utf-16"), [3], encoding="UTF-16", **options)) == ["é\nü"]
    for encoding in ("UTF-16", "UTF-32"):
        marked, plain = "é\nü".encode(encoding), "é\nü".encode(encoding + "-BE")
        assert messages(codecs.read("multiline", marked, [1], encoding=encoding, **options)) == ["é\nü"]
        assert messages(codecs.read("multiline", plain, [1], encoding=encoding, **options)) == ["é\nü"]
    assert messages(codecs.read("multiline", b"\0", encoding="UTF-16", **options)) == ["\ufffd"]
    assert messages(codecs.read("multiline", b"", encoding="UTF-16", **options)) == []
    assert messages(codecs.read("multiline", b"\xc3\xa9\n\xff", **options)) == ["é\n\ufffd"]


@given(
    st.text("> ab\r\né", max_size=40), st.lists(st.integers(0, 60), max_size=6), st.integers(1, 4), st.integers(1, 12)
)
@pytest.mark.parametrize("option", ["event_start_pattern", "event_end_pattern", "continuation_line_start_pattern"])
def test_how_bytes_are_cut_does_not_matter_and_nothing_is_lost(codecs, option, text, cuts, lines, length):
    options = {option: "^>", "max_lines": lines, "max_length": length}
    found = messages(codecs.read("multiline", text.encode(), cuts, **options))
    assert found == messages(codecs.read("multiline", text.encode(), **options))
    kept = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line]
    assert [line for message in found for line in message.split("\n")] == kept
    assert all(len(message) <= length or "\n" not in message for message in found)
    assert all(message.count("\n") < lines for message in found)


def test_a_line_without_end_is_refused(codecs, monkeypatch):
    monkeypatch.setattr(multiline, "LINE_CHARACTERS_MAX", 100)
    decoder = codecs.decoder("multiline", event_start_pattern="^>")
    with pytest.raises(EventError, match="longer than 100 characters"):
        decoder.feed(b"x" * 101)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Exactly one pattern field must be specified"),
        ({"event_start_pattern": "a", "event_end_pattern": "b"}, "Exactly one pattern field must be specified"),
        ({"event_start_pattern": "("}, "The specified pattern must be a valid regular expression"),
        ({"event_start_pattern": ""}, "The specified pattern must be a valid regular expression"),
        ({"event_start_pattern": "a", "encoding": "klingon"}, "The specified encoding must be a valid charset"),
        ({"event_start_pattern": "a", "encoding": "base64"}, "The specified encoding must be a valid charset"),
        ({"event_start_pattern": "a", "max_lines": 0}, "max_lines must be at least 1"),
        ({"event_start_pattern": "a", "max_length": 0}, "max_length must be at least 1"),
    ],
)
def test_options(codecs, options, message):
    with pytest.raises(ConfigError, match=message):
        codecs.decoder("multiline", **options)
