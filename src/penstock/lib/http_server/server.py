"""Listens, watches the deadlines of its connections, drains."""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from penstock.lib.http_server.connection import Connection, Handler, Limits, Shared

TURNS_TO_ACCEPT = 4
"""Turns of the event loop that it takes to make a connection of what was accepted."""
TURNS_TO_READ = 10
"""Turns of the event loop after which the first request of a connection that was just accepted has been read."""


class HttpServer:
    """An HTTP/1.1 server for machines: few large posts or many small ones, all within `limits`.

    The handler is called once for each complete request, in order within a connection. It answers with a `Response`,
    or with an awaitable of one when it has to wait. An exception is answered with 500 and logged.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "0.0.0.0",  # noqa: S104 (an ingestion endpoint is there to be reached)
        port: int,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        share_port: Callable[[str, int], Awaitable[int]] | None = None,
        on_refused: Callable[[int], None] | None = None,
    ) -> None:
        """`on_refused` hears the status of each answer that the server gives instead of the handler.

        `share_port` turns host and port into the port that this process listens on together with others.
        """
        self._handler = handler
        self._host = host
        self._tls = tls
        self._limits = limits or Limits()
        self._share_port = share_port
        self._on_refused = on_refused
        self._shared: Shared | None = None
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self.port = port
        """Port to listen on; after `start` the one that was bound."""

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._shared.connections) if self._shared is not None else 0

    @property
    def rejected_connections(self) -> int:
        """Connections closed at once because there were too many."""
        return self._shared.rejected_connections if self._shared is not None else 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the bodies of requests that are not answered yet."""
        return self._shared.buffered_bytes if self._shared is not None else 0

    async def start(self) -> None:
        """Bind and listen. Raises OSError when the port cannot be had."""
        assert self._server is None, "the server runs already"
        loop = asyncio.get_running_loop()
        if self._share_port is not None:
            self.port = await self._share_port(self._host, self.port)
        shared = self._shared = Shared(self._handler, self._limits, loop, self._on_refused)
        self._server = await loop.create_server(
            lambda: Connection(shared),
            self._host or None,
            self.port,
            ssl=self._tls,
            reuse_port=True if self._share_port is not None else None,
            backlog=1024,
            ssl_handshake_timeout=self._limits.read_timeout_s if self._tls is not None else None,
            ssl_shutdown_timeout=self._limits.read_timeout_s if self._tls is not None else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._tick()

    async def stop(self, grace_s: float = 10.0) -> None:
        """Stop listening, finish the requests that have begun, close; after `grace_s` seconds cut off the rest."""
        server, shared = self._server, self._shared
        if server is None or shared is None:
            return
        self._server = None
        if self._share_port is not None and grace_s > 0:
            await _accept_queued(server, grace_s)
        server.close()
        if self._share_port is not None and grace_s > 0:
            for _ in range(TURNS_TO_READ):
                await asyncio.sleep(0)
        shared.draining = True
        for connection in list(shared.connections):
            connection.drain()
        await _emptied(shared, grace_s)
        for connection in list(shared.connections):
            connection.abort()
        running = list(shared.tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await _emptied(shared, 1.0)
        if self._sweep is not None:
            self._sweep.cancel()

    def _tick(self) -> None:
        shared = self._shared
        assert shared is not None
        limits = self._limits
        pause_s = min(1.0, limits.idle_timeout_s / 4, limits.read_timeout_s / 4)
        # First of all: whatever goes wrong below, the deadlines of the others are kept.
        self._sweep = shared.loop.call_later(max(pause_s, 0.01), self._tick)
        now = shared.loop.time()
        shared.date = formatdate(time.time(), usegmt=True).encode("ascii")
        for connection in [connection for connection in shared.connections if now >= connection.deadline]:
            connection.expire()


async def _accept_queued(server: asyncio.Server, timeout_s: float) -> None:
    """Go on until no connection waits: closing would reset it, not hand it to the others who share the port."""
    waiting = select.poll()
    for listener in server.sockets:
        waiting.register(listener.fileno(), select.POLLIN)
    loop = asyncio.get_running_loop()
    give_up = loop.time() + timeout_s
    empty = 0
    while empty < TURNS_TO_ACCEPT and loop.time() < give_up:
        await asyncio.sleep(0)
        empty = 0 if waiting.poll(0) else empty + 1


async def _emptied(shared: Shared, timeout_s: float) -> None:
    """Wait until no connection is open, at most `timeout_s`."""
    empty = asyncio.Event()
    shared.on_empty = empty.set
    if shared.connections:
        try:
            await asyncio.wait_for(empty.wait(), timeout_s)
        except TimeoutError:
            return
