"""One run at a time has a data directory; the units of one that was killed are waited for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.core.errors import Permanent
from penstock.runtime.data_dir import orphans_gone, take_data_dir

HOLDER = """\
import sys
from pathlib import Path
from penstock.runtime.data_dir import take_data_dir
lock = take_data_dir(Path(sys.argv[1]))
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def orphaned(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A directory that a process has taken over from one that has ended, as units do."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "taken\n"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "lock").write_text(f"{ended.pid}\n")
    try:
        yield tmp_path, holder
    finally:
        holder.communicate()


def test_units_of_a_run_that_was_killed_are_waited_for(orphaned, caplog) -> None:
    data_dir, holder = orphaned

    async def start() -> int:
        waiting = asyncio.create_task(orphans_gone(data_dir))
        while not caplog.records:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        await asyncio.to_thread(holder.communicate)
        await waiting
        return take_data_dir(data_dir)

    caplog.set_level("INFO")
    os.close(asyncio.run(start()))
    assert [record.message.partition(";")[2] for record in caplog.records] == [
        " waiting for its units, which finish what they have"
    ]


def test_units_that_do_not_end_are_given_up(orphaned) -> None:
    data_dir, _ = orphaned
    asyncio.run(orphans_gone(data_dir, wait_s=0.1))
    with pytest.raises(Permanent, match=r"is in use by process \d+: stop it"):
        take_data_dir(data_dir)


def test_a_run_that_lives_is_not_waited_for(tmp_path: Path) -> None:
    lock = take_data_dir(tmp_path)
    try:
        asyncio.run(orphans_gone(tmp_path))
        with pytest.raises(Permanent, match=f"is in use by process {os.getpid()}"):
            take_data_dir(tmp_path)
    finally:
        os.close(lock)


def test_nothing_is_made_where_there_is_no_directory(tmp_path: Path) -> None:
    asyncio.run(orphans_gone(tmp_path / "data"))
    assert not (tmp_path / "data").exists()
