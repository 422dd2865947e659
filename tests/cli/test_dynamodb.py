"""How far tables are read, as the leases tell."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from typer.testing import CliRunner

from penstock.cli import application
from penstock.lib.lease import SqliteStore, new_owner

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


def test_nothing_but_status_is_known(tmp_path: Path) -> None:
    arguments = ["dynamodb", "resync", str(tmp_path)]
    assert CliRunner().invoke(application(arguments, {}), arguments).exit_code == 2
