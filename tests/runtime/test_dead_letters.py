"""The dead-letter file: one record a line, bounded, never overwritten, whole lines whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.runtime.dead_letters import DeadLetterFile
from penstock.sdk import DeadLetter


def letters(*numbers: int) -> list[DeadLetter]:
    return [DeadLetter("opensearch", "opensearch", "p", 0, {"document": {"n": n}}) for n in numbers]


def numbers(*files: Path) -> list[int]:
    return [json.loads(line)["failedData"]["document"]["n"] for file in files for line in file.read_text().splitlines()]


def test_files_rotate_until_all_are_full_and_then_refuse(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "p.jsonl"

    async def run() -> None:
        file = DeadLetterFile(path, bytes_max=300, files_max=3)
        kept = 0
        with pytest.raises(OSError, match="are full: move them away to make room"):
            for n in range(100):
                await file.write(letters(n))
                kept += 1
        parts = [path.with_name("p.jsonl.2"), path.with_name("p.jsonl.1"), path]
        assert numbers(*parts) == list(range(kept)) and kept > 3
        assert all(part.stat().st_size <= 300 for part in parts)
        parts[0].unlink()
        await file.write(letters(100))
        assert numbers(path)[-1] == 100
        await file.close()
        await file.close()

    asyncio.run(run())


def test_a_file_that_options_name_has_lines_of_the_known_form(tmp_path: Path) -> None:
    async def run() -> None:
        file = DeadLetterFile(tmp_path / "dlq", wrapped=True)
        await file.write([DeadLetter("opensearch", "opensearch", "p", 0, {"document": {}, "message": 'a "b"'})])
        await file.write(letters(1))
        await file.close()

    asyncio.run(run())
    first, second = (json.loads(line) for line in (tmp_path / "dlq").read_text().splitlines())
    assert first["failure"] == 'a "b"' and first["Document"][0]["failedData"]["message"] == 'a "b"'
    assert second["failure"] == "" and [each["pluginId"] for each in second["Document"]] == ["opensearch"]


def test_half_a_line_of_a_killed_process_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"half')

    async def run() -> None:
        file = DeadLetterFile(path)
        await file.write(letters(1, 2))
        await file.close()

    asyncio.run(run())
    half, *whole = path.read_text().splitlines()
    assert half == '{"half' and len(whole) == 2


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.jsonl"
    write = os.write
    full = False

    def no_room(file: int, data: bytes) -> int:
        if full and len(data) <= 10:
            raise OSError(28, "No space left on device")
        return write(file, data[: len(data) - 10] if full else data)

    async def run() -> None:
        nonlocal full
        file = DeadLetterFile(path)
        await file.write(letters(1))
        monkeypatch.setattr(os, "write", no_room)
        full = True
        with pytest.raises(OSError, match="No space left"):
            await file.write(letters(2))
        full = False
        await file.write(letters(3))
        await file.close()

    asyncio.run(run())
    assert numbers(path) == [1, 3]


def test_units_write_to_one_file_together(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from penstock.runtime.dead_letters import DeadLetterFile\n"
        "from penstock.sdk import DeadLetter\n"
        "async def main(first):\n"
        "    file = DeadLetterFile(Path(sys.argv[1]), bytes_max=2000, files_max=200)\n"
        "    for n in range(first, first + 60):\n"
        "        await file.write([DeadLetter('opensearch', 'opensearch', 'p', 0, {'document': {'n': n}})])\n"
        "    await file.close()\n"
        "asyncio.run(main(int(sys.argv[2])))\n"
    )
    units = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n * 60)]) for n in range(3)]
    assert [unit.wait(25) for unit in units] == [0, 0, 0]
    files = sorted(tmp_path.iterdir())
    assert len(files) > 5, "they were rotated meanwhile"
    assert sorted(numbers(*files)) == list(range(180)), "every line is whole, and there once"
    assert all(file.stat().st_size <= 2000 for file in files)
