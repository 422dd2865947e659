"""A bulk endpoint that counts what arrives and costs little itself. Prints one JSON line at its end.

    python -m bench.stub PORT

It answers set-up calls with `{}`, a bulk with `errors: false`. `GET /_stats` tells the totals, `GET /_arrivals` when
each marked document (`"mark":"<id>"`) arrived, in nanoseconds of the system's monotonic clock.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import cast

import orjson
from isal import igzip

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MARK = re.compile(rb'"mark":"([^"]+)"')


class Totals:
    documents = 0
    requests = 0
    bytes = 0
    arrivals: dict[str, int] = {}  # noqa: RUF012 (one process, one stub)


class Stub(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.parts: list[bytes] = []
        self.missing = 0
        self.head = b""

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        while data:
            if not self.missing:
                head, found, data = (b"".join(self.parts) + data).partition(b"\r\n\r\n")
                if not found:
                    self.parts = [head]
                    return
                self.parts = []
                self.head = head
                length = _LENGTH.search(head)
                self.missing = int(length.group(1)) if length else 0
            if self.missing:
                body, data = data[: self.missing], data[self.missing :]
                self.parts.append(body)
                self.missing -= len(body)
                if self.missing:
                    return
            body = b"".join(self.parts)
            self.parts = []
            self.answer(body, now)

    def answer(self, body: bytes, now: int) -> None:
        line = self.head.split(b"\r\n", 1)[0]
        if b"_bulk" in line:
            Totals.requests += 1
            Totals.bytes += len(body)
            if body[:2] == b"\x1f\x8b":
                body = igzip.decompress(body)
            Totals.documents += body.count(b"\n") // 2
            for mark in _MARK.findall(body):
                Totals.arrivals[mark.decode()] = now
            reply = b'{"took":1,"errors":false,"items":[]}'
        elif b"/_stats" in line:
            totals = {"documents": Totals.documents, "requests": Totals.requests, "bytes": Totals.bytes}
            reply = orjson.dumps(totals)
        elif b"/_arrivals" in line:
            reply = orjson.dumps(Totals.arrivals)
        elif line.startswith(b"HEAD"):
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        else:
            reply = b'{"acknowledged":true,"version":{"number":"3.0.0","distribution":"opensearch"}}'
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(reply), reply)
        )


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
