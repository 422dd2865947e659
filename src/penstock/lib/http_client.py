"""One pooled HTTP client for one or several hosts of a service. Tries nothing twice: that is the caller's business."""

from __future__ import annotations

import asyncio
import base64
import inspect
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from penstock.core.errors import ConfigError, Permanent, Transient, Unreachable
from penstock.lib.compression import gzip_compress

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.payload import Payload

Sign = Callable[[str, str, dict[str, str], bytes], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Given method, URL, headers and body as they will be sent, returns headers to add: a signature."""

Body = bytes | Sequence[bytes]
"""A body whole, or its parts in order."""
_THREAD_BYTES = 64 * 1024
_PIECEWISE_BYTES = 1024 * 1024
"""Larger bodies are written piece by piece, so that the loop turns to others in between."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered, whatever the status."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    body: bytes
    """Content coding removed."""

    @property
    def text(self) -> str:
        """The body, for messages."""
        return self.body.decode("utf-8", "replace")


class Untrusted(Unreachable):
    """The certificate of the host is not that of a known authority, or for another name, or has expired."""


class HttpClient:
    """Sends requests to `hosts` in turn; a host that cannot be reached is left out for a while.

    A host is `https://name:9200`, with or without port and path prefix. May be made outside of the event loop and is
    opened by the first request.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        username: str | None = None,
        password: str | None = None,
        bearer_token: str | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        sign: Sign | None = None,
        gzip_requests: bool = False,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        connections_max: int = 100,
        reply_bytes_max: int = 256 * 1024 * 1024,
        host_pause_s: float = 10.0,
    ) -> None:
        if not hosts:
            raise ConfigError("at least one host is needed")
        self._hosts = [_Host.parse(host) for host in hosts]
        self._headers = {"User-Agent": "penstock", "Accept-Encoding": "gzip", **(headers or {})}
        if bearer_token is not None:
            self._headers["Authorization"] = f"Bearer {bearer_token}"
        if username is not None:
            self._headers["Authorization"] = _basic(username, password or "")
        self._tls = tls
        self._proxy = None if proxy is None else (proxy if "://" in proxy else f"http://{proxy}")
        if self._proxy is not None:
            _Host.parse(self._proxy)
        self._sign = sign
        self._gzip = gzip_requests
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._connections_max = connections_max
        self._reply_bytes_max = reply_bytes_max
        self._host_pause_s = host_pause_s
        self._next = 0
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Reply:
        """Send one request; `path` starts with `/`, is quoted already and may hold a query.

        Raises `Unreachable` when there was no answer in `timeout_s` seconds or none at all, `Permanent` when the
        answer is larger than allowed.
        """
        session = self._session or self._open()
        self._waiting += 1
        self._idle.clear()
        try:
            return await self._request(session, method, path, body, headers, timeout_s or self._timeout_s)
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._idle.set()

    async def idle(self) -> None:
        """Wait until every request has ended."""
        await self._idle.wait()

    async def close(self) -> None:
        """Close all connections. Calling it twice is fine; no request may follow."""
        session, self._session, self._closed = self._session, None, True
        if session is not None:
            await session.close()

    async def _request(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: Body | None,
        headers: Mapping[str, str] | None,
        timeout_s: float,
    ) -> Reply:
        host = self._pick()
        url = host.url + path
        sent = {**self._headers, **host.headers, **(headers or {})}
        if body and not isinstance(body, bytes) and (self._gzip or self._sign is not None):
            body = b"".join(body)
        if isinstance(body, bytes) and body and self._gzip:
            body = await asyncio.to_thread(gzip_compress, body) if len(body) > _THREAD_BYTES else gzip_compress(body)
            sent["Content-Encoding"] = "gzip"
        if self._sign is not None:
            assert body is None or isinstance(body, bytes), "joined above"
            signed = self._sign(method, url, sent, body or b"")
            sent.update(await signed if inspect.isawaitable(signed) else signed)
        return await self._send(session, host, method, url, body, sent, timeout_s)

    async def _send(
        self,
        session: aiohttp.ClientSession,
        host: _Host,
        method: str,
        url: str,
        body: Body | None,
        headers: dict[str, str],
        timeout_s: float,
    ) -> Reply:
        import aiohttp
        from yarl import URL

        data: bytes | Payload | None
        if body is None or (isinstance(body, bytes) and len(body) <= _PIECEWISE_BYTES):
            data = body
        else:
            from penstock.lib.http_body import Texts

            data = Texts([body] if isinstance(body, bytes) else body)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(self._connect_timeout_s, timeout_s))
        try:
            async with session.request(
                method,
                URL(url, encoded=True),  # a signature covers it as it is
                data=data,
                headers=headers,
                proxy=self._proxy,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                return Reply(response.status, response.headers, await self._read(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            host.down_until = time.monotonic() + self._host_pause_s
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                raise Untrusted(f"{host.url} cannot be trusted: {_distrust(error.certificate_error)}") from error
            raise Unreachable(f"{host.url} cannot be reached: {_reason(error)}") from error
        except TimeoutError as error:
            raise Unreachable(f"{host.url} did not answer {method} {path_of(url)} within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{host.url} broke off {method} {path_of(url)}: {_reason(error)}") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > self._reply_bytes_max:
                raise Permanent(f"the answer of {response.url.host} is larger than {self._reply_bytes_max} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise Transient("the client is closed")
        ssl_option: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        connector = aiohttp.TCPConnector(limit=self._connections_max, keepalive_timeout=30, **ssl_option)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True, trust_env=False
        )
        return self._session

    def _pick(self) -> _Host:
        """The next host in turn that is not known to be down, else the one that has been down longest."""
        hosts, now = self._hosts, time.monotonic()
        for step in range(len(hosts)):
            host = hosts[(self._next + step) % len(hosts)]
            if host.down_until <= now:
                self._next = (self._next + step + 1) % len(hosts)
                return host
        return min(hosts, key=lambda host: host.down_until)


@dataclass(slots=True)
class _Host:
    url: str
    """Scheme, authority and path prefix, without a slash at the end."""
    headers: dict[str, str]
    down_until: float = 0.0

    @classmethod
    def parse(cls, text: str) -> _Host:
        address = text if "://" in text else f"http://{text}"
        try:
            parts = urlsplit(address)
            name, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"not a valid host: {text}: {error}") from None
        if parts.scheme not in ("http", "https") or not name or parts.query or parts.fragment:
            raise ConfigError(f"not a valid host: {text}: expected something like https://name:9200")
        headers = {}
        if parts.username is not None:
            headers["Authorization"] = _basic(unquote(parts.username), unquote(parts.password or ""))
        authority = parts.netloc.rpartition("@")[2]
        return cls(f"{parts.scheme}://{authority}{parts.path.rstrip('/')}", headers)


def path_of(url: str) -> str:
    """The path of a URL, for messages: queries may hold secrets."""
    return urlsplit(url).path


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def _distrust(error: Exception) -> str:
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else _reason(error)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
