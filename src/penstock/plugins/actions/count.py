"""Counts the events of a group, or the distinct values of some of their keys."""

from collections.abc import Hashable
from typing import Any, Literal

from pydantic import Field

from penstock import sdk
from penstock.lib.aggregation import (
    MERGED,
    Action,
    Fate,
    Group,
    Span,
    compile_identity,
    compile_local_time,
    compile_span,
    exemplar,
    metric,
    weight,
)

UNIQUE_BYTES = 128
"""What one more distinct value takes, about, beside its text."""


class Config(sdk.PluginConfig):
    output_format: Literal["otel_metrics", "raw"] = "otel_metrics"
    """`otel_metrics` makes an OpenTelemetry sum, `raw` a plain event with the identification keys and the count."""
    metric_name: str = "count"
    """Name of the metric, for `otel_metrics`."""
    count_key: str = "aggr._count"
    """Name of the count, for `raw`."""
    start_time_key: sdk.ReadKey = Field(default="aggr._start_time", validate_default=True)
    """Key of the start time of an event, where it has one; also the name of the earliest start time, for `raw`."""
    end_time_key: sdk.ReadKey = Field(default="aggr._end_time", validate_default=True)
    """Key of the end time of an event, where it has one."""
    unique_keys: list[sdk.ReadKey] | None = None
    """Count the distinct values of these keys, together, instead of the events."""


class _Counted:
    __slots__ = ("count", "exemplar", "seen", "span")

    def __init__(self, span: Span, first: sdk.Body, seen: set[Hashable] | None) -> None:
        self.count = 0
        self.span = span
        self.exemplar = first
        self.seen = seen


class Count(Action):
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._clock = ctx.clock
        self._span = compile_span(config.start_time_key, config.end_time_key, ctx.clock)
        self._unique = compile_identity(config.unique_keys) if config.unique_keys else None
        self._local_time = compile_local_time()

    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        start, end = self._span(body)
        unique = None if self._unique is None else self._unique(body)[0]
        state = group.state
        if state is None:
            size = weight(body)
            first = exemplar(1.0, body, meta, self._clock.now_ns())
            state = _Counted(Span(start, end), first, None if self._unique is None else set())
            group.state = state
            group.size_bytes += size
        else:
            state.span.widen(start, end)
        if state.seen is None:
            state.count += 1
        elif unique not in state.seen:
            state.seen.add(unique)
            state.count += 1
            group.size_bytes += UNIQUE_BYTES + _size(unique)
        return MERGED

    def conclude(self, group: Group, identification: sdk.Body) -> tuple[sdk.Body, str] | None:
        state: _Counted | None = group.state
        if state is None:
            return None
        config = self._config
        if config.output_format == "raw":
            return {
                **identification,
                config.count_key: state.count,
                config.start_time_key.text: self._local_time(state.span.start_ns),
                "__exemplar": state.exemplar,
            }, "event"
        return metric(
            "SUM",
            config.metric_name,
            "1",
            "Number of events",
            state.span,
            isMonotonic=True,
            value=float(state.count),
            exemplars=[state.exemplar],
            attributes=identification,
        ), "METRIC"


def _size(unique: Any) -> int:
    if type(unique) is tuple:
        return sum(map(_size, unique))
    return len(unique) if isinstance(unique, str | bytes) else 8


def build(config: Config, ctx: sdk.Context) -> Action:
    return Count(config, ctx)


EXAMPLES = [
    sdk.Example("A plain event with the number of events", config="{output_format: raw, count_key: requests}"),
    sdk.Example("Distinct users, as a metric", config="{unique_keys: [user/id], metric_name: users}"),
]
