"""The file source: once and following, rotation, refusals, and positions that survive a restart."""

import asyncio
import gzip
import json
import logging
from pathlib import Path

import pytest

from penstock.core.errors import BufferFull, ConfigError, Permanent
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.sdk import Context
from penstock.testing.plugins import checked


class Pipe:
    """A buffer that delivers at once: `verdict(bodies)` says whether a batch arrives."""

    acknowledgments = True

    def __init__(self, verdict=lambda bodies: True, events_max=10_000):
        self.events_max = events_max
        self.bytes_max = 10**9
        self.events = []
        self.types = set()
        self.writes = []
        self.is_started = False
        self.held = None
        """A list to keep batches in instead of delivering them."""
        self._verdict = verdict

    def started(self):
        self.is_started = True

    def handle(self, on_done=None):
        return Handle(on_done)

    def write_now(self, batch, size_bytes):
        assert size_bytes <= self.bytes_max and len(batch) <= self.events_max
        self.writes.append(len(batch))
        self.types.add(batch.origin.event_type)
        if self.held is not None:
            self.held.append(batch)
            self.events += batch.bodies
            return True
        ok = self._verdict(batch.bodies)
        if ok:
            self.events += batch.bodies
        batch.release_all(ok=ok)
        return True

    async def write(self, batch, size_bytes, timeout_s=None):
        if not self.write_now(batch, size_bytes):
            raise BufferFull

    @property
    def messages(self):
        return [event["message"] for event in self.events]


def make(options, **surroundings):
    found, config = checked("source", "file", options)
    return found.module.build(config, Context("p", "file", kind="source", **surroundings))


def read(options, pipe=None, **surroundings):
    """Run to the end."""
    pipe = pipe or Pipe()
    asyncio.run(asyncio.wait_for(make(options, **surroundings).run(pipe), 20))
    assert pipe.is_started
    return pipe


def follow(options, script, pipe=None, **surroundings):
    """Run while `script(pipe, until)` does; `until(test)` waits for a condition."""
    pipe = pipe or Pipe()

    async def until(test):
        async with asyncio.timeout(10):
            while not test():
                await asyncio.sleep(0.005)

    async def run():
        source = make({"tail": True, "poll_interval": "10ms", **options}, **surroundings)
        task = asyncio.create_task(source.run(pipe))
        try:
            await until(lambda: pipe.is_started or task.done())
            await script(pipe, until)
        finally:
            await source.stop()
            await source.stop()
            await task

    asyncio.run(run())
    return pipe


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def test_every_line_of_a_file_once(tmp_path):
    path = tmp_path / "app.log"
    path.write_bytes("one\ntwö\r\n\nlast".encode())
    pipe = read({"path": str(path), "record_type": "event"})
    assert pipe.events == [{"message": "one"}, {"message": "twö"}, {"message": ""}, {"message": "last"}]
    assert pipe.types == {"event"}


def test_an_empty_file_has_no_events(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    assert read({"path": str(path)}).events == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Permanent, match=r"Error processing the input file .*absent"):
        read({"path": str(tmp_path / "absent")})


def test_json_lines_and_lines_that_are_none(tmp_path):
    path = tmp_path / "app.log"
    path.write_text('{"n": 123456789012345678901}\nplain\n[1]\n')
    pipe = read({"path": str(path), "format": "json", "record_type": "event"})
    assert pipe.events == [{"n": 123456789012345678901}, {"message": "plain"}, {"message": "[1]"}]


def test_patterns_exclusions_and_where_events_come_from(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a.log", "deep/b.log", "deep/er/c.log", "deep/er/debug.log", "d.txt"):
        (tmp_path / name).write_text(f"{name}\nsecond\n")
    pipe = read(
        {"paths": [str(tmp_path / "**/*.log"), str(tmp_path / "a.log")], "exclude_paths": [str(tmp_path / "**/debug*")]}
    )
    assert sorted(pipe.messages) == ["a.log", "deep/b.log", "deep/er/c.log", "second", "second", "second"]
    second = [event for event in pipe.events if event["message"] == "second"]
    assert second[0]["file"] == {"path": str(tmp_path / "a.log"), "name": "a.log"}
    assert second[0]["offset"] == 6


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-16", "UTF-16"), ("utf-16-be", "UTF-16BE"), ("latin-1", "ISO-8859-1")]
)
def test_encodings(tmp_path, encoding, name):
    path = tmp_path / "app.log"
    text = "eins\nzwö Ċ Ā\n" if "16" in encoding else "eins\nzwö\n"  # Ċ holds the byte of a line feed
    path.write_bytes(text.encode(encoding))
    pipe = read({"path": str(path), "encoding": name, "read_buffer_size": 6})
    assert pipe.messages == text.split("\n")[:-1]


def test_long_lines_are_cut_and_the_next_one_is_whole(tmp_path):
    registry = Registry()
    path = tmp_path / "app.log"
    path.write_text("x" * 25 + "\nshort\n" + "y" * 900 + "\nend\n")
    pipe = read({"path": str(path), "max_line_length": 10, "read_buffer_size": 16}, registry=registry)
    assert pipe.messages == ["x" * 10, "short", "y" * 10, "end"]
    assert registry.value("p.file.linesTruncated") == 2


def test_batches_have_the_configured_size(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("".join(f"{n}\n" for n in range(25)))
    pipe = read({"path": str(path), "batch_size": 10})
    assert pipe.writes == [10, 10, 5]
    pipe = read({"path": str(path), "batch_size": 10}, Pipe(events_max=4))
    assert pipe.messages == [str(n) for n in range(25)]


def test_compressed_files_and_codecs(tmp_path):
    lines = [json.dumps({"n": n}) for n in range(500)]
    (tmp_path / "a.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    options = {"path": str(tmp_path / "a.gz"), "compression": "gzip", "record_type": "event", "read_buffer_size": 100}
    assert read(options).messages == lines
    assert [event["n"] for event in read({**options, "codec": {"ndjson": {}}}).events] == list(range(500))


def test_a_damaged_file_does_not_stop_the_others(tmp_path, caplog):
    whole = gzip.compress(b"fine\n" * 3)
    (tmp_path / "a.gz").write_bytes(whole[:-9])
    (tmp_path / "b.gz").write_bytes(whole)
    registry = Registry()
    pipe = read({"paths": [str(tmp_path / "*.gz")], "compression": "gzip"}, registry=registry)
    assert pipe.messages.count("fine") in (3, 6) and registry.value("p.file.readErrors") == 1
    assert "a.gz" in caplog.text


def test_refused_events_are_read_again_and_then_given_up(tmp_path):
    registry = Registry()
    path = tmp_path / "app.log"
    path.write_text("".join(f"{n}\n" for n in range(30)))
    seen = []

    def verdict(bodies):
        seen.append(bodies[0]["message"])
        return bodies[0]["message"] != "10" or seen.count("10") > 2

    pipe = read({"path": str(path), "batch_size": 10}, Pipe(verdict), registry=registry)
    assert sorted(pipe.messages, key=int) == [str(n) for n in range(30)]
    assert seen.count("10") == 3 and seen.count("0") == seen.count("20") == 1

    pipe = read({"path": str(path), "batch_size": 10, "max_acknowledgment_retries": 2}, Pipe(lambda bodies: False))
    assert pipe.events == [] and len(pipe.writes) == 9
    assert registry.value("p.file.acknowledgmentFailures") == 2


def test_a_refused_file_with_a_codec_is_read_again(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"n": 1}\n{"n": 2}')
    attempts = []

    def verdict(bodies):
        attempts.append(len(bodies))
        return len(attempts) > 1

    pipe = read({"path": str(path), "codec": {"ndjson": {}}, "record_type": "event"}, Pipe(verdict))
    assert [event["n"] for event in pipe.events][-2:] in ([1, 2], [2, 1])


def test_following_a_file_that_grows(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("one\n")

    async def script(pipe, until):
        await until(lambda: pipe.messages == ["one"])
        append(path, "tw")
        await asyncio.sleep(0.05)
        assert pipe.messages == ["one"]
        append(path, "o\nthree\n")
        await until(lambda: pipe.messages == ["one", "two", "three"])

    follow({"path": str(path)}, script)


def test_beginning_at_the_end_takes_new_files_whole(tmp_path):
    (tmp_path / "old.log").write_text("before\n")

    async def script(pipe, until):
        await asyncio.sleep(0.05)
        append(tmp_path / "old.log", "after\n")
        await until(lambda: "after" in pipe.messages)
        (tmp_path / "new.log").write_text("whole\n")
        await until(lambda: "whole" in pipe.messages)
        assert "before" not in pipe.messages

    follow({"paths": [str(tmp_path / "*.log")], "start_position": "end"}, script)


def test_a_renamed_file_is_read_to_its_end_and_the_new_one_from_its_start(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("1\n")
    registry = Registry()

    async def script(pipe, until):
        await until(lambda: pipe.messages == ["1"])
        path.rename(tmp_path / "app.log.1")
        append(tmp_path / "app.log.1", "2\nunended")
        path.write_text("3\n")
        await until(lambda: sorted(pipe.messages) == ["1", "2", "3", "unended"])
        await until(lambda: registry.value("p.file.filesClosed") == 1)

    follow({"path": str(path), "rotate_wait": "50ms"}, script, registry=registry)
    assert registry.value("p.file.filesRotated") == 1


@pytest.mark.parametrize("rewritten", ["new 1\n", "something else that is much longer than before\n"])
def test_a_truncated_file_is_read_from_its_start(tmp_path, rewritten):
    path = tmp_path / "app.log"
    path.write_text("old 1\nold 2\n")
    registry = Registry()

    async def script(pipe, until):
        await until(lambda: len(pipe.messages) == 2)
        with path.open("r+") as file:
            file.truncate()
            file.write(rewritten)
        await until(lambda: pipe.messages[2:] == [rewritten.rstrip()])

    follow({"path": str(path)}, script, registry=registry)
    assert registry.value("p.file.truncationEvents") == 1


def test_positions_survive_a_restart(tmp_path):
    path, checkpoint = tmp_path / "app.log", tmp_path / "state" / "positions.json"
    path.write_text("one\ntwo\n")
    options = {"path": str(path), "checkpoint_file": str(checkpoint)}

    async def first(pipe, until):
        await until(lambda: pipe.messages == ["one", "two"])

    follow(options, first)
    append(path, "three\n")

    async def second(pipe, until):
        await until(lambda: pipe.messages == ["three"])

    follow(options, second)
    path.unlink()
    path.write_text("other\n")

    async def third(pipe, until):
        await until(lambda: pipe.messages == ["other"])

    follow(options, third)


def test_only_delivered_events_move_the_position(tmp_path):
    path, checkpoint = tmp_path / "app.log", tmp_path / "positions.json"
    path.write_text("one\n")
    options = {"path": str(path), "checkpoint_file": str(checkpoint)}
    pipe = Pipe()
    pipe.held = []

    async def nothing_arrives(pipe, until):
        await until(lambda: pipe.messages == ["one"])

    follow(options, nothing_arrives, pipe)
    positions = list(json.loads(checkpoint.read_bytes()).values())
    assert [position["committed"] for position in positions] == [0]
    pipe.held[0].release_all(ok=True)  # after the source has ended
    positions = list(json.loads(checkpoint.read_bytes()).values())
    assert [position["committed"] for position in positions] == [4]


def test_a_damaged_checkpoint_file_is_put_aside(tmp_path, caplog):
    path, checkpoint = tmp_path / "app.log", tmp_path / "positions.json"
    path.write_text("one\n")
    checkpoint.write_text('{"1:2": {"committed": "no"')

    async def script(pipe, until):
        await until(lambda: pipe.messages == ["one"])

    follow({"path": str(path), "checkpoint_file": str(checkpoint)}, script)
    assert (tmp_path / "positions.json.corrupt").exists()
    assert "Renaming to .corrupt and starting fresh" in caplog.text


def test_without_a_checkpoint_file_there_is_a_warning(tmp_path, caplog):
    path = tmp_path / "app.log"
    path.write_text("one\n")

    async def script(pipe, until):
        await until(lambda: pipe.messages)

    with caplog.at_level(logging.WARNING):
        follow({"path": str(path)}, script)
        assert "No checkpoint_file configured. Checkpoint state will not be persisted across restarts." in caplog.text
        caplog.clear()
        follow({"path": str(path)}, script, data_dir=tmp_path / "data")
        assert "No checkpoint_file" not in caplog.text
    assert (tmp_path / "data" / "file-p.json").exists()


def test_events_that_are_never_confirmed_count_as_refused(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("one\n")
    pipe = Pipe()
    pipe.held = []

    async def script(pipe, until):
        await until(lambda: len(pipe.events) == 3)

    registry = Registry()
    options = {"path": str(path), "acknowledgments": True, "acknowledgment_timeout": "20ms"}
    follow({**options, "max_acknowledgment_retries": 2}, script, pipe, registry=registry)
    assert registry.value("p.file.acknowledgmentFailures") >= 2


def test_more_files_than_may_be_open(tmp_path):
    for n in range(8):
        (tmp_path / f"{n}.log").write_text(f"{n}\n")

    async def script(pipe, until):
        await until(lambda: len(pipe.messages) == 8)
        append(tmp_path / "3.log", "more\n")
        await until(lambda: "more" in pipe.messages)

    pipe = follow({"paths": [str(tmp_path / "*.log")], "max_active_files": 2}, script)
    assert sorted(pipe.messages) == sorted([*map(str, range(8)), "more"])


def test_a_codec_while_following(tmp_path):
    path = tmp_path / "app.json"
    path.write_text('{"n": 1}\n')

    async def script(pipe, until):
        await until(lambda: [event["n"] for event in pipe.events] == [1])
        append(path, '{"n": 2}\nbroken\n{"n": 3}\n')
        await until(lambda: [event["n"] for event in pipe.events] == [1, 2, 3])

    registry = Registry()
    follow({"path": str(path), "codec": {"ndjson": {}}, "record_type": "event"}, script, registry=registry)
    assert registry.value("p.file.dataLossEvents") == 1


def test_no_descriptor_is_left_open(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.log").write_text("x\n" * 100)
    before = len(list(Path("/proc/self/fd").iterdir()))
    read({"paths": [str(tmp_path / "*.log")]})
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "At least one of path or paths is required"),
        ({"path": "x", "start_position": "end"}, "start_position: end is only valid when tail is true"),
        ({"path": "x", "codec": {"ndjson": {}}}, "The file source requires recordType to be event when using a codec."),
        ({"path": "x", "encoding": "klingon"}, "unknown encoding: klingon"),
    ],
)
def test_rules(options, message):
    with pytest.raises(ConfigError, match=message):
        make(options)
