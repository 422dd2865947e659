"""Dates: what the examples do not say. Patterns have tests of their own in `tests/core/test_dates.py`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch, Meta
from penstock.core.clock import ManualClock
from penstock.core.errors import ConfigError
from penstock.core.metrics import Registry
from penstock.plugins.processors import date
from penstock.sdk import Context
from penstock.testing import run_processor
from penstock.testing.processors import build_processor

names = st.sampled_from(["a", "b", "c", "0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
events = st.lists(st.dictionaries(names, values, max_size=4), max_size=3)
keys = st.sampled_from(["a", "b", "a/b", "b/c", "a/0", "c/a/b", "b/0/a"])
UTC = {"source_timezone": "UTC", "destination_timezone": "UTC"}


def match(*patterns, key="t"):
    return {"match": [{"key": key, "patterns": list(patterns)}], **UTC}


def stamp(value, *patterns, **options):
    (result,) = run_processor("date", {**match(*patterns), **options}, [{"t": value}])
    return result.body.get("@timestamp")


def test_numbers_and_texts_of_epoch_units():
    assert stamp(1705314030123, "epoch_milli") == "2024-01-15T10:20:30.123Z"
    assert stamp("1705314030123", "epoch_milli") == "2024-01-15T10:20:30.123Z"
    assert stamp(1705314030.0, "epoch_second") == "2024-01-15T10:20:30.000Z"
    for unit in ("epoch_milli", "epoch_micro", "epoch_nano"):
        assert stamp(1705314030, unit) == "2024-01-15T10:20:30.000Z", "ten digits are seconds"
    assert stamp(1705314030123, "epoch_second") is None is stamp(1705314030123, "epoch_micro"), "these are milliseconds"
    assert stamp("20240115", "epoch_milli", "yyyyMMdd") == "2024-01-15T00:00:00.000Z"
    assert stamp(True, "epoch_second") is None


def test_counters():
    registry = Registry()
    run = date.build(date.Config.model_validate(match("yyyy")), Context("p", "date", registry=registry))
    run(Batch([{"t": "2024"}, {"t": "x"}, {}]))
    assert registry.value("p.date.dateProcessingMatchSuccess") == 1
    assert registry.value("p.date.dateProcessingMatchFailure") == 2


def test_the_time_received():
    config = date.Config.model_validate({"from_time_received": True, "destination": "meta/at", **UTC})
    batch = Batch([{}, {}], metas=[Meta(received_ms=1705314030123), None], origin=Meta(received_ms=0))
    after = date.build(config, Context("p", "date"))(batch)
    assert [body["meta"]["at"] for body in after.bodies] == ["2024-01-15T10:20:30.123Z", "1970-01-01T00:00:00.000Z"]


def test_the_origination_time_is_remembered_for_the_event_alone():
    config = {**match("epoch_second"), "to_origination_metadata": True}
    first, second = run_processor("date", config, [{"t": 1705314030}, {"t": "x"}])
    assert first.meta.origination_ms == 1705314030000
    assert second.meta.origination_ms is None


def test_the_zone_of_the_machine_is_the_default():
    config = {"match": [{"key": "t", "patterns": ["yyyy-MM-dd HH:mm"]}]}
    (result,) = run_processor("date", config, [{"t": "2024-07-01 12:00"}], tz="Europe/Paris")
    assert result.body["@timestamp"] == "2024-07-01T12:00:00.000+02:00"


def test_the_clock_of_the_engine_says_which_year_it_is():
    clock = ManualClock()
    run = build_processor("date", match("MMM d HH:mm:ss"), clock=clock)
    year = 1970 + clock.now_ms() // 31_557_600_000
    assert run(Batch([{"t": "Jan 5 01:02:03"}])).bodies[0]["@timestamp"] == f"{year}-01-05T01:02:03.000Z"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "match and from_time_received are mutually exclusive options. match or from_time_received is required."),
        ({"match": []}, "match can have a minimum and maximum of 1 entry and at least one pattern."),
        ({"match": [{"key": "t", "patterns": ["bbb"]}]}, "Unknown pattern letter: b"),
        ({"from_time_received": True, "output_format": "b"}, "Invalid output format."),
        ({"from_time_received": True, "source_timezone": "X"}, "Invalid source_timezone provided."),
        ({"from_time_received": True, "destination_timezone": "X"}, "Invalid destination_timezone provided."),
        ({"from_time_received": True, "locale": "invalidLocale"}, "Invalid locale provided."),
        ({"from_time_received": True, "date_when": "== =="}, '"== ==" is not a valid expression statement.'),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("date", config)
    assert message in str(caught.value)


@given(events, keys, st.booleans())
def test_any_event_survives(run_unharmed, before, destination, origination):
    options = {"destination": destination, "origination_timestamp_to_metadata": origination, "date_when": "/b"}
    patterns = ["epoch_second", "yyyy-MM-dd", "H"]
    run_unharmed("date", {**match(*patterns, key="a"), **options}, before)
    run_unharmed("date", {"from_time_received": True, "destination": destination}, before)
