"""What a second unit brings: events per CPU second of the busiest unit, two units against one, loaded in turns."""

from __future__ import annotations

import time

import orjson
import psutil

from bench import corpus, peer

GROK = '[{grok: {match: {log: ["%{COMBINEDAPACHELOG}"]}}}]'
ROUNDS = 10
POSTS = 64
"""Requests in a round, each over a connection of its own: the system deals connections out by chance."""
EVENTS = 1000
"""Events of a request."""


def unit_figures() -> dict[str, float]:
    """`gain` is the figure of two units over that of one; microseconds of CPU an event for the rest."""
    lines = corpus.apache(POSTS * EVENTS)
    bodies = [orjson.dumps([{"log": line} for line in lines[i : i + EVENTS]]) for i in range(0, len(lines), EVENTS)]
    with (
        peer.stub() as stub,
        peer.engine(GROK, stub.port) as one,
        peer.engine(GROK, stub.port, units=2) as two,
    ):
        for engine in (one, two):
            for _ in range(3):
                peer.post_all(engine.port, bodies, connections=POSTS)
        sent = stub_has(stub, 6 * len(lines))
        alone, units = psutil.Process(one.process.pid), psutil.Process(two.process.pid).children()
        assert len(units) == 2, "a supervisor has its units as children"
        before = [_cpu_s(process) for process in (alone, *units)]
        for _ in range(ROUNDS):
            for engine in (one, two):
                peer.post_all(engine.port, bodies, connections=POSTS)
        stub_has(stub, sent + 2 * ROUNDS * len(lines))
        spent = [_cpu_s(process) - then for process, then in zip((alone, *units), before, strict=True)]
    events = ROUNDS * len(lines)
    single, *shared = (seconds / events * 1e6 for seconds in spent)
    return {
        "gain": single / max(shared),
        "one_unit_us": round(single, 3),
        "busiest_of_two_us": round(max(shared), 3),
        "both_us": round(sum(shared), 3),
    }


def stub_has(stub: peer.Stub, count: int) -> int:
    """Wait until so many documents have arrived."""
    give_up = time.monotonic() + 60
    while (found := stub.documents()) < count:
        assert time.monotonic() < give_up, f"only {found} of {count} documents arrived"
        time.sleep(0.02)
    assert found == count, f"{found} documents of {count}"
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
