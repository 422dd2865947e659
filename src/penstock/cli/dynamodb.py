"""`penstock dynamodb status`: how far pipelines that read tables have come."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.core import start

if TYPE_CHECKING:
    from penstock.config.server import ServerConfig
    from penstock.lib.lease import Lease, LeaseStore
    from penstock.plan import PipelinePlan

EXIT_CONFIG = 1
RETENTION_S = 24 * 3600


def dynamodb(
    action: Annotated[str, typer.Argument(help="status")],
    pipelines: Annotated[Path, typer.Argument(help="A pipeline file, or a directory of them.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="data-prepper-config.yaml")] = None,
    data_dir: Annotated[Path, typer.Option(envvar="PENSTOCK_DATA_DIR", help="Where the leases live.")] = Path(
        ".penstock"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show how far exports are loaded and changes are read.

    Exit codes: 0 shown; 1 the pipelines are not valid, or nothing is known of them; 2 wrong usage.
    """
    start.describe_options = False
    if action != "status":
        raise typer.BadParameter(f"{action} is not status", param_hint="ACTION")
    found = asyncio.run(_status(pipelines, config, data_dir))
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for table in found:
            print("\n".join(_lines(table)))
    if not found:
        typer.echo("No table is read by these pipelines, or no pipeline has started here yet.", err=True)
        raise typer.Exit(EXIT_CONFIG)


async def _status(path: Path, config_path: Path | None, data_dir: Path) -> list[dict[str, Any]]:
    from penstock.config.documents import read_pipelines
    from penstock.config.server import read_server_config
    from penstock.core.errors import Permanent, Transient
    from penstock.plan import make_plan, resolve_references

    documents, server = read_pipelines(path), read_server_config(config_path)
    references = await resolve_references(documents, server, environ=os.environ)
    plan = make_plan(documents, server_config=read_server_config(config_path, references), references=references)
    store = _store(plan.server, data_dir)
    if store is None:
        return []
    found = []
    try:
        for pipeline in plan.pipelines:
            if pipeline.source is not None and pipeline.source.name == "dynamodb":
                found += await _tables(pipeline, plan.server, store)
    except (Transient, Permanent) as error:
        typer.echo(f"The leases cannot be read: {error}", err=True)
        raise typer.Exit(EXIT_CONFIG) from None
    finally:
        await store.shut()
    return found


def _store(server: ServerConfig, data_dir: Path) -> LeaseStore | None:
    from penstock.core.clock import Clock
    from penstock.lib.lease import SqliteStore
    from penstock.runtime.leases import lease_opener

    opener = lease_opener(server.source_coordination, Clock())
    if opener is not None:
        return opener()
    path = data_dir / "leases.db"
    return SqliteStore(path) if path.exists() else None


async def _tables(pipeline: PipelinePlan, server: ServerConfig, store: LeaseStore) -> list[dict[str, Any]]:
    prefix = server.source_coordination.partition_prefix
    name = "|".join([*filter(None, [prefix]), pipeline.name])
    assert pipeline.source is not None
    found = []
    for table in pipeline.source.config.tables:
        state = await store.state(f"{name}|GLOBAL", table.table_arn)
        if state is None:
            continue
        entry: dict[str, Any] = {"pipeline": pipeline.name, "table": table.table_arn}
        if table.export is not None:
            entry["export"] = await _export(name, table.table_arn, state, store)
        if table.stream is not None:
            leases = [lease for lease in await store.find(f"{name}|STREAM") if _of(lease, state["streamArns"])]
            entry["stream"] = _stream(leases)
        found.append(entry)
    return found


async def _export(name: str, table_arn: str, state: dict[str, Any], store: LeaseStore) -> dict[str, Any]:
    lease = await store.get(f"{name}|EXPORT", f"{table_arn}|{state.get('exportTime')}")
    if lease is None:
        return {"state": "NOT_ASKED_FOR"}
    arn = lease.progress.get("exportArn")
    known = await store.state(f"{name}|GLOBAL", arn) if arn else None
    if known is None:
        waiting = {"ASSIGNED": "IN_PROGRESS", "CLOSED": "FAILED_AND_RETRIED", "COMPLETED": "FAILED"}
        return {"state": waiting.get(lease.status, "WAITING"), "exportArn": arn, "failures": lease.closed_count}
    files = [file for file in await store.find(f"{name}|DATAFILE") if file.key.startswith(f"{arn}|")]
    items = sum(file.progress.get("loadedRecords", 0) for file in files)
    done = known.get("emptyFiles", 0) + sum(1 for file in files if file.status == "COMPLETED")
    began = state.get("loadingSince")
    now_ms = round(time.time() * 1000)
    left_s = None
    if began and items and not state.get("exportLoaded"):
        left_s = round((known["totalRecords"] - items) * (now_ms - began) / 1000 / items)
    return {
        "state": "LOADED" if state.get("exportLoaded") else "LOADING",
        "exportArn": arn,
        "files": done,
        "filesTotal": known["totalFiles"],
        "items": items,
        "itemsTotal": known["totalRecords"],
        "secondsLeft": left_s,
        "filesPutAside": [file.key.rpartition("|")[2] for file in files if file.status == "CLOSED"],
    }


def _stream(leases: list[Lease]) -> dict[str, Any]:
    now_s = time.time()
    stamps = [lease.progress["waitingSince"] / 1000 for lease in leases if lease.progress.get("waitingSince")]
    seconds = [lease.progress["second"] for lease in leases if "second" in lease.progress]
    oldest_s = None if not stamps else round(now_s - min(stamps))
    return {
        "shardsOpen": sum(1 for lease in leases if lease.status != "COMPLETED"),
        "shardsRead": sum(1 for lease in leases if lease.status == "COMPLETED"),
        "shardsWaitingForExport": len(stamps),
        "oldestUnreadSeconds": oldest_s,
        "secondsUntilLoss": None if oldest_s is None else max(0, RETENTION_S - oldest_s),
        "lastChangeSecondsAgo": round(now_s - max(seconds)) if seconds else None,
    }


def _of(lease: Lease, stream_arns: list[str]) -> bool:
    return any(lease.key.startswith(f"{arn}|") for arn in stream_arns)


def _lines(table: dict[str, Any]) -> list[str]:
    lines = [f"{table['pipeline']}: {table['table']}"]
    export, stream = table.get("export"), table.get("stream")
    if export is not None:
        text = f"  export  {export['state'].lower().replace('_', ' ')}"
        if "itemsTotal" in export:
            text += f": {export['files']} of {export['filesTotal']} files"
            text += f", {export['items']:,} of {export['itemsTotal']:,} items"
            if export["secondsLeft"] is not None:
                text += f", about {export['secondsLeft'] // 60 + 1} min left"
        lines.append(text)
        lines += [f"          put aside and tried again: {key}" for key in export.get("filesPutAside", ())]
    if stream is not None:
        text = f"  stream  {stream['shardsOpen']} shards open, {stream['shardsRead']} read to the end"
        if stream["oldestUnreadSeconds"] is not None:
            hours = stream["secondsUntilLoss"] / 3600
            text += f"; {stream['shardsWaitingForExport']} wait for the export"
            text += f", the oldest change is kept {hours:.1f} h more"
        elif stream["lastChangeSecondsAgo"] is not None:
            text += f"; last change {stream['lastChangeSecondsAgo']} s ago"
        lines.append(text)
    return lines
