"""Meters as Prometheus text, named as Data Prepper's own registry writes them. Source: `metrics` in docs/behaviour.md."""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.core.metrics import Counter, Gauge, Registry, Summary, Timer

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
        family = text
        match meter:
            case Counter(value=value):
                family = f"{text}_total"
                rows = [("counter", f"{family}{labels} {_number(value)}")]
            case Gauge(read=read):
                rows = [("gauge", f"{family}{labels} {_number(read())}")]
            case Summary(count=count, total=total, largest=largest):
                family = f"{text}_seconds" if isinstance(meter, Timer) else text
                rows = [
                    ("summary", f"{family}_count{labels} {_number(count)}"),
                    ("", f"{family}_sum{labels} {_number(total)}"),
                    ("gauge", f"{family}_max{labels} {_number(largest)}"),
                ]
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


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    text = "".join(f'{name}="{_escaped(value)}",' for name, value in pairs)
    return f"{{{text}}}" if text else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(float(value))
