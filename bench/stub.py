"""A bulk endpoint that counts what arrives and costs little itself, and goes wrong as often as it is told.

    python -m bench.stub [PORT] [--seed 1] [--item-429 0.02] [--item-400 0.01] [--request-429 0.15]
                         [--request-503 0.15] [--retry-after S] [--delay S] [--marks]

It answers set-up calls with `{}`, a bulk with `errors: false`. `GET /_stats` tells the totals, `GET /_arrivals` when
each marked document (`"mark":"<id>"`) arrived, in nanoseconds of the system's monotonic clock. With `--marks` or
faults of items it counts instead how often each mark was taken, and `GET /_marks` tells the outcome: an `index` of an
id that is there already is the same document again, one without an id is a new document.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import compress
from typing import Any, cast

import orjson
from isal import igzip

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MARK = re.compile(rb'"mark":"([^"]+)"')
_ID = re.compile(rb'"_id":"([^"]+)"')
_TAKEN = b'{"index":{"_index":"logs","_id":"W9kGx5cB1f3YyqzR0aBc","status":201}}'
_REFUSED = {
    429: (
        b'{"index":{"_index":"logs","_id":"W9kGx5cB1f3YyqzR0aBc","status":429,"error":{"type":'
        b'"rejected_execution_exception","reason":"rejected execution of primary operation"}}}'
    ),
    400: (
        b'{"index":{"_index":"logs","_id":"W9kGx5cB1f3YyqzR0aBc","status":400,"error":{"type":'
        b'"mapper_parsing_exception","reason":"failed to parse field [size] of type [long]"}}}'
    ),
}
_BUSY = {
    429: (b"Too Many Requests", b'{"error":{"type":"circuit_breaking_exception","reason":"injected"},"status":429}'),
    503: (
        b"Service Unavailable",
        b'{"error":{"type":"unavailable_shards_exception","reason":"injected"},"status":503}',
    ),
}


class Totals:
    documents = 0
    requests = 0
    bytes = 0
    arrivals: dict[str, int] = {}  # noqa: RUF012 (one process, one stub)


class Ledger:
    """What became of the marked documents, and which of them are refused next."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.chance = random.Random(options.seed)
        self.counts: Counter[bytes] = Counter()
        """How many documents hold each mark."""
        self.refused: set[bytes] = set()
        """Marks that were answered 400."""
        self.busy_items = 0
        self.requests: Counter[str] = Counter()
        self._ids: set[bytes] = set()
        self._items = {429: options.item_429, 400: options.item_400}
        self._requests = {429: options.request_429, 503: options.request_503}
        self.marks: bool = options.marks or any(self._items.values())

    def busy(self) -> int:
        """The status with which this request is refused as a whole, 0 for none."""
        drawn = self.chance.random()
        for status, share in self._requests.items():
            if drawn < share:
                self.requests[str(status)] += 1
                return status
            drawn -= share
        return 0

    def take(self, body: bytes) -> bytes:
        """Count the documents of a request and answer it."""
        marks = _MARK.findall(body)
        answers = [_TAKEN] * len(marks)
        taken = bytearray(b"\1") * len(marks)
        for status, share in self._items.items():
            for place in self._drawn(share, len(marks)):
                if taken[place]:
                    taken[place] = 0
                    answers[place] = _REFUSED[status]
                    if status == 400:
                        self.refused.add(marks[place])
                    else:
                        self.busy_items += 1
        errors = not all(taken)
        if b'"_id":' in body:  # the action lines name documents
            for place, id_ in enumerate(_ID.findall(body)):
                if id_ in self._ids:
                    taken[place] = 0
                elif taken[place]:
                    self._ids.add(id_)
        self.counts.update(compress(marks, taken))
        Totals.documents += sum(taken)
        return b'{"took":1,"errors":%s,"items":[%s]}' % (b"true" if errors else b"false", b",".join(answers))

    def outcome(self) -> dict[str, Any]:
        """Marks by how they ended."""
        copies = Counter(self.counts.values())
        return {
            "marks": len(self.counts),
            "once": copies[1],
            "more": len(self.counts) - copies[1],
            "refused": sorted(mark.decode() for mark in self.refused),
            "taken_and_refused": len(self.refused & self.counts.keys()),
            "busy_items": self.busy_items,
            "requests": dict(self.requests),
        }

    def _drawn(self, share: float, count: int) -> Iterator[int]:
        """Places that chance strikes, at a cost that follows their number."""
        if share <= 0:
            return
        scale = math.log1p(-share)
        place = -1
        while True:
            place += 1 + int(math.log(1.0 - self.chance.random()) / scale)
            if place >= count:
                return
            yield place


class Stub(asyncio.Protocol):
    def __init__(self, options: argparse.Namespace, ledger: Ledger) -> None:
        self.ledger = ledger
        self.delay_s: float = options.delay
        self.retry_after = b"" if options.retry_after is None else b"retry-after: %d\r\n" % options.retry_after

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
            status = self.ledger.busy()
            if status:
                phrase, reply = _BUSY[status]
                self.write(b"%d %s" % (status, phrase), reply, self.retry_after)
                return
            if body[:2] == b"\x1f\x8b":
                body = igzip.decompress(body)
            if self.ledger.marks:
                reply = self.ledger.take(body)
            else:
                Totals.documents += body.count(b"\n") // 2
                for mark in _MARK.findall(body):
                    Totals.arrivals[mark.decode()] = now
                reply = b'{"took":1,"errors":false,"items":[]}'
        elif b"/_stats" in line:
            totals = {"documents": Totals.documents, "requests": Totals.requests, "bytes": Totals.bytes}
            reply = orjson.dumps({**totals, "marks": len(self.ledger.counts), "refused": len(self.ledger.refused)})
        elif b"/_arrivals" in line:
            reply = orjson.dumps(Totals.arrivals)
        elif b"/_marks" in line:
            reply = orjson.dumps(self.ledger.outcome())
        elif line.startswith(b"HEAD"):
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        else:
            reply = b'{"acknowledged":true,"version":{"number":"3.0.0","distribution":"opensearch"}}'
        if self.delay_s and b"_bulk" in line:
            asyncio.get_running_loop().call_later(self.delay_s, self.write, b"200 OK", reply)
        else:
            self.write(b"200 OK", reply)

    def write(self, status: bytes, reply: bytes, header: bytes = b"") -> None:
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s"
            % (status, header, len(reply), reply)
        )


async def main(options: argparse.Namespace) -> None:
    ledger = Ledger(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(options, ledger), "127.0.0.1", options.port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--item-429", type=float, default=0.0, help="share of items answered 429")
    parser.add_argument("--item-400", type=float, default=0.0, help="share of items answered 400")
    parser.add_argument("--request-429", type=float, default=0.0, help="share of requests answered 429")
    parser.add_argument("--request-503", type=float, default=0.0, help="share of requests answered 503")
    parser.add_argument("--retry-after", type=int, help="seconds that refused requests are asked to wait")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before a bulk is answered")
    parser.add_argument("--marks", action="store_true", help="count how often each mark was taken")
    return parser.parse_args()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(_options()))
