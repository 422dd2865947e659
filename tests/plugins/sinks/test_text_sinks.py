"""The sinks that write lines: file, stdout; and noop, which writes nothing."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from penstock.core.batch import Batch, Meta
from penstock.core.errors import Permanent, Transient
from penstock.plugins.sinks import stdout
from penstock.sdk import Context, SinkOptions
from penstock.testing.plugins import checked


def make(name, options=None, **sink_options):
    found, config = checked("sink", name, options or {})
    return found.module.build(config, Context("p", name, kind="sink", sink_options=SinkOptions(**sink_options)))


def write(sink, *batches):
    async def run():
        await sink.start()
        for batch in batches:
            await sink.write(batch)
        await sink.stop()
        await sink.stop()

    asyncio.run(run())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_is_emptied_first_unless_it_is_to_be_kept(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"old": 1}\n')
    write(make("file", {"path": str(path), "append": True}), Batch([{"n": 1}]), Batch([{"n": 2**70}, {"ü": None}]))
    assert lines(path) == [{"old": 1}, {"n": 1}, {"n": 2**70}, {"ü": None}]
    write(make("file", {"path": str(path)}), Batch([{"n": 3}]))
    assert lines(path) == [{"n": 3}]


def test_tags_are_written_keys_are_not_filtered(tmp_path):
    path = tmp_path / "out.jsonl"
    sink = make("file", {"path": str(path)}, tags_target_key="tags", include_keys=("b",))
    body = {"a": 1}
    write(sink, Batch([body], [Meta(tags=["y", "x"])]))
    assert lines(path) == [{"a": 1, "tags": ["x", "y"]}]
    assert body == {"a": 1}


def test_each_batch_is_there_at_once(tmp_path):
    path = tmp_path / "out.jsonl"

    async def run():
        sink = make("file", {"path": str(path)})
        await sink.start()
        await sink.write(Batch([{"n": 1}]))
        assert lines(path) == [{"n": 1}]
        await sink.stop()
        with pytest.raises(Transient):
            await sink.write(Batch([{"n": 2}]))

    asyncio.run(run())


@pytest.mark.parametrize(("path", "kind"), [("absent/out", Transient), (".", Permanent)])
def test_a_file_that_cannot_be_opened(tmp_path, path, kind):
    with pytest.raises(kind, match="cannot be opened"):
        asyncio.run(make("file", {"path": str(tmp_path / path)}).start())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_a_full_disk_is_tried_again():
    with pytest.raises(Transient, match="No space left"):
        write(make("file", {"path": "/dev/full", "append": True}), Batch([{"n": 1}]))


def test_an_event_that_cannot_be_written_ends_its_batch(tmp_path):
    with pytest.raises(Permanent, match="cannot be written as JSON"):
        write(make("file", {"path": str(tmp_path / "out")}), Batch([{"bad": object()}]))


def test_standard_output_gets_one_line_an_event(capfd):
    write(make("stdout", {}, tags_target_key="tags"), Batch([{"n": 1}]), Batch([{"n": 2}, {"n": 3}]))
    assert capfd.readouterr().out == '{"n":1,"tags":[]}\n{"n":2,"tags":[]}\n{"n":3,"tags":[]}\n'


def test_a_reader_that_leaves_ends_the_output():
    script = (
        "import asyncio\n"
        "from penstock.core.batch import Batch\n"
        "from penstock.core.errors import Permanent\n"
        "from penstock.plugins.sinks import stdout\n"
        "from penstock.sdk import Context\n"
        "sink = stdout.build(stdout.Config(), Context('p', 'stdout'))\n"
        "try:\n"
        "    for _ in range(10000): asyncio.run(sink.write(Batch([{'text': 'x' * 1000}] * 100)))\n"
        "except Permanent as error:\n"
        "    raise SystemExit(7)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(20) == 7


def test_what_standard_output_did_not_take_is_written_once(monkeypatch):
    written = bytearray()
    room = [3, 0, 5, 0, 100]

    def take(_descriptor, data):
        size = room.pop(0)
        if size == 0:
            raise BlockingIOError(11, "try again")
        written.extend(data[:size])
        return min(size, len(data))

    monkeypatch.setattr(stdout.os, "write", take)

    async def run():
        sink = make("stdout")
        batch = Batch([{"number": 1}])
        for _ in range(2):
            with pytest.raises(Transient):
                await sink.write(batch)
        await sink.write(batch)

    asyncio.run(run())
    assert written == b'{"number":1}\n'


@pytest.mark.parametrize("name", ["noop", "drop"])
def test_noop_takes_everything(name):
    write(make(name), Batch([{"n": 1}]))
