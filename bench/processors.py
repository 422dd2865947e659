"""Nanoseconds per event of single processors, inside this process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from bench import corpus
from bench.floors import FLOORS, Floor
from penstock.core.batch import Batch
from penstock.core.handle import Handle
from penstock.sdk import Context
from penstock.testing import build_processor

Measured = tuple[str, float, str, float]

SIMPLE: dict[str, dict[str, Any]] = {
    "add_entries": {"entries": [{"key": "env", "value": "prod"}]},
    "add_entries (conditional)": {"entries": [{"key": "bad", "value": True, "add_when": "/status >= 500"}]},
    "add_entries (format)": {"entries": [{"key": "name", "format": "${path}-${status}"}]},
    "convert_type": {"key": "bytes", "type": "integer"},
    "copy_values": {"entries": [{"from_key": "status", "to_key": "copy"}]},
    "delete_entries": {"with_keys": ["secret"]},
    "delete_entries (regex)": {"with_keys_regex": ["sec.*"]},
    "drop_events": {"drop_when": "/status == 999"},
    "flatten": {"source": "http", "target": "flat"},
    "list_to_map": {"source": "list", "key": "k", "value_key": "v", "flatten": True, "target": "map"},
    "lowercase_string": {"with_keys": ["agent"]},
    "map_to_list": {"source": "http", "target": "list"},
    "no-op": {},
    "rate_limiter": {"events_per_second": 1_000_000_000},
    "rename_keys": {"entries": [{"from_key": "status", "to_key": "code"}]},
    "replace_string": {"entries": [{"source": "path", "from": "/", "to": "-"}]},
    "select_entries": {"include_keys": ["status", "bytes", "path"]},
    "split_event": {"field": "agent", "delimiter": ","},
    "split_string": {"entries": [{"source": "path", "delimiter": "/"}]},
    "string_converter": {},
    "substitute_string": {"entries": [{"source": "path", "from": "/+", "to": "-"}]},
    "translate": {"mappings": [{"source": "status", "targets": [{"target": "kind", "map": {"200": "ok"}}]}]},
    "trim_string": {"with_keys": ["agent"]},
    "truncate": {"entries": [{"source_keys": ["path"], "length": 3}]},
    "uppercase_string": {"with_keys": ["agent"]},
    "wrap_entries": {"source": "names", "target": "wrapped", "key": "name"},
    "write_json": {"source": "http", "target": "text"},
}
SIMPLE_US = 0.4
MORE_US = {
    "add_entries (format)": 0.8,
    "delete_entries (regex)": 0.6,
    "flatten": 1.2,
    "list_to_map": 1.6,
    "map_to_list": 1.2,
    "select_entries": 0.8,
    "split_string": 0.6,
    "string_converter": 0.8,
    "substitute_string": 1.6,
    "wrap_entries": 1.0,
    "write_json": 0.6,
}
"""Those that look at all names, match an expression or make several values of each event."""
NESTED = frozenset(("flatten", "list_to_map", "map_to_list", "wrap_entries", "write_json"))
CHAIN = [
    *("add_entries", "add_entries (conditional)", "convert_type", "copy_values", "drop_events", "lowercase_string"),
    *("rename_keys", "replace_string", "trim_string", "delete_entries"),
]
CHAIN_US = 3.0
FLOOR_FACTOR = 2.0
FLOORED: dict[str, tuple[dict[str, Any], Callable[[int], list[dict[str, Any]]]]] = {
    "grok": (
        {"match": {"log": ["%{COMBINEDAPACHELOG}"]}},
        lambda count: [{"log": line} for line in corpus.apache(count)],
    ),
    "date": (
        {"match": [{"key": "time", "patterns": ["dd/MMM/yyyy:HH:mm:ss Z"]}]},
        lambda count: [{"time": line.split("[")[1].split("]")[0]} for line in corpus.apache(count)],
    ),
    "key_value": ({}, lambda count: [{"message": f"a={n}&b=2&c=three&d=four"} for n in range(count)]),
    "csv": (
        {"column_names": ["time", "level", "took", "text"]},
        lambda count: [{"message": f"10:30:{n % 60:02d},info,{n},request handled"} for n in range(count)],
    ),
    "dissect": (
        {"map": {"message": "%{date} %{level->} [%{?thread}] %{text}"}},
        lambda count: [{"message": f"2026-01-15 WARN   [main-{n}] request handled"} for n in range(count)],
    ),
    "user_agent": (
        {"source": "agent"},
        lambda count: [{"agent": line.rsplit('"', 2)[1]} for line in corpus.apache(count)],
    ),
    "parse_json": (
        {},
        lambda count: [
            {"message": f'{{"level": "info", "took": {{"ms": {n}}}, "path": "/a/{n}", "tags": ["a", "b"]}}'}
            for n in range(count)
        ],
    ),
}
PATTERNS = ("COMBINEDAPACHELOG", "COMMONAPACHELOG", "SYSLOGLINE")


def us_per_event(run: Callable[[Batch], object], make: Callable[[], list[Batch]], rounds: int = 7) -> float:
    """CPU microseconds per event, the best of `rounds` passes over freshly made batches.

    The clock is that of the thread: the one of the process lags while a limit of matching time is set.
    """
    best = float("inf")
    for _ in range(rounds):
        batches = make()
        events = sum(len(batch) for batch in batches)
        gc.collect()
        begin = time.thread_time()
        for batch in batches:
            run(batch)
        best = min(best, (time.thread_time() - begin) / events * 1e6)
    return best


def batches_of(bodies: list[bytes], size: int = 128) -> list[Batch]:
    made = []
    for start in range(0, len(bodies), size):
        batch = Batch([orjson.loads(body) for body in bodies[start : start + size]])
        batch.promise(Handle())
        made.append(batch)
    return made


def processor_rows(events: int = 20_000) -> list[Measured]:
    """A row for every processor of which one configuration tells something."""
    bodies = [orjson.dumps(_event(number)) for number in range(events)]
    nested = [orjson.dumps(_event(number) | NESTED_VALUES) for number in range(events)]
    rows: list[Measured] = []
    steps = {title: build_processor(title.split(" ")[0], config) for title, config in SIMPLE.items()}
    for title, run in steps.items():
        cost = us_per_event(run, partial(batches_of, nested if title in NESTED else bodies))
        rows.append((title, cost, "us/event", MORE_US.get(title, SIMPLE_US)))
    chain = Context("bench", "chain").chain([steps[title] for title in CHAIN])
    rows.append((f"{len(CHAIN)} in a chain", us_per_event(chain, lambda: batches_of(bodies)), "us/event", CHAIN_US))
    for name, (config, make) in FLOORED.items():
        texts = [orjson.dumps(body) for body in make(events)]
        floor, run = FLOORS[name], build_processor(name, config)
        fresh = partial(batches_of, texts)
        least, cost = us_per_event(partial(_loop, floor), fresh), us_per_event(run, fresh)
        rows.append((f"{name} ({cost:.2f} us, floor {least:.2f} us)", cost / least, "x floor", FLOOR_FACTOR))
    return rows


def _loop(floor: Floor, batch: Batch) -> None:
    floor(batch.bodies)


def _event(number: int) -> dict[str, Any]:
    return {
        "status": 200 + number % 300,
        "bytes": str(number),
        "secret": "x",
        "path": f"/a/{number}",
        "agent": " Curl ",
    }


NESTED_VALUES = {
    "http": {"method": "GET", "version": 2},
    "list": [{"k": "a", "v": 1}, {"k": "b", "v": 2}],
    "names": ["a", "b"],
}


def nomatch_rows() -> list[Measured]:
    """A line that does not match, against one that does, per pattern."""
    apache = corpus.apache(10_000)
    syslog = [
        f"Mar  1 12:{n % 60:02d}:{n // 60 % 60:02d} host{n % 9} sshd[{n}]: Accepted publickey for user{n} port {n}"
        for n in range(10_000)
    ]
    application = [orjson.dumps({"log": line}) for line in corpus.application(10_000)]
    rows: list[Measured] = []
    for pattern in PATTERNS:
        matching = [orjson.dumps({"log": line}) for line in (syslog if pattern == "SYSLOGLINE" else apache)]
        run = build_processor("grok", {"match": {"log": [f"%{{{pattern}}}"]}})
        hit = us_per_event(run, lambda lines=matching: batches_of(lines))  # type: ignore[misc]
        miss = us_per_event(run, lambda: batches_of(application))
        rows.append((f"grok {pattern} match", hit, "us/event", 6.0))
        rows.append((f"grok {pattern} miss / match", miss / hit, "x", 3.0))
    return rows
