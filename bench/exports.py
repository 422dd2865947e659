"""What loading exported items costs, against a bare loop that gunzips, parses and encodes the same lines."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import orjson
from isal import isal_zlib

from penstock import sdk
from penstock.lib.lease import Lease, MemoryStore
from penstock.plugins.sources.dynamodb.api import TableApi
from penstock.plugins.sources.dynamodb.data_file import FileReader
from penstock.plugins.sources.dynamodb.export_items import ItemReader
from penstock.plugins.sources.dynamodb.reader import Outcome, Pace, Surroundings
from penstock.testing.dynamodb import FakeDynamodb
from penstock.testing.dynamodb_export import export_files

ITEMS = 60_000
AT_MS = 1_700_000_000_000


class Encoder:
    """Encodes what it is given, as a sink does."""

    acknowledgments = True
    events_max = 10_000
    bytes_max = 10**9

    def __init__(self) -> None:
        self.events = 0
        self.size = 0

    def started(self) -> None:
        pass

    def handle(self, on_done: Any = None) -> sdk.Handle:
        return sdk.Handle(on_done)

    def write_now(self, batch: sdk.Batch, size_bytes: int) -> bool:
        self.size += sum(map(len, map(sdk.encode, batch.bodies)))
        self.events += len(batch)
        batch.release_all(ok=True)
        return True

    async def write(self, batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None) -> None:
        raise AssertionError("there is always room")


def items() -> list[dict[str, Any]]:
    """Items of eleven attributes, 440 bytes in DynamoDB JSON."""
    chance = random.Random(1)
    return [
        {
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
        for number in range(ITEMS)
    ]


def floor_us(data: bytes) -> float:
    """CPU per item of the bare loop over DynamoDB JSON."""
    begin = time.process_time()
    lines = isal_zlib.decompress(data, 31).split(b"\n")
    size = 0
    for line in lines:
        if line:
            size += len(orjson.dumps(orjson.loads(line)["Item"]))
    return (time.process_time() - begin) / ITEMS * 1e6


def loader_us(form: Any, seeded: list[dict[str, Any]]) -> tuple[float, float, bytes]:
    """CPU per item of the loader, items per second, and the file."""
    clock = sdk.Clock()
    db = FakeDynamodb(clock)
    db.s3.read_bytes_max = 256 * 1024
    arn = f"{db.table_arn}/export/01"
    files = export_files(
        seeded, arn=arn, table_arn=db.table_arn, bucket="b", prefix=None, at_ms=AT_MS, form=form, files=1
    )
    ((key, data),) = [(key, data) for key, data in files.items() if "/data/" in key]
    db.s3.put("b", key, data)

    async def load() -> tuple[float, float]:
        ctx, store, output = sdk.Context("pipe", "dynamodb", kind="source"), MemoryStore(), Encoder()
        api = TableApi(db.table_arn, db, db, ctx.registry.scope("dynamodb"), db.s3)
        shared = Surroundings(
            api, store, output, clock, ctx.random, ctx.log, Pace(), None, None, True, asyncio.Semaphore(1), ctx.metrics
        )
        await store.create("pipe|DATAFILE", f"{arn}|b|{key}", {"totalRecords": ITEMS, "loadedRecords": 0})
        lease: Lease | None = await store.acquire("pipe|DATAFILE", "bench", 600)
        assert lease is not None
        reader = ItemReader("orders", "id", None, form, False, AT_MS, "NEW_IMAGE", ctx.log)
        cpu, begin = time.process_time(), time.monotonic()
        assert await FileReader(lease, reader, shared).run() is Outcome.ENDED
        cpu, wall = time.process_time() - cpu, time.monotonic() - begin
        assert output.events == ITEMS
        return cpu / ITEMS * 1e6, ITEMS / wall

    cpu_us, items_per_s = asyncio.run(load())
    return cpu_us, items_per_s, data


def export_figures() -> list[dict[str, Any]]:
    """One entry per format: CPU per item, items per second, and the floor of DynamoDB JSON."""
    seeded = items()
    found: list[dict[str, Any]] = []
    floor = 0.0
    for form in ("DYNAMODB_JSON", "ION"):
        cpu_us, items_per_s, data = min(loader_us(form, seeded) for _ in range(3))
        if form == "DYNAMODB_JSON":
            floor = min(floor_us(data) for _ in range(3))
        found.append(
            {
                "form": form,
                "cpu_us_per_item": round(cpu_us, 2),
                "items_per_s": round(items_per_s),
                "floor_us_per_item": round(floor, 2),
                "times_floor": round(cpu_us / floor, 2),
            }
        )
    return found


if __name__ == "__main__":
    import gc

    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as `penstock run` does
    for figures in export_figures():
        print(orjson.dumps(figures).decode())
