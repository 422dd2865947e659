"""Starts the units, keeps them running, drains them, and speaks for all of them.

A unit is started again when it crashes, and when it was stopped by a signal that did not come from here. It is not when
its pipelines have come to their end or have failed for good, which it tells before it ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.core.metrics import Meter, Registry
from penstock.runtime.data_dir import take_data_dir
from penstock.runtime.engine import EXIT_FAILED, EXIT_NOT_DRAINED, EXIT_OK
from penstock.runtime.units.channel import Channel, ChannelClosed, Message, frame
from penstock.runtime.units.meters import Labels, Totals, constant, joined
from penstock.runtime.units.ports import Ports
from penstock.runtime.units.states import State, merged_pipelines

log = logging.getLogger(__name__)

RESTART_S_MIN = 0.5
RESTART_S_MAX = 30.0
"""The pause before a unit is started again doubles from crash to crash."""
STEADY_S = 60.0
"""A unit that ran so long starts again after the shortest pause."""
ANSWER_S = 2.0
"""Longest wait for the state of a unit; then its last one counts."""
REFRESH_S = 5.0
"""How often the state is asked for at the least, so that a crash takes few counts with it."""
SILENCE_S = 30.0
"""A unit that has not answered for so long is worth a warning."""
GRACE_S = 15.0
"""A unit that has not ended so long after its time to drain is killed."""
EXIT_INTERRUPTED = 130
EXIT_NO_PROCESS = 71
"""As if the process had ended with an error of the system."""


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    units: int
    data_dir: Path
    drain_timeout_s: float = 30.0
    stop_on_failure: bool = False
    """Stop all units when one has ended with a failed pipeline."""


@dataclass(slots=True, eq=False)
class Unit:
    """One unit through all its starts."""

    number: int
    state: State = State.STARTING
    process: asyncio.subprocess.Process | None = None
    channel: Channel | None = None
    crashes: int = 0
    code: int = EXIT_OK
    """How it has ended for good."""
    ended: Message | None = None
    """What it told before it ended."""
    last: Message = field(default_factory=dict)
    """Its state when it last told it."""
    heard_at: float = 0.0
    warned: bool = False


class Supervisor:
    """Looks like an engine to the admin endpoints.

    `command` starts a unit; its number, the descriptor of its channel and that of the lock follow. `order` is what the
    unit reads from the channel first.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        *,
        command: Sequence[str],
        order: Callable[[int], bytes],
        pipelines: Sequence[str],
        registry: Registry | None = None,
    ) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._order = order
        self._names = list(pipelines)
        self._ports = Ports()
        self._lock: int | None = None
        self._spawning = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._at_once = False
        self._came_up = False
        self._past = Totals()
        """What units that have ended counted."""
        self.units = [Unit(number) for number in range(1, settings.units + 1)]
        self.registry = registry or Registry()
        self.drained = asyncio.Event()
        """Set when no unit runs any more."""
        scope = self.registry.scope("units")
        scope.gauge("running", lambda: sum(unit.state is State.RUNNING for unit in self.units))
        self._restarts = scope.counter("restarts")

    async def run(self) -> int:
        """Run until all units have ended. Returns the exit code of the whole; raises `Permanent` like an engine."""
        self._lock = take_data_dir(self._settings.data_dir)
        watch = asyncio.create_task(self._watch())
        hurry = asyncio.create_task(self._end_in_time())
        try:
            await asyncio.gather(*(self._keep(unit) for unit in self.units))
        finally:
            for task in (watch, hurry):
                task.cancel()
            await asyncio.gather(watch, hurry, return_exceptions=True)
            self._ports.close()
            os.close(self._lock)
            self.drained.set()
        if self._at_once:
            return EXIT_INTERRUPTED
        codes = {unit.code for unit in self.units}
        for code in (EXIT_FAILED, EXIT_NOT_DRAINED):
            if code in codes:
                return code
        return max(codes)

    def stop(self) -> None:
        """Drain all units; `run` returns when they have ended."""
        self._stopping.set()
        self._tell_all({"stop": True})

    def stop_at_once(self) -> None:
        """Drain no longer."""
        self._at_once = True
        self._stopping.set()
        self._tell_all({"stop": "at once"})

    # units

    async def _keep(self, unit: Unit) -> None:
        """Run a unit again and again, until it has ended for good or all stop."""
        pause_s = RESTART_S_MIN
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(unit)
            self._past.add(unit.last.get("meters", ()), ended=True)
            unit.last = {}
            ended = unit.ended
            if ended is not None and (self._stopping.is_set() or not ended["by_signal"]):
                unit.code = ended["code"]
                break
            if self._stopping.is_set():
                if unit.state is State.RUNNING and not self._at_once:
                    unit.code = EXIT_NOT_DRAINED
                    log.error("Unit %d %s while it drained", unit.number, _manner(code))
                break
            unit.state = State.WAITING
            self._restarts.add()
            if ended is not None:
                log.info("Unit %d was stopped by a signal of its own and is started again", unit.number)
                continue
            unit.crashes += 1
            if time.monotonic() - began > STEADY_S:
                pause_s = RESTART_S_MIN
            log.error("Unit %d %s; it is started again in %.1f s", unit.number, _manner(code), pause_s)
            await _set_within(self._stopping, pause_s)
            pause_s = min(pause_s * 2, RESTART_S_MAX)
        unit.state = State.ENDED
        if not self._stopping.is_set():
            log.info("Unit %d has come to its end (exit code %d)", unit.number, unit.code)
            if unit.code == EXIT_FAILED and self._settings.stop_on_failure:
                self.stop()

    async def _run_once(self, unit: Unit) -> int:
        """Start the process and wait for its end. Returns its exit code, negative for a signal."""
        assert self._lock is not None, "run has taken the data directory"
        unit.state, unit.ended = State.STARTING, None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await self._spawn(unit.number, (theirs.fileno(), self._lock))
            except OSError as error:  # no memory, too many processes: it may pass
                ours.close()
                log.error("Unit %d cannot be started: %s", unit.number, error)
                return EXIT_NO_PROCESS
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(frame(self._order(unit.number)))
        channel = Channel(reader, writer, answer=self._answer, hear=lambda news: self._hear(unit, news))
        unit.process, unit.channel, unit.heard_at = process, channel, time.monotonic()
        log.info("Unit %d is process %d", unit.number, process.pid)
        if self._stopping.is_set():
            self._tell(unit)
        try:
            await channel.serve()  # its end is that of the process
            return await process.wait()
        finally:
            if process.returncode is None:  # this process is cut off itself
                process.kill()
                await process.wait()
            unit.process = unit.channel = None

    async def _spawn(self, number: int, handed: tuple[int, int]) -> asyncio.subprocess.Process:
        """Ctrl-C goes to the whole process group: the units leave it to this process, by the mask they inherit."""
        async with self._spawning:  # the mask is that of the process
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                return await asyncio.create_subprocess_exec(
                    *(*self._command, str(number), *map(str, handed)),
                    stdin=None if number == 1 else asyncio.subprocess.DEVNULL,
                    pass_fds=handed,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    async def _answer(self, question: Message) -> Message:
        holder, host, port = question["port"]
        try:
            return {"port": self._ports.reserve(holder, host, port)}
        except OSError as error:
            return {"errno": error.errno, "reason": error.strerror or str(error)}

    def _hear(self, unit: Unit, news: Message) -> None:
        if "running" in news:
            unit.state = State.RUNNING
        elif "ended" in news:
            unit.ended = news["ended"]
            unit.last = news["state"]

    def _tell(self, unit: Unit) -> None:
        if unit.channel is not None:
            unit.channel.tell({"stop": "at once" if self._at_once else True})

    def _tell_all(self, news: Message) -> None:
        for unit in self.units:
            if unit.channel is not None:
                unit.channel.tell(news)

    async def _end_in_time(self) -> None:
        """Kill the units that neither drain nor end."""
        await self._stopping.wait()
        deadline = time.monotonic() + self._settings.drain_timeout_s + GRACE_S
        while time.monotonic() < deadline and not self._at_once:
            await asyncio.sleep(0.1)
        if self._at_once:
            await asyncio.sleep(ANSWER_S)
        for unit in self.units:
            if unit.process is not None and unit.process.returncode is None:
                log.error("Unit %d does not end and is killed", unit.number)
                unit.process.kill()

    async def _watch(self) -> None:
        """Keep the state fresh, and say when a unit is silent."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()
            now = time.monotonic()
            for unit in self.units:
                silent_s = now - unit.heard_at
                if unit.state is State.RUNNING and silent_s > SILENCE_S and not unit.warned:
                    unit.warned = True
                    log.warning("Unit %d has not answered for %.0f s: something keeps it busy", unit.number, silent_s)

    # what the admin endpoints ask

    async def refresh(self) -> None:
        """Ask every unit for its state; one that does not answer keeps its last one."""
        await asyncio.gather(*(self._refresh(unit) for unit in self.units))

    async def _refresh(self, unit: Unit) -> None:
        channel = unit.channel
        if channel is None or unit.state is not State.RUNNING:
            return
        try:
            state = await channel.ask({"state": True}, ANSWER_S)
        except (ChannelClosed, TimeoutError):
            return
        if channel is unit.channel and unit.ended is None:
            unit.last, unit.heard_at, unit.warned = state, time.monotonic(), False

    def names(self) -> list[str]:
        return self._names

    def not_started(self) -> list[str]:
        """Pipelines that take data in no unit; until all units have come up once, those that one of them waits for."""
        running = [unit for unit in self.units if unit.state is not State.ENDED]
        if not self._came_up:
            missing = {name for unit in running for name in unit.last.get("not_started", self._names)}
            self._came_up = not missing
            return [name for name in self._names if name in missing]
        started = {
            pipeline["name"]
            for unit in running
            for pipeline in unit.last.get("pipelines", ())
            if pipeline["name"] not in unit.last["not_started"]
        }
        return [name for name in self._names if name not in started]

    def status(self) -> dict[str, Any]:
        """State of every pipeline in all units together, and of every unit."""
        return {
            "pipelines": merged_pipelines([unit.last.get("pipelines", []) for unit in self.units]),
            "units": [
                {
                    "unit": unit.number,
                    "state": unit.state,
                    "process": unit.process.pid if unit.process is not None else None,
                    "crashes": unit.crashes,
                    "pipelines": [
                        {"name": pipeline["name"], "state": pipeline["state"], "reason": pipeline["reason"]}
                        for pipeline in unit.last.get("pipelines", [])
                    ],
                }
                for unit in self.units
            ],
        }

    @property
    def meters(self) -> _Meters:
        return _Meters(self)

    def all_meters(self) -> Iterator[tuple[str, Labels, Meter]]:
        totals = Totals()
        totals.add(self._past.rows())
        for unit in self.units:
            rows = unit.last.get("meters", [])
            totals.add(rows)
            for name, _, _, values in rows:
                if name == "process.cpu.seconds.total":
                    seconds = constant(values[0]).read
                    self.registry.scope("units").gauge("cpu.seconds", seconds, unit=str(unit.number))
        return joined(self.registry, totals)


class _Meters:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def __iter__(self) -> Iterator[tuple[str, Labels, Meter]]:
        return self._supervisor.all_meters()


def _manner(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended unexpectedly with exit code {code}"


async def _set_within(event: asyncio.Event, span_s: float) -> None:
    try:
        async with asyncio.timeout(span_s):
            await event.wait()
    except TimeoutError:
        return
