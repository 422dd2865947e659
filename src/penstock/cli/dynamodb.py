"""`penstock dynamodb`: how far pipelines that read tables have come, and their indexes made anew."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.core import start

if TYPE_CHECKING:
    from penstock.config.server import ServerConfig
    from penstock.lib.lease import Lease, LeaseStore
    from penstock.plan import PipelinePlan, Plan
    from penstock.runtime.resync import Progress, Request, Resync

EXIT_CONFIG = 1
EXIT_NOT_SWITCHED = 3
EXIT_INTERRUPTED = 130
RETENTION_S = 24 * 3600

dynamodb = typer.Typer(
    help="How far exports are loaded and changes read, and indexes of tables made anew.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Pipelines = Annotated[Path, typer.Argument(help="A pipeline file, or a directory of them.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="data-prepper-config.yaml")]
DataDir = Annotated[Path, typer.Option(envvar="PENSTOCK_DATA_DIR", help="Where the leases live.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dynamodb.command("status")
def status(
    pipelines: Pipelines, config: Config = None, data_dir: DataDir = Path(".penstock"), as_json: AsJson = False
) -> None:
    """Show how far exports are loaded and changes are read.

    Exit codes: 0 shown; 1 the pipelines are not valid, or nothing is known of them; 2 wrong usage.
    """
    start.describe_options = False
    found = asyncio.run(_status(pipelines, config, data_dir))
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for table in found:
            print("\n".join(_lines(table)))
    if not found:
        typer.echo("No table is read by these pipelines, or no pipeline has started here yet.", err=True)
        raise typer.Exit(EXIT_CONFIG)


@dynamodb.command("resync")
def resync(
    pipelines: Pipelines,
    pipeline: Annotated[str | None, typer.Option(help="The pipeline, where several read tables.")] = None,
    table: Annotated[str | None, typer.Option(help="Name or ARN of one table, where the pipeline reads more.")] = None,
    index: Annotated[str | None, typer.Option(help="The index, where the pipeline writes to more.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Where the name is that of an index: delete it as the alias takes over.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what an earlier run has not finished, and its new index.")
    ] = False,
    dead_letters_max: Annotated[int, typer.Option(min=0, help="Switch although documents were refused so often.")] = 0,
    s3_bucket: Annotated[str | None, typer.Option(help="Bucket for the export; that of the pipeline.")] = None,
    s3_prefix: Annotated[str | None, typer.Option(help="Key prefix of the export.")] = None,
    s3_region: Annotated[str | None, typer.Option(help="Region of the bucket.")] = None,
    config: Config = None,
    data_dir: DataDir = Path(".penstock"),
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "warning",
    as_json: AsJson = False,
) -> None:
    """Make the index of a table anew and switch to it, while the pipeline runs.

    The table is exported into a new index, which follows the stream until it has caught up. Then the name of the index
    becomes an alias of the new one in one step. A run that was interrupted is gone on with by the same command.

    Exit codes: 0 switched, or could be (--dry-run); 1 cannot be done, nothing was changed; 2 wrong usage; 3 not
    switched, the old index is in use as before; 130 interrupted.
    """
    start.describe_options = False
    from penstock.runtime import logs
    from penstock.runtime.resync import Request

    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"{log_level} is no log level", param_hint="--log-level")
    logs.configure("text", log_level)
    given = {"s3_bucket": s3_bucket, "s3_prefix": s3_prefix, "s3_region": s3_region}
    export = {name: value for name, value in given.items() if value is not None}
    request = Request(pipeline, table, index, export, replace, dead_letters_max)
    code, result = asyncio.run(_resync(pipelines, config, data_dir, request, dry_run=dry_run, restart=restart))
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_told(result)))
    raise typer.Exit(code)


async def _resync(
    path: Path, config: Path | None, data_dir: Path, request: Request, *, dry_run: bool, restart: bool
) -> tuple[int, dict[str, Any]]:
    from penstock.core.errors import Permanent, Transient
    from penstock.runtime.resync import NotSwitched, Refused, Resync

    plan = await _plan(path, config)
    told: dict[str, Any] = {}
    store = None if dry_run else _store(plan.server, data_dir)
    try:
        work = Resync(plan, request, data_dir, forgets=restart, running=store)
        if restart and not dry_run:
            await work.forget()
            work = Resync(plan, request, data_dir, running=store)
        told = {
            "pipeline": work.copy.pipeline,
            "tables": list(work.copy.tables),
            "leftOut": list(work.copy.left_out),
            "resumes": work.resumes,
        }
        if dry_run:
            return 0, {"state": "POSSIBLE", **told, "indexes": work.state.indexes, "actions": await work.survey()}
        began_ms = round(time.time() * 1000)
        done = await _run(work)
        if store is not None:
            await _forget_losses(plan, work, store, began_ms)
        return 0, {"state": "SWITCHED", **told, **done}
    except Refused as error:
        return EXIT_CONFIG, {"state": "REFUSED", "reasons": [*error.reasons, *map(str, plan.problems)]}
    except InterruptedError:
        return EXIT_INTERRUPTED, {"state": "INTERRUPTED", **told}
    except (NotSwitched, Permanent, Transient) as error:
        return EXIT_NOT_SWITCHED, {"state": "NOT_SWITCHED", "reasons": [str(error)]}
    finally:
        if store is not None:
            await store.shut()


async def _run(work: Resync) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, work.stop)
    try:
        with _progress() as show:
            return await work.run(show)
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar in a terminal; a line for each phase in a pipe."""
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("export", total=None)
            yield lambda found: bar.update(
                task, description=found.phase, completed=found.items, total=found.items_total
            )
        return
    phase = ""

    def tell(found: Progress) -> None:
        nonlocal phase
        if found.phase != phase:
            phase = found.phase
            typer.echo(f"{phase}: {found.items:,} items", err=True)

    yield tell


async def _forget_losses(plan: Plan, work: Resync, store: LeaseStore, before_ms: int) -> None:
    """What the pipeline had missed before is in the new index."""
    source = _source_of(plan.server, work.copy.pipeline, "LOSS")
    for lease in await store.find(source):
        of_table = any(lease.key.startswith(f"{arn}|") for arn in work.copy.tables)
        if of_table and lease.progress.get("at", 0) < before_ms:
            await store.remove(source, lease.key)


def _told(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    lines = [f"Left out: {place}" for place in result.get("leftOut", ())]
    match result["state"]:
        case "POSSIBLE":
            verb = "Would go on with" if result["resumes"] else "Would make"
            for name, new in result["indexes"].items():
                lines.append(f"{verb} {new} from {', '.join(result['tables'])}, then switch {name} to it:")
                lines.append(f"  POST /_aliases {json.dumps({'actions': result['actions'][name]})}")
        case "SWITCHED":
            for entry in result["indexes"]:
                before = entry["documentsBefore"]
                was = "" if before is None else f", {before:,} before"
                lines.append(f"{entry['name']} is {entry['index']} now: {entry['documents']:,} documents{was}")
                lines += [
                    f"  {old} is as it was and can be deleted: DELETE /{old}"
                    for old in entry["replaced"]
                    if old not in (entry["name"], entry["index"])
                ]
            if result["deadLetters"]:
                lines.append(f"Documents were refused {result['deadLetters']} times: penstock dlq count shows why")
            lines += [f"Changes were lost after the switch: {why}" for why in result["lost"]]
        case "INTERRUPTED":
            lines.append("Interrupted; the same command goes on.")
        case "NOT_SWITCHED":
            lines += [f"Not switched, the old index is in use: {reason}" for reason in result["reasons"]]
        case _:
            lines += result["reasons"]
    return lines


async def _plan(path: Path, config_path: Path | None) -> Plan:
    from penstock.config.documents import read_pipelines
    from penstock.config.server import read_server_config
    from penstock.plan import make_plan, resolve_references

    documents, server = read_pipelines(path), read_server_config(config_path)
    references = await resolve_references(documents, server, environ=os.environ)
    return make_plan(documents, server_config=read_server_config(config_path, references), references=references)


async def _status(path: Path, config_path: Path | None, data_dir: Path) -> list[dict[str, Any]]:
    from penstock.core.errors import Permanent, Transient

    plan = await _plan(path, config_path)
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
    name = _source_of(server, pipeline.name)
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
        losses = [lease for lease in await store.find(f"{name}|LOSS") if lease.key.startswith(f"{table.table_arn}|")]
        entry["losses"] = [lease.progress for lease in losses]
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


def _source_of(server: ServerConfig, *parts: str) -> str:
    return "|".join([*filter(None, [server.source_coordination.partition_prefix]), *parts])


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
    for loss in table["losses"]:
        since = f" since {_time(loss['since'])}" if loss.get("since") is not None else ""
        what = "lost" if loss["certain"] else "perhaps lost"
        lines.append(f"  {what}{since}: {loss['why']} ({loss['what']}, noticed {_time(loss['at'])})")
    if table["losses"]:
        name = table["table"].rpartition("/")[2]
        lines.append(f"  to mend it: penstock dynamodb resync PIPELINES --pipeline {table['pipeline']} --table {name}")
    return lines


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
