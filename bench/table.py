"""A table with an export and a stream, and the index it is mirrored to: one server that plays all of them.

    python -m bench.table --items 1000000 --files 16 [--form ION]

Prints its port once the files are made. DynamoDB and its streams are those of `FakeDynamodb`, S3 is the same memory,
`_bulk` keeps the newest version of each document. `POST /_put` and `/_delete` change an item of the table, `GET
/_index` tells what arrived, `GET /_missing` whether the index equals the table.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import unquote

import orjson
from isal import isal_zlib

from penstock import sdk
from penstock.testing.dynamodb import FakeDynamodb
from penstock.testing.dynamodb_export import Export, ExportApi, Names, data_files, manifests

BUCKET = "exports"
CHANGES_BYTES_MAX = 65_536
"""What is larger belongs to an export."""
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TARGET = re.compile(rb"x-amz-target: *\w+\.(\w+)", re.IGNORECASE)
_ACTION = re.compile(rb'\{"(index|delete)":\{"_index":"[^"]+","_id":"([^"]+)","version":(\d+)')
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def item(number: int, chance: random.Random) -> dict[str, Any]:
    """An item of eleven attributes, 440 bytes in DynamoDB JSON."""
    return {
        "id": {"N": str(number)},
        "Artist": {"S": f"artist {number}"},
        "SongTitle": {"S": "some title of a song"},
        "Album": {"S": "an album title"},
        "price": {"N": f"{chance.randrange(1000)}.{chance.randrange(11, 100)}"},
        "year": {"N": "1999"},
        "ok": {"BOOL": True},
        "tags": {"SS": ["a", "b"]},
        "address": {"M": {"street": {"S": "main street 5"}, "zip": {"N": "12345"}}},
        "list": {"L": [{"N": "1"}, {"S": "x"}]},
        "description": {"S": "lorem ipsum dolor sit amet " * 4},
    }


def parts(items: int, files: int) -> Iterator[list[dict[str, Any]]]:
    """The items of each file, made when it is their turn."""
    chance = random.Random(1)
    for number in range(files):
        yield [item(n, chance) for n in range(number, items, files)]


class PreparedExports(ExportApi):
    """Exports whose files were made before they are asked for."""

    def __init__(self, db: FakeDynamodb, items: int, files: int, form: str) -> None:
        super().__init__(db.table_arn, list, db.s3.put, db.clock)
        self.takes_s = 0.0
        self.data = data_files(parts(items, files), Names(f"{db.table_arn}/export/01", form=form))

    def content(self, export: Export) -> dict[str, bytes]:
        names = Names(export.arn, form=export.parameters["ExportFormat"])
        told = {"tableArn": self.table_arn, "s3Bucket": BUCKET}
        return {key: file for key, (file, _) in self.data.items()} | manifests(self.data, names, export.at_ms, told)


class Index:
    """The newest version of each document and how often one came again."""

    def __init__(self) -> None:
        self.versions: dict[bytes, int] = {}
        """Negative where the document was removed by that version."""
        self.operations = 0
        self.requests = 0
        self.again = 0
        """Operations whose version was there already."""
        self.arrivals: dict[bytes, int] = {}
        """When a document last came, in nanoseconds of the monotonic clock; kept for small requests only."""

    def bulk(self, body: bytes, now: int) -> None:
        self.requests += 1
        versions = self.versions
        for action, id_, text in _ACTION.findall(body):
            self.operations += 1
            version, known = int(text), abs(versions.get(id_, -1))
            if version == known:
                self.again += 1
            if version > known:
                versions[id_] = version if action == b"index" else -version
                if len(body) < CHANGES_BYTES_MAX:
                    self.arrivals[id_] = now

    def told(self) -> dict[str, int]:
        return {
            "operations": self.operations,
            "documents": len(self.versions),
            "requests": self.requests,
            "again": self.again,
        }


class World:
    def __init__(self, items: int, files: int, form: str) -> None:
        self.db = FakeDynamodb(sdk.Clock())
        self.db.s3.read_bytes_max = 256 * 1024
        if files:
            self.db.exports = PreparedExports(self.db, items, files, form)
        self.items = items
        self.index = Index()
        self.removed: set[int] = set()
        self.added: set[int] = set()

    def missing(self) -> dict[str, int]:
        """How far the index is from the table."""
        there = {int(id_) for id_, version in self.index.versions.items() if version > 0}
        table = set(range(self.items)) - self.removed | self.added
        changes = [record for shard in self.db.streams[-1].shards for record in shard.records]
        stale = sum(
            1
            for record in changes
            if abs(self.index.versions.get(record["dynamodb"]["Keys"]["id"]["N"].encode(), 0))
            < int(record["dynamodb"]["ApproximateCreationDateTime"]) * 1_000_000
        )
        return {"missing": len(table - there), "left over": len(there - table), "stale": stale}

    async def call(self, operation: str, parameters: dict[str, Any]) -> tuple[int, bytes]:
        from botocore.exceptions import ClientError

        try:
            if operation == "ExportTableToPointInTime":
                return 200, orjson.dumps(self.db.exports.export_table_to_point_in_time(**parameters))
            name = _WORD.sub("_", operation).lower()
            return 200, orjson.dumps(await getattr(self.db, name)(**parameters))
        except ClientError as error:
            told = error.response["Error"]
            return 400, orjson.dumps({"__type": f"x#{told['Code']}", "message": told["Message"]})

    def change(self, path: str, numbers: list[int]) -> None:
        """Put or delete items; how they were before counts for nothing here."""
        for number in numbers:
            if path == "/_put":
                self.added.add(number)
                self.removed.discard(number)
                self.db.put(id=number, text=f"changed {number} at {time.monotonic_ns()}")
            else:
                self.removed.add(number)
                self.added.discard(number)
                self.db.items[str(number),] = {"id": {"N": str(number)}}
                self.db.delete(id=number)


class Connection(asyncio.Protocol):
    def __init__(self, world: World) -> None:
        self.world = world
        self.data = bytearray()
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.data[:end])
            found = _LENGTH.search(head)
            until = end + 4 + (int(found[1]) if found else 0)
            if len(self.data) < until:
                return
            body = bytes(self.data[end + 4 : until])
            del self.data[:until]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        method, path = head.split(b" ", 2)[:2]
        path_text = unquote(path.decode()).partition("?")[0]
        target = _TARGET.search(head)
        world = self.world
        if target:
            task = asyncio.get_running_loop().create_task(self.call(target[1].decode(), orjson.loads(body)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif path_text.endswith("_bulk"):
            world.index.bulk(isal_zlib.decompress(body, 31) if body[:2] == b"\x1f\x8b" else body, time.monotonic_ns())
            self.send(200, b'{"took":1,"errors":false,"items":[]}')
        elif path_text.startswith(f"/{BUCKET}/"):
            data = world.db.s3.objects.get((BUCKET, path_text.removeprefix(f"/{BUCKET}/")))
            if data is None:
                self.send(404, b"<Error><Code>NoSuchKey</Code></Error>")
            else:
                self.send(200, data, b'etag: "1"\r\n')
        elif path_text in ("/_put", "/_delete"):
            world.change(path_text, orjson.loads(body))
            self.send(200, b"%d" % time.monotonic_ns())
        elif path_text == "/_index":
            self.send(200, orjson.dumps(world.index.told()))
        elif path_text == "/_arrivals":
            self.send(200, orjson.dumps({id_.decode(): at for id_, at in world.index.arrivals.items()}))
        elif path_text == "/_missing":
            self.send(200, orjson.dumps(world.missing()))
        elif method == b"HEAD":
            self.send(404, b"")
        else:
            self.send(200, b'{"acknowledged":true,"version":{"number":"3.0.0","distribution":"opensearch"}}')

    async def call(self, operation: str, parameters: dict[str, Any]) -> None:
        self.send(*await self.world.call(operation, parameters))

    def send(self, status: int, body: bytes, headers: bytes = b"") -> None:
        self.transport.write(
            b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n%s"
            % (status, len(body), headers, body)
        )


async def serve(world: World) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(world), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--form", choices=("DYNAMODB_JSON", "ION"), default="DYNAMODB_JSON")
    options = parser.parse_args()
    uvloop.run(serve(World(options.items, options.files, options.form)))
