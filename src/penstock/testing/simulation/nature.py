"""What the models of the outside share: time, chance, faults, and the ledger of what became of each event."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from penstock.core.batch import Body
from penstock.core.handle import Handle
from penstock.testing.simulation.ledger import Ledger
from penstock.testing.simulation.loop import SimulationLoop
from penstock.testing.simulation.scenario import Faults, Scenario


@dataclass(slots=True)
class Life:
    """One process, from its start to its end or its death."""

    number: int
    alive: bool = True
    in_flight: set[tuple[str, str]] = field(default_factory=set)
    """Documents with an operation on its way."""
    handles: list[Handle] = field(default_factory=list)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    unpromised: list[int] = field(default_factory=list)
    """Events that were taken for good when they entered the buffer."""


class Nature:
    """Decides when things go wrong. All of it outlives the process."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.faults: Faults = scenario.faults
        self.chance = random.Random(scenario.seed * 7919 + 1)  # noqa: S311 (a simulation)
        self.ledger = Ledger(scenario)
        self.healed = scenario.profile == "calm"
        self.loop: SimulationLoop | None = None
        """The loop of the process that lives now."""
        self._now_s = 0.0
        self._kinds = {spec.root: spec.source for spec in scenario.pipelines if spec.source is not None}

    def now_s(self) -> float:
        """Virtual seconds since the world began."""
        return self._now_s if self.loop is None else self.loop.time()

    def happens(self, fault: str) -> bool:
        """Whether a fault strikes now."""
        share: float = getattr(self.faults, fault)
        return not self.healed and share > 0 and self.chance.random() < share

    def within(self, window: str) -> bool:
        """Whether it is the time of an outage."""
        start, end = getattr(self.faults, window)
        return bool(not self.healed and start <= self.now_s() < end)

    async def latency(self) -> None:
        """What a message takes to the other side."""
        await asyncio.sleep(min(self.chance.expovariate(1 / self.scenario.latency_s), 10 * self.scenario.latency_s))

    def in_order(self, document: Body) -> bool:
        """Whether the source of this event brings it in an order that sinks must keep."""
        number = int(document["tokens"][0].partition("/")[0])
        return self._kinds[self.ledger.root_of(number)] == "log"

    def passes_to(self, now_s: float) -> None:
        """So late it was when a process ended."""
        self._now_s = now_s
