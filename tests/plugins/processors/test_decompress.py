"""Decompressing fields: forms of base64, bombs, several keys."""

import gzip
from base64 import b64encode

import pytest
from hypothesis import given

from penstock.core.errors import ConfigError
from penstock.core.metrics import Registry
from penstock.plugins.processors import decompress
from penstock.sdk import Batch, Context
from penstock.testing import run_processor
from penstock.testing.strategies import events, keys, texts


def packed(data):
    return b64encode(gzip.compress(data, mtime=0)).decode()


def outcome(value):
    (result,) = run_processor("decompress", {"keys": ["k"], "type": "gzip"}, [{"k": value}])
    return result.body["k"], result.tags


@given(texts)
def test_texts_come_back(text):
    assert outcome(packed(text.encode(errors="replace"))) == (text.encode(errors="replace").decode(), [])


def test_forms():
    assert outcome(packed(b"hello").rstrip("=")) == ("hello", [])
    assert outcome(b64encode(gzip.compress(b"a") + gzip.compress(b"b")).decode()) == ("ab", [])
    assert outcome(packed(b"\xff\xfe")) == ("\ufffd\ufffd", [])
    assert outcome(packed(b"x" * 1_000_000)) == ("x" * 1_000_000, [])


BOMB = b"\0" * 100_000_000


@pytest.mark.parametrize(
    "value",
    [
        *("", "====", "a", "é", "\ud800", "a b=", 12345, True, [], {"a": 1}, packed(b"x")[:-8], "A" * 5_000_000),
        pytest.param(packed(BOMB), id="bomb"),
        pytest.param(packed(gzip.compress(BOMB) + b"x" * 20_000_000), id="large"),
        pytest.param(packed(b"x" * 2_000_000), id="ratio"),
    ],
)
def test_what_cannot_be_inflated_stays_and_is_tagged(value):
    assert outcome(value) == (value, ["_decompression_failure"])


def test_each_key_fails_alone_and_is_counted():
    registry = Registry()
    config = decompress.Config.model_validate({"keys": ["bad", "k", "missing", "a/k"], "type": "gzip"})
    run = decompress.build(config, Context("p", "decompress", registry=registry))
    batch = run(Batch([{"bad": "!", "k": packed(b"x"), "a": {"k": packed(b"y")}}]))
    assert batch.bodies == [{"bad": "!", "k": "x", "a": {"k": "y"}}]
    assert batch.peek(0).tags == {"_decompression_failure"}
    assert registry.value("p.decompress.processingErrors") == 1
    assert registry.value("p.decompress.processingErrorsByCause", cause="decode") == 1


@pytest.mark.parametrize("config", [{}, {"keys": [], "type": "gzip"}, {"keys": ["a"]}, {"keys": ["a"], "type": "zip"}])
def test_rules(config):
    with pytest.raises(ConfigError):
        run_processor("decompress", config, [])


@given(events, keys)
def test_a_failed_event_stays_as_it_was(run_unharmed, events, key):
    config = {"keys": [key], "type": "gzip"}
    assert repr(run_unharmed("decompress", config, events)) == repr(events)
