"""Virtual time stands still while somebody works in a thread."""

from __future__ import annotations

import asyncio
import threading

from penstock.testing.virtual import run_virtual


def test_no_time_passes_while_a_thread_works() -> None:
    async def run() -> float:
        begin = asyncio.get_running_loop().time()
        let_go = threading.Event()
        hour = asyncio.create_task(asyncio.sleep(3600))
        work = asyncio.create_task(asyncio.to_thread(let_go.wait, 10))
        threading.Timer(0.05, let_go.set).start()
        await asyncio.wait([hour, work], return_when=asyncio.FIRST_COMPLETED)
        assert work.done() and work.result() and not hour.done()
        passed = asyncio.get_running_loop().time() - begin
        await hour
        return passed

    assert run_virtual(run()) == 0


def test_an_hour_passes_at_once_when_nobody_does() -> None:
    async def run() -> float:
        begin = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - begin

    assert run_virtual(run()) == 3600
