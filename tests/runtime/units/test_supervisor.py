"""The supervisor with units that do as they are told: crash, end, hang, ask for ports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import Permanent
from penstock.runtime.data_dir import take_data_dir
from penstock.runtime.units import supervisor as module
from penstock.runtime.units.states import State
from penstock.runtime.units.supervisor import Supervisor, SupervisorSettings

UNIT = """
import asyncio, json, os, signal, socket, sys, time
from penstock.runtime.units.channel import Channel, read_message

async def main():
    number, channel, lock = map(int, sys.argv[1:])
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=channel))
    plan = json.loads(await read_message(reader))
    stopped = asyncio.Event()
    requests = 0

    async def answer(question):
        return {
            "pipelines": [{"name": "logs", "state": "RUNNING", "reason": "", "sinks": []}],
            "not_started": [],
            "meters": [["logs.requests", [], "counter", [requests]]],
        }

    channel = Channel(reader, writer, answer=answer, hear=lambda news: stopped.set())
    serving = asyncio.create_task(channel.serve())
    if "crash" in plan and not os.path.exists(plan["crash"]):
        open(plan["crash"], "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    channel.tell({"running": os.getpid()})
    if "port" in plan:
        requests = (await channel.ask({"port": plan["port"]}, 10)).get("port", -1)
    by_signal = False
    if "deaf" in plan:
        time.sleep(60)
    if "signalled" in plan and not os.path.exists(plan["signalled"]):
        open(plan["signalled"], "w").close()
        by_signal = True
    elif "code" not in plan:
        await stopped.wait()
    channel.tell({"ended": {"code": plan.get("code", 0), "by_signal": by_signal}, "state": await answer({})})
    await channel.flush()
    sys.exit(plan.get("code", 0))

asyncio.run(main())
"""

Use = Callable[[Supervisor], Awaitable[None]]


def supervise(tmp_path: Path, plans: list[dict[str, Any]], use: Use | None = None, **settings: Any) -> int:
    """Run units with these plans until all have ended, or `use` has returned."""

    async def scenario() -> int:
        supervisor = Supervisor(
            SupervisorSettings(len(plans), tmp_path / "data", **settings),
            command=(sys.executable, "-c", UNIT),
            order=lambda number: json.dumps(plans[number - 1]).encode(),
            pipelines=["logs"],
        )
        running = asyncio.create_task(supervisor.run())
        if use is not None:
            await use(supervisor)
            supervisor.stop()
        code = await running
        assert supervisor.drained.is_set()
        assert all(unit.process is None and unit.state is State.ENDED for unit in supervisor.units)
        os.close(take_data_dir(tmp_path / "data"))  # nobody holds it any more
        return code

    return asyncio.run(asyncio.wait_for(scenario(), 25))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


def all_run(supervisor: Supervisor) -> bool:
    return all(unit.state is State.RUNNING for unit in supervisor.units)


def test_a_unit_that_crashes_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESTART_S_MIN", 0.1)
    monkeypatch.setattr(module, "REFRESH_S", 0.05)

    async def use(supervisor: Supervisor) -> None:
        assert supervisor.not_started() == ["logs"]
        await until(lambda: all_run(supervisor) and supervisor.units[0].crashes == 1)
        await supervisor.refresh()
        assert supervisor.not_started() == []
        status = supervisor.status()
        assert [unit["crashes"] for unit in status["units"]] == [1, 0]
        assert status["pipelines"] == [{"name": "logs", "state": "RUNNING", "reason": "", "sinks": []}]
        with pytest.raises(Permanent, match=f"in use by process {os.getpid()}"):
            take_data_dir(tmp_path / "data")
        assert supervisor.units[1].process is not None
        supervisor.units[1].process.kill()
        await until(lambda: supervisor.units[1].crashes == 1)
        assert supervisor.not_started() == [], "the other unit takes data"
        assert supervisor.registry.value("units.restarts") == 2

    assert supervise(tmp_path, [{"crash": str(tmp_path / "crashed")}, {}], use) == 0
    assert "Unit 1 was killed by SIGKILL; it is started again in 0.1 s" in caplog.messages


def test_a_unit_that_cannot_be_started_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESTART_S_MIN", 0.1)
    spawn, failures = asyncio.create_subprocess_exec, iter([OSError(11, "Resource temporarily unavailable")])

    async def no_process(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        for error in failures:
            raise error
        return await spawn(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)

    async def use(supervisor: Supervisor) -> None:
        await until(lambda: all_run(supervisor))
        assert sum(unit.crashes for unit in supervisor.units) == 1

    assert supervise(tmp_path, [{}, {}], use) == 0
    assert any("cannot be started: [Errno 11]" in message for message in caplog.messages)


def test_a_unit_that_ended_for_good_is_left_alone(tmp_path: Path) -> None:
    assert supervise(tmp_path, [{"code": 0}, {"code": 0}]) == 0
    assert supervise(tmp_path, [{"code": 4}, {"code": 3}]) == 3
    assert supervise(tmp_path, [{"code": 4}, {"code": 0}]) == 4
    assert supervise(tmp_path, [{"code": 1}, {"code": 1}]) == 1


def test_a_failed_pipeline_stops_all_units_where_that_is_asked_for(tmp_path: Path) -> None:
    assert supervise(tmp_path, [{}, {"code": 3}], stop_on_failure=True) == 3


def test_a_unit_that_somebody_else_stopped_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def use(supervisor: Supervisor) -> None:
        await until(lambda: supervisor.registry.value("units.restarts") == 1 and all_run(supervisor))
        assert supervisor.units[0].crashes == 0

    assert supervise(tmp_path, [{"signalled": str(tmp_path / "signalled")}], use) == 0
    assert "Unit 1 was stopped by a signal of its own and is started again" in caplog.messages


def test_a_unit_that_neither_drains_nor_ends_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.2)

    async def use(supervisor: Supervisor) -> None:
        await until(lambda: all_run(supervisor))

    assert supervise(tmp_path, [{"deaf": True}, {}], use, drain_timeout_s=0.1) == 4


def test_a_second_order_to_stop_waits_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.2)

    async def use(supervisor: Supervisor) -> None:
        await until(lambda: all_run(supervisor))
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), "this process hears of Ctrl-C"
        for unit in supervisor.units:
            assert unit.process is not None
            unit.process.send_signal(signal.SIGINT)  # as the terminal does: the units leave it to this process
        await asyncio.sleep(0.1)
        assert all_run(supervisor)
        supervisor.stop()
        supervisor.stop_at_once()

    assert supervise(tmp_path, [{"deaf": True}, {}], use) == 130


def test_units_ask_for_ports_and_their_counts_are_added_up(tmp_path: Path) -> None:
    plan = {"port": ["logs", "127.0.0.1", 0]}

    async def use(supervisor: Supervisor) -> None:
        total = 0.0
        while not total or total % 2 or total < 2000:
            await supervisor.refresh()
            meters = {name: meter for name, _, meter in supervisor.meters}
            total = getattr(meters.get("logs.requests"), "value", 0)
        port = total / 2
        assert port == int(port), "both have the same"
        assert supervisor.units[0].last["meters"][0][3] == supervisor.units[1].last["meters"][0][3] == [port]

    assert supervise(tmp_path, [plan, plan], use) == 0


def test_a_stop_before_a_unit_has_come_up_is_no_failure(tmp_path: Path) -> None:
    async def use(supervisor: Supervisor) -> None:
        await until(lambda: supervisor.units[0].process is not None)
        process = supervisor.units[0].process
        assert process is not None
        supervisor.stop()
        process.send_signal(signal.SIGTERM)  # as who stops all processes of a service does

    assert supervise(tmp_path, [{}], use) == 0
