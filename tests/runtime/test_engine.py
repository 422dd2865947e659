"""Engines: pipelines brought up together, one failure apart from the others, draining, one owner of a data dir."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from penstock.config.documents import parse_pipelines
from penstock.core.batch import Batch
from penstock.core.errors import Failure, Permanent, Transient
from penstock.plan import Plan, make_plan
from penstock.runtime.engine import EXIT_CONFIG, EXIT_FAILED, EXIT_NOT_DRAINED, EXIT_OK, Engine, Settings
from penstock.sdk import Output
from penstock.testing.fakes import EndlessSource, ListSource, MemoryBulkSink, MemoryDeadLetters
from penstock.testing.virtual import LoopClock, run_virtual

TWO = """
one:
  source: {http: }
  sink: [{noop: }]
two:
  source: {http: }
  sink: [{noop: }]
"""
CHAIN = """
first:
  source: {http: }
  sink: [{pipeline: {name: second}}]
second:
  source: first
  sink: [{noop: }]
"""


def plan_of(text: str) -> Plan:
    plan = make_plan(parse_pipelines([("p.yaml", text.encode())]))
    assert not plan.problems, plan.problems
    return plan


def engine_of(text: str, sources: dict[str, Any], sinks: dict[tuple[str, int], Any], **settings: Any) -> Engine:
    clock = LoopClock(asyncio.get_running_loop())
    letters = settings.pop("dead_letters", MemoryDeadLetters())
    made = Settings(sources=sources, sinks=sinks, dead_letters=letters, environ={}, seed=1, **settings)
    return Engine(plan_of(text), made, clock=clock)


def batches(count: int) -> list[Batch]:
    return [Batch([{"n": n}]) for n in range(count)]


class Broken(MemoryBulkSink):
    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = list(errors)

    async def start(self) -> None:
        await super().start()
        if self._errors:
            raise self._errors.pop(0)


def test_when_all_sources_have_ended_the_engine_ends() -> None:
    async def run() -> None:
        sinks = {("one", 0): MemoryBulkSink(), ("two", 0): MemoryBulkSink()}
        engine = engine_of(TWO, {"one": ListSource(batches(3)), "two": ListSource(batches(5))}, sinks)
        assert await engine.run() == EXIT_OK
        assert [len(sink.arrived) for sink in sinks.values()] == [3, 5]
        assert all(sink.stopped for sink in sinks.values())

    run_virtual(run())


def test_one_failing_pipeline_leaves_the_others_running() -> None:
    async def run() -> None:
        good = MemoryBulkSink()
        source = EndlessSource()
        sinks = {("one", 0): Broken(Permanent("bad mapping")), ("two", 0): good}
        engine = engine_of(TWO, {"one": ListSource(batches(3)), "two": source}, sinks)
        running = asyncio.create_task(engine.run())
        await asyncio.sleep(100)
        assert engine.pipelines["one"].state == "FAILED"
        assert engine.pipelines["two"].state == "RUNNING"
        engine.stop()
        assert await running == EXIT_FAILED
        assert len(good.arrived) == source.count >= 99

    run_virtual(run())


def test_stop_on_failure_is_an_option() -> None:
    async def run() -> None:
        sinks = {("one", 0): Broken(Permanent("bad")), ("two", 0): MemoryBulkSink()}
        engine = engine_of(TWO, {"one": EndlessSource(), "two": EndlessSource()}, sinks, stop_on_failure=True)
        assert await engine.run() == EXIT_FAILED

    run_virtual(run())


def test_a_source_waits_until_every_sink_behind_it_is_ready() -> None:
    async def run() -> None:
        sink = Broken(*[Transient("no permissions for [cluster:monitor/state]")] * 3)
        source = EndlessSource()
        engine = engine_of(CHAIN, {"first": source}, {("second", 0): sink})
        running = asyncio.create_task(engine.run())
        await asyncio.sleep(14)
        assert source.count == 0
        assert engine.not_started() == ["first", "second"]
        await asyncio.sleep(10)
        assert engine.not_started() == []
        assert source.count > 0
        engine.stop()
        assert await running == EXIT_OK
        assert sink.started == 4, "tried again every five seconds"
        assert len(sink.arrived) == source.count

    run_virtual(run())


def test_what_is_connected_to_a_failed_pipeline_fails_with_it() -> None:
    async def run() -> None:
        engine = engine_of(CHAIN, {"first": EndlessSource()}, {("second", 0): Broken(Permanent("bad"))})
        assert await engine.run() == EXIT_FAILED
        assert {pipeline.state for pipeline in engine.pipelines.values()} == {"FAILED"}

    run_virtual(run())


def test_a_source_that_fails_for_now_is_started_again() -> None:
    class Flaky(ListSource):
        tries = 0

        async def run(self, output: Output) -> None:
            Flaky.tries += 1
            if Flaky.tries < 4:
                raise Transient("not yet") if Flaky.tries % 2 else KeyError("bug")
            await super().run(output)

    async def run() -> None:
        sink = MemoryBulkSink()
        engine = engine_of(TWO, {"one": Flaky(batches(3)), "two": ListSource([])}, {("one", 0): sink})
        assert await engine.run() == EXIT_OK
        assert len(sink.arrived) == 3

    run_virtual(run())


def test_what_cannot_be_drained_in_time_is_told() -> None:
    async def run() -> None:
        stuck = MemoryBulkSink(lambda documents: Transient("503"))
        source = ListSource(batches(7))
        engine = engine_of(TWO, {"one": source, "two": ListSource([])}, {("one", 0): stuck}, drain_timeout_s=20)
        assert await engine.run() == EXIT_NOT_DRAINED
        assert engine.undrained == {"one": 7}
        assert sorted(source.outcomes) == [(n, False) for n in range(7)], "the source hears that they did not arrive"

    run_virtual(run())


class Posts:
    """A source that has answered already when its events enter: nobody will ask it again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stopped = asyncio.Event()

    async def run(self, output: Output) -> None:
        output.started()
        for n in range(self._count):
            await output.write(Batch([{"n": n}]), 10)
        await self._stopped.wait()

    async def stop(self) -> None:
        self._stopped.set()


@pytest.mark.parametrize("size", [2, 10, 500])
def test_accepted_events_that_nobody_can_ask_for_again_are_kept_at_a_late_end(size: int) -> None:
    """They are in the sink's queue, in a worker's hand and in two buffers when the time for draining is over."""

    async def run() -> None:
        chain = CHAIN.replace(
            "source: first", f"source: first\n  buffer: {{bounded_blocking: {{buffer_size: {size}}}}}"
        )
        letters = MemoryDeadLetters()
        stuck = MemoryBulkSink(lambda documents: Transient("503"))
        engine = engine_of(
            chain, {"first": Posts(300)}, {("second", 0): stuck}, drain_timeout_s=20, dead_letters=letters
        )
        running = asyncio.create_task(engine.run())
        await asyncio.sleep(5)
        engine.stop()
        assert await running == EXIT_NOT_DRAINED
        kept = [letter.failed_data["document"]["n"] for letter in letters.letters]
        assert sorted(kept) == list(range(300))
        assert "was shut down" in letters.letters[0].failed_data["message"]

    run_virtual(run())


def test_a_data_directory_has_one_owner(tmp_path: Path) -> None:
    async def run() -> None:
        first = engine_of(TWO, {"one": ListSource([]), "two": ListSource([])}, {}, data_dir=tmp_path)
        first.build()
        second = engine_of(TWO, {}, {}, data_dir=tmp_path)
        with pytest.raises(Permanent, match="in use by process"):
            second.build()
        first._give_up_data_dir()
        second.build()
        second._give_up_data_dir()

    run_virtual(run())


def test_a_plan_without_pipelines_ends_at_once() -> None:
    async def run() -> None:
        engine = Engine(Plan(), Settings(environ={}))
        assert await engine.run() == EXIT_CONFIG

    run_virtual(run())


class Refusing:
    """A simple sink that refuses everything."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def write(self, batch: Batch) -> None:
        raise Permanent("disk on fire")


def test_what_a_simple_sink_refuses_reaches_the_failure_pipeline() -> None:
    async def run() -> None:
        failures = MemoryBulkSink()
        source = ListSource(batches(4))
        engine = engine_of(FAILURES, {"main": source}, {("main", 0): Refusing(), ("dlq_pipeline", 0): failures})
        running = asyncio.create_task(engine.run())
        while len(source.outcomes) < 4:
            await asyncio.sleep(0.1)
        engine.stop()
        assert await running == EXIT_OK
        assert [document["n"] for document in failures.arrived] == [0, 1, 2, 3]
        assert {document["_failure_metadata"]["message"] for document in failures.arrived} == {"disk on fire"}
        assert source.outcomes == [(n, True) for n in range(4)]

    run_virtual(run())


FAILURES = """
main:
  source: {http: }
  sink: [{noop: }]
dlq_pipeline:
  sink: [{noop: }]
"""


@pytest.mark.parametrize("broken", [False, True])
def test_what_a_sink_refuses_reaches_the_failure_pipeline(broken: bool) -> None:
    async def run() -> None:
        sink = MemoryBulkSink(
            lambda docs: [Failure(i, "no", status=400) for i, d in enumerate(docs) if d["n"] % 3 == 0]
        )
        failures = MemoryBulkSink(lambda docs: [Failure(i, "no") for i in range(len(docs))] if broken else ())
        letters = MemoryDeadLetters()
        letters.broken = broken
        source = ListSource(batches(9))
        engine = engine_of(
            FAILURES, {"main": source}, {("main", 0): sink, ("dlq_pipeline", 0): failures}, dead_letters=letters
        )
        running = asyncio.create_task(engine.run())
        while len(source.outcomes) < 9:
            await asyncio.sleep(0.1)
        engine.stop()
        assert await running == EXIT_OK
        assert sorted(document["n"] for document in sink.arrived) == [1, 2, 4, 5, 7, 8]
        assert sorted(source.outcomes) == [(n, not (broken and n % 3 == 0)) for n in range(9)]
        assert not letters.letters
        if not broken:
            assert sorted(document["n"] for document in failures.arrived) == [0, 3, 6]
            assert failures.arrived[0]["_failure_metadata"] == {
                "pluginId": "noop",
                "pluginName": "noop",
                "pipelineName": "main",
                "message": "no",
                "errorMessage": "no",
                "status": 400,
                "index": "memory",
                "indexId": None,
            }

    run_virtual(run())
