"""The `dlq` commands on files: what they print, their exit codes, and a redrive into a server."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penstock.cli import application
from penstock.testing.opensearch import FakeOpenSearch

PIPELINES = """
main:
  source: {{http: }}
  sink: [{{opensearch: {{hosts: ["{url}"], index: logs}}}}]
"""


def run(*arguments: str | Path) -> Result:
    words = ["dlq", *map(str, arguments)]
    return CliRunner().invoke(application(words, {}), words)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    place = tmp_path / "dead-letters"
    place.mkdir()
    with (place / "main.jsonl").open("w") as file:
        for n in range(6):
            field, status = ("x", 400) if n < 4 else ("y", 404)
            failed = {
                "index": "logs",
                "indexId": f"{n}",
                "status": status,
                "message": f"failed to parse field [{field}] of type [long] in document with id '{n}'",
                "document": {"n": n},
            }
            name = "opensearch"
            record = {"pluginId": name, "pluginName": name, "pipelineName": "main", "failedData": failed}
            file.write(json.dumps({**record, "timestamp": f"2024-05-01T12:00:0{n}.000Z"}) + "\n")
    return place


@pytest.fixture
def server() -> Iterator[FakeOpenSearch]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = FakeOpenSearch()
    asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(10)
    yield made
    asyncio.run_coroutine_threadsafe(made.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, quiet = logging.getLogger(), logging.getLogger("penstock.runtime.deliver.surroundings")
    before = root.level, root.handlers[:], quiet.level
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    quiet.setLevel(before[2])


def test_count_groups_by_cause(letters: Path) -> None:
    result = run("count", letters)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "4  mapper_parsing_exception on field x (long)  (2024-05-01 12:00)",
        "2  mapper_parsing_exception on field y (long)  (2024-05-01 12:00)",
        "6 in all",
    ]
    by_status = [json.loads(line) for line in run("count", letters, "--by", "status", "--json").stdout.splitlines()]
    assert [(group["status"], group["count"]) for group in by_status] == [("400", 4), ("404", 2)]
    assert run("count", letters, "--status", "500").stdout == "no dead letters\n"


def test_list_and_show(letters: Path) -> None:
    result = run("list", letters, "--message", "/field .y/", "--when", "/n > 4")
    (line,) = result.stdout.splitlines()
    id_, time, place, status, target, *_ = line.split()
    assert (time, place, status, target) == ("2024-05-01T12:00:05.000+00:00", "main/opensearch", "404", "logs/5")
    shown = run("show", letters, id_)
    assert json.loads(shown.stdout)["failedData"]["document"] == {"n": 5}
    assert run("show", letters, "nothing").exit_code == 1
    limited = run("list", letters, "--limit", "2", "--since", "2024-05-01T12:00:02", "--json")
    assert [json.loads(row)["failedData"]["indexId"] for row in limited.stdout.splitlines()] == ["2", "3"]
    assert "2 more" in limited.stderr


def test_what_is_broken_is_told(letters: Path) -> None:
    with (letters / "main.jsonl").open("a") as file:
        file.write("{broken\n")
    result = run("list", letters)
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 6
    assert "1 piece could not be read" in result.stderr and "main.jsonl: line 7: no JSON" in result.stderr
    pipelines = letters.parent / "p.yaml"
    pipelines.write_text(PIPELINES.format(url="http://127.0.0.1:1"))
    dry = run("redrive", pipelines, "--from", letters, "--dry-run", "--json")
    assert dry.exit_code == 3
    assert json.loads(dry.stdout) == {"found": {"main/1": 6}, "skipped": {}, "sentBefore": 0, "unreadable": 1}


def test_redrive_sends_notes_and_sends_no_more(letters: Path, server: FakeOpenSearch, tmp_path: Path) -> None:
    pipelines = tmp_path / "p.yaml"
    pipelines.write_text(PIPELINES.format(url=server.url))
    dry = run("redrive", pipelines, "--from", letters, "--dry-run")
    assert dry.exit_code == 0 and "dry run: nothing was sent; 6 would go through the sink" in dry.stdout
    assert not server.requests
    one = lambda action, target, document: document["n"] == 0  # noqa: E731
    server.fail_items(one, 400, "mapper_parsing_exception", "still bad", times=1)
    first = run("redrive", pipelines, "--from", letters)
    assert first.exit_code == 3
    assert first.stdout.splitlines() == [
        "6 for sink 1 of pipeline main",
        "5 arrived",
        "1 was refused again: still bad",
    ]
    assert "6 of 6" in first.stderr
    assert len(run("list", letters).stdout.splitlines()) == 1
    assert len(run("list", letters, "--all").stdout.splitlines()) == 6
    second = run("redrive", pipelines, "--from", letters, "--json")
    assert second.exit_code == 0
    assert json.loads(second.stdout) == {
        "found": {"main/1": 1},
        "skipped": {},
        "sentBefore": 5,
        "unreadable": 0,
        "arrived": 1,
        "refused": {},
    }
    third = run("redrive", pipelines, "--from", letters)
    assert third.exit_code == 0 and "6 were sent again before" in third.stdout
    assert len(server.documents("logs")) == 6


def test_redrive_gives_up_in_time(letters: Path, server: FakeOpenSearch, tmp_path: Path) -> None:
    pipelines = tmp_path / "p.yaml"
    pipelines.write_text(PIPELINES.format(url=server.url))
    server.fail("/logs", 503, times=1000)
    result = run("redrive", pipelines, "--from", letters, "--timeout", "0.5")
    assert result.exit_code == 4 and "6 were not sent: run it again" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["list", "missing"], 1, "there is no file or directory missing"),
        (["count", ".", "--by", "day"], 2, "is not one of"),
        (["list", ".", "--since", "yesterday"], 2, "neither a time"),
        (["list", ".", "--message", "/(/"], 2, "no regular expression"),
        (["list", ".", "--when", "/a =="], 2, "--when"),
        (["redrive", "missing.yaml", "--from", "."], 1, "missing.yaml"),
        (["redrive", "p.yaml", "--from", ".", "--through", "air"], 2, "neither sink nor pipeline"),
    ],
)
def test_wrong_use_is_told(arguments: list[Any], code: int, says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert says in result.stderr.replace("\n", " ")
