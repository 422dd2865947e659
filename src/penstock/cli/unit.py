"""A unit of `penstock run --units N`, started by its supervisor: `python -m penstock.cli.unit NUMBER CHANNEL LOCK`.

CHANNEL and LOCK are descriptors: of the socket to the supervisor, and of the locked file in the data directory, which
stays locked as long as a unit lives.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
import threading
from dataclasses import replace

from penstock.core import start


def main() -> int:
    start.describe_options = False
    from penstock.cli.run import EXIT_INTERRUPTED, loop_factory

    number, channel, lock = map(int, sys.argv[1:])
    threading.main_thread().name = f"unit-{number}"  # as the log shows it
    for descriptor in (channel, lock):
        os.set_inheritable(descriptor, False)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(_run(socket.socket(fileno=channel)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return EXIT_INTERRUPTED


async def _run(channel: socket.socket) -> int:
    from penstock.cli.run import Order, make_the_plan, settings_of, settle_memory
    from penstock.plan.units import plan_of_unit
    from penstock.runtime import logs
    from penstock.runtime.admin import process_meters
    from penstock.runtime.engine import Engine
    from penstock.runtime.units.channel import read_message
    from penstock.runtime.units.unit import Unit

    reader, writer = await asyncio.open_unix_connection(sock=channel)
    message = await read_message(reader)
    if message is None:  # the supervisor ended meanwhile
        return 0
    order = pickle.loads(message)  # noqa: S301 (from the process that started this one)
    assert isinstance(order, Order)
    given = order.given
    logs.configure(given.log_format, given.log_level)
    whole, renewal = await make_the_plan(order.files, given.units)
    plan = plan_of_unit(whole, order.number)
    unit = Unit(reader, writer)
    settings = replace(
        settings_of(plan.server, given.data_dir, given.drain_timeout),
        data_dir_is_ours=True,
        share_port=unit.share_port,
        renewal=renewal,
    )
    engine = Engine(plan, settings)
    process_meters(engine.registry)
    settle_memory()
    return await unit.run(engine)


if __name__ == "__main__":
    sys.exit(main())
