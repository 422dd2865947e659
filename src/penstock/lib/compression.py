"""Decompression within bounds, and gzip for what is sent.

Nothing is inflated beyond the limit that the caller states: a bomb costs its limit, not its size. Inputs above 256 KB
belong into a thread (`asyncio.to_thread`); the libraries release the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any, Literal, Protocol, cast

from penstock.core.errors import ConfigError, PenstockError

Kind = Literal["none", "gzip", "snappy", "zstd", "automatic"]

_PIECE_BYTES = 1024 * 1024
_JOIN_BYTES = 512 * 1024
"""Small enough to stay in the cache of a core, and to be taken from memory that the process has already."""
_WINDOW_BYTES = 256 * 1024
_WINDOW_BYTES_MIN = 4 * 1024
_ZSTD_WINDOW_BYTES = 128 * 1024 * 1024  # what `zstd` itself takes without being asked to
_SNAPPY_FRAMED = b"\xff\x06\x00\x00sNaPpY"
_SNAPPY_JAVA = b"\x82SNAPPY\x00"
_SNAPPY_CHUNK_BYTES = 65536


class TooLarge(PenstockError):
    """The data is larger than its limit once decompressed."""


class Corrupt(PenstockError):
    """The data is not compressed in the way that was stated, damaged, or cut off."""


class Decompressor(Protocol):
    """Decompresses piece by piece."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What can be decompressed by now, in pieces. Nothing happens until the iterator is read.

        Raises `TooLarge` when more than the limit has come out in total, and `Corrupt`.
        """

    def finish(self) -> Iterator[bytes]:
        """The rest, to be read when all data was fed. Raises `Corrupt` when the data is cut off."""


def check(kind: Kind) -> None:
    """Raise `ConfigError` when this kind needs a library that is not installed."""
    if kind == "zstd":
        _zstandard()
    elif kind == "snappy":
        _cramjam()
    elif kind == "automatic":
        _zstandard()
        _cramjam()


def decompressor(kind: Kind, limit: int | None) -> Decompressor:
    """A decompressor of at most `limit` bytes of output in total; None: without end, for files."""
    if kind == "gzip":
        return _Gzip(limit)
    if kind == "zstd":
        return _Zstd(limit)
    if kind == "snappy":
        return _Snappy(limit)
    if kind == "automatic":
        return _Automatic(limit)
    return _Plain(limit)


def detect(data: bytes) -> Kind:
    """The kind of compression by the magic number in the first four bytes; `none` where there is none."""
    if data[:2] == b"\x1f\x8b":
        return "gzip"
    if data[:4] == b"\x28\xb5\x2f\xfd" or (data[1:4] == b"\x2a\x4d\x18" and 0x50 <= data[0] <= 0x5F):
        return "zstd"
    if data[:4] in (_SNAPPY_FRAMED[:4], _SNAPPY_JAVA[:4]):
        return "snappy"
    return "none"


def decompress(data: bytes, kind: Kind, limit: int) -> bytes:
    """The whole data, decompressed. Raises `TooLarge` above `limit` bytes, and `Corrupt`."""
    stream = decompressor(kind, limit)
    pieces = [*stream.feed(data), *stream.finish()]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def gzip_compress(data: bytes) -> bytes:
    """`data` in gzip form at the level that costs least: a fifth of zlib's time."""
    from isal import isal_zlib

    compressed: bytes = isal_zlib.compress(data, 1, 31)
    return compressed


def gzip_joined(parts: Sequence[bytes], size: int) -> bytes:
    """What `parts`, `size` bytes together, make joined, in gzip form, without the memory that joining them takes."""
    from isal import isal_zlib

    if size <= _JOIN_BYTES:
        return gzip_compress(b"".join(parts))
    # Few pieces: with each of them a thread gives the interpreter away and has to wait until it gets it back.
    step = max(1, len(parts) * _JOIN_BYTES // size)
    compressor = isal_zlib.compressobj(1, wbits=31)
    pieces = [compressor.compress(b"".join(parts[start : start + step])) for start in range(0, len(parts), step)]
    return b"".join([*pieces, compressor.flush()])


class _Counted:
    """Counts what comes out."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._out_bytes = 0

    def _count(self, size: int) -> None:
        self._out_bytes += size
        if self._limit is not None and self._out_bytes > self._limit:
            raise TooLarge(f"more than {self._limit} bytes after decompression")


class _Plain(_Counted):
    def feed(self, data: bytes) -> Iterator[bytes]:
        if data:
            self._count(len(data))
            yield data

    def finish(self) -> Iterator[bytes]:
        return iter(())


class _Automatic(_Counted):
    """Goes by the first four bytes."""

    def __init__(self, limit: int | None) -> None:
        super().__init__(limit)
        self._head = b""
        self._inner: Decompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inner is None:
            self._head += data
            if len(self._head) < 4:
                return
            data, self._head = self._head, b""
            self._inner = decompressor(detect(data), self._limit)
        yield from self._inner.feed(data)

    def finish(self) -> Iterator[bytes]:
        if self._inner is None:
            self._inner = _Plain(self._limit)
            yield from self._inner.feed(self._head)
        yield from self._inner.finish()


class _Gzip(_Counted):
    """Any number of members. What follows the last one and is no member is ignored, as gzip and Java do."""

    def __init__(self, limit: int | None) -> None:
        super().__init__(limit)
        from isal import isal_zlib

        self._new_member = partial(isal_zlib.decompressobj, wbits=31)
        self._error = cast(type[Exception], isal_zlib.error)
        self._member: Any = self._new_member()
        self._first = True
        self._begun = False
        self._ended = False
        self._window = _WINDOW_BYTES
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        data, self._held = self._held + data if self._held else data, b""
        at = 0
        while at < len(data) and not self._ended:
            if not self._begun and not self._first:
                magic = data[at : at + 2]
                if not b"\x1f\x8b".startswith(magic):
                    self._ended = True
                    return
                if len(magic) < 2:
                    self._held = magic
                    return
            # Windows, because the library copies the unused rest: many small members would cost its square.
            window = data if at == 0 and len(data) <= self._window else data[at : at + self._window]
            self._begun = True
            unused = yield from self._inflate(window)
            at += len(window) - unused
            if self._member.eof:
                self._member = self._new_member()
                self._begun = self._first = False
                self._window = _WINDOW_BYTES_MIN
            elif self._window < _WINDOW_BYTES:
                self._window *= 4

    def finish(self) -> Iterator[bytes]:
        if self._begun or self._first:
            raise Corrupt("the gzip data is cut off")
        return iter(())

    def _inflate(self, window: bytes) -> Generator[bytes, None, int]:
        """Yield what the window gives to this member and return how many of its bytes are behind the member."""
        member = self._member
        while True:
            # One byte more than allowed is enough to know.
            room = _PIECE_BYTES if self._limit is None else min(_PIECE_BYTES, self._limit - self._out_bytes + 1)
            try:
                piece: bytes = member.decompress(window, room)
            except (self._error, EOFError) as error:
                raise Corrupt(f"not valid gzip data: {error}") from None
            if piece:
                self._count(len(piece))
                yield piece
            if member.eof:
                return len(member.unused_data)
            window = member.unconsumed_tail
            if not window and len(piece) < room:
                return 0


class _Zstd(_Counted):
    def __init__(self, limit: int | None) -> None:
        super().__init__(limit)
        zstandard = _zstandard()
        self._error = zstandard.ZstdError
        self._pieces: list[bytes] = []
        self._writer = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).stream_writer(self, closefd=False)
        self._frames = _ZstdFrames()

    def write(self, piece: bytes) -> int:
        """Called by the library with each piece as soon as it is out, so that a bomb stops at its limit."""
        self._count(len(piece))
        self._pieces.append(bytes(piece))
        return len(piece)

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _WINDOW_BYTES_MIN):
            window = data[at : at + _WINDOW_BYTES_MIN]
            try:
                self._writer.write(window)
            except self._error as error:
                raise Corrupt(f"not valid zstd data: {error}") from None
            self._frames.feed(window)
            pieces, self._pieces = self._pieces, []
            yield from pieces

    def finish(self) -> Iterator[bytes]:
        if not self._frames.complete:
            raise Corrupt("the zstd data is cut off")
        return iter(())


class _ZstdFrames:
    """Follows the frames and blocks of a zstd stream without decompressing: the library does not tell a cut-off end."""

    def __init__(self) -> None:
        self.complete = False
        """Whether the data ends with a frame."""
        self._between = False
        self._held = b""
        self._skip = 0
        self._steps = self._walk()
        self._wanted = next(self._steps)

    def feed(self, data: bytes) -> None:
        data, self._held = self._held + data, b""
        at = 0
        while True:
            skipped = min(self._skip, len(data) - at)
            self._skip -= skipped
            at += skipped
            if self._skip or len(data) - at < self._wanted:
                break
            taken = data[at : at + self._wanted]
            at += self._wanted
            self._wanted = self._steps.send(taken)
        self._held = data[at:]
        self.complete = self._between and not self._held

    def _walk(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it wants next, and is sent them."""
        while True:
            magic = yield 4
            self._between = False
            if magic[1:] == b"\x2a\x4d\x18":  # a frame to be skipped
                self._skip = int.from_bytes((yield 4), "little")
            else:
                descriptor = (yield 1)[0]
                single_segment = descriptor >> 5 & 1
                content_size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
                dictionary_bytes = (0, 1, 2, 4)[descriptor & 3]
                self._skip = (1 - single_segment) + dictionary_bytes + content_size_bytes
                last = False
                while not last:
                    block = int.from_bytes((yield 3), "little")
                    last = bool(block & 1)
                    run_length_coded = (block >> 1 & 3) == 1
                    self._skip = 1 if run_length_coded else block >> 3
                if descriptor & 4:
                    self._skip += 4  # checksum
            # Wanting nothing, it is sent on only when the frame has been skipped to its end.
            yield 0
            self._between = True


class _Snappy(_Counted):
    """The framing format, the one of Java's SnappyOutputStream, and single raw blocks."""

    def __init__(self, limit: int | None) -> None:
        super().__init__(limit)
        self._snappy = _cramjam().snappy
        self._error = _cramjam().DecompressionError
        self._held = b""
        self._form: Literal["", "framed", "java", "raw"] = ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._held += data
        if not self._form and len(self._held) >= len(_SNAPPY_FRAMED):
            self._recognise()
        if self._form == "framed":
            yield from self._framed()
        elif self._form == "java":
            yield from self._java()
        elif self._limit is not None and len(self._held) > self._limit * 7 // 6 + 64:
            raise TooLarge(f"more than {self._limit} bytes after decompression")  # snappy never grows data by more

    def finish(self) -> Iterator[bytes]:
        if self._form in ("", "raw"):
            yield self._block(self._held)
        elif self._held:
            raise Corrupt("the snappy data is cut off")

    def _recognise(self) -> None:
        if self._held.startswith(_SNAPPY_FRAMED):
            self._form = "framed"
        elif self._held.startswith(_SNAPPY_JAVA):
            if len(self._held) >= 16:
                self._form = "java"
                self._held = self._held[16:]  # magic, version, lowest version that can read it
        else:
            self._form = "raw"

    def _framed(self) -> Iterator[bytes]:
        held, at, size = self._held, 0, 0
        while len(held) - at >= 4:
            end = at + 4 + int.from_bytes(held[at + 1 : at + 4], "little")
            if end > len(held):
                break
            if held[at] == 0x00:
                declared = _declared_bytes(held[at + 8 : at + 13])
                if declared > _SNAPPY_CHUNK_BYTES:
                    raise Corrupt("a chunk of the snappy data is larger than allowed")
                size += declared
            elif held[at] == 0x01:
                size += end - at - 8
            at = end
        self._count(size)
        self._held = held[at:]
        if at:
            whole = held[:at] if held.startswith(_SNAPPY_FRAMED) else _SNAPPY_FRAMED + held[:at]
            try:
                yield bytes(self._snappy.decompress(whole))
            except self._error as error:
                raise Corrupt(f"not valid snappy data: {error}") from None

    def _java(self) -> Iterator[bytes]:
        held, at = self._held, 0
        while len(held) - at >= 4:
            end = at + 4 + int.from_bytes(held[at : at + 4], "big")
            if end > len(held):
                break
            yield self._block(held[at + 4 : end])
            at = end
        self._held = held[at:]

    def _block(self, block: bytes) -> bytes:
        self._count(_declared_bytes(block[:5]))
        try:
            return bytes(self._snappy.decompress_raw(block))
        except self._error as error:
            raise Corrupt(f"not valid snappy data: {error}") from None


def _declared_bytes(head: bytes) -> int:
    """The decompressed size that a snappy block states in its first bytes."""
    size = 0
    for place, byte in enumerate(head):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return size
    raise Corrupt("not valid snappy data: no length")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise ConfigError("zstd compression needs zstandard: pip install 'penstock[compression]'") from None
    return zstandard


def _cramjam() -> Any:
    try:
        import cramjam
    except ImportError:
        raise ConfigError("snappy compression needs cramjam: pip install 'penstock[compression]'") from None
    return cramjam
