"""Bodies of requests for aiohttp. A module of its own, for aiohttp is imported with the first request only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

WRITE_BYTES = 256 * 1024
YIELD_BYTES = 1024 * 1024
"""After so much the loop turns to others."""


class Texts(Payload):
    """A body in parts, written as they are: no copy of the whole is made."""

    _autoclose = True  # nothing is open
    _value: Sequence[bytes]

    def __init__(self, texts: Sequence[bytes]) -> None:
        super().__init__(texts, content_type="application/octet-stream")
        self._size = sum(map(len, texts))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"".join(self._value)

    async def write(self, writer: AbstractStreamWriter) -> None:
        written = 0
        for piece in _pieces(self._value):
            if written >= YIELD_BYTES:
                written = 0
                await asyncio.sleep(0)
            await writer.write(piece)
            written += len(piece)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await self.write(writer)  # the writer itself minds the length


def _pieces(texts: Sequence[bytes]) -> Iterator[bytes | memoryview]:
    """Small texts together, large ones in parts."""
    start = size = 0
    for place, text in enumerate(texts):
        if size and size + len(text) > WRITE_BYTES:
            yield b"".join(texts[start:place])
            start, size = place, 0
        if len(text) > WRITE_BYTES:
            view = memoryview(text)
            for begin in range(0, len(text), WRITE_BYTES):
                yield view[begin : begin + WRITE_BYTES]
            start = place + 1
        else:
            size += len(text)
    if size:
        yield b"".join(texts[start:])
