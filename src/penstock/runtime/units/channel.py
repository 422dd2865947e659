"""Questions, answers and news between two processes: JSON objects over a stream, each after its length.

| message | means |
| --- | --- |
| `{"question": 7, "body": …}` | an answer is waited for |
| `{"answer": 7, "body": …}` | here it is |
| `{"body": …}` | news |
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")

Message = dict[str, Any]


class ChannelClosed(Exception):
    """The other process is gone."""


class Channel:
    """One end. `serve` reads until the other end is closed; `ask` works while it does."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        answer: Callable[[Message], Awaitable[Message]],
        hear: Callable[[Message], None],
    ) -> None:
        """`answer` is called for questions, `hear` for news."""
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._hear = hear
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._closed = False

    async def serve(self) -> None:
        """Take messages until the other end is closed."""
        try:
            while (message := await read_message(self._reader)) is not None:
                self._take(orjson.loads(message))
        except ConnectionError:
            pass  # the same as its end
        finally:
            self._closed = True
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ChannelClosed)
            for task in self._answering:
                task.cancel()
            self._writer.close()

    def tell(self, body: Message) -> None:
        """Send news. Nobody hears it when the other end is closed."""
        self._send({"body": body})

    async def ask(self, body: Message, timeout_s: float) -> Message:
        """Raises `ChannelClosed` or `TimeoutError`."""
        if self._closed:
            raise ChannelClosed
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"question": number, "body": body})
            async with asyncio.timeout(timeout_s):
                reply: Message = await future
                return reply
        finally:
            del self._waiting[number]

    async def flush(self) -> None:
        """Wait until everything is on its way."""
        try:
            await self._writer.drain()
        except ConnectionError:
            self._closed = True

    def _send(self, message: Message) -> None:
        if not self._closed and not self._writer.is_closing():
            self._writer.write(frame(orjson.dumps(message)))

    def _take(self, message: Message) -> None:
        body = message["body"]
        if "question" in message:
            task = asyncio.get_running_loop().create_task(self._reply(message["question"], body))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif "answer" in message:
            future = self._waiting.get(message["answer"])
            if future is not None and not future.done():  # else nobody waits any more
                future.set_result(body)
        else:
            self._hear(body)

    async def _reply(self, number: int, body: Message) -> None:
        self._send({"answer": number, "body": await self._answer(body)})


def frame(message: bytes) -> bytes:
    """A message behind its length."""
    assert len(message) <= MESSAGE_BYTES_MAX, "a message of this size would not be read"
    return _LENGTH.pack(len(message)) + message


async def read_message(reader: asyncio.StreamReader) -> bytes | None:
    """The next message, None at the end."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MESSAGE_BYTES_MAX:
            raise ConnectionError(f"a message of {length} bytes")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
