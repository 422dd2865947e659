"""What becomes of every single event when the server behind the sink goes wrong, through the engine as it is run.

    python -m bench.faults [--events 1000000] [--seed 1] [--only busy-items,bad-items,busy-requests,cuts,cuts-with-ids]

Posts marked events to an http source and lets a server with faults count the marks it took. Exit code 1: an event was
lost, came twice where it must not, or is a dead letter without reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import corpus, peer
from penstock.lib.dead_letters import read_records

PER_POST = 1000
GIVE_UP_S = 60.0
"""Longest time without any progress."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to go wrong."""

    title: str
    faults: tuple[str, ...] = ()
    cut: float = 0.0
    ids: bool = False
    repeats: bool = False
    """An event may arrive more than once: the sink cannot know whether the server had acted."""


CASES = {
    "busy-items": Case("2 % of items 429", ("--item-429", "0.02")),
    "bad-items": Case("1 % of items 400", ("--item-400", "0.01")),
    "busy-requests": Case("30 % of requests 429 or 503", ("--request-429", "0.15", "--request-503", "0.15")),
    "cuts": Case("10 % of replies cut off, no ids", cut=0.1, repeats=True),
    "cuts-with-ids": Case("10 % of replies cut off, ids", cut=0.1, ids=True),
}


@dataclass(slots=True)
class Outcome:
    """What became of the events of a run."""

    events: int
    once: int
    more: int
    """Events of which the server holds more than one document."""
    refused: set[str]
    """Marks that the server refused for good."""
    dead_letters: list[str]
    """Marks in the dead-letter queue, as often as they stand there."""
    busy_items: int
    """Items answered 429."""
    busy: int
    """Requests answered 429 or 503."""
    cuts: int
    requests: int
    seconds: float
    problems: list[str] = field(default_factory=list)

    def check(self, case: Case) -> list[str]:
        """What must not be."""
        found = list(self.problems)
        missing = self.events - self.once - self.more - len(self.refused)
        if missing:
            found.append(f"{missing} events are missing")
        if self.more and not case.repeats:
            found.append(f"{self.more} events arrived more than once")
        if len(self.dead_letters) != len(set(self.dead_letters)):
            found.append("an event is a dead letter twice")
        if set(self.dead_letters) != self.refused:
            found.append(f"{len(set(self.dead_letters) ^ self.refused)} dead letters are missing or needless")
        return found


def run(
    case: Case,
    events: int,
    *,
    seed: int = 1,
    per_post: int = PER_POST,
    buffer_size: int = 12_800,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Send `events` through the engine to a server that fails in this way; `progress` hears how many have ended."""
    with contextlib.ExitStack() as stack:
        stub = stack.enter_context(peer.stub("--marks", "--seed", str(seed), *case.faults))
        proxy = stack.enter_context(_proxy(stub.port, case.cut, seed)) if case.cut else None
        letters = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "dlq.jsonl"
        options = {"dlq_file": str(letters), **({"document_id": "${/mark}"} if case.ids else {})}
        begin = time.monotonic()
        with peer.engine("[]", stub.port if proxy is None else proxy, options, buffer_size=buffer_size) as engine:

            def ended() -> int:
                stats = stub.stats()
                return stats["marks"] + stats["refused"]

            post(engine.port, marked(events, per_post), lambda: progress(ended()))
            wait_for(ended, events, progress)
            seconds = time.monotonic() - begin
            process, log = engine.process, engine.log
            process.terminate()
            code = process.wait(60)
            problems = [f"the engine ended with code {code}"] if code else []
            problems += [f"the log tells of a {bug}" for bug in ("Traceback",) if bug in log.read_text()]
        outcome = stub.marks()
        if outcome["taken_and_refused"]:
            problems.append(f"{outcome['taken_and_refused']} refused events were taken as well")
        return Outcome(
            events,
            outcome["once"],
            outcome["more"],
            set(outcome["refused"]),
            list(_dead_letters(letters)),
            outcome["busy_items"],
            sum(outcome["requests"].values()),
            0 if proxy is None else int(json.loads(peer.get(proxy, "/_cuts")[1])["cuts"]),
            stub.requests(),
            seconds,
            problems,
        )


def post(port: int, bodies: Iterable[bytes], pace: Callable[[], None] = lambda: None, connections: int = 4) -> None:
    """Post over raw sockets, one request in flight per connection; what is not taken for want of room comes again."""
    links = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(connections)]
    waiting = iter(bodies)
    told = time.monotonic()
    try:
        for link in links:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        again: list[bytes] = []
        while True:
            group = again[: len(links)]
            del again[: len(links)]
            group += [body for _, body in zip(range(len(links) - len(group)), waiting, strict=False)]
            if not group:
                return
            for link, body in zip(links, group, strict=False):
                head = b"POST /log/ingest HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
                link.sendall(b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body))
            for link, body in zip(links, group, strict=False):
                status = _status(link)
                if status != 200:
                    assert status in (408, 413, 429, 503), f"the source answered {status}"
                    again.append(body)
            if time.monotonic() - told > 0.25:
                pace()
                told = time.monotonic()
    finally:
        for link in links:
            link.close()


def _status(link: socket.socket) -> int:
    reply = b""
    while b"\r\n\r\n" not in reply:
        piece = link.recv(65536)
        assert piece, "the source closed the connection"
        reply += piece
    head, _, body = reply.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += link.recv(65536)
    return int(head[9:12])


def marked(events: int, per_post: int = PER_POST) -> Iterator[bytes]:
    """Bodies of posts, each event with a mark of its own."""
    lines = corpus.apache(5000)
    for start in range(0, events, per_post):
        numbers = range(start, min(start + per_post, events))
        yield orjson.dumps([{"log": lines[n % len(lines)], "mark": f"m{n}"} for n in numbers])


def wait_for(ended: Callable[[], int], events: int, progress: Callable[[int], None] = lambda done: None) -> None:
    """Until all events have ended, or nothing has moved for long: then the outcome tells what is missing."""
    before, moved = -1, time.monotonic()
    while before < events:
        now = ended()
        progress(now)
        if now != before:
            before, moved = now, time.monotonic()
        elif time.monotonic() - moved > GIVE_UP_S:
            return
        time.sleep(0.05)


def _dead_letters(path: Path) -> Iterator[str]:
    for file in sorted(path.parent.glob(path.name + "*")):
        for record in read_records(file.read_bytes().splitlines(keepends=True), {}):
            assert not isinstance(record, str), f"{file.name}: {record}"
            yield record.document["mark"]


@contextlib.contextmanager
def _proxy(upstream_port: int, cut: float, seed: int) -> Iterator[int]:
    command = [sys.executable, "-m", "bench.cutting_proxy", str(upstream_port), "--cut", str(cut), "--seed", str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=peer.ROOT)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(CASES))
    given = parser.parse_args()
    console = Console()
    table = Table(
        "fault", "events", "once", "more", "dead letters", "429 items", "refused", "cut", "requests", "events/s", ""
    )
    failed = False
    for name in given.only.split(","):
        case = CASES[name]
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(case.title, total=given.events)
            outcome = run(
                case, given.events, seed=given.seed, progress=lambda done, b=bar, t=task: b.update(t, completed=done)
            )
        found = outcome.check(case)
        failed = failed or bool(found)
        console.print(f"{case.title}: {outcome.seconds:.0f} s, {'; '.join(found) or 'every event accounted for'}")
        figures = (outcome.events, outcome.once, outcome.more, len(outcome.dead_letters), outcome.busy_items)
        table.add_row(
            case.title,
            *(
                f"{figure:,}"
                for figure in (
                    *figures,
                    outcome.busy,
                    outcome.cuts,
                    outcome.requests,
                    int(outcome.events / outcome.seconds),
                )
            ),
            "[red]" + "; ".join(found) if found else "[green]ok",
        )
    console.print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
