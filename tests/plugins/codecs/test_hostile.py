"""Whatever bytes arrive, a codec gives events or an error, in bounded time and memory."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

import fastavro
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch, concat
from penstock.core.errors import EventError
from penstock.core.metrics import Registry
from penstock.lib import avro
from penstock.plan import catalog
from penstock.sdk import Context
from penstock.testing.plugins import checked
from penstock.testing.strategies import nested

LENGTH = 5_000_000
MANY = 500_000
"""Size of a text in which every few bytes are a value: work that grows with its square takes minutes."""
PIECE = 65_536
MEMORY_MAX = 250_000_000
"""Bytes that a decoder may take beside the events that it has given away."""

CONFIGS: dict[str, dict[str, Any]] = {
    "avro": {},
    "csv": {},
    "event_json": {},
    "json": {"include_keys": ["a"]},
    "multiline": {"event_start_pattern": "^((a|aa)+)+b"},
    "ndjson": {},
    "newline": {},
    "parquet": {},
}

_TEXTS = (b"a", b"\n", b'"', b",", b"{", b"[", b"{}", b"[1]", b"1 ", b'{"a":', b"\xff", b"\xed\xa0\x80", b"\0")


def _long_texts() -> Iterator[bytes]:
    for text in _TEXTS:
        yield text * (MANY // len(text))
    yield b"a" * LENGTH
    yield b"{}{}\n" * (MANY // 5)
    yield b"{}" * (MANY // 2) + b"\n"
    yield b'"' + b"a" * LENGTH
    yield b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    yield b"[" * 10_000 + b"]" * 10_000
    yield b'[{"a":' + b"9" * LENGTH + b"}]"
    yield b'[{"a":1e' + b"9" * LENGTH + b"}]"
    yield b'{"version":"2.0","events":[' + b"{}," * (LENGTH // 3) + b"{}]}"
    yield b'{"version":"2.0","events":[]}' * (LENGTH // 29)
    yield b"b" + b"a" * LENGTH + b"\n" + b"a" * 100


def _avro(schema: Any, blocks: list[tuple[int, bytes]], codec: bytes = b"null") -> bytes:
    sync = bytes(range(16))
    header = avro.Header({"avro.schema": json.dumps(schema).encode(), "avro.codec": codec}, sync)
    pieces = [header.encode()]
    for count, data in blocks:
        pieces += [avro.long_bytes(count), avro.long_bytes(len(data)), data, sync]
    return b"".join(pieces)


def _deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()


def _record(*types: Any) -> dict[str, Any]:
    return {
        "type": "record",
        "name": "R",
        "fields": [{"name": f"f{place}", "type": kind} for place, kind in enumerate(types)],
    }


_ZEROS = bytes(40_000_000)
_LAUGHS: Any = {"type": "record", "name": "L0", "fields": []}
for _level in range(1, 30):
    _twice = [{"name": "a", "type": _LAUGHS}, {"name": "b", "type": f"L{_level - 1}"}]
    _LAUGHS = {"type": "record", "name": f"L{_level}", "fields": _twice}

AVRO_BOMBS = {
    "deflate": lambda: _avro(_record("bytes"), [(1, _deflate(_ZEROS))] * 100, b"deflate"),
    "bzip2": lambda: _avro(_record("bytes"), [(1, bz2.compress(_ZEROS))] * 100, b"bzip2"),
    "xz": lambda: _avro(_record("bytes"), [(1, lzma.compress(_ZEROS, preset=0))] * 100, b"xz"),
    "zstandard": lambda: _avro(_record("bytes"), [(1, zstandard.compress(_ZEROS))] * 100, b"zstandard"),
    "snappy": lambda: _avro(_record("bytes"), [(1, b"\xff\xff\xff\xff\x0f" + bytes(100))], b"snappy"),
    "unknown compression": lambda: _avro(_record("long"), [(1, b"\2")], b"\xff"),
    "records without bytes": lambda: _avro(_record("null"), [(1 << 60, b"")]),
    "lists of nothing": lambda: _avro(
        _record({"type": "array", "items": "null"}), [(1, avro.long_bytes(1 << 60) + b"\0")]
    ),
    "a record of 2^30 records": lambda: _avro(_LAUGHS, [(1, b"")]),
    "a million records inside each other": lambda: _avro(_record(["null", "R"]), [(1, b"\2" * 1_000_000 + b"\0")]),
    "a text beyond the end": lambda: _avro(_record("string"), [(1, avro.long_bytes(1 << 40))]),
    "a deep schema": lambda: _deep_schema(),
}


def _deep_schema() -> bytes:
    schema = '{"type":"record","name":"R","fields":[{"name":"a","type":' + '{"type":"array","items":' * 5_000
    data = schema.encode() + b'"long"' + b"}" * 5_000 + b"}]}"
    return avro.Header({"avro.schema": data}, bytes(16)).encode() + b"\2\2\0" + bytes(16)


def _parquet(column: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"a": column}), file, **options)
    return file.getvalue()


PARQUET_BOMBS = {
    "the same text ten million times": lambda: _parquet(
        pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 10_000_000, pyarrow.int32()), ["a"])
    ),
    "a list of ten million nulls": lambda: _parquet(
        pyarrow.ListArray.from_arrays([0, 10_000_000], pyarrow.nulls(10_000_000, pyarrow.int32()))
    ),
    "a page of zeros": lambda: _parquet(
        pyarrow.array([bytes(100_000_000)]), compression="gzip", use_dictionary=False, write_statistics=False
    ),
}


def decode(name: str, data: bytes, registry: Registry | None = None) -> Batch:
    found, config = checked("input_codec", name, CONFIGS[name])
    ctx = Context("p", name, kind="codec", registry=registry)
    decoder = found.module.build_decoder(config, ctx).decoder()
    batches = [decoder.feed(data[place : place + PIECE]) for place in range(0, len(data), PIECE)]
    return concat([*batches, decoder.finish()])


def events_or_error(name: str, data: bytes) -> list[dict[str, Any]] | None:
    try:
        return decode(name, data).bodies
    except EventError:
        return None


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.plugins.codecs.multiline.MATCHING_S_MAX", 0.04)


def test_every_codec_is_here() -> None:
    assert set(CONFIGS) == set(catalog.names("input_codec"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", CONFIGS)
def test_five_megabytes(name: str, memory_below: Callable[[int], AbstractContextManager[None]]) -> None:
    found, config = checked("input_codec", name, CONFIGS[name])
    codec = found.module.build_decoder(config, Context("p", name, kind="codec"))
    for data in _long_texts():
        decoder = codec.decoder()
        with memory_below(MEMORY_MAX), suppress(EventError):
            for place in range(0, len(data), PIECE):
                assert isinstance(decoder.feed(data[place : place + PIECE]), Batch)
            assert isinstance(decoder.finish(), Batch)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bomb", AVRO_BOMBS)
def test_avro_bombs(bomb: str, memory_below: Callable[[int], AbstractContextManager[None]]) -> None:
    data = AVRO_BOMBS[bomb]()
    with memory_below(400_000_000), pytest.raises(EventError):
        decode("avro", data)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bomb", PARQUET_BOMBS)
def test_parquet_bombs(bomb: str, memory_below: Callable[[int], AbstractContextManager[None]]) -> None:
    data = PARQUET_BOMBS[bomb]()
    with memory_below(100_000_000), pytest.raises(EventError, match="too large"):
        decode("parquet", data)


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy"])
def test_compressed_blocks_are_read_when_they_are_what_they_say(codec: str) -> None:
    file = io.BytesIO()
    records = [{"f0": number, "f1": "text" * 10} for number in range(5_000)]
    fastavro.writer(file, fastavro.parse_schema(_record("long", "string")), records, codec=codec, sync_interval=10_000)
    assert events_or_error("avro", file.getvalue()) == records
    damaged = bytearray(file.getvalue())
    damaged[len(damaged) // 2] ^= 0xFF
    found = events_or_error("avro", bytes(damaged))
    assert found is None or len(found) == len(records)


def test_zstandard_blocks_are_read() -> None:
    assert events_or_error("avro", _avro(_record("long"), [(1, zstandard.compress(b"\4"))], b"zstandard")) == [
        {"f0": 2}
    ]


def test_a_line_that_a_pattern_cannot_be_done_with_is_one_without_a_match() -> None:
    registry = Registry()
    lines = b"aab 1\n" + b"a" * 60 + b"\nb\naab 2\n"
    batch = decode("multiline", lines, registry)
    assert [body["message"] for body in batch.bodies] == ["aab 1\n" + "a" * 60 + "\nb", "aab 2"]
    assert registry.value("p.multiline.matchingTimeouts") == 1


def test_numbers_and_texts_that_json_hardly_knows() -> None:
    text = b'[{"a":%s,"b":1e999,"c":"\\ud800","\\udfff":0,"d":-0.0}]' % (b"1" * 400)
    (body,) = decode("json", text).bodies
    assert body["a"] == int("1" * 400)
    assert body["c"] == "\ufffd"
    for refused in (b'[{"a":NaN}]', b'[{"a":Infinity}]', b'[{"a":"\xed\xa0\x80"}]'):
        assert events_or_error("json", refused) is None
    deep = json.dumps([nested(200)]).encode()
    assert events_or_error("json", deep) == json.loads(deep)


@pytest.mark.parametrize("name", CONFIGS)
@given(data=st.binary(max_size=200) | st.sampled_from(_TEXTS).map(lambda text: text * 20))
def test_any_bytes(name: str, data: bytes) -> None:
    found = events_or_error(name, data)
    assert found is None or all(type(body) is dict for body in found)
