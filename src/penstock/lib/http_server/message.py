"""What a handler is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import unquote

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {413: "Content Too Large"}
_BODILESS = frozenset((204, 304))


class Request:
    """One complete request. Everything but the body is decoded on first use."""

    __slots__ = (
        "_headers",
        "_on_freed",
        "_path",
        "_query",
        "body",
        "keep_alive",
        "method",
        "peer",
        "raw_headers",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        raw_headers: dict[bytes, bytes] | None = None,
        body: bytes = b"",
        keep_alive: bool = True,
        peer: str = "",
        on_freed: Callable[[int], None] | None = None,
    ) -> None:
        """`on_freed` hears the size of the body when it is not needed any more."""
        self.method = method
        """Upper case, such as `POST`."""
        self.target = target
        """The request target as sent: path and query, still quoted."""
        self.raw_headers: dict[bytes, bytes] = raw_headers or {}
        """Values by lower-case name; a repeated header is joined with commas."""
        self.body = body
        """Whole body, transfer coding removed, content coding not."""
        self.keep_alive = keep_alive
        """Whether the client can use the connection again."""
        self.peer = peer
        """Address of the client without its port."""
        self._on_freed = on_freed
        self._path: str | None = None
        self._query = ""
        self._headers: Mapping[str, str] | None = None

    def free_body(self) -> None:
        """The body has been read: its memory is for others, although the answer is still to come."""
        size, self.body = len(self.body), b""
        if size and self._on_freed is not None:
            self._on_freed(size)

    @property
    def path(self) -> str:
        """Path without query, unquoted."""
        if self._path is None:
            self._split()
        assert self._path is not None
        return self._path

    @property
    def query(self) -> str:
        """What follows the question mark, still quoted."""
        if self._path is None:
            self._split()
        return self._query

    @property
    def headers(self) -> Mapping[str, str]:
        """Values by lower-case name."""
        if self._headers is None:
            self._headers = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers.items()
            }
        return self._headers

    def _split(self) -> None:
        target = self.target.decode("latin-1")
        if not target.startswith("/") and "://" in target:
            # The absolute form, as sent to proxies: everything up to the path names this server.
            _, slash, rest = target.partition("://")[2].partition("/")
            target = "/" + rest if slash else "/"
        path, _, self._query = target.partition("?")
        self._path = unquote(path) if "%" in path else path


class Response:
    """One answer. May be kept and given again: its head is encoded once."""

    __slots__ = ("_head", "body", "close", "status")

    def __init__(
        self,
        status: int,
        body: bytes | str = b"",
        *,
        content_type: str = "text/plain; charset=utf-8",
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.body = body.encode() if isinstance(body, str) else body
        self.close = close
        """Close the connection behind this answer."""
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
        if status not in _BODILESS:
            lines.append(f"content-length: {len(self.body)}")
            if self.body:
                lines.append(f"content-type: {content_type}")
        for name, value in (headers or {}).items():
            if "\r" in value or "\n" in value:
                raise ValueError(f"line break in the value of header {name}")
            lines.append(f"{name}: {value}")
        self._head = "\r\n".join([*lines, "date: "]).encode("latin-1")

    def encode(self, date: bytes, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """The bytes to send. `date` is the value of the header of that name."""
        # HTTP/1.0 clients need to be told both ways; HTTP/1.1 clients ignore what they assume anyway.
        end = b"\r\nconnection: keep-alive\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n"
        if with_body and self.body and self.status not in _BODILESS:
            return b"".join((self._head, date, end, self.body))
        return b"".join((self._head, date, end))

    def __repr__(self) -> str:
        return f"Response({self.status}, {self.body[:200]!r})"
