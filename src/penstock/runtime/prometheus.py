"""Meters as Prometheus text, named as Data Prepper's own registry names them. Source: `metrics`, docs/behaviour.md."""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.core.metrics import Counter, Gauge, Meter, Registry, Timer

_ILLEGAL = re.compile(r"[^a-zA-Z0-9_]")


def render(registry: Registry, common: dict[str, str]) -> str:
    """The whole registry. Labels of a meter are added to `common`."""
    lines: list[str] = []
    last = ""
    for name, own, meter in registry:
        text = _ILLEGAL.sub("_", name)
        if not text[0].isalpha():
            text = "m_" + text
        labels = _labels([*common.items(), *own])
        family, rows = _rows(text, labels, meter)
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
