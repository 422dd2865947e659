"""What is left of the throughput while a server refuses a third of what it is sent."""

from __future__ import annotations

import statistics
import time

from bench import faults, peer

SHARE_MIN = 0.6
"""Of the undisturbed throughput."""
WARM_UP = 20_000
STORMS = {
    "30 % of items 429": ("--item-429", "0.3"),
    "30 % of requests 429": ("--request-429", "0.3"),
}


def storm_rows(events: int, rounds: int = 3) -> list[tuple[str, float, dict[str, float]]]:
    """For each storm its name, the share of the undisturbed throughput, and figures.

    Calm and storms take turns, so that a machine of changing speed is fair to both.
    """
    rates: dict[str, list[float]] = {"calm": [], **{name: [] for name in STORMS}}
    for number in range(rounds):
        rates["calm"].append(_events_per_s((), events, number))
        for name, options in STORMS.items():
            rates[name].append(_events_per_s(options, events, number))
    rows = []
    for name in STORMS:
        shares = [stormy / calm for stormy, calm in zip(rates[name], rates["calm"], strict=True)]
        figures = {"events_per_s": round(max(rates[name])), "calm_events_per_s": round(max(rates["calm"]))}
        rows.append((name, statistics.median(shares), figures))
    return rows


def _events_per_s(options: tuple[str, ...], events: int, seed: int) -> float:
    """Documents taken in a second, from the first post until the last one has arrived."""
    with peer.stub("--marks", "--seed", str(seed), *options) as stub, peer.engine("[]", stub.port) as engine:
        bodies = list(faults.marked(events + WARM_UP))
        warm = WARM_UP // faults.PER_POST
        faults.post(engine.port, bodies[:warm])
        faults.wait_for(lambda: stub.stats()["marks"], WARM_UP)
        begin = time.monotonic()
        faults.post(engine.port, bodies[warm:])
        faults.wait_for(lambda: stub.stats()["marks"], events + WARM_UP)
        seconds = time.monotonic() - begin
        outcome = stub.marks()
        assert outcome["once"] == events + WARM_UP, f"{outcome['once']} of {events + WARM_UP} documents arrived once"
        return events / seconds
