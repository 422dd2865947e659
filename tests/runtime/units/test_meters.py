"""Meters of several units as those of one."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.metrics import Counter, Registry
from penstock.runtime.prometheus import MetricsPage
from penstock.runtime.units.meters import Totals, joined, snapshot


def unit(requests: int, usage: float, connections: int, slowest: float) -> list[list[object]]:
    registry = Registry()
    scope = registry.scope("logs", "http")
    scope.counter("requestsReceived").add(requests)
    scope.counter("byStatus", status="200").add(requests)
    scope.timer("duration").observe(slowest)
    scope.summary("payloadSize").observe(requests)
    scope.gauge("serverConnections", lambda: connections)
    registry.scope("logs", "BlockingBuffer").gauge("bufferUsage", lambda: usage)
    registry.scope("process").gauge("uptime.seconds", lambda: 5)
    registry.scope("process").gauge("cpu.seconds.total", lambda: requests / 10)
    rows: list[list[object]] = orjson.loads(orjson.dumps(snapshot(registry)))
    return rows


def test_the_page_of_two_units_is_that_of_one_with_their_sums() -> None:
    own = Registry()
    own.scope("process").gauge("uptime.seconds", lambda: 100)
    own.scope("process").gauge("cpu.seconds.total", lambda: 1)
    totals = Totals()
    totals.add(unit(40, 10.0, 3, 0.5))
    totals.add(unit(20, 30.0, 4, 2.0))
    page = MetricsPage(joined(own, totals), [("serviceName", "x")]).render()
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    assert lines == [
        'logs_BlockingBuffer_bufferUsage{serviceName="x",} 20.0',
        'logs_http_byStatus_total{serviceName="x",status="200",} 60.0',
        'logs_http_duration_seconds_count{serviceName="x",} 2.0',
        'logs_http_duration_seconds_sum{serviceName="x",} 2.5',
        'logs_http_duration_seconds_max{serviceName="x",} 2.0',
        'logs_http_payloadSize_count{serviceName="x",} 2.0',
        'logs_http_payloadSize_sum{serviceName="x",} 60.0',
        'logs_http_payloadSize_max{serviceName="x",} 40.0',
        'logs_http_requestsReceived_total{serviceName="x",} 60.0',
        'logs_http_serverConnections{serviceName="x",} 7.0',
        'process_cpu_seconds_total{serviceName="x",} 7.0',
        'process_uptime_seconds{serviceName="x",} 100.0',
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50), st.booleans()), max_size=30))
def test_counters_never_fall_when_units_end_and_begin_anew(steps: list[tuple[int, int, bool]]) -> None:
    """Each step: a unit counts some more and is asked, or ends and begins at zero again."""
    past, units, counted, last = Totals(), [0, 0, 0], 0, 0.0
    for number, more, ends in steps:
        counted += more
        units[number] += more
        if ends:
            past.add(unit(units[number], 0, 1, 0), ended=True)
            units[number] = 0
        totals = Totals()
        totals.add(past.rows())
        for requests in units:
            totals.add(unit(requests, 0, 1, 0))
        meters = {name: meter for name, _, meter in joined(Registry(), totals)}
        found = meters["logs.http.requestsReceived"]
        assert isinstance(found, Counter) and found.value == counted >= last
        last = found.value
        connections = meters["logs.http.serverConnections"]
        assert connections.read() == 3, "units that have ended have no connections"  # type: ignore[union-attr]
