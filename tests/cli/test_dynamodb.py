"""How far tables are read, as the leases tell."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from penstock.cli import application
from penstock.core.clock import Clock
from penstock.lib import aws
from penstock.lib.lease import SqliteStore, new_owner
from penstock.testing.dynamodb import FakeDynamodb
from penstock.testing.opensearch import FakeOpenSearch

TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/music"
EXPORT = f"{TABLE}/export/01"
STREAM = f"{TABLE}/stream/1"
PIPELINE = f"""
version: "2"
music:
  source:
    dynamodb:
      tables:
        - table_arn: "{TABLE}"
          export: {{s3_bucket: exports}}
          stream: {{start_position: LATEST}}
      aws: {{region: us-east-1}}
  sink:
    - stdout:
"""


async def fill(path: Path) -> None:
    """An export with one of two files loaded, and one shard that waits for it."""
    now_ms = round(time.time() * 1000)
    store = SqliteStore(path)
    state = {"exportTime": 5, "streamArns": [STREAM], "loadingSince": now_ms - 60_000}
    await store.put_state("music|GLOBAL", TABLE, state)
    known = {"totalFiles": 3, "emptyFiles": 1, "totalRecords": 1000}
    await store.put_state("music|GLOBAL", EXPORT, known)
    await store.create("music|EXPORT", f"{TABLE}|5", {"exportArn": EXPORT, "status": "Completed"})
    for key, loaded in (("a", 400), ("b", 100)):
        await store.create("music|DATAFILE", f"{EXPORT}|exports|{key}", {"totalRecords": 500, "loadedRecords": loaded})
    lease = await store.acquire("music|DATAFILE", new_owner(), 60)
    assert lease is not None
    await store.complete(lease)
    await store.create("music|STREAM", f"{STREAM}|shard-1", {"waitingSince": now_ms - 20 * 3600 * 1000})
    await store.shut()


def test_export_and_stream_are_shown(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "leases.db"))
    file = tmp_path / "pipelines.yaml"
    file.write_text(PIPELINE)
    arguments = ["dynamodb", "status", str(file), "--data-dir", str(tmp_path)]
    runner, app = CliRunner(), application(arguments, {})
    (told,) = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    export, stream = told["export"], told["stream"]
    assert (export["state"], export["files"], export["filesTotal"]) == ("LOADING", 2, 3)
    assert (export["items"], export["itemsTotal"]) == (500, 1000)
    assert 50 <= export["secondsLeft"] <= 90
    assert (stream["shardsOpen"], stream["shardsWaitingForExport"]) == (1, 1)
    assert 3.9 * 3600 <= stream["secondsUntilLoss"] <= 4 * 3600
    text = runner.invoke(app, arguments).stdout
    assert "export  loading: 2 of 3 files, 500 of 1,000 items, about 2 min left" in text
    assert "1 wait for the export, the oldest change is kept 4.0 h more" in text


def test_losses_are_shown_with_the_way_to_mend_them(tmp_path: Path) -> None:
    async def fill_in() -> None:
        await fill(tmp_path / "leases.db")
        store = SqliteStore(tmp_path / "leases.db")
        lost = {"what": "shard 1", "why": "they were older than 24 hours", "since": 0, "at": 60_000, "certain": True}
        await store.create("music|LOSS", f"{TABLE}|shard 1", lost)
        await store.create("music|LOSS", f"{TABLE}-of-others|shard 1", lost)
        await store.shut()

    asyncio.run(fill_in())
    file = tmp_path / "pipelines.yaml"
    file.write_text(PIPELINE)
    arguments = ["dynamodb", "status", str(file), "--data-dir", str(tmp_path)]
    runner, app = CliRunner(), application(arguments, {})
    (told,) = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert [loss["why"] for loss in told["losses"]] == ["they were older than 24 hours"]
    text = runner.invoke(app, arguments).stdout
    assert "lost since 1970-01-01 00:00:00 UTC: they were older than 24 hours (shard 1, noticed" in text
    assert "penstock dynamodb resync PIPELINES --pipeline music --table music" in text


def resync(folder: Path, pipeline: str, *options: str) -> tuple[int, dict[str, Any]]:
    file = folder / "pipelines.yaml"
    file.write_text(pipeline)
    arguments = ["dynamodb", "resync", str(file), "--data-dir", str(folder), *options]
    result = CliRunner().invoke(application(arguments, {}), [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_a_resync_that_cannot_be_is_refused_with_every_reason(tmp_path: Path) -> None:
    code, told = resync(tmp_path, PIPELINE)
    assert (code, told) == (1, {"state": "REFUSED", "reasons": ["pipeline music writes to no index"]})
    code, told = resync(tmp_path, PIPELINE, "--pipeline", "other")
    assert (code, told["reasons"]) == (1, ["no pipeline other reads a table"])
    code, told = resync(tmp_path, PIPELINE.replace("table_arn", "table_arm"))
    assert code == 1
    assert told["reasons"][0] == "no pipeline reads a table"
    assert any("table_arm" in reason for reason in told["reasons"])


def test_a_dry_run_shows_the_switch_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = FakeDynamodb(Clock(), table="music")
    monkeypatch.setattr(aws, "sessions", lambda: table)

    async def inside() -> None:
        async with FakeOpenSearch() as search:
            search.answer("PUT", "/songs-1", {}, b'{"aliases": {"songs": {}}}')
            sink = f"""opensearch:
        hosts: ["{search.url}"]
        index: songs
        document_id: '${{getMetadata("primary_key")}}'
        document_version: '${{getMetadata("document_version")}}'
        document_version_type: external"""
            code, told = await asyncio.to_thread(resync, tmp_path, PIPELINE.replace("stdout:", sink), "--dry-run")
            new = told["indexes"]["songs"]
            assert (code, told["state"], told["tables"]) == (0, "POSSIBLE", [TABLE])
            assert told["actions"] == {
                "songs": [
                    {"remove": {"index": "songs-1", "alias": "songs"}},
                    {"add": {"index": new, "alias": "songs"}},
                ]
            }
            assert {request.method for request in search.requests} == {"GET"}
            assert not (tmp_path / "resync").exists()
            table.exports.recovery = False
            code, told = await asyncio.to_thread(resync, tmp_path, PIPELINE.replace("stdout:", sink), "--dry-run")
            assert (code, told["state"]) == (1, "REFUSED")
            assert "Point-in-time recovery (PITR) needs to be enabled" in told["reasons"][0]
            assert table.exports.exports == []

    asyncio.run(inside())
