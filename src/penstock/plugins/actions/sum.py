"""Adds up a number of the events of a group. Events without it are dropped, those where it is no number go on."""

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

SUM_KEY = "aggr._sum"
START_TIME_KEY = "aggr._start_time"
END_TIME_KEY = "aggr._end_time"
RESERVED = frozenset(("__exemplar", SUM_KEY, START_TIME_KEY, END_TIME_KEY))


class Config(sdk.PluginConfig):
    key: sdk.ReadKey
    """Key of the number, or of the text of one."""
    output_format: Literal["otel_metrics", "raw"] = "otel_metrics"
    """`otel_metrics` makes an OpenTelemetry sum, `raw` a plain event with the identification keys, sum and count."""
    metric_name: str = "sum"
    """Name of the metric, for `otel_metrics`."""
    count_key: str = "aggr._count"
    """Name of the number of events, for `raw`."""

    @field_validator("count_key")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f'count_key "{value}" collides with a key reserved internally by the sum action')
        return value


class _Summed:
    __slots__ = ("count", "exemplar", "span", "sum")

    def __init__(self, span: Span, first: sdk.Body) -> None:
        self.count = 0
        self.sum = 0.0
        self.span = span
        self.exemplar = first


class Sum(Action):
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._clock = ctx.clock
        self._get = config.key.get
        self._span = compile_span(Key.parse(START_TIME_KEY), Key.parse(END_TIME_KEY), ctx.clock)
        self._local_time = compile_local_time()

    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        value = self._get(body)
        if value is sdk.MISSING or value is None:
            return DROPPED
        number = read_number(value)
        start, end = self._span(body)
        state = group.state
        if state is None:
            size = weight(body)
            state = _Summed(Span(start, end), exemplar(number, body, meta, self._clock.now_ns()))
            group.state = state
            group.size_bytes += size
        else:
            state.span.widen(start, end)
        state.count += 1
        state.sum += number
        return MERGED

    def conclude(self, group: Group, identification: sdk.Body) -> tuple[sdk.Body, str] | None:
        state: _Summed | None = group.state
        if state is None:
            return None
        config = self._config
        if config.output_format == "raw":
            return {
                **identification,
                SUM_KEY: state.sum,
                config.count_key: state.count,
                START_TIME_KEY: self._local_time(state.span.start_ns),
            }, "event"
        return metric(
            "SUM",
            config.metric_name,
            "1",
            "Sum of the events",
            state.span,
            isMonotonic=False,
            value=state.sum,
            exemplars=[state.exemplar],
            attributes=identification,
        ), "METRIC"


def build(config: Config, ctx: sdk.Context) -> Action:
    return Sum(config, ctx)


EXAMPLES = [sdk.Example("Bytes sent, as a plain event", config="{key: bytes, output_format: raw}")]
