"""Metrics as samples of time series: their labels and values, and what becomes of samples that are refused."""

import asyncio
import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch, Meta
from penstock.core.errors import EventError
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.plugins.sinks.opensearch.tsdb import samples_of
from penstock.runtime.deliver import BulkDelivery, Surroundings
from penstock.sdk import Context
from penstock.testing.fakes import MemoryDeadLetters
from penstock.testing.opensearch import FakeOpenSearch
from penstock.testing.plugins import checked

TIME = "2024-01-02T03:04:05.678Z"
TIME_MS = 1_704_164_645_678
HISTOGRAM = {
    "kind": "HISTOGRAM",
    "name": "latency",
    "time": TIME,
    "attributes": {"zone": "a", "job": "api"},
    "count": 6,
    "sum": 2.5,
    "bucketCountsList": [1, 2, 3],
    "explicitBoundsList": [0.0001, 5.0],
}


def series(metric, received_ms=0):
    bad_times = []
    samples = samples_of(metric, received_ms, bad_times.append)
    assert not bad_times
    return {(sample["labels"], sample["timestamp"]): sample["value"] for sample in samples}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (
            {
                "kind": "GAUGE",
                "name": "up",
                "value": 1,
                "attributes": {"host name": "a b", "9x": True, "": 1.5, "n": None},
            },
            {"__name__ up _ 1.5 _9x true host_name a_b": 1.0},
        ),
        ({"kind": "GAUGE", "name": "up", "value": None}, {"__name__ up": 0.0}),
        ({"kind": "SUM", "name": "requests", "value": 7, "isMonotonic": True}, {"__name__ requests_total": 7.0}),
        ({"kind": "SUM", "name": "requests_total", "value": 7, "isMonotonic": True}, {"__name__ requests_total": 7.0}),
        ({"kind": "SUM", "name": "queue", "value": -0.5, "isMonotonic": False}, {"__name__ queue": -0.5}),
        (
            HISTOGRAM,
            {
                "__name__ latency_bucket job api le 1.0E-4 zone a": 1.0,
                "__name__ latency_bucket job api le 5 zone a": 3.0,
                "__name__ latency_bucket job api le +Inf zone a": 6.0,
                "__name__ latency_count job api zone a": 6.0,
                "__name__ latency_sum job api zone a": 2.5,
            },
        ),
        (
            {"kind": "HISTOGRAM", "name": "h", "count": 2, "attributes": {"le": "x"}},
            {"__name__ h_count le x": 2.0, "__name__ h_sum le x": 0.0},
        ),
        (
            {
                "kind": "SUMMARY",
                "name": "s",
                "attributes": {"quantile": "mine", "z": 1},
                "quantiles": [{"quantile": 0.5, "value": 3}, {"quantile": 1, "value": math.nan}],
                "count": 9,
                "sum": 27,
            },
            {
                "__name__ s quantile 0.5 z 1": 3.0,
                "__name__ s_count quantile mine z 1": 9.0,
                "__name__ s_sum quantile mine z 1": 27.0,
            },
        ),
    ],
)
def test_a_metric_becomes_samples(metric, expected):
    assert series({"time": TIME, **metric}) == {(labels, TIME_MS): value for labels, value in expected.items()}


def test_without_a_time_the_arrival_counts():
    assert series({"kind": "GAUGE", "name": "up", "value": 1}, received_ms=77) == {("__name__ up", 77): 1.0}
    told = []
    (sample,) = samples_of({"kind": "GAUGE", "name": "up", "time": "noon"}, 78, told.append)
    assert sample["timestamp"] == 78 and told == ["noon"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"message": "GET /"}, "TSDB index_type requires Metric events"),
        ({"kind": "EXPONENTIAL_HISTOGRAM", "name": "x"}, "this one is EXPONENTIAL_HISTOGRAM"),
        ({"kind": "GAUGE", "name": "x", "value": "7"}, "value of the metric is no number"),
        ({"kind": "GAUGE", "name": "x", "value": math.inf}, "which no sample can hold"),
        ({"kind": "SUM", "name": "x", "value": 10**400}, "which no sample can hold"),
        ({"kind": "SUMMARY", "name": "x", "quantiles": [1]}, "no object"),
    ],
)
def test_what_samples_cannot_tell_is_refused(event, reason):
    with pytest.raises(EventError, match=reason):
        samples_of(event, 0, print)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["GAUGE", "SUM", "HISTOGRAM", "SUMMARY"]), "name": st.text(max_size=8)},
        optional={
            name: values
            for name in (
                *("value", "time", "attributes", "isMonotonic", "count", "sum"),
                *("bucketCountsList", "explicitBoundsList", "quantiles"),
            )
        },
    )
)
def test_any_metric_is_refused_or_can_be_written(metric):
    try:
        samples = samples_of(metric, 5, lambda _time: None)
    except EventError:
        return
    assert samples
    for sample in samples:
        assert math.isfinite(sample["value"]) and type(sample["timestamp"]) is int
        words = sample["labels"].split(" ")
        assert words[0] == "__name__" and len(words) % 2 == 0


def with_delivery(test):
    """Run `test(server, delivery, letters, outcomes, registry)` with a started sink of this type."""

    async def run():
        async with FakeOpenSearch() as server:
            found, config = checked("sink", "opensearch", {"hosts": [server.url], "index_type": "tsdb"})
            registry = Registry()
            ctx = Context("p", "opensearch", kind="sink", chance=random.Random(3), registry=registry)
            sink = found.module.build(config, ctx)
            await sink.start()
            letters = MemoryDeadLetters()
            delivery = BulkDelivery(sink, Surroundings(ctx, letters))
            try:
                await test(server, sink, delivery, letters)
                assert not sink._under_way
            finally:
                await delivery.close()
                await sink.stop()

    asyncio.run(run())


def submit(delivery, *metrics):
    outcomes = []
    batch = Batch([dict(metric) for metric in metrics], [Meta("METRIC") for _ in metrics])
    handle = Handle(outcomes.append)
    batch.promise(handle)
    handle.seal()
    delivery.submit(batch, lambda: None)
    return outcomes


def labels_of(server):
    return sorted(document["labels"] for document in server.documents("metrics-tsdb-v1").values())


def test_the_index_and_its_template_are_made():
    async def test(server, sink, delivery, letters):
        template = server.templates["metrics-tsdb-v1-index-template"]
        assert template["version"] == 1 and template["index_patterns"] == ["metrics-tsdb-v1"]
        assert template["settings"]["index.translog.durability"] == "async"
        assert server.indexes["metrics-tsdb-v1"].properties["labels"]["type"] == "keyword"
        outcomes = submit(delivery, HISTOGRAM, {"kind": "GAUGE", "name": "up", "value": 1})
        await delivery.drain()
        assert outcomes == [True] and len(labels_of(server)) == 6

    with_delivery(test)


def test_only_samples_that_were_not_written_are_sent_again():
    async def test(server, sink, delivery, letters):
        server.fail_items(lambda action, target, document: "_sum" in document["labels"], 429, times=3)
        outcomes = submit(delivery, HISTOGRAM)
        await delivery.drain()
        assert outcomes == [True]
        assert len(labels_of(server)) == 5 == len(set(labels_of(server)))
        assert [len(request.operations) for request in server.bulk_requests()] == [5, 1, 1, 1]

    with_delivery(test)


def test_refused_samples_make_one_dead_letter_that_can_be_sent_again():
    async def test(server, sink, delivery, letters):
        server.fail_items(lambda action, target, document: "_bucket" in document["labels"], 400, reason="bad", times=3)
        server.fail_items(lambda action, target, document: "_sum" in document["labels"], 503, times=1)
        outcomes = submit(delivery, HISTOGRAM, {"no": "metric"})
        await delivery.drain()
        assert outcomes == [True]
        assert labels_of(server) == ["__name__ latency_count job api zone a", "__name__ latency_sum job api zone a"]
        by_message = {letter.failed_data["message"]: letter.failed_data for letter in letters.letters}
        assert len(by_message) == len(letters.letters) == 2
        refused = by_message.pop("bad")
        assert (refused["status"], refused["index"], refused["action"]) == (400, "metrics-tsdb-v1", "index")
        assert [document["value"] for document in refused["documents"]] == [1.0, 3.0, 6.0]
        assert refused["document"] == refused["documents"][0]
        ((message, other),) = by_message.items()
        assert message.startswith("TSDB index_type requires Metric events") and other["document"] == {"no": "metric"}
        item = sink.replay(json.loads(json.dumps(refused)))
        assert list(await sink.send([item])) == []
        assert len(labels_of(server)) == 5

    with_delivery(test)
