"""What the actions of the aggregate processor make of a group."""

import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.clock import ManualClock
from penstock.core.errors import ConfigError
from penstock.lib.rate_limit import RateLimit
from penstock.plan import catalog
from penstock.testing import build_processor, run_processor

NAMES = sorted(catalog.DATA_PREPPER_NAMES["aggregate_action"])
NOW = "2023-11-14T22:13:20Z"
"""Where the manual clock stands."""


def run(action, events, *, keys=("id",), flush=1.0, **options):
    config = {"identification_keys": list(keys), "group_duration": "1s", "action": action}
    return run_processor("aggregate", config, events, flush_after_s=flush, **options)


def only(results):
    assert len(results) == 1
    return results[0]


def test_append_collects_more_than_two_values():
    events = [{"id": 1, "s": text, "same": 1} for text in ("a", "b", "b", "c")]
    assert only(run({"append": {}}, events)).body == {"id": 1, "s": ["a", "b", "b", "c"], "same": 1}


def test_append_takes_the_keys_of_the_first_event_only():
    events = [{"id": 1, "l": [1], "n": None}, {"id": 1, "l": 2, "n": 0, "late": True}, {"id": 1, "l": [3, [4]]}]
    assert only(run({"append": {}}, events)).body == {"id": 1, "l": [1, 2, 3, [4]], "n": [None, 0]}


def test_put_all_later_values_win():
    events = [{"id": 1, "o": {"a": 1}, "n": 1}, {"id": 1, "o": {"b": 2}, "m": None}]
    assert only(run({"put_all": {}}, events)).body == {"id": 1, "o": {"b": 2}, "n": 1, "m": None}


def test_count_as_a_metric():
    events = [{"id": "a", "spanId": "s"}, {"id": "a", "other": 1}]
    result = only(run({"count": {"metric_name": "hits"}}, events, event_type="TRACE"))
    assert result.event_type == "METRIC"
    assert result.body == {
        "kind": "SUM",
        "name": "hits",
        "description": "Number of events",
        "unit": "1",
        "startTime": NOW,
        "time": NOW,
        "aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA",
        "isMonotonic": True,
        "value": 2.0,
        "attributes": {"id": "a"},
        "exemplars": [
            {"time": NOW, "value": 1.0, "attributes": {"id": "a", "spanId": "s"}, "spanId": "s", "traceId": None}
        ],
    }
    assert type(result.body["value"]) is float


def test_count_spans_the_times_of_the_events():
    events = [
        {"id": 1, "from": "2024-01-01T00:00:10Z", "to": 1_704_067_300},
        {"id": 1, "from": 1_704_067_205_000, "to": "2024-01-01T00:01:30.25Z"},
        {"id": 1, "from": 1_704_067_220.5, "to": 1_704_067_221},
    ]
    action = {"count": {"start_time_key": "from", "end_time_key": "to"}}
    body = only(run(action, events)).body
    assert (body["startTime"], body["time"]) == ("2024-01-01T00:00:05Z", "2024-01-01T00:01:40Z")
    raw = {"count": {"start_time_key": "from", "end_time_key": "to", "output_format": "raw"}}
    body = only(run(raw, events, tz="Europe/Berlin")).body
    assert body == {
        "id": 1,
        "aggr._count": 3,
        "from": "2024-01-01T01:00:05.000+01:00",
        "__exemplar": {"time": NOW, "value": 1.0, "attributes": events[0], "spanId": None, "traceId": None},
    }


def test_an_event_with_a_broken_time_goes_on_and_is_not_counted():
    events = [{"id": 1}, {"id": 1, "aggr._start_time": "yesterday"}]
    passed, counted = run({"count": {}}, events)
    assert passed.body == events[1]
    assert counted.body["value"] == 1.0


def test_count_of_distinct_values():
    users = [{"id": 1, "user": user, "n": n} for user, n in [("a", 1), ("b", 1), ("a", 1), ("a", 2), (None, 1)]]
    action = {"count": {"output_format": "raw", "unique_keys": ["user"], "count_key": "users"}}
    assert only(run(action, users)).body["users"] == 3
    action = {"count": {"output_format": "raw", "unique_keys": ["user", "n"], "count_key": "users"}}
    assert only(run(action, users)).body["users"] == 4


def test_an_identification_key_that_is_absent_is_null():
    body = only(run({"count": {}}, [{"a": 1}], keys=("/user/name", "a"))).body
    assert body["attributes"] == {"/user/name": None, "a": 1}


def test_sum_counts_numbers_and_texts_of_numbers():
    events = [{"id": 1, "n": value} for value in (1, 2.5, "3", None)] + [{"id": 1}]
    raw = only(run({"sum": {"key": "n", "output_format": "raw", "count_key": "events"}}, events)).body
    assert raw == {"id": 1, "aggr._sum": 6.5, "events": 3, "aggr._start_time": "2023-11-14T22:13:20.000Z"}
    metric = only(run({"sum": {"key": "/n"}}, events)).body
    assert (metric["kind"], metric["isMonotonic"], metric["value"]) == ("SUM", False, 6.5)
    assert metric["description"] == "Sum of the events"
    assert metric["exemplars"][0]["value"] == 1.0


@pytest.mark.parametrize("value", ["x", True, [1], {"a": 1}, "NaN", 10**400])
def test_what_is_no_number_goes_on(value):
    for action in ({"sum": {"key": "n"}}, {"histogram": {"key": "n", "units": "s", "buckets": [1]}}):
        assert only(run(action, [{"id": 1, "n": value}])).body == {"id": 1, "n": value}


@pytest.mark.parametrize("name", ["__exemplar", "aggr._sum", "aggr._start_time", "aggr._end_time"])
def test_sum_needs_its_own_names(name):
    with pytest.raises(ConfigError, match="collides with a key reserved internally by the sum action"):
        run({"sum": {"key": "n", "count_key": name}}, [])


def test_histogram_as_a_metric():
    options = {"key": "latency", "units": "seconds", "buckets": [0.5, 0, 0.25], "record_minmax": True}
    events = [{"id": 1, "latency": value} for value in (0.25, -1, 0.55, 0.15, 0.2)]
    body = only(run({"histogram": options}, events)).body
    assert body["kind"] == "HISTOGRAM"
    assert body["unit"] == "seconds"
    assert body["description"] == "Histogram of latency in the events"
    assert body["bucketCountsList"] == [1, 2, 1, 1]
    assert body["bucketCounts"] == 4
    assert body["explicitBounds"] == [0.0, 0.25, 0.5]
    assert body["explicitBoundsCount"] == 3
    assert (body["count"], body["min"], body["max"]) == (5, -1.0, 0.55)
    assert body["sum"] == pytest.approx(0.15)
    assert body["buckets"][0] == {"min": -3.4028234663852886e38, "max": 0.0, "count": 1}
    assert body["buckets"][3] == {"min": 0.5, "max": 3.4028234663852886e38, "count": 1}
    assert body["attributes"] == {"id": 1, "histogram_key": "latency", "aggr._duration": 0}
    assert [item["attributes"] for item in body["exemplars"]] == [
        {"id": 1, "latency": -1, "exemplarId": "min"},
        {"id": 1, "latency": 0.55, "exemplarId": "max"},
    ]


def test_histogram_as_a_plain_event():
    options = {"key": "n", "units": "s", "buckets": [1], "output_format": "raw", "generated_key_prefix": "h_"}
    body = only(run({"histogram": options}, [{"id": 1, "n": 1, "h_startTime": 5, "h_endTime": 7.5}])).body
    assert float(body.pop("h_endTime")) == 7.5
    assert body == {
        "id": 1,
        "histogram_key": "n",
        "h_sum": 1.0,
        "h_count": 1,
        "h_buckets": [1.0],
        "h_bucket_counts": [0, 1],
        "h_startTime": "1970-01-01T00:00:05.000Z",
        "h_duration": 2_500_000_000,
    }


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"histogram": {"key": "n", "units": "s", "buckets": []}}, "Bucket list must not be empty"),
        ({"histogram": {"key": "n", "units": "s", "buckets": [1], "generated_key_prefix": "a:"}}, "must contain only"),
        ({"percent_sampler": {}}, "Percent value must be greater than 0.0 and less than 100.0"),
        ({"tail_sampler": {"percent": 5, "wait_period": "500ms"}}, "Wait period value must be greater than 0"),
        ({"tail_sampler": {"percent": 5, "wait_period": "61s"}}, "Wait period value must be greater than 0"),
        ({"tail_sampler": {"percent": 0, "wait_period": "5s"}}, "Percent value must be greater than 0.0"),
        ({"rate_limiter": {}}, "events_per_second must be greater than 0"),
        ({"no_such": {}}, "no_such"),
        ({"mask": {}}, "Unable to find a plugin named 'mask'"),
    ],
)
def test_options_that_make_no_sense(action, message):
    with pytest.raises(ConfigError, match=message):
        run(action, [])


@given(st.integers(1, 99), st.integers(1, 300))
def test_the_sample_never_exceeds_its_share_and_lags_by_less_than_one(percent, count):
    events = [{"id": 1, "n": n} for n in range(count)]
    passed = run({"percent_sampler": {"percent": percent}}, events)
    assert count * percent / 100 - 1 < len(passed) <= count * percent / 100 + 1e-9


def tail(percent=1, condition=None, seed=None):
    clock = ManualClock()
    options = {"percent": percent, "wait_period": "5s"}
    if condition:
        options["condition"] = condition
    config = {"identification_keys": ["id"], "group_duration": "1s", "action": {"tail_sampler": options}}
    return clock, build_processor("aggregate", config, clock=clock)


def test_a_trace_is_complete_when_it_is_quiet(batch_of):
    clock, processor = tail(condition="/error == true")
    heard = []
    assert len(processor(batch_of(heard, {"id": 1}, {"id": 2}))) == 0
    clock.advance(4)
    assert len(processor(batch_of(heard, {"id": 1, "error": True}))) == 0
    clock.advance(4)
    assert len(processor(batch_of(heard))) in (0, 1)  # group 2, by chance
    clock.advance(1)
    out = processor(batch_of(heard))
    assert out.bodies == [{"id": 1}, {"id": 1, "error": True}]
    assert out.peek(0).event_type == "LOG"
    assert False not in heard


def test_about_the_share_of_the_other_traces_is_kept(batch_of):
    clock, processor = tail(percent=30)
    processor(batch_of([], *({"id": n} for n in range(2_000))))
    clock.advance(5)
    assert 500 < len(processor(batch_of([]))) < 700


def test_traces_that_are_not_chosen_end_well(batch_of):
    clock, processor = tail(percent=1)
    heard = []
    processor(batch_of(heard, *({"id": 1} for _ in range(3))))
    clock.advance(5)
    out = processor(batch_of(heard))
    out.release_all(ok=True)
    assert heard == [True]


@given(st.integers(1, 50), st.lists(st.floats(0, 3), max_size=60), st.randoms())
def test_no_more_pass_than_the_rate_and_one_second_of_it(rate, pauses, chance: random.Random):
    clock = ManualClock()
    limit = RateLimit(rate, clock)
    passed = [clock.monotonic()] if limit.try_take() else []
    for pause in pauses:
        clock.advance(pause * chance.random())
        if limit.try_take():
            passed.append(clock.monotonic())
    assert passed, "the first one passes at once"
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= (passed[last] - passed[first]) * rate + rate + 1 + 1e-6


def test_permits_taken_in_advance_are_spaced_evenly():
    limit = RateLimit(10, ManualClock())
    assert [round(limit.take(), 6) for _ in range(4)] == [0.0, 0.1, 0.2, 0.3]
    assert not limit.try_take()


def examples():
    for name in NAMES:
        for example in catalog.find("aggregate_action", name).module.EXAMPLES:
            yield pytest.param(name, example, id=f"{name}-{example.title}")


@pytest.mark.parametrize(("name", "example"), list(examples()))
def test_the_examples_of_the_reference_can_be_used(name, example):
    assert run({name: yaml.safe_load(example.config)}, []) == []


def test_every_option_of_an_action_is_described():
    assert set(NAMES) <= set(catalog.names("aggregate_action"))
    for name in NAMES:
        found = catalog.find("aggregate_action", name)
        assert found.module.__doc__
        assert all(field.description for field in found.config.model_fields.values())
