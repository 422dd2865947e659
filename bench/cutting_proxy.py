"""Passes bytes on to a server and cuts some connections when the answer to a bulk request arrives, so that the server
has acted and its client does not know.

    python -m bench.cutting_proxy UPSTREAM_PORT [--cut 0.1] [--seed 1]

Prints the port it listens on. `GET /_cuts` tells how many connections were cut.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from typing import cast

import orjson


class Cuts:
    """How often connections are cut."""

    def __init__(self, share: float, seed: int) -> None:
        self.count = 0
        self._share = share
        self._chance = random.Random(seed)

    def now(self) -> bool:
        if self._chance.random() >= self._share:
            return False
        self.count += 1
        return True


class _Side(asyncio.Protocol):
    """One of the two connections of a pair."""

    def __init__(self, other: _Side | None = None) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.abort()


class Client(_Side):
    def __init__(self, upstream_port: int, cuts: Cuts) -> None:
        super().__init__()
        self.cuts = cuts
        self.awaits_bulk = False
        self._upstream_port = upstream_port
        self.early: list[bytes] = []
        """What arrived before there was a connection to the server."""
        self._connecting: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        if data.startswith(b"GET /_cuts"):
            reply = orjson.dumps({"cuts": self.cuts.count})
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(reply), reply))
            return
        if data.startswith(b"POST /_bulk"):
            self.awaits_bulk = True
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
            return
        self.early.append(data)
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        assert self.transport is not None
        try:
            await asyncio.get_running_loop().create_connection(self._server_side, "127.0.0.1", self._upstream_port)
        except OSError:
            self.transport.abort()

    def _server_side(self) -> Server:
        self.other = server = Server(self)
        return server


class Server(_Side):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        client = self.other
        assert isinstance(client, Client)
        assert self.transport is not None
        self.transport.write(b"".join(client.early))  # before anything that comes later

    def data_received(self, data: bytes) -> None:
        client = self.other
        assert isinstance(client, Client)
        assert client.transport is not None
        if client.awaits_bulk:
            client.awaits_bulk = False
            if client.cuts.now():
                client.transport.abort()
                return
        client.transport.write(data)


async def main(upstream_port: int, cuts: Cuts) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Client(upstream_port, cuts), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream_port", type=int)
    parser.add_argument("--cut", type=float, default=0.1, help="share of bulk answers that never arrive")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    uvloop.run(main(given.upstream_port, Cuts(given.cut, given.seed)))
