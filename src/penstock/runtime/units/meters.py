"""Meters of several units as those of one: the names and labels are those of a single process.

Counters, counts and sums are added up, maxima are the largest, gauges are added up but for shares of a whole, which are
averaged. What units that have ended counted stays in the sum, so that a counter never falls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from penstock.core.metrics import Counter, Gauge, Meter, Registry, Summary, Timer

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]

AVERAGED = frozenset({"bufferUsage"})
"""Gauges that tell a part of a whole, by the last part of their names."""
OF_THE_SUPERVISOR = frozenset({"process.uptime.seconds", "process.start.time.seconds"})
GROWING = frozenset({"process.cpu.seconds.total"})
"""Gauges that only grow: what ended units had stays in the sum."""


def snapshot(registry: Registry) -> list[list[Any]]:
    """All meters as JSON: `[name, labels, kind, values]`."""
    rows: list[list[Any]] = []
    for name, labels, meter in registry:
        match meter:
            case Counter():
                rows.append([name, labels, "counter", [meter.value]])
            case Gauge():
                rows.append([name, labels, "gauge", [meter.read()]])
            case Timer():
                rows.append([name, labels, "timer", [meter.count, meter.total, meter.largest]])
            case Summary():
                rows.append([name, labels, "summary", [meter.count, meter.total, meter.largest]])
    return rows


class Totals:
    """The sum of snapshots."""

    def __init__(self) -> None:
        self._counters: dict[Key, Counter] = {}
        self._summaries: dict[Key, Summary] = {}
        self._gauges: dict[Key, list[float]] = {}

    def add(self, rows: Iterable[list[Any]], *, ended: bool = False) -> None:
        """Add a snapshot; of a unit that has `ended` only what it counted."""
        for name, labels, kind, values in rows:
            key = name, tuple((label, value) for label, value in labels)
            if kind == "counter":
                self._counters.setdefault(key, Counter()).add(values[0])
            elif kind == "gauge":
                if name not in OF_THE_SUPERVISOR and (not ended or name in GROWING):
                    self._gauges.setdefault(key, []).append(values[0])
            else:
                total = self._summaries.setdefault(key, Timer() if kind == "timer" else Summary())
                total.count += values[0]
                total.total += values[1]
                total.largest = max(total.largest, values[2])

    def rows(self) -> list[list[Any]]:
        """The sum as a snapshot."""
        registry_rows: list[list[Any]] = []
        for (name, labels), meter in self.meters().items():
            if isinstance(meter, Counter):
                registry_rows.append([name, labels, "counter", [meter.value]])
            elif isinstance(meter, Gauge):
                registry_rows.append([name, labels, "gauge", [meter.read()]])
            else:
                kind = "timer" if isinstance(meter, Timer) else "summary"
                registry_rows.append([name, labels, kind, [meter.count, meter.total, meter.largest]])
        return registry_rows

    def meters(self) -> dict[Key, Meter]:
        meters: dict[Key, Meter] = {**self._counters, **self._summaries}
        for key, values in self._gauges.items():
            value = sum(values) / (len(values) if key[0].rpartition(".")[2] in AVERAGED else 1)
            meters[key] = constant(value)
        return meters


def joined(own: Registry, totals: Totals) -> Iterator[tuple[str, Labels, Meter]]:
    """The meters of the supervisor and of its units in the order of their names; where both have one, their sum."""
    both = Totals()
    both.add(totals.rows())
    both.add(snapshot(own))
    meters = both.meters()
    for name, labels, meter in own:
        if name in OF_THE_SUPERVISOR:
            meters[name, labels] = meter
    for (name, labels), meter in sorted(meters.items(), key=lambda item: item[0]):
        yield name, labels, meter


def constant(value: float) -> Gauge:
    """A gauge that stands still."""
    return Gauge(lambda: value)
