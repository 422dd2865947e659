"""Lines that a grok pattern does not match, against lines that it matches: what the worst kind of them costs."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench import corpus
from penstock.core.batch import Batch
from penstock.sdk import BatchFn
from penstock.testing import build_processor

Measured = tuple[str, float, str, float]

LINES = 384
ROUNDS = 9
BATCH_EVENTS = 128
LONG_CHARS = 2_000
MATCH_US = 6.0
MISS_FACTOR = 3.0
LONG = "long "
PATTERNS = ("COMBINEDAPACHELOG", "COMMONAPACHELOG", "SYSLOGLINE")

Change = Callable[[str], str]


def nomatch_rows() -> list[Measured]:
    """Per pattern: a line that matches; against it an application's line, the worst kind of usual length and the worst
    of 2,000 characters."""
    rows: list[Measured] = []
    for pattern in PATTERNS:
        match_us, factors = measure(pattern)
        rows += [
            (f"grok {pattern} match", match_us, "us/event", MATCH_US),
            (f"grok {pattern} miss / match", factors["application"], "x", MISS_FACTOR),
        ]
        for length in ("", LONG):
            chosen = {kind: factor for kind, factor in factors.items() if kind.startswith(LONG) == bool(length)}
            worst = max(chosen, key=chosen.__getitem__)
            title = f"grok {pattern} worst {length}miss / match ({worst}; {len(chosen)} kinds)"
            rows.append((title, chosen[worst], "x", MISS_FACTOR))
    return rows


def measure(pattern: str) -> tuple[float, dict[str, float]]:
    """Microseconds per matching line, and how many times that a line of each kind costs: medians over rounds.

    A kind and the matching lines are timed right after one another, so that both see the same machine.
    """
    config = {"match": {"log": [f"%{{{pattern}}}"]}, "tags_on_match_failure": ["_grokparsefailure"]}
    run = build_processor("grok", config)
    matching = (syslog if pattern == "SYSLOGLINE" else corpus.apache)(LINES)
    assert not missed(run, matching), "every line of the yardstick matches"
    kinds = {kind: missed(run, lines) for kind, lines in kinds_for(pattern).items()}
    samples: dict[str, list[float]] = {kind: [] for kind, lines in kinds.items() if lines}
    hits = []
    gc.collect()
    for _ in range(ROUNDS):
        for kind, factors in samples.items():
            hit = us_per_line(run, matching)
            factors.append(us_per_line(run, kinds[kind]) / hit)
            hits.append(hit)
    return statistics.median(hits), {kind: statistics.median(factors) for kind, factors in samples.items()}


def us_per_line(run: BatchFn, lines: list[str]) -> float:
    batches = [
        Batch([{"log": line} for line in lines[start : start + BATCH_EVENTS]])
        for start in range(0, len(lines), BATCH_EVENTS)
    ]
    begin = time.thread_time()
    for batch in batches:
        run(batch)
    return (time.thread_time() - begin) / len(lines) * 1e6


def missed(run: BatchFn, lines: list[str]) -> list[str]:
    """The lines that do not match, as many as there were."""
    batch = Batch([{"log": line} for line in lines])
    run(batch)
    found = [line for line, body in zip(lines, batch.bodies, strict=True) if len(body) == 1]
    return (found * len(lines))[: len(lines)]


def kinds_for(pattern: str) -> dict[str, list[str]]:
    """Lines by kind. Some kinds hold lines that match one pattern or the other."""
    access, system = corpus.apache(LINES, seed=17), syslog(LINES, seed=18)
    own, other = (system, access) if pattern == "SYSLOGLINE" else (access, system)
    near: dict[str, Change] = NEAR_SYSLOG if pattern == "SYSLOGLINE" else NEAR_ACCESS
    made: dict[str, list[str]] = {kind: make(LINES) for kind, make in STRANGE.items()}
    made["other format"] = other
    made |= {kind: [change(line) for line in own] for kind, change in near.items()}
    for part in (4, 3, 2):
        made[f"cut at {part - 1}/{part}"] = [line[: len(line) * (part - 1) // part] for line in own]
    made["unknown month, line end of Windows"] = [line + "\r" for line in made["unknown month"]]
    made["cut at the end"] = [line[:-1] for line in own]
    made["repeated, cut"] = [line[: len(line) // 3] * 5 for line in own]
    return made


def syslog(count: int, seed: int = 9) -> list[str]:
    """Lines of a system log."""
    chance = random.Random(seed)
    texts = [
        "Accepted publickey for user{n} from 10.0.0.{m} port {n} ssh2",
        "pam_unix(cron:session): session opened for user root(uid={m})",
        "connection from 192.168.{m}.7 closed by remote host",
        "Started Session {n} of user deploy.",
    ]
    programs = ["sshd[{n}]", "CRON[{n}]", "kernel", "systemd[1]", "postfix/smtpd[{n}]"]
    return [
        f"{chance.choice(['Mar', 'Oct', 'Dec'])} {chance.randrange(1, 29):2d} 12:{number % 60:02d}:"
        f"{chance.randrange(60):02d} {chance.choice(['web-1', 'db2.example.org', 'mymachine'])} "
        + f"{chance.choice(programs)}: {chance.choice(texts)}".format(n=chance.randrange(65_000), m=number % 250)
        for number in range(count)
    ]


NEAR_ACCESS: dict[str, Change] = {
    "unknown month": lambda line: line.replace("/Mar/", "/Foo/"),
    "day of three digits": lambda line: line.replace("[", "[1"),
    "no host": lambda line: line[line.index("- ") :],
    "no identity": lambda line: line.replace(" - ", " ", 1),
    "no date": lambda line: line[: line.index("[")] + line[line.index("] ") + 2 :],
    "no closing bracket": lambda line: line.replace("] ", " "),
    "no zone": lambda line: line.replace(" +0000]", "]"),
    "no request": lambda line: line[: line.index('"')] + line[line.index('" ') + 2 :],
    "no quotes": lambda line: line.replace('"', ""),
    "single quotes": lambda line: line.replace('"', "'"),
    "status is a word": lambda line: line.replace('" ', '" OK ', 1),
    "bytes are a word": lambda line: line.replace(' "http', 'k "http'),
    "agent without quotes": lambda line: line[: line.rindex(' "')] + " -",
    "no agent": lambda line: line[: line.rindex(' "')],
    "text before the agent": lambda line: line.replace('" "', '" x "'),
    "two blanks": lambda line: line.replace(" ", "  "),
    "tabs": lambda line: line.replace(" ", "\t"),
    "request with quotes, cut": lambda line: line.replace("HTTP", '"a" "b" "c" HTTP')[: line.index('" "')],
    "long request, cut": lambda line: line[: line.index(" HTTP")] + "/a1" * (LONG_CHARS // 3),
    "long agent, cut": lambda line: line[:-1] + " x y" * (LONG_CHARS // 4),
}
NEAR_SYSLOG: dict[str, Change] = {
    "unknown month": lambda line: "Foo" + line[3:],
    "month with more letters": lambda line: line[:3] + "o" + line[3:],
    "month in small letters": str.lower,
    "no month": lambda line: line[4:],
    "no day": lambda line: line[:4] + line[7:],
    "day of three digits": lambda line: line[:6] + "7" + line[6:],
    "wrong hour": lambda line: line.replace(" 12:", " 32:"),
    "no seconds": lambda line: line.replace(line[9:12], "", 1),
    "colons are others": lambda line: line.replace(":", ";", 2),
    "no colon": lambda line: line.replace(": ", " "),
    "no blank behind the colon": lambda line: line.replace(": ", ":"),
    "colon behind the text": lambda line: line.replace(": ", ":") + ": end",
    "no host": lambda line: " ".join([line[:15], *line.split(": ")[0].split()[-1:], ": ", line.split(": ")[1]]),
    "no program": lambda line: f"{line[:15]} {line.split()[3]}: {line.split(': ')[1]}",
    "host with an underscore": lambda line: line[:16] + "my_" + line[16:],
    "pid without an end": lambda line: line.replace("]", "").replace(": ", "[7: "),
    "pid is a word": lambda line: line.replace(": ", "[main]: "),
    "pid is 0": lambda line: line.replace(": ", "[0]: "),
    "two words before the colon": lambda line: line.replace(": ", " daemon : "),
    "two blanks": lambda line: line.replace(" ", "  "),
    "tabs": lambda line: line.replace(" ", "\t"),
    "priority and version": lambda line: f"<34>1 2026-03-01T12:00:00.003Z {line.split()[3]} app 17 ID47 - {line[40:]}",
    "date and time of ISO": lambda line: f"2026-03-01 12:{line[10:15]},123 [{line.split()[3]}] {line[24:]}",
    "dates in the text": lambda line: (
        "a: 2026-03-01 12:00:00 b c 2026-03-02 12:00:00Z d e: Mar 1 12:00:00 x" + line[16:]
    ),
    "dates only": lambda line: " ".join([line[:15]] * 6) + ": x",
    "long text, no program": lambda line: f"{line[:16]}[main] {' worker: took 12 ms; queue: 7 of 20,' * 50}",
    "long and several partial": lambda line: " | ".join([line.replace(": ", "[main]: ")[:100]] * 20),
}


def _each(form: str, long: str = "") -> Callable[[int], list[str]]:
    """Lines of a form with numbers; `long` is added up to `LONG_CHARS`."""

    def make(count: int) -> list[str]:
        chance = random.Random(form)
        lines = [form.format(*(chance.randrange(1, 60) for _ in range(8))) for _ in range(count)]
        return [line + long * ((LONG_CHARS - len(line)) // len(long)) for line in lines] if long else lines

    return make


_TRACE = "\n\tat com.example.shop.Order.total(Order.java:118)"
STRANGE: dict[str, Callable[[int], list[str]]] = {
    "application": corpus.application,
    "ISO stamp and level": _each("2026-03-{:02d}T12:{:02d}:{:02d}.123Z INFO 7 --- [main-{}] c.e.Shop : order {} done"),
    "ISO stamp, no level": _each("2026-03-{:02d} 12:{:02d}:{:02d},123 [pool-{}-{}] order: {} of {} done, total: {}.5"),
    "JSON": _each('{{"ts":"2026-03-{:02d}T12:{:02d}:{:02d}Z","level":"warn","n":{},"msg":"try {} of {}","id":{}}}'),
    "JSON with blanks": _each(
        '{{"time": "2026-03-{:02d} 12:{:02d}:{:02d}", "level": "warn", "n": {}, "msg": "a: {}"}}'
    ),
    "logfmt": _each('level=error ts={}.{} caller=conn.go:{} msg="reset] by peer" id={} dur={}ms trace={} a={} b={}'),
    "fields and values": _each("id: {}, level: warn, took: {} ms, user: u{}, host: h{}, try: {}, left: {}, code: {}"),
    "exception": _each('java.lang.IllegalStateException: order {} is [closed] "{}" : {}'),
    "stack trace": _each("java.io.IOException: disk {}", _TRACE),
    "frame of a stack": _each("    at com.example.Shop$Order.total(Shop.java:{})"),
    "long trace of Python": _each('  File "/srv/app{}.py", line {}, in total', "\n    raise ValueError: x"),
    "error log of nginx": _each(
        '2026/03/{:02d} 12:{:02d}:{:02d} [error] {}#{}: *{} open() "/a/{}" failed (2: No file)'
    ),
    "error log of Apache": _each(
        "[Sun Mar {:02d} 12:{:02d}:{:02d}.1 2026] [core:error] [pid {}] [client 1.2.3.{}] AH: x"
    ),
    "load balancer": _each(
        'h2 2026-03-{:02d}T12:{:02d}:{:02d}.1Z app/lb/{} 1.2.3.4:{} 5.6.7.8:80 0.1 200 "GET / HTTP/2"'
    ),
    "web server of Windows": _each(
        "2026-03-{:02d} 12:{:02d}:{:02d} 10.0.0.{} GET /a{} - 80 - 1.2.3.4 Mozilla/5.0 200 0 {}"
    ),
    "access log, dates alike": _each('1.2.3.{} - - 2026-03-{:02d}T12:{:02d}:{:02d}Z "GET /{} HTTP/1.1" 200 {} "-" "x"'),
    "container": _each("I03{:02d} 12:{:02d}:{:02d}.123456    {} controller.go:{}] sync: {} objects, {} left"),
    "addresses": _each('10.0.0.{} 10.0.1.{} fe80::{} ::{} 2001:db8::{}:{} [x] "y": z'),
    "words": _each("the quick brown fox {} jumps over the lazy dog {} times and rests"),
    "unicode": _each("Größe überschritten: Auftrag {} für Kunde „Müller“ → {} 日本語: ログ {}"),
    "one letter": _each("a" * 120 + "{}"),
    "long words": _each("INFO {}", " the quick brown fox jumps over the lazy dog"),
    "long words and values": _each("INFO {}", ' some [thing] "happened" in foo.bar:12 - - and: so on'),
    "long digits": _each("{}", "0123456789"),
    "long addresses": _each("{}", " 10.20.30.40"),
    "long dates": _each("{}", " 2026-03-01T12:00:00Z"),
    "long JSON": _each('{{"id":{}', ',"ts":"2026-03-01T12:00:00Z","host":"h-1","code":200'),
    "long JSON with blanks": _each('{{"id": {}', ', "ts": "2026-03-01T12:00:00Z", "host": "h-1", "code": 200'),
    "long fields and values": _each("id: {}", ", level: warn, code: 200"),
    "long unicode": _each("INFO {}", " Größe überschritten: „Müller“ → 日本語"),
    "long with many pivots": _each("INFO {}", ' - - [01/Mar/2026:10:10 "GET'),
}


def report(pattern: str) -> dict[str, Any]:
    """All kinds of one pattern, the dearest first."""
    match_us, factors = measure(pattern)
    dearest = sorted(factors, key=factors.__getitem__, reverse=True)
    return {"match_us": round(match_us, 2)} | {kind: round(factors[kind], 2) for kind in dearest}
