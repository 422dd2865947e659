"""One simulated world: what outlives the process, and the lives of the process in it."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Any, cast

from penstock.config.documents import parse_pipelines
from penstock.core.metrics import Registry
from penstock.plan import PipelinePlan, Plan, make_plan
from penstock.runtime.engine import EXIT_NOT_DRAINED, EXIT_OK, Engine, Settings
from penstock.runtime.parts import Stage
from penstock.sdk import Context, Sink
from penstock.testing.simulation.loop import SimulationLoop
from penstock.testing.simulation.nature import Life, Nature
from penstock.testing.simulation.processors import SimulatedError, make_processor
from penstock.testing.simulation.scenario import Scenario, draw
from penstock.testing.simulation.server import ModelDeadLetters, ModelServer, ModelWriteSink
from penstock.testing.simulation.sources import State, make_state
from penstock.testing.virtual import LoopClock

END_S = 2 * 3600.0
"""Once the world has healed, everything has to come to its end within this time."""
CLOCK_JUMP_S = 7200.0


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a seed."""

    seed: int
    profile: str
    violations: tuple[str, ...]
    events: int
    arrived: int
    dead_letters: int
    lives: int
    seconds: float
    """Virtual time that passed."""
    steps: int


class World(Nature):
    """Runs the lives of an engine against models of everything around it."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.server = ModelServer(self)
        self.letters = ModelDeadLetters(self)
        self.lives = 0
        self.steps = 0
        self._plan = _plan_of(scenario)
        roots = sorted((spec for spec in scenario.pipelines if spec.source is not None), key=lambda spec: spec.root)
        self._states: dict[str, State] = {
            spec.name: make_state(spec.source or "", scenario.events[spec.root], self) for spec in roots
        }

    # lives

    def run(self) -> None:
        """All lives to the end of the world."""
        faults = self.faults
        ends = ["crash"] * faults.crashes + ["stop"] * faults.stops
        self.chance.shuffle(ends)
        for end in [*ends, "finish"]:
            self._live(end)
            if self.ledger.violations:
                break
        if not self.ledger.violations:
            self.server.catch_up(float("inf"))
            self.ledger.check_end(self.server.versions())

    def report(self, overheard: tuple[str, ...]) -> Report:
        """What has come of it so far."""
        return Report(
            seed=self.scenario.seed,
            profile=self.scenario.profile,
            violations=(*self.ledger.violations, *overheard),
            events=sum(map(len, self.scenario.events)),
            arrived=self.ledger.settled.total(),
            dead_letters=len(self.ledger.refused) + len(self.ledger.parked),
            lives=self.lives,
            seconds=self.now_s(),
            steps=self.steps,
        )

    def _live(self, end: str) -> None:
        loop = self.loop = SimulationLoop(self.now_s())
        asyncio.set_event_loop(loop)
        life = Life(self.lives)
        self.lives += 1
        if life.number:
            self.ledger.disturbed = True
        try:
            finished = loop.run_life(main := loop.create_task(self._process(life, loop, end)))
            life.alive = False
            if not finished:
                self.ledger.excused.update(life.unpromised)
                if end != "crash" or loop.troubles:
                    self.ledger.violate("the process came to no end")
            elif not main.cancelled() and (error := main.exception()) is not None:
                raise error
            self.ledger.violations += loop.troubles
        finally:
            life.alive = False
            self.passes_to(loop.time())
            self.steps += loop.steps
            loop.bury()
            loop.close()
            asyncio.set_event_loop(None)
            self.loop = None

    async def _process(self, life: Life, loop: SimulationLoop, end: str) -> None:
        clock = LoopClock(loop)
        engine = self._engine(life, clock, drain_s=3600.0 if end == "finish" else self.chance.choice((1.0, 10.0, 60.0)))
        others = [loop.create_task(self._heal(loop))]
        if self.faults.expire and not self.healed:
            others.append(loop.create_task(self._take_back(life)))
        if self.faults.clock_jumps and not self.healed:
            others.append(loop.create_task(self._jump(clock)))
        after = self.chance.choice((0.001, 0.1, 2.0, 20.0)) * self.chance.random()
        if end == "crash":
            loop.call_later(after, loop.kill_after, self.chance.randrange(60))
        elif end == "stop":
            loop.call_later(after, engine.stop)
        else:
            deadline = max(self.now_s(), self.scenario.heal_s) + END_S
            loop.call_later(deadline - self.now_s(), self._too_late, engine)
        try:
            code = await engine.run()
        finally:
            for other in others:
                other.cancel()
            for timer in life.timers:
                timer.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._check_end_of_life(life, engine, code)

    def _too_late(self, engine: Engine) -> None:
        waiting = [f"{p['name']}: {p['state']} {p['sinks']}" for p in engine.status()["pipelines"]]
        self.ledger.violate(f"stuck: not finished {END_S:.0f} s after the last fault; {waiting}")
        assert self.loop is not None, "called by the loop"
        self.loop.stop()

    def _check_end_of_life(self, life: Life, engine: Engine, code: int) -> None:
        ledger = self.ledger
        if code not in (EXIT_OK, EXIT_NOT_DRAINED):
            ledger.violate(f"the engine ended with {code}: {engine.status()}")
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            ledger.violate(f"tasks are left over: {left}")
        pending = sum(1 for handle in life.handles if not handle.done)
        if pending:
            ledger.violate(f"{pending} promises were neither kept nor broken")
        if code == EXIT_OK:
            for name, _, meter in engine.registry:
                if name.endswith(
                    (".capacityUsed", ".bytesUsed", ".queuedBytes", ".requestsInFlight", ".recordsInBuffer")
                ):
                    value = meter.read()  # type: ignore[union-attr]
                    if value:
                        ledger.violate(f"{name} is {value} after the drain")
            for number in life.unpromised:
                if not ledger.was_lost(number):
                    ledger.check_arrived(number)
        ledger.excused.update(number for number in life.unpromised if code != EXIT_OK or ledger.was_lost(number))

    def _engine(self, life: Life, clock: LoopClock, drain_s: float) -> Engine:
        registry = Registry()
        sinks: dict[tuple[str, int], Sink] = {}
        for pipeline in self._plan.pipelines:
            spec = self.scenario.pipeline(pipeline.name)
            for place, (sink, plan) in enumerate(zip(spec.sinks, pipeline.sinks, strict=True)):
                if sink.kind == "write":
                    sinks[spec.name, place] = ModelWriteSink(self, sink.name)
                elif sink.kind == "opensearch":
                    ctx = Context(
                        spec.name,
                        "opensearch",
                        kind="sink",
                        registry=registry,
                        clock=clock,
                        chance=random.Random(self.chance.random()),  # noqa: S311 (a simulation)
                    )
                    built = plan.plugin.module.build(plan.plugin.config, ctx)
                    built._cluster._http = self.server.client(life)
                    limits = {"request_bytes_max": self.scenario.request_bytes, "lanes_max": self.scenario.lanes}
                    built.limits = type(built.limits)(
                        **{name: getattr(built.limits, name) for name in built.limits.__slots__} | limits
                    )
                    sinks[spec.name, place] = built
        settings = Settings(
            drain_timeout_s=drain_s,
            environ={},
            sources={name: state.source(self, life) for name, state in self._states.items()},
            sinks=sinks,
            dead_letters=self.letters,
            seed=self.chance.randrange(2**32),
        )
        return _SimulatedEngine(self, self._plan, settings, registry, clock)

    async def _heal(self, loop: SimulationLoop) -> None:
        """From some time on nothing goes wrong any more."""
        await asyncio.sleep(max(0.0, self.scenario.heal_s - loop.time()))
        self.healed = True

    async def _take_back(self, life: Life) -> None:
        """A promise is taken back now and then: a lease was lost, a time is over."""
        while not self.healed:
            await asyncio.sleep(self.chance.expovariate(1 / self.faults.expire))
            open_ones = [handle for handle in life.handles if not handle.done]
            if open_ones:
                self.chance.choice(open_ones).expire()

    async def _jump(self, clock: LoopClock) -> None:
        """Somebody sets the clock of the machine."""
        while not self.healed:
            await asyncio.sleep(self.chance.expovariate(0.2))
            clock.skew_ns += round(self.chance.uniform(-CLOCK_JUMP_S, CLOCK_JUMP_S) * 1e9)


class _SimulatedEngine(Engine):
    """The engine with simulated processors where the plan says `no-op`."""

    def __init__(self, world: World, plan: Plan, settings: Settings, registry: Registry, clock: LoopClock) -> None:
        super().__init__(plan, settings, registry, clock)
        self._world = world

    def _stage(self, plan: PipelinePlan, index: int) -> Stage:
        stage = super()._stage(plan, index)
        run = make_processor(self._world.scenario.pipeline(plan.name).stages[index], self._world)
        stage.run = run
        stage.drain = cast(Any, run).drain if hasattr(run, "drain") else None
        return stage


def _plan_of(scenario: Scenario) -> Plan:
    plan = make_plan(parse_pipelines([("simulated.yaml", scenario.yaml().encode())]))
    problems = [problem for problem in plan.problems if problem.severity == "error"]
    assert not problems, f"the simulation made a wrong configuration: {problems}"
    return plan


class _Overheard(logging.Handler):
    """Exceptions that the engine logs instead of raising: only those that the simulation throws are in order."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if (error is not None and not isinstance(error, SimulatedError)) or record.levelno >= logging.CRITICAL:
            self.found.append(f"{record.getMessage()}: {error!r}")


def simulate(seed: int, scenario: Scenario | None = None) -> Report:
    """Run the world of a seed to its end. The report holds every broken promise; none is raised."""
    log = logging.getLogger("penstock")
    overheard = _Overheard()
    before = log.propagate, log.level, log.disabled
    log.propagate, log.disabled = False, False
    log.setLevel(logging.ERROR)
    log.addHandler(overheard)
    world = World(scenario or draw(seed))
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is a finding of this seed)
        world.ledger.violate(f"{type(error).__name__}: {error}")
    finally:
        log.removeHandler(overheard)
        log.propagate, level, log.disabled = before
        log.setLevel(level)
    return world.report(tuple(overheard.found))
