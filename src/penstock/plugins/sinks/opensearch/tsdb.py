"""`index_type: tsdb`: metrics as samples of time series, in the form of OpenSearch's time-series engine.

| metric | samples |
| --- | --- |
| gauge | its value |
| sum | its value; a monotonic one under a name that ends in `_total` |
| histogram | `_bucket` for each bucket, counted from the lowest on, with its upper bound in `le`; `_count`; `_sum` |
| summary | one for each quantile, with the label `quantile`; `_count`; `_sum` |

A sample is `{"labels": "__name__ <name> <label> <value> …", "timestamp": <milliseconds>, "value": <number>}`, labels in
order of their names. Samples have no ids, so `document_id`, `routing` and `document_version` have no effect.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from penstock import sdk
from penstock.lib.instants import read_instant
from penstock.lib.java_values import java_text
from penstock.plugins.sinks.opensearch.options import Config
from penstock.plugins.sinks.opensearch.sink import OpenSearchSink

UNDER_WAY_MAX = 200_000
"""Events whose samples are told apart; the oldest are forgotten, which costs duplicates when they are sent again."""
_LONG_MAX = 2**63
_KINDS = ("GAUGE", "SUM", "HISTOGRAM", "SUMMARY")
_Labels = list[tuple[str, str]]
_NO_METRIC = "TSDB index_type requires Metric events"


class TsdbSink(OpenSearchSink):
    """Writes each metric as one or more samples; the event ends when all of them are written."""

    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        super().__init__(config, ctx)
        assert config.alias is not None, "the type has an alias of its own"
        self._name = config.alias
        self._under_way: dict[int, _Samples] = {}
        """By the identity of the item, which the runtime keeps and brings again."""
        for option in ("document_id", "document_id_field", "routing", "routing_field", "document_version"):
            if getattr(config, option) is not None:
                ctx.log.warning("%s has no effect with index_type tsdb: samples have no ids", option)

    def encode(self, batch: sdk.Batch) -> sdk.Items:
        self.targets.see(self._name)
        data: list[bytes] = []
        slots: list[int] = []
        rejected: list[sdk.Failure] = []
        now_ms = self._clock.now_ms()
        for slot, body in enumerate(batch.bodies):
            meta = batch.peek(slot)
            try:
                line = self._documents.line_without_id(self._name, body, meta)
                samples = samples_of(body, meta.received_ms or now_ms, self._bad_time)
                data.append(b"".join([line + sdk.encode(sample) + b"\n" for sample in samples]))
            except sdk.EventError as error:
                rejected.append(self._documents.rejection(slot, error, self._name, None))
            else:
                slots.append(slot)
        return sdk.Items(data, slots, None, rejected)

    async def send(self, data: Sequence[bytes]) -> Sequence[sdk.Failure]:
        events = [self._samples(item) for item in data]
        places = [place for place, samples in enumerate(events) for _ in samples.left]
        operations = [operation for samples in events for operation in samples.left]
        refused: dict[int, list[tuple[bytes, sdk.Failure]]] = {}
        again = sdk.sent_before(data)
        marks = None if again is None else bytes([again[place] for place in places])
        for failure in await self._send(operations, marks):
            refused.setdefault(places[failure.index], []).append((operations[failure.index], failure))
        failures = []
        for place, (item, samples) in enumerate(zip(data, events, strict=True)):
            failure_of_all = samples.judge(refused.get(place, ()))
            if failure_of_all is None:
                del self._under_way[id(item)]
            else:
                failures.append(failure_of_all.at(place))
        return failures

    def dead_letter(self, data: bytes) -> dict[str, Any]:
        """Tells of the samples that were not written: the first as `document`, several as `documents` too."""
        samples = self._under_way.pop(id(data), None)
        operations = _operations(data) if samples is None else [*samples.refused, *samples.left]
        letters = [super(TsdbSink, self).dead_letter(operation) for operation in operations]
        letter = letters[0]
        if len(letters) > 1:
            letter["documents"] = [each["document"] for each in letters]
        return letter

    def replay(self, failed_data: Mapping[str, Any]) -> bytes:
        documents = failed_data.get("documents")
        if not isinstance(documents, list) or not documents:
            documents = [failed_data.get("document")]
        return b"".join([super(TsdbSink, self).replay({**failed_data, "document": each}) for each in documents])

    def _bad_time(self, time: object) -> None:
        self._notices.error(
            "Failed to parse the timestamp of a metric, a %s: the time of its arrival is used", type(time).__name__
        )

    def _samples(self, item: bytes) -> _Samples:
        known = self._under_way.get(id(item))
        if known is None:
            if len(self._under_way) >= UNDER_WAY_MAX:
                del self._under_way[next(iter(self._under_way))]
            known = self._under_way[id(item)] = _Samples(item, _operations(item))
        return known


@dataclasses.dataclass(slots=True)
class _Samples:
    """What of an event is still to be written."""

    item: bytes
    """Held, so that no other item gets its identity."""
    left: list[bytes]
    refused: list[bytes] = dataclasses.field(default_factory=list)
    verdict: sdk.Failure | None = None
    """Of the first sample that was refused for good."""

    def judge(self, failures: Iterable[tuple[bytes, sdk.Failure]]) -> sdk.Failure | None:
        """What a request means for the event: None when all of it is written now."""
        self.left = []
        again: sdk.Failure | None = None
        for operation, failure in failures:
            if failure.retryable:
                again = again or failure
                self.left.append(operation)
            else:
                self.verdict = self.verdict or failure
                self.refused.append(operation)
        return again or self.verdict


def samples_of(body: sdk.Body, received_ms: int, on_bad_time: Callable[[object], None]) -> list[dict[str, Any]]:
    """The samples of a metric. Raises `EventError` where the event is none, or one that samples cannot tell."""
    name, kind = body.get("name"), body.get("kind")
    if not isinstance(name, str) or not isinstance(kind, str):
        raise sdk.EventError(f"{_NO_METRIC}: this one has no name and kind", cause="index")
    if kind.upper() not in _KINDS:
        raise sdk.EventError(f"{_NO_METRIC} of the kinds {', '.join(_KINDS)}; this one is {kind}", cause="index")
    attributes = body.get("attributes")
    labels = _labels(attributes) if isinstance(attributes, dict) else []
    timestamp = received_ms
    time = body.get("time")
    if time is not None and time != "":
        try:
            timestamp = read_instant(time) // 1_000_000
        except sdk.EventError:
            on_bad_time(time)
    samples = _SAMPLES[kind.upper()](body, name, labels)
    return [{"labels": series, "timestamp": timestamp, "value": value} for series, value in samples]


def _gauge(body: sdk.Body, name: str, labels: _Labels) -> Iterator[tuple[str, float]]:
    yield _series(name, labels), _number(body, "value")


def _sum(body: sdk.Body, name: str, labels: _Labels) -> Iterator[tuple[str, float]]:
    if (body.get("isMonotonic") or body.get("monotonic")) and not name.endswith("_total"):
        name += "_total"
    yield _series(name, labels), _number(body, "value")


def _histogram(body: sdk.Body, name: str, labels: _Labels) -> Iterator[tuple[str, float]]:
    counts, bounds = body.get("bucketCountsList"), body.get("explicitBoundsList")
    if isinstance(counts, list) and isinstance(bounds, list):
        total = 0.0
        for place, count in enumerate(counts):
            total += _finite(count, "bucketCountsList")
            bound = _bound(bounds[place]) if place < len(bounds) else "+Inf"
            yield _series(f"{name}_bucket", labels, ("le", bound)), total
    yield from _count_and_sum(body, name, labels)


def _summary(body: sdk.Body, name: str, labels: _Labels) -> Iterator[tuple[str, float]]:
    quantiles = body.get("quantiles")
    for quantile in quantiles if isinstance(quantiles, list) else ():
        if not isinstance(quantile, dict):
            raise sdk.EventError("a quantile of the metric is no object", cause="index")
        value = quantile.get("value")
        if isinstance(value, float) and not math.isfinite(value):  # a summary of nothing yet
            continue
        series = _series(name, labels, ("quantile", _bound(quantile.get("quantile"))))
        yield series, _number(quantile, "value")
    yield from _count_and_sum(body, name, labels)


def _count_and_sum(body: sdk.Body, name: str, labels: _Labels) -> Iterator[tuple[str, float]]:
    yield _series(f"{name}_count", labels), _number(body, "count")
    yield _series(f"{name}_sum", labels), _number(body, "sum")


_SAMPLES = {"GAUGE": _gauge, "SUM": _sum, "HISTOGRAM": _histogram, "SUMMARY": _summary}


def _number(holder: Mapping[str, Any], key: str) -> float:
    value = holder.get(key)
    return 0.0 if value is None else _finite(value, key)


def _finite(value: Any, key: str) -> float:
    if type(value) not in (int, float, Decimal):
        raise sdk.EventError(f"{key} of the metric is no number", cause="index")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise sdk.EventError(f"{key} of the metric is {value}, which no sample can hold", cause="index")
    return number


def _labels(attributes: Mapping[str, Any]) -> _Labels:
    try:
        labels = [
            (_label_name(name), _label_value(java_text(value)))
            for name, value in attributes.items()
            if value is not None
        ]
    except sdk.ExpressionError as error:
        raise sdk.EventError(f"an attribute of the metric: {error}", cause="index") from error
    return sorted(labels, key=lambda label: label[0])


def _series(name: str, labels: _Labels, extra: tuple[str, str] | None = None) -> str:
    if extra is not None:
        labels = sorted([label for label in labels if label[0] != extra[0]] + [extra], key=lambda label: label[0])
    return " ".join([f"__name__ {_label_value(name)}", *[f"{key} {value}" for key, value in labels]])


def _label_name(name: str) -> str:
    clean = "".join(character if _in_name(character) else "_" for character in name)
    return clean if clean and (name[0].isalpha() or name[0] == "_") else f"_{clean}"


def _in_name(character: str) -> bool:
    return character.isalpha() or character.isdecimal() or character == "_"


def _label_value(value: str) -> str:
    return value.replace(" ", "_")


def _bound(value: Any) -> str:
    """A bound or quantile as Java prints a double, whole numbers without a fraction."""
    if value is None:
        return "0"
    if type(value) not in (int, float, Decimal):
        raise sdk.EventError("a bound of the metric is no number", cause="index")
    try:
        number = float(value)
    except OverflowError:
        number = math.copysign(math.inf, value)
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    if number.is_integer() and abs(number) < _LONG_MAX:
        return str(int(number))
    return java_text(number)


def _operations(item: bytes) -> list[bytes]:
    lines = item.split(b"\n")
    return [b"%b\n%b\n" % (lines[place], lines[place + 1]) for place in range(0, len(lines) - 1, 2)]
