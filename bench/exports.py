"""What loading an export costs the whole way from S3 to the sink, against one loop that does the same by hand.

`export_figures` runs the engine against `bench.table`; `survive` kills it on the way and lets changes follow.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import orjson
import psutil
from isal import igzip, isal_zlib

from bench.peer import free_port
from bench.table import BUCKET, parts
from penstock.plugins.sources.dynamodb.data_file import CHUNK_LINES_MAX
from penstock.plugins.sources.dynamodb.source import FILES_MAX
from penstock.testing.dynamodb_export import Names, data_files

ROOT = Path(__file__).parents[1]
FILES = 16
FLOOR_ITEMS = 20_000
PIPELINE = {
    "source": {
        "dynamodb": {
            "acknowledgments": True,
            "tables": [
                {
                    "table_arn": "arn:aws:dynamodb:us-east-1:123456789012:table/orders",
                    "stream": {"start_position": "LATEST"},
                }
            ],
            "aws": {"region": "us-east-1"},
        }
    },
    "sink": [
        {
            "opensearch": {
                "index": "orders",
                "index_type": "custom",
                "document_id": '${getMetadata("primary_key")}',
                "action": '${getMetadata("opensearch_action")}',
                "document_version": '${getMetadata("document_version")}',
                "document_version_type": "external",
            }
        }
    ],
}


# the floor


def _unmarshal(image: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, tagged in image.items():
        ((kind, raw),) = tagged.items()
        body[name] = raw if kind == "S" else _value(kind, raw)
    return body


def _value(kind: str, raw: Any) -> Any:
    if kind == "N":
        return int(raw) if raw.isdecimal() else Decimal(raw)
    if kind == "M":
        return _unmarshal(raw)
    if kind == "L":
        return [_value(*next(iter(tagged.items()))) for tagged in raw]
    if kind == "NS":
        return [int(text) if text.isdecimal() else Decimal(text) for text in raw]
    return None if kind == "NULL" else raw


def _plain(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(format(value, "f").encode())


def floor_us(data: bytes) -> float:
    """CPU per item of one loop: gunzip, decode, unmarshal, action line, encode, gzip of each 5,000 operations."""
    decode, dumps = msgspec.json.Decoder().decode, orjson.dumps
    begin = time.thread_time()
    lines = isal_zlib.decompress(data, 31).split(b"\n")
    lines.pop()
    for start in range(0, len(lines), 5000):
        operations = []
        for line in lines[start : start + 5000]:
            image = decode(line)["Item"]
            action = b'{"index":{"_index":"orders","_id":%s,"version":%d,"version_type":"external"}}\n' % (
                dumps(image["id"]["N"]),
                1_700_000_000_000_000,
            )
            operations.append(action + dumps(_unmarshal(image), _plain, orjson.OPT_APPEND_NEWLINE))
        igzip.compress(b"".join(operations), 1)
    return (time.thread_time() - begin) / len(lines) * 1e6


def floor_now() -> float:
    """The best of some passes at this moment."""
    if not _floor_data:
        (part,) = parts(FLOOR_ITEMS, 1)
        ((data, _),) = data_files([part], Names("x/export/0")).values()
        _floor_data.append(data)
    return min(floor_us(_floor_data[0]) for _ in range(5))


_floor_data: list[bytes] = []


# the way


class Table:
    """`bench.table` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline())
        self._link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, path: str, body: Any = None) -> Any:
        self._link.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        return json.loads(self._link.getresponse().read())

    def close(self) -> None:
        self._link.close()

    def operations(self) -> int:
        return int(self.ask("/_index")["operations"])


@contextlib.contextmanager
def table(items: int, form: str, files: int = FILES) -> Iterator[Table]:
    command = [sys.executable, "-m", "bench.table", f"--items={items}", f"--files={files}", f"--form={form}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        source = Table(process)
        try:
            yield source
        finally:
            source.close()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


class Engine:
    """`penstock run` on that table; the folder outlives it."""

    def __init__(self, folder: Path, table_port: int, form: str | None) -> None:
        pipeline: dict[str, Any] = json.loads(json.dumps(PIPELINE))
        (entry,) = pipeline["source"]["dynamodb"]["tables"]
        if form is not None:
            entry["export"] = {"s3_bucket": BUCKET, "format": form.lower()}
        pipeline["sink"][0]["opensearch"]["hosts"] = [f"http://127.0.0.1:{table_port}"]
        definition, config = folder / "pipeline.yaml", folder / "config.yaml"
        definition.write_text(json.dumps({"version": "2", "bench": pipeline}))
        config.write_text(f"ssl: false\nserver_port: {free_port()}\n")
        self.log = folder / "log.txt"
        command = [sys.executable, "-m", "penstock.cli", "run", str(definition), "--config", str(config)]
        url = f"http://127.0.0.1:{table_port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PENSTOCK_"))}
        environ = {
            **kept,
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "123456789012",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PENSTOCK_BIND_HOST": "127.0.0.1",
        }
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(folder / "data")], stdout=out, stderr=out, env=environ, cwd=folder
            )
        self._seen = psutil.Process(self.process.pid)

    def cpu_s(self) -> float:
        times = self._seen.cpu_times()
        return times.user + times.system

    def rss_mb(self) -> float:
        return float(self._seen.memory_info().rss / 1e6)

    def wait_log(self, pattern: str, timeout_s: float = 60) -> None:
        give_up = time.monotonic() + timeout_s
        while not re.search(pattern, self.log.read_text()):
            assert self.process.poll() is None, f"the engine ended:\n{self.log.read_text()}"
            assert time.monotonic() < give_up, f"{pattern} is not in the log:\n{self.log.read_text()}"
            time.sleep(0.05)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(30)


def wait_for(source: Table, engine: Engine, operations: int) -> int:
    """Until the index has got so many; returns how many it has."""
    give_up, last = time.monotonic() + 60, 0
    while (found := source.operations()) < operations:
        assert engine.process.poll() is None, f"the engine ended:\n{engine.log.read_text()}"
        if found > last:
            give_up, last = time.monotonic() + 60, found
        assert time.monotonic() < give_up, f"only {found} of {operations} arrived:\n{engine.log.read_text()}"
        time.sleep(0.02)
    return found


def export_figures(items: int, form: str) -> dict[str, Any]:
    """Load an export of `items`: CPU per item against the floor, items per second, memory at each quarter."""
    floors = [floor_now()]
    with tempfile.TemporaryDirectory() as folder, table(items, form) as source:
        engine = Engine(Path(folder), source.port, form)
        try:
            begun = wait_for(source, engine, 1)
            cpu, begin = engine.cpu_s(), time.monotonic()
            rss = []
            for quarter in range(1, 5):
                wait_for(source, engine, items * quarter // 4)
                rss.append(round(engine.rss_mb()))
            cpu, wall = engine.cpu_s() - cpu, time.monotonic() - begin
            floors.append(floor_now())
            assert (reached := source.operations()) == items, f"{reached} operations for {items} items"
        finally:
            engine.end()
    floor, cost = sum(floors) / 2, cpu / (items - begun) * 1e6
    return {
        "times_floor": round(cost / floor, 2),
        "cpu_us_per_item": round(cost, 2),
        "floor_us_per_item": round(floor, 2),
        "items_per_s": round((items - begun) / wall),
        "rss_mb_at_quarters": rss,
    }


def survive(items: int, form: str = "DYNAMODB_JSON") -> dict[str, Any]:
    """Kill the engine at 40 %, start it again, let changes follow: what was sent twice, memory, whether all arrived.

    What was sent twice is told in chunks of each file that was open when the engine was killed.
    """
    with tempfile.TemporaryDirectory() as folder, table(items, form) as source:
        engine = Engine(Path(folder), source.port, form)
        try:
            wait_for(source, engine, items // 4)
            rss = [round(engine.rss_mb())]
            wait_for(source, engine, items * 2 // 5)
            engine.end(signal.SIGKILL)
            killed_at = source.operations()
            for numbers in ([*range(0, items, items // 50)], [*range(items, items + 50)]):
                source.ask("/_put", numbers)
            source.ask("/_delete", [*range(7, items, items // 50)])
            engine = Engine(Path(folder), source.port, form)
            for quarter in (2, 3, 4):
                wait_for(source, engine, items * quarter // 4)
                rss.append(round(engine.rss_mb()))
            engine.wait_log("All Exports are done, streaming can continue", 300)
            source.ask("/_put", [*range(items + 50, items + 100)])
            give_up = time.monotonic() + 30
            while any((left := source.ask("/_missing")).values()) and time.monotonic() < give_up:
                time.sleep(0.2)
            told = source.ask("/_index")
        finally:
            engine.end()
    return {
        "sent_twice": told["again"],
        "killed_at": killed_at,
        "chunks_a_file": round(told["again"] / min(FILES, FILES_MAX) / CHUNK_LINES_MAX, 2),
        "rss_mb_at_quarters": rss,
        "equal": not any(left.values()),
        **left,
    }


def idle_figures(idle_s: float = 60.0, puts: int = 60) -> dict[str, Any]:
    """An open shard without changes: CPU of the engine in per cent of a core; then from put to bulk in milliseconds."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder, table(0, "ION", files=0) as source:
        engine = Engine(Path(folder), source.port, None)
        try:
            engine.wait_log("Found 1 root shards")
            time.sleep(15)
            cpu, begin = engine.cpu_s(), time.monotonic()
            time.sleep(idle_s)
            cpu, wall = engine.cpu_s() - cpu, time.monotonic() - begin
            put_at: dict[str, int] = {}
            for number in range(puts):
                # Every other one finds the shard as calm as it gets.
                time.sleep(chance.uniform(11, 12) if number % 2 else chance.uniform(0, 1))
                put_at[str(number)] = int(source.ask("/_put", [number]))
            time.sleep(2)
            arrivals = source.ask("/_arrivals")
        finally:
            engine.end()
    spans = sorted((arrivals[number] - at) / 1e6 for number, at in put_at.items())
    return {"idle_percent": round(100 * cpu / wall, 2), "p50_ms": spans[len(spans) // 2], "max_ms": spans[-1]}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    for form in ("DYNAMODB_JSON", "ION"):
        print(form, json.dumps(export_figures(count, form)), flush=True)
    print(json.dumps(survive(count)))
