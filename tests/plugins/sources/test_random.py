"""The random source in virtual time."""

import asyncio
import random
import uuid

from penstock.core.handle import Handle
from penstock.sdk import Context
from penstock.testing.plugins import checked
from penstock.testing.virtual import LoopClock, run_virtual


class Output:
    events_max = bytes_max = 1000
    acknowledgments = False

    def __init__(self):
        self.bodies = []
        self.starts = 0

    def started(self):
        self.starts += 1

    def handle(self, on_done=None):
        return Handle(on_done)

    async def write(self, batch, size_bytes, timeout_s=None):
        self.bodies += batch.bodies


def emitted(seconds, seed=1):
    async def run():
        found, config = checked("source", "random", {"wait_delay": "100ms"})
        clock = LoopClock(asyncio.get_running_loop())
        ctx = Context("p", "random", kind="source", clock=clock, chance=random.Random(seed))
        source, output = found.module.build(config, ctx), Output()
        task = asyncio.create_task(source.run(output))
        await asyncio.sleep(seconds)
        await source.stop()
        await task
        assert output.starts == 1
        return [body["message"] for body in output.bodies]

    return run_virtual(run())


def test_one_event_after_each_pause():
    messages = emitted(0.95)
    assert len(messages) == 10
    assert len({uuid.UUID(message) for message in messages}) == 10
    assert all(uuid.UUID(message).version == 4 for message in messages)


def test_a_seed_gives_the_same_events():
    assert emitted(0.5) == emitted(0.5) != emitted(0.5, seed=2)
