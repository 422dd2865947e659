"""A table that changes at random ends in an index that equals it, whatever happens; and how soon replication goes on.

`make replicate` runs the same with more changes and seeds nobody has seen yet.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from engine import wait_until
from replication import PIPELINE, SHARED_LEASES, VARIANTS, Index, draw, fail_text, simulate
from workload import Table

TAKEN_OVER_S = 75.0
"""A minute, and time for a machine that is busy with other tests; leases would take two, the lead three."""


CHANGES = {"kills": 2000, "units": 400, "refusals": 400, "repeats": 400}
"""Two machines are left to `make replicate`: one of them is waited for as long as leases last."""


@pytest.mark.parametrize("variant", CHANGES)
def test_the_index_ends_equal_to_the_table(
    variant: str, dynamodb_local: Any, opensearch: Any, tmp_path: Path, record_property: Any
) -> None:
    changes = CHANGES[variant]
    scenario = draw(VARIANTS.index(variant), changes=changes, keys=changes // 4, rate=changes / 5)
    report = simulate(scenario, dynamodb_local, opensearch, tmp_path)
    record_property("replication", report.line())
    assert not report.failure, fail_text(report)


class Mirror:
    """A table, its index, and processes that keep them equal."""

    def __init__(self, dynamodb: Any, url: str, start_engine: Any, name: str) -> None:
        self._dynamodb, self._start, self._name = dynamodb, start_engine, name
        self.table, self.index = Table(dynamodb.url, name), Index(url, name)
        yaml = PIPELINE.replace("NAME", name).replace("HOSTS", url).replace("VIEW", "NEW_IMAGE")
        self._yaml = yaml.replace("ACKNOWLEDGMENTS", "true")
        self.table.make()

    def start(self, **options: Any) -> Any:
        endpoints = {f"AWS_ENDPOINT_URL_{name}": self._dynamodb.url for name in ("DYNAMODB", "DYNAMODB_STREAMS")}
        return self._start(self._yaml, environ=endpoints, **options)

    def start_on(self, host: str) -> Any:
        """On a machine of that name, with a folder of its own and leases in a table."""
        return self.start(folder=host, host=host, config=SHARED_LEASES.replace("NAME", self._name))

    def close(self) -> None:
        self.table.close()

    def put(self, number: int) -> None:
        self.table.call("PutItem", TableName=self._name, Item={"id": {"N": str(number)}})

    def wait(self, count: int, timeout_s: float = 60.0) -> None:
        wait_until(lambda: len(self.index.documents()) == count, f"{count} documents", timeout_s=timeout_s)


@pytest.fixture
def make_mirror(dynamodb_local: Any, start_engine: Any, prefix: str) -> Iterator[Callable[[str], Mirror]]:
    """`make_mirror(url)` makes a table and gets what mirrors it to the sink at that address."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(closing(Mirror(dynamodb_local, url, start_engine, prefix + "mirror")))


def test_a_killed_process_goes_on_at_once_when_it_is_started_again(
    make_mirror: Callable[[str], Mirror], opensearch: Any, record_property: Any
) -> None:
    mirror = make_mirror(opensearch.url)
    engine = mirror.start().wait_ready()
    mirror.put(0)
    mirror.wait(1)
    spans_s = []
    for number in range(1, 4):
        engine.kill()
        mirror.put(number)
        engine = mirror.start()
        mirror.wait(number + 1, timeout_s=30)  # leases of a dead owner would be waited for longer than that
        spans_s.append(round(time.monotonic() - engine.started_s, 2))
    record_property("from_start_to_document_s", spans_s)
    print(f"from the start of the process to the document of a change made while it was dead: {spans_s} s")
    engine.stop()


def test_the_work_of_a_machine_that_is_gone_goes_on_within_a_minute(
    make_mirror: Callable[[str], Mirror], opensearch: Any, dynamodb_local: Any, record_property: Any
) -> None:
    mirror = make_mirror(opensearch.url)
    gone = mirror.start_on("one").wait_ready()
    mirror.put(0)
    mirror.wait(1)
    other = mirror.start_on("two").wait_ready()
    time.sleep(1.5)
    gone.kill()
    killed_s = time.monotonic()
    mirror.put(1)
    dynamodb_local.roll_shards_over()  # the child is laid out by whoever leads then
    mirror.put(2)
    mirror.wait(3, timeout_s=TAKEN_OVER_S)
    span_s = round(time.monotonic() - killed_s, 1)
    record_property("taken_over_s", span_s)
    print(f"from kill -9 of one machine to the documents by the other: {span_s} s")
    other.stop()


def test_how_long_a_change_takes_to_the_sink(
    make_mirror: Callable[[str], Mirror], opensearch: Any, fault_proxy: Any, record_property: Any
) -> None:
    proxy = fault_proxy(opensearch.url)
    mirror = make_mirror(proxy.url)
    engine = mirror.start().wait_ready()
    mirror.put(0)
    mirror.wait(1)
    spans_ms = []
    for number in range(1, 31):
        time.sleep(0.3 + number * 0.007)  # not in step with the reads
        seen = len(proxy.requests)
        began = time.monotonic()
        mirror.put(number)

        def bulk(seen: int = seen) -> Any:
            return next((each for each in list(proxy.requests)[seen:] if "/_bulk" in each.path), None)

        spans_ms.append(1000 * (wait_until(bulk, "the bulk request", step_s=0.002).at - began))
    p50, p90 = (round(statistics.quantiles(spans_ms, n=10)[place]) for place in (4, 8))
    record_property("put_to_bulk_ms", {"p50": p50, "p90": p90})
    print(f"put → arrival of its bulk request at idle: p50 {p50} ms, p90 {p90} ms of {len(spans_ms)}")
    mirror.wait(31)
    engine.stop()
