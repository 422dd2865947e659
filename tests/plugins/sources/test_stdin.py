"""Standard input, read from a pipe."""

import asyncio
import os

import pytest

from penstock.core.errors import BufferFull
from penstock.core.handle import Handle
from penstock.plugins.sources import stdin
from penstock.sdk import Context


class Output:
    acknowledgments = False
    events_max = 3
    bytes_max = 10**9

    def __init__(self, full_times=0):
        self.messages = []
        self.full_times = full_times

    def started(self):
        """Ready."""

    def handle(self, on_done=None):
        return Handle(on_done)

    async def write(self, batch, size_bytes, timeout_s=None):
        assert len(batch) <= self.events_max
        assert batch.origin.event_type == "event"
        if self.full_times:
            self.full_times -= 1
            raise BufferFull
        self.messages += [body["message"] for body in batch.bodies]


def read(data, output=None, *, stop_after_s=None):
    reader, writer = os.pipe()
    output = output or Output()

    async def run():
        source = stdin.StdinSource(stdin.Config(write_timeout=10), Context("p", "stdin", kind="source"), reader)
        task = asyncio.create_task(source.run(output))
        for piece in data:
            os.write(writer, piece)
            await asyncio.sleep(0.01)
        if stop_after_s is None:
            os.close(writer)
        else:
            await source.stop()
        await asyncio.wait_for(task, 5)
        if stop_after_s is not None:
            os.close(writer)

    try:
        asyncio.run(run())
    finally:
        os.close(reader)
    return output.messages


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        ([b"one\ntwo\r\nthr", b"ee\n"], ["one", "two", "three"]),
        ([b"a\nExIt\nb\n"], ["a"]),
        ([b"exit\n"], []),
        ([b"no end"], ["no end"]),
        ([b"\xc3", b"\xbc\n\xff\n"], ["ü", "\ufffd"]),
        ([b"1\n2\n3\n4\n5\n6\n7\n"], list("1234567")),
        ([], []),
    ],
)
def test_lines(data, messages):
    assert read(data) == messages


def test_a_full_buffer_loses_nothing():
    assert read([b"1\n2\n3\n4\n"], Output(full_times=3)) == list("1234")


def test_stopping_does_not_wait_for_input():
    assert read([b"1\n"], stop_after_s=0) == ["1"]
