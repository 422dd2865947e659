"""Whatever comes in, at most the limit comes out; what goes through is the same as before."""

from __future__ import annotations

import contextlib
import gzip
import random
import sys
import tracemalloc

import cramjam
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigError
from penstock.lib import compression
from penstock.lib.compression import Corrupt, TooLarge, decompress, decompressor, gzip_compress


def java_snappy(data: bytes) -> bytes:
    """As Java's SnappyOutputStream writes: header, then blocks with their length."""
    out = b"\x82SNAPPY\x00" + (1).to_bytes(4, "big") * 2
    for at in range(0, len(data), 1000):
        block = bytes(cramjam.snappy.compress_raw(data[at : at + 1000]))
        out += len(block).to_bytes(4, "big") + block
    return out


def snappy_framed(data: bytes) -> bytes:
    """Also when there is nothing in it, where the library writes nothing at all."""
    return bytes(cramjam.snappy.compress(data)) or b"\xff\x06\x00\x00sNaPpY"


def zstd_streamed(data: bytes) -> bytes:
    """Without the size of the content in its header, with a checksum."""
    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return compressor.compress(data) + compressor.flush()


FORMS = {
    "gzip": ("gzip", gzip.compress),
    "isal": ("gzip", gzip_compress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd_streamed": ("zstd", zstd_streamed),
    "snappy_framed": ("snappy", snappy_framed),
    "snappy_java": ("snappy", java_snappy),
}
forms = pytest.mark.parametrize("form", FORMS)


@forms
@given(data=st.binary(max_size=5000), repeat=st.integers(0, 60), cut=st.integers(1, 4000), seed=st.integers())
def test_round_trip_whole_and_in_pieces(form: str, data: bytes, repeat: int, cut: int, seed: int) -> None:
    kind, compress = FORMS[form]
    data *= repeat
    packed = compress(data)
    assert decompress(packed, kind, len(data)) == data
    assert decompress(packed, "automatic", len(data)) == data
    stream, chance = decompressor(kind, None), random.Random(seed)
    out, at = b"", 0
    while at < len(packed):
        step = chance.randint(max(1, cut // 10), cut)
        out += b"".join(stream.feed(packed[at : at + step]))
        at += step
    assert out + b"".join(stream.finish()) == data


@forms
def test_one_byte_over_the_limit(form: str) -> None:
    kind, compress = FORMS[form]
    packed = compress(b"x" * 100_001)
    assert len(decompress(packed, kind, 100_001)) == 100_001
    with pytest.raises(TooLarge):
        decompress(packed, kind, 100_000)


def test_raw_snappy_block() -> None:
    packed = bytes(cramjam.snappy.compress_raw(b"abc" * 9))
    assert decompress(packed, "snappy", 27) == b"abc" * 9
    with pytest.raises(TooLarge):
        decompress(packed, "snappy", 26)
    with pytest.raises(TooLarge):  # states four gigabytes
        decompress(b"\xff\xff\xff\xff\x0fabc", "snappy", 1 << 20)


@pytest.mark.parametrize("form", ["gzip", "zstd", "zstd_streamed"])
def test_a_bomb_costs_its_limit_not_its_size(form: str) -> None:
    kind, compress = FORMS[form]
    bomb = compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decompress(bomb, kind, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@forms
def test_cut_off_anywhere_is_noticed(form: str) -> None:
    kind, compress = FORMS[form]
    packed = compress(random.Random(1).randbytes(2500))
    whole = {len(packed)}
    if form == "snappy_framed":
        whole.add(10)  # a stream identifier alone is an empty stream
    elif form == "snappy_java":
        whole |= java_block_ends(packed)  # this form has no end mark
    for length in sorted({*range(40), *range(40, len(packed), 37), *range(len(packed) - 20, len(packed))} - whole):
        with pytest.raises((Corrupt, TooLarge)):
            decompress(packed[:length], kind, 10_000)


def java_block_ends(packed: bytes) -> set[int]:
    ends, at = {16}, 16
    while at < len(packed):
        at += 4 + int.from_bytes(packed[at : at + 4], "big")
        ends.add(at)
    return ends


HEADS = {"gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd", "snappy": b"\xff\x06\x00\x00sNaPpY", "automatic": b""}


@given(data=st.binary(max_size=400), kind=st.sampled_from(sorted(HEADS)), magic=st.booleans())
def test_garbage_raises_nothing_else(data: bytes, kind: str, magic: bool) -> None:
    with contextlib.suppress(Corrupt, TooLarge):
        assert len(decompress(HEADS[kind] * magic + data, kind, 1000)) <= 1000


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), form=st.sampled_from(sorted(FORMS)))
def test_damage_is_noticed_or_harmless(at: int, flip: int, form: str) -> None:
    kind, compress = FORMS[form]
    packed = bytearray(compress(b"some text, some text, more text" * 20))
    packed[at % len(packed)] ^= flip
    with contextlib.suppress(Corrupt, TooLarge):
        assert len(decompress(bytes(packed), kind, 100_000)) <= 100_000


def test_many_gzip_members_then_padding() -> None:
    parts = [b"%d," % i for i in range(3000)]
    packed = b"".join(gzip.compress(part, mtime=0) for part in parts)
    expected = b"".join(parts)
    assert decompress(packed, "gzip", 1 << 20) == expected
    assert decompress(packed + bytes(512), "gzip", 1 << 20) == expected
    with pytest.raises(Corrupt):
        decompress(packed[:-1], "gzip", 1 << 20)
    with pytest.raises(Corrupt):
        decompress(packed + b"\x1f\x8b", "gzip", 1 << 20)


def test_zstd_frames_in_a_row_with_one_to_skip() -> None:
    one = zstandard.ZstdCompressor().compress(b"one")
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"extra"
    assert decompress(one + skipped + zstd_streamed(b"two"), "zstd", 6) == b"onetwo"
    assert decompress(skipped + one, "automatic", 6) == b"one"


@pytest.mark.parametrize("text", [b"", b"[", b"[{}]", b"abc", b"plain text, no magic"])
def test_automatic_leaves_plain_data_alone(text: bytes) -> None:
    assert decompress(text, "automatic", 100) == text


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r"zstd compression needs zstandard: pip install 'penstock\[compression\]'"):
        compression.check("zstd")
    compression.check("gzip")
    compression.check("none")


@pytest.mark.parametrize(("count", "repeat"), [(0, 1), (1, 1), (1000, 50), (10_000, 100), (3, 1_000_000)])
def test_parts_are_compressed_as_if_they_were_joined(count: int, repeat: int) -> None:
    parts = [b"%d," % number * repeat for number in range(count)]
    assert gzip.decompress(compression.gzip_joined(parts, sum(map(len, parts)))) == b"".join(parts)
