"""Measures every path in one run, prints a table, writes bench/results/<time>.json.

python -m bench [--events 300000] [--items 1000000] [--only pass,grok,latency,start,processors,nomatch,export,units,
sink,storm]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench import corpus, peer
from bench.exports import export_figures, idle_figures, survive
from bench.floor import floor_us
from bench.nomatch import nomatch_rows
from bench.processors import processor_rows
from bench.sink import sink_rows
from bench.storm import SHARE_MIN, storm_rows
from bench.units import unit_figures

RESULTS = Path(__file__).parent / "results"
GROK = '[{grok: {match: {log: ["%{COMBINEDAPACHELOG}"]}}}]'


ROUNDS = 5
"""Of engine and floor in turns."""


class Row(dict[str, Any]):
    """One measurement: `name`, `value`, `unit`, `budget`, `ok`."""


def row(name: str, value: float, unit: str, budget: float, **more: Any) -> Row:
    return Row(name=name, value=round(value, 4), unit=unit, budget=budget, ok=value <= budget, **more)


def throughput(name: str, processors: str, kind: str, events: int, budget: float) -> list[Row]:
    """CPU of the engine per event over 1,000-event posts, against the floor of the same lines.

    Floor and engine take turns, each round of the engine between two of the floor: a machine that changes its speed is
    fair to both.
    """
    lines = corpus.apache(50_000)
    bodies = [orjson.dumps([{"log": line} for line in lines[i : i + 1000]]) for i in range(0, len(lines), 1000)]
    with peer.stub() as stub, peer.engine(processors, stub.port) as engine:
        peer.post_all(engine.port, bodies[:20])
        _arrived(stub, 20_000)
        done, rss = 20_000, 0.0
        costs, rates = [], []
        floors = [floor_us(lines, kind)]
        for _ in range(ROUNDS):
            cpu, begin, first = engine.cpu_s(), time.monotonic(), done
            while done < first + events // ROUNDS:
                peer.post_all(engine.port, bodies)
                done += len(lines)
                rss = max(rss, engine.rss_mb())
            _arrived(stub, done)
            costs.append((engine.cpu_s() - cpu) / (done - first) * 1e6)
            rates.append((done - first) / (time.monotonic() - begin))
            floors.append(floor_us(lines, kind))
        assert stub.documents() == done, f"{stub.documents()} documents of {done}"
        requests = stub.requests()
    times = [2 * cost / (before + after) for cost, before, after in zip(costs, floors, floors[1:], strict=False)]
    more = {
        "cpu_us_per_event": round(statistics.median(costs), 3),
        "floor_us_per_event": round(statistics.median(floors), 3),
        "rounds": [round(ratio, 2) for ratio in times],
        "events_per_s": round(statistics.median(rates)),
        "bulk_requests": requests,
    }
    return [
        row(name, statistics.median(times), "x floor", budget, **more),
        row(f"{name}: RSS under load", rss, "MB", 80 + 64),
    ]


def _arrived(stub: peer.Stub, count: int) -> None:
    give_up = time.monotonic() + 60
    while stub.documents() < count:
        assert time.monotonic() < give_up, f"only {stub.documents()} of {count} documents arrived"
        time.sleep(0.02)


def latency(posts: int) -> list[Row]:
    """One event at a time on an idle pipeline: POST to arrival at the sink's server."""
    with peer.stub() as stub, peer.engine("[]", stub.port) as engine:
        sent: dict[str, int] = {}
        link = socket.create_connection(("127.0.0.1", engine.port), timeout=10)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(posts + 20):
            mark = f"m{number}"
            body = orjson.dumps([{"log": "hello", "mark": mark}])
            head = b"POST /log/ingest HTTP/1.1\r\nhost: bench\r\ncontent-length: %d\r\n\r\n" % len(body)
            sent[mark] = time.monotonic_ns()
            link.sendall(head + body)
            assert link.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(0.02)
        link.close()
        _arrived(stub, posts + 20)
        arrived = stub.arrivals()
    spans = sorted((arrived[mark] - then) / 1e6 for mark, then in list(sent.items())[20:])
    return [
        row("idle POST to arrival p50", statistics.median(spans), "ms", 5.0),
        row("idle POST to arrival p99", spans[int(len(spans) * 0.99)], "ms", 15.0),
    ]


def start() -> list[Row]:
    """Cold commands: CPU of --help, time to ready and memory of a simple pipeline."""
    help_cpu = min(_cpu_of([sys.executable, "-m", "penstock.cli", "--help"]) for _ in range(5))
    ready, rss = [], []
    with peer.stub() as stub:
        for _ in range(3):
            with peer.engine("[]", stub.port) as engine:
                ready.append(engine.ready_s)
                time.sleep(0.5)
                rss.append(engine.rss_mb())
    return [
        row("penstock --help", help_cpu, "CPU s", 0.3),
        row("ready", min(ready), "s", 1.5),
        row("idle RSS", min(rss), "MB", 80),
    ]


def exports(items: int) -> list[Row]:
    """A table of `items` loaded from its export, and loaded again after the engine was killed on the way."""
    rows = []
    for form, budget in (("DYNAMODB_JSON", 2.0), ("ION", 3.0)):
        runs = sorted((export_figures(items, form) for _ in range(3)), key=lambda run: float(run["times_floor"]))
        figures = {**runs[1], "runs": [run["times_floor"] for run in runs]}
        rss = figures["rss_mb_at_quarters"]
        rows.append(row(f"dynamodb export {form} > opensearch", figures["times_floor"], "x floor", budget, **figures))
        rows.append(row(f"dynamodb export {form}: RSS at the end", rss[-1] / rss[0], "x that at 25 %", 1.2))
    figures = survive(items)
    chunks = row("the same, killed at 40 %", figures["chunks_a_file"], "chunks a file sent twice", 1.0, **figures)
    chunks["ok"] = chunks["ok"] and figures["equal"]
    return [*rows, chunks]


def units() -> list[Row]:
    """Two units: CPU of the busiest one per event, as a part of what a unit alone takes."""
    figures = unit_figures()
    name = "http > grok > opensearch, two units: the busiest one"
    return [row(name, 1 / figures["gain"], "x one unit", 1 / 1.8, **figures)]


def dynamodb() -> list[Row]:
    """A table whose changes are followed: what waiting costs, and how soon a change arrives."""
    figures = idle_figures()
    return [
        row("dynamodb: one idle shard", figures["idle_percent"], "% of a core", 1.0),
        row("dynamodb: put to bulk p50", figures["p50_ms"], "ms", 400, max_ms=round(figures["max_ms"])),
    ]


def _cpu_of(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=100_000, help="in the table of the export row")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    parts: dict[str, Callable[[], list[Row]]] = {
        "start": start,
        "latency": lambda: latency(300),
        "pass": lambda: throughput("http > opensearch", "[]", "pass", options.events, 2.0),
        "grok": lambda: throughput("http > grok > opensearch", GROK, "grok", options.events, 1.6),
        "nomatch": lambda: [row(*measured) for measured in nomatch_rows()],
        "processors": lambda: [row(*measured, **costs) for *measured, costs in processor_rows()],
        "export": lambda: exports(options.items),
        "dynamodb": dynamodb,
        "units": units,
        "sink": lambda: [row(name, times, "x floor", 1.3, **figures) for name, times, figures in sink_rows()],
        "storm": lambda: [
            row(f"storm: {name}", 1 / share, "x calm time", round(1 / SHARE_MIN, 2), share=round(share, 3), **figures)
            for name, share, figures in storm_rows(options.events)
        ],
    }
    chosen = options.only.split(",") if options.only else list(parts)
    console = Console()
    rows: list[Row] = []
    for name in chosen:
        with console.status(f"measuring {name} …"):
            rows += parts[name]()
    table = Table("path", "measured", "budget", "", "detail")
    for entry in rows:
        detail = " ".join(f"{k}={v}" for k, v in entry.items() if k not in ("name", "value", "unit", "budget", "ok"))
        sign = "[green]ok" if entry["ok"] else "[red]over"
        table.add_row(entry["name"], f"{entry['value']:.3f} {entry['unit']}", f"≤ {entry['budget']:g}", sign, detail)
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    result = {"command": sys.argv, "time": stamp, **machine, "load": os.getloadavg(), "rows": rows}
    (RESULTS / f"{stamp}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
