"""Counters, gauges, timers and summaries with Data Prepper's names: `<pipeline>.<component>.<metric>`.

Every meter is made when its plugin is built, so that a scrape shows it at zero from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, count: int = 1) -> None:
        self.value += count


class Gauge:
    """A number read when it is asked for."""

    __slots__ = ("read",)

    def __init__(self, read: Callable[[], float]) -> None:
        self.read = read


class Summary:
    """Count, sum and maximum of observed values: bytes, items."""

    __slots__ = ("count", "largest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.largest = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Record `value`, seen `times` times."""
        self.count += times
        self.total += value * times
        if value > self.largest:
            self.largest = value

    def observe_all(self, values: Sequence[float]) -> None:
        """Record each of `values` once."""
        if values:
            self.count += len(values)
            self.total += sum(values)
            self.largest = max(self.largest, max(values))


class Timer(Summary):
    """A summary of spans in seconds."""

    __slots__ = ()


Meter = Counter | Gauge | Summary
M = TypeVar("M", Counter, Gauge, Summary, Timer)


class Registry:
    """All meters of a process by dotted name and labels."""

    def __init__(self) -> None:
        self._meters: dict[tuple[str, tuple[tuple[str, str], ...]], Meter] = {}

    def scope(self, *parts: str) -> Scope:
        """Meters whose names start with `parts`."""
        return Scope(self, ".".join(parts) + "." if parts else "")

    def __iter__(self) -> Iterator[tuple[str, tuple[tuple[str, str], ...], Meter]]:
        for (name, labels), meter in sorted(self._meters.items(), key=lambda item: item[0]):
            yield name, labels, meter

    def get(self, name: str, **labels: str) -> Meter | None:
        """The meter of that full name, None when nobody made one."""
        return self._meters.get((name, tuple(sorted(labels.items()))))

    def value(self, name: str, **labels: str) -> float:
        """Value of a counter or gauge, or the count of a summary; 0 when there is none."""
        match self.get(name, **labels):
            case Counter(value=value):
                return value
            case Gauge(read=read):
                return read()
            case Summary(count=count):
                return count
            case _:
                return 0

    def remove(self, prefix: str) -> None:
        """Forget the meters whose names start with `prefix`: their pipeline is gone."""
        for key in [key for key in self._meters if key[0].startswith(prefix)]:
            del self._meters[key]

    def _meter(self, name: str, labels: dict[str, str], kind: type[M], make: Callable[[], M]) -> M:
        key = (name, tuple(sorted(labels.items())))
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = make()
        assert isinstance(meter, kind), f"{name} is already a {type(meter).__name__}"
        return meter


class Scope:
    """The meters of one component."""

    __slots__ = ("_prefix", "_registry")

    def __init__(self, registry: Registry, prefix: str) -> None:
        self._registry = registry
        self._prefix = prefix

    def scope(self, name: str) -> Scope:
        """Meters of a part of this component."""
        return Scope(self._registry, f"{self._prefix}{name}.")

    def counter(self, name: str, **labels: str) -> Counter:
        return self._registry._meter(self._prefix + name, labels, Counter, Counter)

    def summary(self, name: str, **labels: str) -> Summary:
        return self._registry._meter(self._prefix + name, labels, Summary, Summary)

    def timer(self, name: str, **labels: str) -> Timer:
        return self._registry._meter(self._prefix + name, labels, Timer, Timer)

    def gauge(self, name: str, read: Callable[[], float], **labels: str) -> Gauge:
        gauge = self._registry._meter(self._prefix + name, labels, Gauge, lambda: Gauge(read))
        gauge.read = read
        return gauge
