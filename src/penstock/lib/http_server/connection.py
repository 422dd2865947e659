"""One connection: parses what arrives, hands complete requests to the handler one after the other, answers in order.

The parser (llhttp) decides what is a request. This module decides how much of anything a client may make the server
hold, and how long. Nothing here trusts a length that a client states: memory is taken for what has arrived.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from io import BytesIO
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from penstock.lib.http_server.message import Request, Response

Handler = Callable[[Request], Response | Awaitable[Response]]
"""Answers a request, at once (no task is made) or later."""

log = logging.getLogger(__name__)

_RECEIVE_BYTES = 256 * 1024
_CHUNKS_MAX = 256
_CHUNKS_BYTES = 1024 * 1024
_ANSWERS_MAX = 64
_ANSWER_BYTES = 16 * 1024
_LINGER_S = 2.0
_VERSIONS = frozenset(("1.0", "1.1"))
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TOO_LARGE = Response(413, "The request body is too large.", close=True)
_HEADERS_TOO_LARGE = Response(431, "The request headers are too large.", close=True)
_BAD_REQUEST = Response(400, "Bad request.", close=True)
_READ_TIMEOUT = Response(408, "The request did not arrive in time.", close=True)
_BAD_EXPECTATION = Response(417, "Only 100-continue can be expected.", close=True)
_NO_TUNNEL = Response(501, "This server is no proxy.", close=True)
_BAD_VERSION = Response(505, "Only versions 1.0 and 1.1 of HTTP are spoken here.", close=True)
_FAILED = Response(500, "Internal server error.")
_BUSY = Response(503, "The server is busy. Please retry later.", headers={"retry-after": "1"})
_NO_MEMORY = Response(503, "The server is busy. Please retry later.", headers={"retry-after": "1"}, close=True)
_DRAINING = Response(503, "The server is shutting down.", headers={"retry-after": "1"}, close=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a server takes on. What goes beyond is answered, not queued."""

    header_bytes_max: int = 32 * 1024
    """Request line and headers together; above: 431."""
    body_bytes_max: int = 10 * 1024 * 1024
    """One body as transferred; above: 413, without reading the rest."""
    connections_max: int = 500
    """Open connections; further ones are closed at once."""
    requests_max: int = 2048
    """Requests in work in handlers that wait; above: 503."""
    reading_bytes_max: int = 32 * 1024 * 1024
    """Bodies that handlers have not freed; above: only one more is read to its end, the other clients wait."""
    buffered_bytes_max: int = 64 * 1024 * 1024
    """The same with what waiting clients had sent before; above: 503."""
    idle_timeout_s: float = 60.0
    """Longest silence between two requests."""
    read_timeout_s: float = 10.0
    """From the first byte of a request to its last, above: 408; also how long an answer may stay unread."""


class Shared:
    """What the connections of one server have in common."""

    __slots__ = (
        "buffered_bytes",
        "connections",
        "date",
        "draining",
        "favourite",
        "handler",
        "held_bytes",
        "limits",
        "loop",
        "on_empty",
        "on_refused",
        "rejected_connections",
        "running",
        "tasks",
        "view",
        "waiting",
    )

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        on_refused: Callable[[int], None] | None = None,
    ) -> None:
        self.handler = handler
        self.on_refused = on_refused or (lambda status: None)
        self.limits = limits
        self.loop = loop
        self.view = memoryview(bytearray(_RECEIVE_BYTES))
        """Where every connection receives: what arrives is parsed before the loop turns to the next one."""
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.buffered_bytes = 0
        """Of bodies that are read or have been read, until they are freed."""
        self.held_bytes = 0
        """Of bodies that have been read to their end."""
        self.waiting: dict[Connection, None] = {}
        """In the middle of a body, not read from because there is too much in memory; the longest wait first."""
        self.favourite: Connection | None = None
        """The one that is read from all the same, so that some request comes to its end."""
        self.running = 0
        self.rejected_connections = 0
        self.draining = False
        self.date = b""
        self.on_empty: Callable[[], None] | None = None

    def freed(self, size_bytes: int) -> None:
        """A complete body is not needed any more."""
        self.held_bytes -= size_bytes
        self.buffered_bytes -= size_bytes
        if self.waiting:
            self.admit()

    def admit(self) -> None:
        """Read on from those that wait, as far as memory goes."""
        limit = self.limits.reading_bytes_max
        while self.waiting and (self.buffered_bytes <= limit or (self.favourite is None and self.held_bytes <= limit)):
            connection = next(iter(self.waiting))
            del self.waiting[connection]
            if self.buffered_bytes > limit:
                self.favourite = connection
            connection.read_on()

    def gone(self, connection: Connection) -> None:
        """Nothing more of the body that this connection was sending will be read."""
        self.waiting.pop(connection, None)
        if self.favourite is connection:
            self.favourite = None
        if self.waiting:
            self.admit()


class Connection(asyncio.BufferedProtocol):
    """The server's end of one TCP or TLS connection."""

    __slots__ = (
        "_body_bytes",
        "_busy",
        "_chunks",
        "_continue_due",
        "_deaf",
        "_discarding",
        "_has_body",
        "_head_bytes",
        "_headers",
        "_is_tls",
        "_limits",
        "_lingered_bytes",
        "_method",
        "_parser",
        "_peer",
        "_queue",
        "_reading",
        "_reading_paused",
        "_refused",
        "_serial",
        "_shared",
        "_spill_at",
        "_spilled",
        "_stalled_bytes",
        "_trailers",
        "_transport",
        "_url",
        "_write_paused",
        "deadline",
    )

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._limits = shared.limits
        self._transport: asyncio.Transport | None = None
        self._parser: HttpRequestParser | None = None
        self._peer = ""
        self._is_tls = False
        self._queue: deque[Request | Response] = deque()
        """Complete requests that wait for their turn; a response stands for a refusal that ends the connection."""
        self.deadline = math.inf
        """Loop time at which `expire` is due."""
        self._busy = False
        self._discarding = False
        self._reading_paused = False
        self._write_paused = False
        self._lingered_bytes = 0
        # The request that is being read:
        self._reading = False
        self._refused = False
        self._deaf = False
        """Whether the parser's calls are to be ignored: after a refusal, and for a head that was made up."""
        self._serial = 0
        self._stalled_bytes = 0
        self._continue_due = False
        self._has_body = False
        self._trailers = False
        self._method = b""
        self._head_bytes = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._spilled: BytesIO | None = None
        self._spill_at = _CHUNKS_BYTES
        self._body_bytes = 0

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        shared = self._shared
        if len(shared.connections) >= self._limits.connections_max or shared.draining:
            shared.rejected_connections += 1
            self._discarding = True
            transport.abort()
            return
        self._transport = transport
        self._parser = HttpRequestParser(self)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self.deadline = shared.loop.time() + self._limits.idle_timeout_s
        shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._parser = None  # breaks the reference cycle
        self._discarding = True
        shared = self._shared
        shared.buffered_bytes -= self._body_bytes
        self._drop_body()
        for item in self._queue:
            if isinstance(item, Request):
                item.free_body()
        self._queue.clear()
        shared.connections.discard(self)
        shared.gone(self)
        if not shared.connections and shared.on_empty is not None:
            shared.on_empty()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.view

    def buffer_updated(self, nbytes: int) -> None:
        if self._discarding:
            self._discard(nbytes)
            return
        was_busy = self._busy
        before = (self._serial, self._head_bytes, self._body_bytes) if self._reading else None
        self._feed(self._shared.view[:nbytes])
        if self._reading:
            self._watch_stall(nbytes, before)
        self._advance()
        shared = self._shared
        if was_busy and self._busy:
            # One request at a time: a client that sends ahead is left waiting in its own socket.
            self._pause_reading()
        elif self._reading and shared.buffered_bytes > self._limits.reading_bytes_max and shared.favourite is not self:
            shared.waiting[self] = None
            self._pause_reading()
            shared.admit()

    def eof_received(self) -> bool:
        """Stay open for the answer when the client has only stopped sending (TLS cannot be half open)."""
        self._discarding = True
        self._reading = False
        return (self._busy or bool(self._queue)) and not self._is_tls

    def pause_writing(self) -> None:
        self._write_paused = True
        self.deadline = self._shared.loop.time() + self._limits.read_timeout_s
        self._pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._advance()

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self._deaf:
            return
        shared = self._shared
        self._reading = True
        self._serial += 1
        self._has_body = self._continue_due = self._trailers = False
        self._head_bytes = 0
        self._url = b""
        self._headers = {}
        self.deadline = shared.loop.time() + self._limits.read_timeout_s
        if shared.draining:
            self._refuse(_DRAINING)

    def on_url(self, url: bytes) -> None:
        if not self._deaf:
            self._url += url
            self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._deaf:
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.header_bytes_max:
            self._refuse(_HEADERS_TOO_LARGE)
        elif not self._trailers:
            name = name.lower()
            headers = self._headers
            headers[name] = headers[name] + b", " + value if name in headers else value

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        self._trailers = True  # any further header is one: counted, not kept
        parser, headers = self._parser, self._headers
        assert parser is not None
        self._method = method = parser.get_method()
        version = parser.get_http_version()
        length = int(headers.get(b"content-length", b"0"))
        self._has_body = length > 0 or b"transfer-encoding" in headers
        if self._head_bytes > self._limits.header_bytes_max:
            self._refuse(_HEADERS_TOO_LARGE)
        elif length > self._limits.body_bytes_max:
            self._refuse(_TOO_LARGE)
        elif version not in _VERSIONS:
            self._refuse(_BAD_VERSION)
        elif method == b"CONNECT":
            self._refuse(_NO_TUNNEL)
        elif b"expect" in headers and version == "1.1":
            if headers[b"expect"].lower() == b"100-continue":
                self._continue_due = True
            else:
                self._refuse(_BAD_EXPECTATION)

    def on_body(self, chunk: bytes) -> None:
        if self._deaf:
            return
        shared = self._shared
        held, size = self._body_bytes, len(chunk)
        self._body_bytes = held + size
        shared.buffered_bytes += size
        self._continue_due = False
        if held + size > self._limits.body_bytes_max:
            self._refuse(_TOO_LARGE)
        elif shared.buffered_bytes > self._limits.buffered_bytes_max:
            self._refuse(_NO_MEMORY)
        else:
            chunks = self._chunks
            chunks.append(chunk)
            if len(chunks) == _CHUNKS_MAX or held + size > self._spill_at:
                self._spill()

    def on_message_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self._deaf or (self._has_body and parser.should_upgrade()):
            return
        self._reading = False
        chunks = self._chunks
        if self._spilled is not None:
            self._spill()
            body = self._spilled.getvalue()
        else:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        shared = self._shared
        shared.held_bytes += self._body_bytes
        self._drop_body()
        self._queue.append(
            Request(
                self._method.decode("ascii"),
                self._url,
                self._headers,
                body,
                parser.should_keep_alive(),
                self._peer,
                shared.freed,
            )
        )
        if shared.favourite is self:
            shared.gone(self)

    # Called by the server.

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = math.inf
        transport = self._transport
        if transport is None or (self._busy and not self._write_paused):
            return
        if self._discarding or self._write_paused or transport.is_closing():
            transport.abort()
        elif self._reading:
            self._refuse(_READ_TIMEOUT)
            self._advance()
        else:
            self._close()

    def drain(self) -> None:
        """Finish the requests that have begun, then close."""
        if not (self._busy or self._queue or self._reading or self._discarding):
            self._close()

    def read_on(self) -> None:
        """There is memory again for the body that is being sent."""
        if self._transport is not None and not self._write_paused and not self._busy:
            self._resume_reading()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    # The rest is private.

    def _feed(self, data: memoryview) -> None:
        parser = self._parser
        assert parser is not None
        try:
            parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except HttpParserError:
            self._refuse(_BAD_REQUEST)

    def _decline_upgrade(self, rest: memoryview) -> None:
        """Go on in HTTP/1.1. The parser takes everything after the headers for the other protocol.

        `curl --http2` posts like this. A body left unread here would be taken for the next request.
        """
        if self._refused:
            return
        upgraded, self._parser = self._parser, HttpRequestParser(self)
        if self._reading:
            assert upgraded is not None
            chunked = b"transfer-encoding" in self._headers
            self._deaf = True
            self._parser.feed_data(
                b"%s / HTTP/1.1\r\nconnection: %s\r\n%s\r\n\r\n"
                % (
                    upgraded.get_method(),
                    b"keep-alive" if upgraded.should_keep_alive() else b"close",
                    b"transfer-encoding: chunked"
                    if chunked
                    else b"content-length: " + self._headers[b"content-length"],
                )
            )
            self._deaf = False
        if rest:
            self._feed(rest)

    def _spill(self) -> None:
        """Melt the chunks together: many tiny ones take far more memory than their bytes, joining large ones twice."""
        self._spill_at = self._body_bytes + _CHUNKS_BYTES
        if self._spilled is None:
            self._spilled = BytesIO()
        self._spilled.write(b"".join(self._chunks))
        self._chunks.clear()

    def _drop_body(self) -> None:
        self._chunks.clear()
        self._spilled = None
        self._body_bytes = 0
        self._spill_at = _CHUNKS_BYTES

    def _watch_stall(self, nbytes: int, before: tuple[int, int, int] | None) -> None:
        """Bound what the parser keeps to itself: a header, trailer or chunk extension without end."""
        if before != (self._serial, self._head_bytes, self._body_bytes):
            self._stalled_bytes = 0
        else:
            self._stalled_bytes += nbytes
        if max(self._stalled_bytes, self._head_bytes) > self._limits.header_bytes_max:
            self._refuse(_BAD_REQUEST if self._trailers else _HEADERS_TOO_LARGE)

    def _refuse(self, response: Response) -> None:
        """Answer the request being read with `response` when its turn comes, then close."""
        if not self._refused:
            self._refused = self._deaf = True
            self._reading = self._continue_due = False
            self._shared.buffered_bytes -= self._body_bytes
            self._drop_body()
            self._queue.append(response)
            self._shared.on_refused(response.status)
            self._shared.gone(self)

    def _advance(self) -> None:
        """Answer what is complete, as far as the handler answers at once."""
        queue, shared = self._queue, self._shared
        answers: list[bytes] = []
        while queue and not self._busy and not self._write_paused and self._transport is not None:
            item = queue.popleft()
            if isinstance(item, Response):
                queue.clear()
                answers.append(item.encode(shared.date, keep_alive=False))
                self._write(answers)
                self._linger()
                return
            response = self._call(item)
            if response is not None:
                answer, keep_alive = self._encode(item, response)
                answers.append(answer)
                if len(answers) == _ANSWERS_MAX or len(answer) > _ANSWER_BYTES:
                    self._write(answers)  # which says so when the client does not read
                    answers = []
                if not keep_alive:
                    self._write(answers)
                    self._close()
                    return
        self._write(answers)
        if not self._busy and not queue and self._transport is not None and not self._write_paused:
            self._await_more()

    def _call(self, request: Request) -> Response | None:
        """Run the handler; None when it answers later."""
        shared = self._shared
        try:
            if shared.running >= self._limits.requests_max:
                response: Response | Awaitable[Response] = _BUSY
                shared.on_refused(_BUSY.status)
            else:
                response = shared.handler(request)
        except Exception:
            log.exception("The handler of %s failed", request.path)
            response = self._failed()
        if isinstance(response, Response):
            request.free_body()
            return response
        self._busy = True
        shared.running += 1
        task = shared.loop.create_task(self._answer_later(request, response))
        shared.tasks.add(task)
        task.add_done_callback(shared.tasks.discard)
        return None

    async def _answer_later(self, request: Request, awaitable: Awaitable[Response]) -> None:
        shared = self._shared
        try:
            response = await awaitable
        except Exception:
            log.exception("The handler of %s failed", request.path)
            response = self._failed()
        finally:
            shared.running -= 1
            request.free_body()
            self._busy = False
        if self._transport is None:
            return
        answer, keep_alive = self._encode(request, response)
        self._write([answer])
        if keep_alive:
            self._advance()
        else:
            self._close()

    def _failed(self) -> Response:
        self._shared.on_refused(_FAILED.status)
        return _FAILED

    def _encode(self, request: Request, response: Response) -> tuple[bytes, bool]:
        last = (self._discarding or self._shared.draining) and not self._queue and not self._reading
        keep_alive = request.keep_alive and not response.close and not last
        with_body = request.method != "HEAD"
        return response.encode(self._shared.date, keep_alive=keep_alive, with_body=with_body), keep_alive

    def _write(self, answers: list[bytes]) -> None:
        if answers and self._transport is not None and not self._transport.is_closing():
            self._transport.write(answers[0] if len(answers) == 1 else b"".join(answers))

    def _await_more(self) -> None:
        """Everything is answered: read on, or wait for the next request."""
        limits, loop = self._limits, self._shared.loop
        if self._discarding:
            self._close()
            return
        if self._continue_due:
            self._continue_due = False
            self._write([_CONTINUE])
        if not self._reading:
            self.deadline = loop.time() + limits.idle_timeout_s
        elif self._reading_paused or self.deadline == math.inf:
            # The client could not send while the server did not read.
            self.deadline = loop.time() + limits.read_timeout_s
        if self not in self._shared.waiting:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            assert self._transport is not None
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def _close(self) -> None:
        """Close when what was written has been sent, or when the client does not take it in time."""
        self._discarding = True
        if self._transport is not None:
            self.deadline = self._shared.loop.time() + self._limits.read_timeout_s
            self._transport.close()

    def _linger(self) -> None:
        """Close after a refusal while the client may still be sending.

        Closing a socket with unread data resets the connection, and the client would see that instead of the answer.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._discarding = True
        self.deadline = self._shared.loop.time() + _LINGER_S
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:  # the client has reset the connection while it was not read from
                transport.abort()
                return
        if self._reading_paused:
            self._reading_paused = False
            transport.resume_reading()

    def _discard(self, nbytes: int) -> None:
        self._lingered_bytes += nbytes
        if self._transport is not None and self._lingered_bytes > 4 * self._limits.body_bytes_max:
            self._transport.abort()
