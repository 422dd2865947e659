"""Running pipelines: every event that enters ends exactly once, whatever the plugins do to it."""

from __future__ import annotations

import asyncio
import importlib
import random
from typing import Any

import pytest

from penstock.expr import compile_expression
from penstock.runtime.deliver import BulkDelivery, Surroundings, WriteDelivery
from penstock.runtime.parts import Branch, Parts, Stage
from penstock.runtime.pipeline import Pipeline
from penstock.sdk import Batch, Context, EventError, Failure, Limits, Transient, concat
from penstock.testing.fakes import ListSource, MemoryBulkSink, MemoryDeadLetters, MemorySink, Reply
from penstock.testing.virtual import LoopClock, run_virtual

buffers = importlib.import_module("penstock.plugins.buffers.bounded_blocking")


class Rig:
    """Pipelines of hand-made parts in virtual time."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.clock = LoopClock(asyncio.get_running_loop())
        self.letters = MemoryDeadLetters()
        self.pipelines: list[Pipeline] = []

    def context(self, pipeline: str, plugin: str) -> Context:
        return Context(pipeline, plugin, clock=self.clock, chance=self.chance)

    def branch(self, pipeline: str, sink: Any, routes: tuple[str, ...] = ()) -> Branch:
        around = Surroundings(self.context(pipeline, "sink"), self.letters)
        bulk = hasattr(sink, "encode")
        delivery = BulkDelivery(sink, around) if bulk else WriteDelivery(sink, around)
        return Branch("sink", routes, delivery, sink, reads_later=not bulk)

    def stage(self, pipeline: str, name: str, run: Any, drain: Any = None) -> Stage:
        metrics = self.context(pipeline, name).metrics
        return Stage(name, run, metrics.counter("in"), metrics.counter("out"), metrics.timer("t"), drain)

    def pipeline(
        self,
        name: str,
        branches: list[Branch],
        stages: list[Stage] | None = None,
        source: Any = None,
        routes: dict[str, str] | None = None,
        workers: int = 1,
        buffer_size: int = 500,
    ) -> Pipeline:
        ctx = self.context(name, "buffer")
        ctx.buffer_bytes_max = 1_000_000
        buffer = buffers.build(buffers.Config(buffer_size=buffer_size, batch_size=20), ctx)
        compiled = [(route, compile_expression(text)) for route, text in (routes or {}).items()]
        parts = Parts(name, buffer, stages or [], compiled, branches, source, workers, {"sink": ctx})
        around = Surroundings(self.context(name, "runner"), self.letters)
        made = Pipeline(parts, around, self.clock, lambda: None)
        self.pipelines.append(made)
        return made

    async def run(self) -> None:
        """`pipelines` stand in the direction of the flow."""
        for pipeline in self.pipelines:
            pipeline.start_workers()
            await pipeline.start_sinks()
        for pipeline in self.pipelines:
            pipeline.start_source()
        for pipeline in self.pipelines:
            if pipeline.parts.source is not None:
                await pipeline.ended.wait()
            await pipeline.drain()
            assert pipeline.parts.buffer._events == 0, "room in the buffer came back"
        for pipeline in self.pipelines:
            assert pipeline.undelivered() == 0
            await pipeline.close()


def events(count: int, size: int = 10) -> list[Batch]:
    return [Batch([{"n": n} for n in range(start, start + size)]) for start in range(0, count, size)]


def test_routes_choose_and_unrouted_events_end_well() -> None:
    async def run() -> None:
        rig = Rig()
        low, high, rest = MemoryBulkSink(), MemoryBulkSink(), MemorySink()
        source = ListSource(events(100))
        rig.pipeline(
            "p",
            [
                rig.branch("p", low, ("low",)),
                rig.branch("p", high, ("high", "low")),
                rig.branch("p", rest, ("_default",)),
            ],
            source=source,
            routes={"low": "/n < 10", "high": "/n >= 90"},
        )
        await rig.run()
        assert sorted(d["n"] for d in low.arrived) == list(range(10))
        assert sorted(d["n"] for d in high.arrived) == [*range(10), *range(90, 100)]
        assert sorted(body["n"] for body, *_ in rest.events) == list(range(10, 90))
        assert [ok for _, ok in source.outcomes] == [True] * 10

    run_virtual(run())


def test_branches_do_not_see_each_others_changes() -> None:
    async def run() -> None:
        rig = Rig()

        def mark(text: str) -> Any:
            def change(batch: Batch) -> Batch:
                for body in batch.bodies:
                    body.setdefault("seen", []).append(text)
                return batch

            return change

        sinks = {name: MemorySink() for name in ("root", "a", "b")}
        a = rig.pipeline("a", [rig.branch("a", sinks["a"])], [rig.stage("a", "m", mark("a"))])
        b = rig.pipeline("b", [rig.branch("b", sinks["b"])], [rig.stage("b", "m", mark("b"))])
        branches = [Branch("a", (), target=a), Branch("b", (), target=b), rig.branch("root", sinks["root"])]
        source = ListSource(events(50))
        rig.pipeline("root", branches, [rig.stage("root", "m", mark("root"))], source=source)
        rig.pipelines.reverse()
        await rig.run()
        for name, sink in sinks.items():
            expected = ["root"] if name == "root" else ["root", name]
            assert [body["seen"] for body, *_ in sink.events] == [expected] * 50
        assert [ok for _, ok in source.outcomes] == [True] * 5

    run_virtual(run())


def test_parked_events_that_nobody_brings_again_wait_until_they_can_be_kept() -> None:
    def bad(batch: Batch) -> Batch:
        raise RuntimeError("bug")

    class Deaf:
        async def run(self, output: Any) -> None:
            output.started()
            for batch in events(30):
                await output.write(batch, 10)

        async def stop(self) -> None:
            pass

    async def run() -> None:
        rig = Rig()
        rig.letters.broken = True
        pipeline = rig.pipeline("p", [rig.branch("p", MemoryBulkSink())], [rig.stage("p", "bad", bad)], Deaf())
        asyncio.get_running_loop().call_later(300, setattr, rig.letters, "broken", False)
        await rig.run()
        assert sorted(letter.failed_data["document"]["n"] for letter in rig.letters.letters) == list(range(30))
        assert pipeline.state == "ENDED"
        assert asyncio.get_running_loop().time() < 302, "while it drains it is tried every second"

    run_virtual(run())


def test_a_processor_that_throws_parks_its_events_and_stops_nothing() -> None:
    async def run() -> None:
        rig = Rig()

        def explode(batch: Batch) -> Batch:
            if any(body["n"] == 25 for body in batch.bodies):
                raise ZeroDivisionError("boom")
            return batch

        sink = MemoryBulkSink()
        source = ListSource(events(100))
        rig.pipeline("p", [rig.branch("p", sink)], [rig.stage("p", "explode", explode)], source=source)
        await rig.run()
        parked = sorted(letter.failed_data["document"]["n"] for letter in rig.letters.letters)
        assert 25 in parked
        assert sorted([*parked, *(d["n"] for d in sink.arrived)]) == list(range(100))
        assert rig.letters.letters[0].failed_data["message"] == "ZeroDivisionError: boom"
        assert [ok for _, ok in source.outcomes] == [True] * 10

    run_virtual(run())


def test_with_several_workers_batches_leave_in_the_order_they_came() -> None:
    async def run() -> None:
        rig = Rig(3)

        async def wait(batch: Batch) -> Batch:
            await asyncio.sleep(rig.chance.random())
            return batch

        sink = MemorySink()
        source = ListSource(events(400))
        rig.pipeline("p", [rig.branch("p", sink)], [rig.stage("p", "wait", wait)], source=source, workers=5)
        await rig.run()
        assert [body["n"] for body, *_ in sink.events] == list(range(400))

    run_virtual(run())


def test_a_processor_that_holds_events_gets_them_in_order_whatever_waits_before_it() -> None:
    async def run() -> None:
        rig = Rig(5)
        held: list[Batch] = []

        async def wait(batch: Batch) -> Batch:
            await asyncio.sleep(rig.chance.random() * 3)
            return batch

        def hold(batch: Batch) -> Batch:
            held.append(batch)
            return held.pop(0) if len(held) > 3 else Batch([])

        def drain() -> Batch:
            return concat(held)

        sink = MemorySink()
        stages = [rig.stage("p", "wait", wait), rig.stage("p", "hold", hold, drain), rig.stage("p", "wait", wait)]
        rig.pipeline("p", [rig.branch("p", sink)], stages, source=ListSource(events(400)), workers=5)
        await rig.run()
        assert [body["n"] for body, *_ in sink.events] == list(range(400))

    run_virtual(run())


def test_a_pipeline_that_closes_answers_every_promise() -> None:
    async def run() -> None:
        rig = Rig()

        async def stuck(batch: Batch) -> Batch:
            await asyncio.sleep(1e6)
            return batch

        source = ListSource(events(100))
        pipeline = rig.pipeline("p", [rig.branch("p", MemorySink())], [rig.stage("p", "stuck", stuck)], source=source)
        pipeline.start_workers()
        await pipeline.start_sinks()
        pipeline.start_source()
        await pipeline.ended.wait()
        await pipeline.close()
        assert sorted(source.outcomes) == [(place, False) for place in range(10)], (
            "in the chain, or in the buffer still"
        )

    run_virtual(run())


def test_a_sink_that_cannot_encode_loses_nothing_that_is_to_be_forwarded() -> None:
    class Unable(MemoryBulkSink):
        def encode(self, batch: Batch) -> Any:
            if batch.bodies[0]["n"] == 10:
                raise KeyError("oops")
            return super().encode(batch)

    async def run() -> None:
        rig = Rig()
        behind = MemorySink()
        target = rig.pipeline("behind", [rig.branch("behind", behind)])
        branch = rig.branch("front", Unable())
        branch.forward = target
        source = ListSource(events(40))
        front = rig.pipeline("front", [branch], source=source)
        front.parts.buffer._join_max = 1
        rig.pipelines.reverse()
        await rig.run()
        parked = [letter.failed_data["document"]["n"] for letter in rig.letters.letters]
        assert parked == list(range(10, 20))
        assert [body["n"] for body, *_ in behind.events] == [*range(10), *range(20, 40)]
        assert [ok for _, ok in sorted(source.outcomes)] == [True] * 4

    run_virtual(run())


def test_held_events_come_out_by_time_and_at_the_end() -> None:
    async def run() -> None:
        rig = Rig()
        held: list[tuple[float, Batch]] = []

        def hold(batch: Batch) -> Batch:
            now = rig.clock.monotonic()
            if len(batch):
                held.append((now, batch))
            due = [entry for entry in held if now - entry[0] >= 2]
            held[:] = [entry for entry in held if now - entry[0] < 2]
            return concat([batch for _, batch in due]) if due else Batch([])

        def drain() -> Batch:
            rest = [batch for _, batch in held]
            held.clear()
            return concat(rest) if rest else Batch([])

        class Slow(ListSource):
            async def run(self, output: Any) -> None:
                for batch in self._batches:
                    await ListSource([batch]).run(output)
                    await asyncio.sleep(3)

        sink = MemorySink()
        pipeline = rig.pipeline(
            "p", [rig.branch("p", sink)], [rig.stage("p", "hold", hold, drain)], source=Slow(events(30)), buffer_size=10
        )
        await rig.run()
        assert [body["n"] for body, *_ in sink.events] == list(range(30))
        assert pipeline.state == "ENDED"

    run_virtual(run())


def test_written_events_are_forwarded_and_refused_ones_are_not() -> None:
    async def run() -> None:
        rig = Rig()
        behind = MemorySink()
        target = rig.pipeline("behind", [rig.branch("behind", behind)])
        sink = MemoryBulkSink(lambda docs: [Failure(i, "bad") for i, d in enumerate(docs) if d["n"] % 10 == 3])
        branch = rig.branch("front", sink)
        branch.forward = target
        source = ListSource(events(100))
        rig.pipeline("front", [branch], source=source)
        rig.pipelines.reverse()
        await rig.run()
        assert sorted(body["n"] for body, *_ in behind.events) == [n for n in range(100) if n % 10 != 3]
        assert len(rig.letters.letters) == 10
        assert [ok for _, ok in source.outcomes] == [True] * 10

    run_virtual(run())


@pytest.mark.parametrize("seed", range(60))
def test_every_event_ends_exactly_once(seed: int) -> None:
    """Random graphs of pipelines with plugins that drop, split, merge, throw, wait and refuse."""

    async def run() -> None:
        rig = Rig(seed)
        chance = rig.chance

        def random_stage(pipeline: str, number: int) -> Stage:
            kind = chance.choice(["drop", "split", "throw", "wait", "tag", "copy"])

            def drop(batch: Batch) -> Batch:
                return batch.drop([i for i in range(len(batch)) if chance.random() < 0.3])

            def split(batch: Batch) -> Batch:
                return concat([batch, batch.copy()])

            def throw(batch: Batch) -> Batch:
                if chance.random() < 0.1:
                    raise EventError("a plugin that lets it out")
                return batch

            async def wait(batch: Batch) -> Batch:
                await asyncio.sleep(chance.random() / 10)
                return batch

            def tag(batch: Batch) -> Batch:
                for i in range(len(batch)):
                    batch.tag(i, ["seen"])
                return batch

            def copy(batch: Batch) -> Batch:
                kept = batch.copy()
                batch.release_all(ok=True)
                return kept

            run = {"drop": drop, "split": split, "throw": throw, "wait": wait, "tag": tag, "copy": copy}[kind]
            return rig.stage(pipeline, f"{kind}{number}", run)

        def respond(documents: list[Any]) -> Reply:
            if chance.random() < 0.1:
                return Transient("503")
            return [
                Failure(i, "refused", retryable=chance.random() < 0.7)
                for i in range(len(documents))
                if chance.random() < 0.1
            ]

        made: list[Pipeline] = []
        for level in range(chance.randrange(1, 5)):
            name = f"p{level}"
            routes = {"even": "/n % 2 == 0", "few": "/n < 20"} if chance.random() < 0.5 else {}
            branches = []
            for _ in range(chance.randrange(1, 4)):
                chosen = tuple(r for r in [*routes, "_default"] if chance.random() < 0.4) if routes else ()
                if made and chance.random() < 0.6:
                    branches.append(Branch("onward", chosen, target=chance.choice(made)))
                else:
                    limits = Limits(request_bytes_max=chance.choice([50, 5000]), flush_timeout_s=1.0)
                    sink = MemoryBulkSink(respond, limits=limits, delay_s=chance.random() / 20)
                    branches.append(rig.branch(name, chance.choice([sink, MemorySink()]), chosen))
                    if made and chance.random() < 0.2:
                        branches[-1].forward = chance.choice(made)
            stages = [random_stage(name, n) for n in range(chance.randrange(4))]
            workers = chance.choice([1, 3])
            made.append(rig.pipeline(name, branches, stages, routes=routes, workers=workers))
        source = ListSource(events(200))
        made[-1].parts.source = source
        rig.pipelines.reverse()
        await rig.run()
        assert len(source.outcomes) == 20, "each promise was answered, and once"
        assert all(ok for _, ok in source.outcomes)

    run_virtual(run())
