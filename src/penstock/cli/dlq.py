"""`penstock dlq`: what was refused, why, and another try."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.core import start

if TYPE_CHECKING:
    from penstock.lib.dead_letters import Filter, Location, Record, Store
    from penstock.plan import Plan
    from penstock.runtime.replay import Outcome, Survey, Way

EXIT_FAILED = 1
EXIT_LEFT = 3
EXIT_UNFINISHED = 4
GROUPS_MAX = 10_000
BY = ("cause", "index", "status", "pipeline", "plugin")

dlq = typer.Typer(
    help="Look at dead letters, and send them again. They are read from files, directories and s3://bucket/prefix.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Place = Annotated[
    str, typer.Argument(help="A file, a directory (of dead letters, or the data directory) or s3://bucket/prefix.")
]
Since = Annotated[str | None, typer.Option(help="Refused at that time or later: 2024-05-01T12:00, or 2h ago.")]
Until = Annotated[str | None, typer.Option(help="Refused before that time.")]
Pipelines = Annotated[list[str] | None, typer.Option("--pipeline", help="Only of this pipeline. May be repeated.")]
Indexes = Annotated[list[str] | None, typer.Option("--index", help="Only for this index; * and ? stand for any.")]
Statuses = Annotated[list[int] | None, typer.Option("--status", help="Only with this status. May be repeated.")]
Message = Annotated[str | None, typer.Option(help="Only with this in the message; /…/ is a regular expression.")]
When = Annotated[str | None, typer.Option(help="Only documents for which this expression is true.")]
Everything = Annotated[bool, typer.Option("--all", help="Those that were sent again already, too.")]
Region = Annotated[str | None, typer.Option(help="Region of the bucket.")]
Role = Annotated[str | None, typer.Option("--role-arn", help="Role to read the bucket with.")]
PathStyle = Annotated[bool, typer.Option("--path-style", help="Put the bucket into the path of the address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


@dlq.command("list")
def list_(
    place: Place,
    since: Since = None,
    until: Until = None,
    pipeline: Pipelines = None,
    index: Indexes = None,
    status: Statuses = None,
    message: Message = None,
    when: When = None,
    everything: Everything = False,
    limit: Annotated[int, typer.Option(min=1, help="Print no more than so many.")] = 100,
    region: Region = None,
    role: Role = None,
    path_style: PathStyle = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, a line for each.

    It tells id, time, pipeline, sink, status, target and reason. Exit codes: 0; 1 the place cannot be read; 2 wrong
    usage.
    """
    wanted = _filter(since, until, pipeline, index, status, message, when)
    asyncio.run(_list(place, _location(region, role, path_style), wanted, everything, limit, as_json))


@dlq.command("show")
def show(
    place: Place,
    ids: Annotated[list[str], typer.Argument(help="Ids as `list` prints them.")],
    region: Region = None,
    role: Role = None,
    path_style: PathStyle = False,
) -> None:
    """Print dead letters in full, as JSON.

    Exit codes: 0; 1 the place cannot be read, or there is no such dead letter; 2 wrong usage.
    """
    asyncio.run(_show(place, _location(region, role, path_style), ids))


@dlq.command("count")
def count(
    place: Place,
    by: Annotated[str, typer.Option(help="cause, index, status, pipeline or plugin.")] = "cause",
    since: Since = None,
    until: Until = None,
    pipeline: Pipelines = None,
    index: Indexes = None,
    status: Statuses = None,
    message: Message = None,
    when: When = None,
    everything: Everything = False,
    region: Region = None,
    role: Role = None,
    path_style: PathStyle = False,
    as_json: AsJson = False,
) -> None:
    """Count dead letters by cause, the most frequent first.

    Exit codes: 0; 1 the place cannot be read; 2 wrong usage.
    """
    if by not in BY:
        raise typer.BadParameter(f"{by} is not one of {', '.join(BY)}", param_hint="--by")
    wanted = _filter(since, until, pipeline, index, status, message, when)
    asyncio.run(_count(place, _location(region, role, path_style), wanted, everything, by, as_json))


@dlq.command("redrive")
def redrive(
    pipelines: Annotated[Path, typer.Argument(help="The pipeline file, or a directory of them.")],
    place: Annotated[
        str,
        typer.Option(
            "--from", help="A file, a directory (of dead letters, or the data directory) or s3://bucket/prefix."
        ),
    ],
    through: Annotated[
        str, typer.Option(help="sink: as it was sent, past the processors. pipeline: as an event, through them.")
    ] = "sink",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent where.")] = False,
    into: Annotated[str | None, typer.Option(help="Use this pipeline, whatever the dead letters name.")] = None,
    sink: Annotated[int | None, typer.Option(min=1, help="Use the sink with this number in its pipeline.")] = None,
    since: Since = None,
    until: Until = None,
    pipeline: Pipelines = None,
    index: Indexes = None,
    status: Statuses = None,
    message: Message = None,
    when: When = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="data-prepper-config.yaml")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Stop after so many seconds.")] = None,
    region: Region = None,
    role: Role = None,
    path_style: PathStyle = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again. What arrives is noted beside them and not sent a second time.

    What is refused again stays where it is. Ctrl-C finishes what is under way.

    Exit codes: 0 all were sent; 1 the pipelines are not valid, or the place cannot be read or noted in; 2 wrong usage;
    3 some were refused again, have nowhere to go or cannot be read; 4 stopped before everything was sent.
    """
    if through not in ("sink", "pipeline"):
        raise typer.BadParameter(f"{through} is neither sink nor pipeline", param_hint="--through")
    if sink is not None and through == "pipeline":
        raise typer.BadParameter("a sink can be chosen with --through sink only", param_hint="--sink")
    start.describe_options = False
    wanted = _filter(since, until, pipeline, index, status, message, when)
    request = _Redrive(
        pipelines, config, place, _location(region, role, path_style), wanted, through, into, sink, dry_run, timeout
    )
    raise typer.Exit(asyncio.run(_redrive(request, as_json)))


# the arguments


def _filter(
    since: str | None,
    until: str | None,
    pipelines: list[str] | None,
    indexes: list[str] | None,
    statuses: list[int] | None,
    message: str | None,
    when: str | None,
) -> Filter:
    from penstock.core.errors import ExpressionSyntaxError
    from penstock.expr import compile_expression
    from penstock.lib.dead_letters import Filter

    try:
        condition = None if when is None else compile_expression(when)
    except ExpressionSyntaxError as error:
        raise typer.BadParameter(str(error), param_hint="--when") from None
    return Filter(
        _moment(since, "--since"),
        _moment(until, "--until"),
        pipelines or (),
        indexes or (),
        statuses or (),
        _message(message),
        condition,
    )


def _moment(text: str | None, option: str) -> datetime | None:
    from penstock.lib.dead_letters import parse_moment

    try:
        return None if text is None else parse_moment(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _message(text: str | None) -> str | re.Pattern[str] | None:
    if text is None or len(text) < 3 or not (text.startswith("/") and text.endswith("/")):
        return text
    try:
        return re.compile(text[1:-1])
    except re.error as error:
        raise typer.BadParameter(f"{text} is no regular expression: {error}", param_hint="--message") from None


def _location(region: str | None, role: str | None, path_style: bool) -> Location:
    from penstock.lib.dead_letters import Location

    return Location(region, role, path_style=path_style)


# reading


@contextmanager
def _failures_told() -> Iterator[None]:
    from penstock.core.errors import PenstockError

    try:
        yield
    except PenstockError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILED) from None


async def _records(store: Store, wanted: Filter, everything: bool) -> AsyncIterator[tuple[Record, bool]]:
    """Records that are wanted, and whether each was replayed."""
    for volume in await store.volumes():
        done = await store.replayed(volume)
        async for record in store.read(volume):
            replayed = record.id in done
            if (everything or not replayed) and wanted.matches(record):
                yield record, replayed


def _tell_unreadable(store: Store) -> None:
    bad = store.unreadable
    if bad.count:
        shown = "".join(f"\n  {line[:300]}" for line in bad.first[:5])
        typer.echo(f"{_number(bad.count, 'piece')} could not be read as dead letters:{shown}", err=True)


async def _list(place: str, location: Location, wanted: Filter, everything: bool, limit: int, as_json: bool) -> None:
    from penstock.lib.dead_letters import open_store

    printed = more = 0
    with _failures_told():
        async with open_store(place, location) as store:
            async for record, replayed in _records(store, wanted, everything):
                if printed >= limit:
                    more += 1
                    continue
                printed += 1
                print(_as_json(record, replayed) if as_json else _line(record, replayed))
            _tell_unreadable(store)
    if more:
        typer.echo(f"… and {_number(more, 'more', 'more')}; --limit prints them", err=True)
    elif not printed:
        typer.echo("no dead letters", err=True)


def _as_json(record: Record, replayed: bool) -> str:
    from penstock.lib.dead_letters import cause_of

    shown = {"id": record.id, "replayed": replayed, "cause": cause_of(record), **record.raw}
    return json.dumps(shown, ensure_ascii=False, default=str)


def _line(record: Record, replayed: bool) -> str:
    time = "-" if record.time is None else record.time.isoformat(timespec="milliseconds")
    target = record.index or "-"
    if record.index_id:
        target += f"/{record.index_id}"
    reason = " ".join(record.message.split())[:200] or "-"
    place = f"{record.pipeline or '-'}/{record.plugin_id or '-'}"
    line = f"{record.id}  {time}  {place}  {record.status}  {target}  {reason}"
    return f"{line}  (sent again)" if replayed else line


async def _show(place: str, location: Location, ids: list[str]) -> None:
    from penstock.lib.dead_letters import Filter, open_store

    missing = dict.fromkeys(ids)
    with _failures_told():
        async with open_store(place, location) as store:
            async for record, _ in _records(store, Filter(ids=frozenset(ids)), everything=True):
                print(json.dumps(record.raw, indent=2, ensure_ascii=False, default=str))
                missing.pop(record.id, None)
    if missing:
        typer.echo(f"there is no dead letter {', '.join(missing)}", err=True)
        raise typer.Exit(EXIT_FAILED)


@dataclass(slots=True)
class _Group:
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    example: str = ""

    def add(self, record: Record) -> None:
        self.count += 1
        self.example = self.example or record.id
        if record.time is not None:
            self.first = record.time if self.first is None else min(self.first, record.time)
            self.last = record.time if self.last is None else max(self.last, record.time)


async def _count(place: str, location: Location, wanted: Filter, everything: bool, by: str, as_json: bool) -> None:
    from penstock.lib.dead_letters import cause_of, open_store

    keys: dict[str, Callable[[Record], str]] = {
        "cause": cause_of,
        "index": lambda record: record.index or "(none)",
        "status": lambda record: str(record.status),
        "pipeline": lambda record: record.pipeline or "(none)",
        "plugin": lambda record: record.plugin_id or "(none)",
    }
    groups: dict[str, _Group] = {}
    with _failures_told():
        async with open_store(place, location) as store:
            async for record, _ in _records(store, wanted, everything):
                key = keys[by](record)
                if key not in groups and len(groups) >= GROUPS_MAX:
                    key = "(others)"
                groups.setdefault(key, _Group()).add(record)
            _tell_unreadable(store)
    ordered = sorted(groups.items(), key=lambda entry: (-entry[1].count, entry[0]))
    if as_json:
        for key, group in ordered:
            times = {name: time and time.isoformat() for name, time in (("first", group.first), ("last", group.last))}
            print(json.dumps({by: key, "count": group.count, **times, "example": group.example}, ensure_ascii=False))
        return
    width = max((len(f"{group.count:,}") for group in groups.values()), default=0)
    for key, group in ordered:
        print(f"{group.count:>{width},}  {key}{_span(group)}")
    print(f"{sum(group.count for group in groups.values()):,} in all" if groups else "no dead letters")


def _span(group: _Group) -> str:
    if group.first is None or group.last is None:
        return ""
    first, last = (time.astimezone(UTC).strftime("%Y-%m-%d %H:%M") for time in (group.first, group.last))
    return f"  ({first})" if first == last else f"  ({first} to {last})"


# sending again


@dataclass(frozen=True, slots=True)
class _Redrive:
    pipelines: Path
    config: Path | None
    place: str
    location: Location
    wanted: Filter
    through: str
    into: str | None
    sink: int | None
    dry_run: bool
    timeout_s: float | None


async def _redrive(request: _Redrive, as_json: bool) -> int:
    from penstock.lib.dead_letters import open_store
    from penstock.runtime import logs
    from penstock.runtime.replay import Ways, survey

    logs.configure("text", "warning")
    logging.getLogger("penstock.runtime.deliver.surroundings").setLevel(logging.CRITICAL)  # the summary tells it
    plan = await _plan(request)
    ways = Ways(plan, through=request.through, into=request.into, sink=request.sink)
    with _failures_told():
        async with open_store(request.place, request.location) as store:
            found = await survey(store, request.wanted, ways)
            _tell_unreadable(store)
            unreadable = store.unreadable.count
            outcome = None
            if not request.dry_run and found.total:
                outcome = await _replay(request, plan, store, ways, found)
    if as_json:
        _print_result_json(found, outcome, unreadable)
    else:
        _print_result(found, outcome, request.through)
    if outcome is not None and outcome.exit_code == EXIT_FAILED:
        return EXIT_FAILED
    left = found.total - (outcome.replayed if outcome else 0)
    if outcome is not None and left > outcome.refused.total():
        return EXIT_UNFINISHED
    return EXIT_LEFT if unreadable or found.skipped or (outcome is not None and outcome.refused) else 0


async def _plan(request: _Redrive) -> Plan:
    from penstock.config import read_pipelines, read_server_config
    from penstock.plan import make_plan, resolve_references

    documents = read_pipelines(request.pipelines)
    server = read_server_config(request.config)
    references = await resolve_references(documents, server, environ=os.environ)
    plan = make_plan(documents, server_config=server, references=references)
    if not plan.pipelines:
        for problem in plan.problems:
            typer.echo(str(problem), err=True)
        typer.echo("no pipeline is valid: nothing was sent", err=True)
        raise typer.Exit(EXIT_FAILED)
    for problem in plan.problems:
        typer.echo(str(problem), err=True)
    return plan


async def _replay(request: _Redrive, plan: Plan, store: Store, ways: Any, found: Survey) -> Outcome:
    from penstock.runtime.replay import Replay

    with _progress(found.total) as advance:
        replay = Replay(plan, store, request.wanted, ways, list(found.ways), on_progress=advance)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, replay.stop)
        timer = None if request.timeout_s is None else loop.call_later(request.timeout_s, replay.stop)
        try:
            return await replay.run()
        finally:
            if timer is not None:
                timer.cancel()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal; a line now and then in a pipe."""
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("sending", total=total)
            yield lambda count: bar.advance(task, count)
        return
    done = 0
    told = 0

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        if done * 10 // total > told:
            told = done * 10 // total
            typer.echo(f"{done:,} of {total:,}", err=True)

    yield advance


def _print_result(found: Survey, outcome: Outcome | None, through: str) -> None:
    for way, number in found.ways.most_common():
        print(f"{number:,} for {_way(way)}")
    for reason, number in found.skipped.most_common():
        print(f"{number:,} cannot be sent: {reason}")
    if found.done_before:
        print(f"{_were(found.done_before)} sent again before")
    if not found.total and not found.skipped:
        print("nothing to send")
    if outcome is not None:
        print(f"{outcome.replayed:,} arrived")
        for reason, number in outcome.refused.most_common(20):
            print(f"{_were(number)} refused again: {reason}")
        left = found.total - outcome.replayed - outcome.refused.total()
        if left > 0:
            print(f"{_were(left)} not sent: run it again")
    elif found.total:
        print(f"dry run: nothing was sent; {found.total:,} would go through the {through}")


def _way(way: Way) -> str:
    return f"pipeline {way.pipeline}" if way.sink is None else f"sink {way.sink + 1} of pipeline {way.pipeline}"


def _print_result_json(found: Survey, outcome: Outcome | None, unreadable: int) -> None:
    result: dict[str, Any] = {
        "found": {way.name: number for way, number in found.ways.items()},
        "skipped": dict(found.skipped),
        "sentBefore": found.done_before,
        "unreadable": unreadable,
    }
    if outcome is not None:
        result |= {"arrived": outcome.replayed, "refused": dict(outcome.refused)}
    print(json.dumps(result, ensure_ascii=False))


def _were(count: int) -> str:
    return f"{count:,} {'was' if count == 1 else 'were'}"


def _number(count: int, word: str, words: str | None = None) -> str:
    return f"{count:,} {word if count == 1 else words or word + 's'}"
