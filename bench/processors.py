"""Nanoseconds per event of single processors, inside this process."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson

from bench import corpus
from penstock.core.batch import Batch
from penstock.core.handle import Handle
from penstock.testing import build_processor

Measured = tuple[str, float, str, float]

SIMPLE = {
    "add_entries": {"entries": [{"key": "env", "value": "prod"}]},
    "rename_keys": {"entries": [{"from_key": "status", "to_key": "code"}]},
    "delete_entries": {"with_keys": ["secret"]},
    "copy_values": {"entries": [{"from_key": "status", "to_key": "copy"}]},
    "convert_type": {"key": "bytes", "type": "integer"},
    "drop_events": {"drop_when": "/status == 999"},
    "add_entries (conditional)": {"entries": [{"key": "bad", "value": True, "add_when": "/status >= 500"}]},
}
PATTERNS = ("COMBINEDAPACHELOG", "COMMONAPACHELOG", "SYSLOGLINE")


def us_per_event(run: Callable[[Batch], object], make: Callable[[], list[Batch]], rounds: int = 7) -> float:
    """CPU microseconds per event, the best of `rounds` passes over freshly made batches."""
    best = float("inf")
    for _ in range(rounds):
        batches = make()
        begin = time.process_time()
        for batch in batches:
            run(batch)
        best = min(best, (time.process_time() - begin) / sum(len(batch) for batch in batches) * 1e6)
    return best


def batches_of(bodies: list[bytes], size: int = 128) -> list[Batch]:
    made = []
    for start in range(0, len(bodies), size):
        batch = Batch([orjson.loads(body) for body in bodies[start : start + size]])
        batch.promise(Handle())
        made.append(batch)
    return made


def processor_rows() -> list[Measured]:
    bodies = [
        orjson.dumps({"status": 200 + n % 300, "bytes": str(n), "secret": "x", "path": f"/a/{n}", "agent": "curl"})
        for n in range(20_000)
    ]
    rows: list[Measured] = []
    for title, config in SIMPLE.items():
        run = build_processor(title.split(" ")[0], config)
        rows.append((title, us_per_event(run, lambda: batches_of(bodies)), "us/event", 0.4))
    lines = [orjson.dumps({"time": line.split("[")[1].split("]")[0]}) for line in corpus.apache(20_000)]
    date = build_processor("date", {"match": [{"key": "time", "patterns": ["dd/MMM/yyyy:HH:mm:ss Z"]}]})
    rows.append(("date", us_per_event(date, lambda: batches_of(lines)), "us/event", 1.4))
    pairs = [orjson.dumps({"message": f"a={n}&b=2&c=three&d=four"}) for n in range(20_000)]
    key_value = build_processor("key_value", {})
    rows.append(("key_value (4 pairs)", us_per_event(key_value, lambda: batches_of(pairs)), "us/event", 4.0))
    return rows


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
