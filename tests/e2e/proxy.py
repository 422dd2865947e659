"""An HTTP proxy that stands before a real server and misbehaves when a test says so.

    with FaultProxy(opensearch.url) as proxy:
        proxy.answer(403, SECURITY_EXCEPTION)      # every request, until heal()
        proxy.answer(429, path="/_bulk", times=2)  # the next two bulk requests
        proxy.cut_after_forwarding(path="/_bulk", times=1)  # the server acts, the client never hears of it
        proxy.heal()

Faults are tried in the order in which they were added; the first that fits decides. `proxy.requests` tells what came
in and what was answered, oldest first.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import aiohttp
from aiohttp import web

BODY_BYTES_MAX = 128 * 1024 * 1024
REQUESTS_KEPT = 10_000
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length", "te", "trailer", "upgrade"}


def security_exception(role_arn: str) -> str:
    """The body with which a domain refuses a role that nobody mapped yet."""
    reason = (
        f"no permissions for [cluster:monitor/state] and User [name={role_arn}, "
        f"backend_roles=[{role_arn}], requestedTenant=null]"
    )
    cause = {"type": "security_exception", "reason": reason}
    return json.dumps({"error": {"root_cause": [cause], **cause}, "status": 403})


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that reached the proxy."""

    method: str
    path: str
    """With the query string."""
    status: int
    """What the client was answered, 0 when the connection was cut."""
    forwarded: bool
    """Whether the server behind received it."""
    body_bytes: int
    at: float
    """When it was read to its end, by the monotonic clock."""


@dataclass(slots=True)
class _Fault:
    path: str
    method: str | None
    left: int | None
    status: int = 0
    body: str = ""
    headers: dict[str, str] | None = None
    delay_s: float = 0.0
    cut: str = ""
    """`before` or `after` the request is forwarded."""

    def fits(self, method: str, path: str) -> bool:
        return self.left != 0 and self.path in path and self.method in (None, method)


class FaultProxy:
    """Forwards everything to `upstream` until a fault is added.

    It runs in a thread of its own; its methods may be called from any thread. `port` 0 takes a free one.
    """

    def __init__(self, upstream: str, port: int = 0) -> None:
        self.upstream = upstream.rstrip("/")
        self._port = port
        self.url = ""
        self.requests: deque[Seen] = deque(maxlen=REQUESTS_KEPT)
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._connections: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def answer(
        self,
        status: int,
        body: str = "",
        *,
        path: str = "",
        method: str | None = None,
        times: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer requests whose path contains `path` without asking the server; for ever unless `times` is given."""
        self._add(_Fault(path, method, times, status=status, body=body, headers=headers))

    def delay(self, seconds: float, *, path: str = "", method: str | None = None, times: int | None = None) -> None:
        """Hold requests back that long, then forward them."""
        self._add(_Fault(path, method, times, delay_s=seconds))

    def cut_before_forwarding(self, *, path: str = "", method: str | None = None, times: int | None = None) -> None:
        """Reset the connection after the request was read; the server never sees it."""
        self._add(_Fault(path, method, times, cut="before"))

    def cut_after_forwarding(self, *, path: str = "", method: str | None = None, times: int | None = None) -> None:
        """Let the server act, then reset the connection in place of its answer."""
        self._add(_Fault(path, method, times, cut="after"))

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()

    def cut_all(self) -> None:
        """Reset every open client connection, also those that are waiting for an answer."""

        def cut() -> None:
            for transport in list(self._connections):
                transport.abort()

        self._loop.call_soon_threadsafe(cut)

    def wait_for(self, condition: Callable[[Seen], bool], *, timeout_s: float = 30.0) -> Seen:
        """The first request, seen already or to come, that fits. Raises `TimeoutError`."""
        deadline = time.monotonic() + timeout_s
        while True:
            for seen in list(self.requests):
                if condition(seen):
                    return seen
            if time.monotonic() > deadline:
                raise TimeoutError(f"no such request within {timeout_s:g} s; seen: {list(self.requests)[-10:]}")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _take(self, method: str, path: str) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.fits(method, path):
                    if fault.left is not None:
                        fault.left -= 1
                    return fault
        return None

    async def _start(self) -> None:
        self._client = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=120))
        # Bodies pass through as they are, compressed or not.
        server = web.Server(self._handle, auto_decompress=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        for transport in list(self._connections):
            transport.abort()
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        self._connections.add(transport)
        try:
            return await self._decide(request, transport)
        finally:
            self._connections.discard(transport)

    async def _decide(self, request: web.BaseRequest, transport: asyncio.Transport) -> web.StreamResponse:
        body = await _read(request)
        at = time.monotonic()
        fault = self._take(request.method, request.path_qs)

        def note(status: int, *, forwarded: bool) -> None:
            self.requests.append(Seen(request.method, request.path_qs, status, forwarded, len(body), at))

        if fault and fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault and fault.cut == "before":
            note(0, forwarded=False)
            transport.abort()
            raise ConnectionResetError
        if fault and fault.status:
            note(fault.status, forwarded=False)
            return web.Response(
                status=fault.status, text=fault.body, content_type="application/json", headers=fault.headers
            )
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with self._client.request(
            request.method, self.upstream + request.raw_path, data=body or None, headers=headers
        ) as reply:
            answer = await reply.read()
            if fault and fault.cut == "after":
                note(0, forwarded=True)
                transport.abort()
                raise ConnectionResetError
            note(reply.status, forwarded=True)
            kept = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP_BY_HOP}
            return web.Response(status=reply.status, body=answer, headers=kept)


async def _read(request: web.BaseRequest) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise web.HTTPRequestEntityTooLarge(BODY_BYTES_MAX, len(body))
    return bytes(body)
