"""Sorts a number of the events of a group into buckets. Events without it are dropped, those where it is none go on.

A bucket holds the values from its lower bound up to, but without, its upper bound.
"""

from bisect import bisect_right
from decimal import Decimal
from itertools import pairwise
from typing import Literal

from pydantic import field_validator

from penstock import sdk
from penstock.lib.aggregation import (
    DROPPED,
    MERGED,
    Action,
    Fate,
    Group,
    Span,
    compile_local_time,
    compile_span,
    exemplar,
    metric,
    read_number,
    weight,
)
from penstock.lib.event_keys import Key

SINGLE_MAX = 3.4028234663852886e38
"""Stands for infinity in the bounds of buckets."""


class Config(sdk.PluginConfig):
    key: sdk.ReadKey
    """Key of the number, or of the text of one."""
    output_format: Literal["otel_metrics", "raw"] = "otel_metrics"
    """`otel_metrics` makes an OpenTelemetry histogram, `raw` a plain event with the identification keys and counts."""
    units: str
    """Unit of the number, such as `seconds`."""
    metric_name: str = "histogram"
    """Name of the metric, for `otel_metrics`; `<name>_key` names the key of the number in both formats."""
    generated_key_prefix: str = "aggr._"
    """What the names of all that is generated begin with, for `raw`."""
    buckets: list[float]
    """Bounds between the buckets, in any order."""
    record_minmax: bool = False
    """Also tell the smallest and the largest number and the events they are from."""

    @field_validator("generated_key_prefix")
    @classmethod
    def _begins_a_key(cls, value: str) -> str:
        Key.parse(value + "startTime")
        return value

    @field_validator("buckets")
    @classmethod
    def _some(cls, value: list[float]) -> list[float]:
        if not value:
            raise ValueError("Bucket list must not be empty")
        return value


class _Spread:
    __slots__ = ("count", "counts", "highest", "lowest", "span", "sum")

    def __init__(self, span: Span, buckets: int) -> None:
        self.count = 0
        self.sum = 0.0
        self.counts = [0] * buckets
        self.span = span
        self.lowest: tuple[float, sdk.Body] | None = None
        """The smallest number and its exemplar."""
        self.highest: tuple[float, sdk.Body] | None = None


class Histogram(Action):
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._clock = ctx.clock
        self._get = config.key.get
        self._bounds = sorted(config.buckets)
        prefix = config.generated_key_prefix
        self._span = compile_span(Key.parse(prefix + "startTime"), Key.parse(prefix + "endTime"), ctx.clock)
        self._local_time = compile_local_time()

    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        value = self._get(body)
        if value is sdk.MISSING or value is None:
            return DROPPED
        number = read_number(value)
        start, end = self._span(body)
        size = weight(body) if self._config.record_minmax and group.state is None else 0
        state: _Spread | None = group.state
        if state is None:
            state = group.state = _Spread(Span(start, end), len(self._bounds) + 1)
            group.size_bytes += 2 * size + 16 * len(state.counts)
        else:
            state.span.widen(start, end)
        state.counts[bisect_right(self._bounds, number)] += 1
        state.count += 1
        state.sum += number
        if self._config.record_minmax:
            self._remember(state, number, body, meta)
        return MERGED

    def _remember(self, state: _Spread, number: float, body: sdk.Body, meta: sdk.Meta) -> None:
        if state.lowest is None or number < state.lowest[0]:
            state.lowest = number, exemplar(number, {**body, "exemplarId": "min"}, meta, self._clock.now_ns())
        if state.highest is None or number > state.highest[0]:
            state.highest = number, exemplar(number, {**body, "exemplarId": "max"}, meta, self._clock.now_ns())

    def conclude(self, group: Group, identification: sdk.Body) -> tuple[sdk.Body, str] | None:
        state: _Spread | None = group.state
        if state is None:
            return None
        config, prefix, span = self._config, self._config.generated_key_prefix, state.span
        key_name, duration_ns = f"{config.metric_name}_key", span.end_ns - span.start_ns
        extremes = {"min": state.lowest, "max": state.highest}
        found = {name: extreme for name, extreme in extremes.items() if extreme is not None}
        if config.output_format == "raw":
            return {
                **identification,
                key_name: config.key.text,
                prefix + "sum": state.sum,
                prefix + "count": state.count,
                prefix + "buckets": list(self._bounds),
                prefix + "bucket_counts": state.counts,
                prefix + "startTime": self._local_time(span.start_ns),
                prefix + "endTime": Decimal(span.end_ns).scaleb(-9),
                prefix + "duration": duration_ns,
                **{prefix + name: number for name, (number, _) in found.items()},
            }, "event"
        edges = [-SINGLE_MAX, *self._bounds, SINGLE_MAX]
        return metric(
            "HISTOGRAM",
            config.metric_name,
            config.units,
            f"Histogram of {config.key.text} in the events",
            span,
            sum=state.sum,
            count=state.count,
            bucketCounts=len(state.counts),
            bucketCountsList=state.counts,
            explicitBoundsCount=len(self._bounds),
            explicitBounds=list(self._bounds),
            buckets=[
                {"min": low, "max": high, "count": count}
                for (low, high), count in zip(pairwise(edges), state.counts, strict=True)
            ],
            **{name: number for name, (number, _) in found.items()},
            exemplars=[example for _, example in found.values()],
            attributes={**identification, key_name: config.key.text, prefix + "duration": duration_ns},
        ), "METRIC"


def build(config: Config, ctx: sdk.Context) -> Action:
    return Histogram(config, ctx)


EXAMPLES = [
    sdk.Example(
        "Latencies in four buckets",
        config="{key: latency, units: seconds, buckets: [0.0, 0.25, 0.5], record_minmax: true}",
    )
]
