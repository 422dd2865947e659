"""Meters as Prometheus text, named as Data Prepper's own registry names them. Source: `metrics`, docs/behaviour.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from penstock.core.metrics import Counter, Gauge, Meter, Timer

_ILLEGAL = re.compile(r"[^a-zA-Z0-9_]")


Labels = Sequence[tuple[str, str]]


class MetricsPage:
    """Shows a registry, or what is like one: meters in the order of their names.

    What a meter's name decides (its labels, whether it is shown) is decided once per meter.
    """

    def __init__(
        self,
        registry: Iterable[tuple[str, Labels, Meter]],
        labels: Labels,
        filters: Sequence[tuple[str, Labels]] = (),
        disabled: Sequence[str] = (),
    ) -> None:
        self._registry = registry
        self._labels = labels
        self._filters = [(ant_pattern(pattern), own) for pattern, own in filters]
        self._disabled = [ant_pattern(pattern) for pattern in disabled]
        self._common: dict[str, Labels | None] = {}

    def render(self) -> str:
        """All meters as text."""
        lines: list[str] = []
        last = ""
        for name, own, meter in self._registry:
            common = self._common_labels(name)
            if common is None:
                continue
            text = _ILLEGAL.sub("_", name)
            if not text[0].isalpha():
                text = "m_" + text
            family, rows = _rows(text, _labels([*common, *own]), meter)
            if family != last:
                lines.append(f"# HELP {family}  ")
                lines.append(f"# TYPE {family} {rows[0][0]}")
                last = family
            for place, (kind, row) in enumerate(rows):
                if place and kind == "gauge":
                    lines.append(f"# HELP {family}_max  ")
                    lines.append(f"# TYPE {family}_max gauge")
                lines.append(row)
        return "\n".join(lines) + "\n"

    def _common_labels(self, name: str) -> Labels | None:
        """Labels that a meter gets beside its own; None when it is not shown."""
        if name not in self._common:
            if any(pattern.fullmatch(name) for pattern in self._disabled):
                self._common[name] = None
            else:
                own = next((labels for pattern, labels in self._filters if pattern.fullmatch(name)), None)
                self._common[name] = self._labels if own is None else own
        return self._common[name]


def ant_pattern(pattern: str) -> re.Pattern[str]:
    """An Ant-style pattern on dotted names: `?` one character, `*` within a part, `**` across parts."""
    tokens = {"**.": r"(?:.*\.)?", ".**": r"(?:\..*)?", "**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    split = re.split(r"(\*\*\.|\.\*\*$|\*\*|\*|\?)", pattern)
    return re.compile("".join(tokens.get(part, re.escape(part)) for part in split))


def _rows(text: str, labels: str, meter: Meter) -> tuple[str, list[tuple[str, str]]]:
    """Family name, and kind and line of each sample."""
    if isinstance(meter, Counter):
        return f"{text}_total", [("counter", f"{text}_total{labels} {_number(meter.value)}")]
    if isinstance(meter, Gauge):
        return text, [("gauge", f"{text}{labels} {_number(meter.read())}")]
    family = f"{text}_seconds" if isinstance(meter, Timer) else text
    return family, [
        ("summary", f"{family}_count{labels} {_number(meter.count)}"),
        ("", f"{family}_sum{labels} {_number(meter.total)}"),
        ("gauge", f"{family}_max{labels} {_number(meter.largest)}"),
    ]


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    text = "".join(f'{name}="{_escaped(value)}",' for name, value in pairs)
    return f"{{{text}}}" if text else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(float(value))
