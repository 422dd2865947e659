"""States of units, and of one pipeline in several of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class State(StrEnum):
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    """It crashed and is about to be started again."""
    ENDED = "ENDED"


_PIPELINE = ("ENDED", "RUNNING", "DRAINING", "STARTING", "FAILED")
_SINK = ("OK", "STARTING", "DEGRADED")


def merged_pipelines(units: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The pipelines as a single process would tell of them: the worst state of each, the sum of what is pending."""
    merged: dict[str, dict[str, Any]] = {}
    for pipelines in units:
        for pipeline in pipelines:
            known = merged.get(pipeline["name"])
            if known is None:
                merged[pipeline["name"]] = {**pipeline, "sinks": [dict(sink) for sink in pipeline["sinks"]]}
                continue
            if _rank(_PIPELINE, pipeline["state"]) > _rank(_PIPELINE, known["state"]):
                known["state"], known["reason"] = pipeline["state"], pipeline["reason"]
            for sink, other in zip(known["sinks"], pipeline["sinks"], strict=True):
                sink["pending"] += other["pending"]
                if _rank(_SINK, other["status"]) > _rank(_SINK, sink["status"]):
                    sink |= {name: value for name, value in other.items() if name != "pending"}
    return list(merged.values())


def _rank(order: tuple[str, ...], state: str) -> int:
    return order.index(state) if state in order else len(order)
