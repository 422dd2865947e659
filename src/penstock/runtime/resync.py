"""Makes the index of a DynamoDB table anew while its pipeline runs, and puts it in the place of the old one.

A copy of the pipeline with leases of its own exports the table and follows its stream into a new index. When it has
caught up, the name of the index becomes an alias of the new one, in one step. The copy then goes on until it has
delivered every change made before that step: from there on the running pipeline writes to the new index by itself.
Both write the same versions, so that neither can undo what the other has written. See docs/adr/0016-resync.md.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.config.server import SourceCoordination
from penstock.core.clock import Clock
from penstock.core.errors import PenstockError, Transient
from penstock.core.metrics import Registry
from penstock.lib.lease import Lease, LeaseStore, SqliteStore, Status
from penstock.plan import PipelinePlan, Plan, SinkPlan
from penstock.plan.graph import PluginPlan
from penstock.runtime.engine import Engine, Settings
from penstock.sdk import Context

log = logging.getLogger(__name__)

LAG_MS = 30_000
"""Caught up: changes older than this are delivered. An index remembers removals for a minute; were the copy further
behind when it ends, a change that it delivers late could bring back what the running pipeline has removed."""
SWITCH_MARGIN_MS = 2_000
"""How much later than by this clock the switch may have happened by the clock of the service."""
LOOK_S = 2.0
STATE_FILE = "resync.json"


class Refused(PenstockError):
    """This cannot be made anew, for these reasons; nothing was done."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class NotSwitched(PenstockError):
    """The new index is not what the old one should become. The old one is in use as before."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be made anew."""

    pipeline: str | None = None
    table: str | None = None
    """Name or ARN of one table, where a pipeline reads several."""
    index: str | None = None
    """One index, where a pipeline writes to several."""
    export: Mapping[str, str] = field(default_factory=dict)
    """Where exports go: options that win over those of the pipeline."""
    replace_index: bool = False
    """Delete an index of that name in the step that puts the alias in its place."""
    dead_letters_max: int = 0
    """How often the new index may refuse a document; the same one counts each time it changes."""


@dataclass(frozen=True, slots=True)
class Target:
    """A sink and the index that it gets."""

    pipeline: str
    name: str
    """What the running pipeline writes to."""
    index: str
    """The new index."""
    plugin: PluginPlan = field(compare=False)
    """The sink of the running pipeline."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What runs beside the pipeline."""

    plan: Plan
    pipeline: str
    tables: tuple[str, ...]
    """ARNs."""
    targets: tuple[Target, ...]
    left_out: tuple[str, ...]
    """Sinks that get nothing: they would get everything a second time."""


@dataclass(slots=True)
class State:
    """What a later run needs to go on. Kept beside the leases of the copy."""

    stamp: str
    indexes: dict[str, str]
    """New index for each name."""
    switched_ms: int | None = None
    dead_letters: int = 0
    replaced: dict[str, list[str]] = field(default_factory=dict)
    """Indexes that each name stood for before the switch."""
    documents_before: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    phase: str
    """`export`, `catching up` or `switched`."""
    items: int = 0
    items_total: int | None = None
    """None: the export is not ready yet."""


def copy_of(plan: Plan, request: Request, stamp: str) -> Copy:
    """The pipeline and what is behind it, writing to new indexes only. Raises `Refused`."""
    pipeline = _chosen(plan, request)
    source = pipeline.source
    assert source is not None, "only pipelines with a source are chosen"
    every = [table.table_arn for table in source.config.tables]
    tables = [table for table in source.config.tables if request.table in (None, *_names(table.table_arn))]
    names = [table.table_arn.rpartition("/")[2] for table in tables]
    reasons: list[str] = []
    config = source.config.model_copy(update={"tables": [_with_export(table, request, reasons) for table in tables]})
    reached = _reached(plan, pipeline, reasons)
    targets: list[Target] = []
    left_out: list[str] = []
    kept: dict[str, tuple[SinkPlan, ...]] = {}
    for below in reached:
        sinks = []
        for number, sink in enumerate(below.sinks, 1):
            place = f"sink {number} {sink.plugin.name_as_written} of pipeline {below.name}"
            if sink.forward_to is not None:
                left_out.append(f"pipeline {sink.forward_to}, which gets what {place} has written")
            if sink.target is not None:
                sinks.append(sink)
                continue
            target = _target(sink, below.name, names, len(every), request, stamp, place, reasons)
            if target is None:
                left_out.append(place)
                continue
            targets.append(target)
            written = _swap_module(sink.plugin).with_index(sink.plugin.config, target.index)
            sinks.append(replace(sink, plugin=replace(sink.plugin, config=written), forward_to=None))
        kept[below.name] = tuple(sinks)
    if not targets and not reasons:
        reasons.append(f"pipeline {pipeline.name} writes to no index" + (f" {request.index}" if request.index else ""))
    reasons += _other_writers(plan, targets, {below.name for below in reached})
    if reasons:
        raise Refused(*reasons)
    _drop_empty(kept, left_out)
    parts = [
        replace(
            below,
            source=replace(source, config=config) if below is pipeline else None,
            sinks=kept[below.name],
            upstreams=tuple(up for up in below.upstreams if up in kept),
            failure_pipeline=None,  # its index is not the one that is made anew: such events become dead letters
        )
        for below in reached
        if below.name in kept
    ]
    server = plan.server.model_copy(update={"source_coordination": SourceCoordination()})
    copied = Plan(tuple(parts), server=server, extensions=plan.extensions)
    return Copy(copied, pipeline.name, tuple(table.table_arn for table in tables), tuple(targets), tuple(left_out))


def _chosen(plan: Plan, request: Request) -> PipelinePlan:
    readers = [part for part in plan.pipelines if part.source is not None and part.source.name == "dynamodb"]
    found = [part for part in readers if request.pipeline in (None, part.name)]
    if request.table is not None:
        found = [
            part
            for part in found
            if part.source and any(request.table in _names(table.table_arn) for table in part.source.config.tables)
        ]
    if len(found) == 1:
        return found[0]
    wanted = f" {request.table}" if request.table else ""
    if not found:
        raise Refused(f"no pipeline{f' {request.pipeline}' if request.pipeline else ''} reads a table{wanted}")
    names = ", ".join(part.name for part in found)
    raise Refused(f"several pipelines read a table{wanted}: choose one of {names} with --pipeline")


def _names(arn: str) -> tuple[str, str]:
    return arn, arn.rpartition("/")[2]


def _with_export(table: Any, request: Request, reasons: list[str]) -> Any:
    """The table with a new export, whatever export the pipeline once loaded."""
    options = type(table).model_fields["export"].annotation.__args__[0]
    if table.export is None and "s3_bucket" not in request.export:
        reasons.append(f"the pipeline makes no export of {table.table_arn}: name a bucket for one with --s3-bucket")
        return table
    known = {} if table.export is None else table.export.model_dump(exclude={"export_arn", "export_prefix"})
    return table.model_copy(update={"export": options(**{**known, **request.export})})


def _reached(plan: Plan, pipeline: PipelinePlan, reasons: list[str]) -> list[PipelinePlan]:
    """The pipeline and all that get its events, sources first."""
    by_name = {part.name: part for part in plan.pipelines}
    names = {pipeline.name}
    grows = True
    while grows:
        more = {sink.target for name in names for sink in by_name[name].sinks if sink.target} - names
        grows, names = bool(more), names | more
    found = [part for part in plan.pipelines if part.name in names]
    for part in found:
        others = [up for up in part.upstreams if up not in names]
        if others:
            reasons.append(f"pipeline {part.name} gets events of {', '.join(others)} too, which no export brings back")
    return found


def _target(
    sink: SinkPlan,
    pipeline: str,
    tables: list[str],
    of: int,
    request: Request,
    stamp: str,
    place: str,
    reasons: list[str],
) -> Target | None:
    """None: not for this sink; `reasons` gets more where it should be and cannot."""
    if sink.plugin.name != "opensearch":
        return None
    swap = _swap_module(sink.plugin)
    written = sink.plugin.config.alias or ""
    by_table = swap.TABLE_NAME in written
    try:
        name = swap.fixed_name(sink.plugin.config, tables[0])
    except ValueError as error:
        if request.index in (None, written):
            reasons.append(f"{place}: {error}")
        return None
    if request.index not in (None, name):
        return None
    if by_table and len(tables) > 1:
        reasons.append(f"{place}: there is an index for each table; choose one of {', '.join(tables)} with --table")
    elif not by_table and len(tables) < of:
        reasons.append(f"{place}: index {name} holds the items of the other tables too; leave --table out")
    return Target(pipeline, name, f"{name}-{stamp}", sink.plugin)


def _other_writers(plan: Plan, targets: list[Target], reached: set[str]) -> list[str]:
    indexes = {(target.name, tuple(target.plugin.config.hosts)) for target in targets}
    writers = [
        (part, number, sink.plugin.config)
        for part in plan.pipelines
        if part.name not in reached
        for number, sink in enumerate(part.sinks, 1)
        if sink.plugin.name == "opensearch"
    ]
    return [
        f"sink {number} of pipeline {part.name} writes to {config.alias} too: its documents would be missing in the "
        "new index"
        for part, number, config in writers
        if (config.alias, tuple(config.hosts)) in indexes
    ]


def _drop_empty(kept: dict[str, tuple[SinkPlan, ...]], left_out: list[str]) -> None:
    """Pipelines without a sink get no events."""
    while empty := [name for name, sinks in kept.items() if not sinks]:
        for name in empty:
            del kept[name]
        for name, sinks in kept.items():
            kept[name] = tuple(sink for sink in sinks if sink.target is None or sink.target in kept)


def _swap_module(plugin: PluginPlan) -> Any:
    return importlib.import_module(f"{plugin.module.__name__}.swap")


def behind(own: list[Lease], reached: list[Lease]) -> list[str]:
    """Shards in which others have reached more than these leases tell, of what both are to read."""
    leases = {lease.key: lease for lease in own}
    found = []
    for other in reached:
        lease, position = leases.get(other.key), other.progress.get("sequenceNumber")
        if lease is None or lease.status is Status.COMPLETED or position is None:
            continue  # read to the end, or gone from the stream
        if other.progress.get("second", 0) * 1000 < lease.progress.get("startTime", 0):
            continue  # older than the export
        if int(lease.progress.get("sequenceNumber") or 0) < int(position):
            found.append(other.key)
    return found


class Resync:
    """One table's index, made anew. What a run leaves unfinished the next one goes on with."""

    def __init__(
        self,
        plan: Plan,
        request: Request,
        data_dir: Path,
        *,
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
        look_s: float = LOOK_S,
        lag_ms: int = LAG_MS,
        registry: Registry | None = None,
        forgets: bool = False,
        running: LeaseStore | None = None,
    ) -> None:
        """`forgets`: an earlier run is not gone on with, `forget` ends it. `running`: the leases of the running
        pipeline, where they can be read. Raises `Refused`."""
        self._running = running
        self._plan = plan
        self._request = request
        self._clock = clock or Clock()
        self._environ = dict(os.environ if environ is None else environ)
        self._look_s = look_s
        self._lag_ms = lag_ms
        self._registry = registry or Registry()
        self._stopping = asyncio.Event()
        stamp = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).strftime("%Y%m%d%H%M%S")
        copy = copy_of(plan, request, stamp)
        folder = "-".join([copy.pipeline, *([] if request.table is None else [copy.tables[0].rpartition("/")[2]])])
        self.home = data_dir / "resync" / folder
        """Where the copy keeps what it needs to go on."""
        self.state = State(stamp, {target.name: target.index for target in copy.targets})
        self.resumes = (self.home / STATE_FILE).exists()
        """An earlier run is to be finished."""
        if self.resumes:
            self.state = State(**json.loads((self.home / STATE_FILE).read_text()))
            copy = copy_of(plan, request, self.state.stamp)
            if not forgets and self.state.indexes != {target.name: target.index for target in copy.targets}:
                names = ", ".join(self.state.indexes.values())
                raise Refused(
                    f"an earlier run makes {names}, which is not what the pipeline asks for now: --restart forgets it"
                )
        self.copy = copy
        """What runs."""
        self._refused_before = self.state.dead_letters

    def stop(self) -> None:
        """End soon; a later run goes on."""
        self._stopping.set()

    async def survey(self) -> dict[str, list[dict[str, Any]]]:
        """The actions of the switch for each name, as things are now. Nothing is changed. Raises `Refused`."""
        actions: dict[str, list[dict[str, Any]]] = {}
        reasons = await self._obstacles()
        for target in self._by_name():
            swap = await self._open(target)
            try:
                standing = await swap.standing(target.name)
            finally:
                await swap.close()
            if standing.is_index and not self._request.replace_index:
                reasons.append(
                    f"{target.name} is an index, not an alias. With --replace it is deleted in the same step that "
                    f"makes {target.name} an alias of the new index; readers and writers notice nothing"
                )
            if len(standing.aliases) > 1:
                behind = ", ".join(standing.aliases)
                reasons.append(f"the alias {target.name} stands for several indexes ({behind}): let it stand for one")
            actions[target.name] = _swap_module(target.plugin).switch_actions(target.name, target.index, standing)
        if reasons:
            raise Refused(*reasons)
        return actions

    async def _obstacles(self) -> list[str]:
        """What keeps the tables from being read: seen now, and not after hours of trying."""
        (source,) = [part.source for part in self.copy.plan.pipelines if part.source is not None]
        findings = await source.module.check_tables(source.config, log)
        return [str(finding) for finding in findings if finding.severity == "error"]

    async def forget(self) -> None:
        """Delete what an earlier run has made, if it was not switched to."""
        targets = {target.name: target for target in self._by_name()}
        for name, index in self.state.indexes.items():
            swap = await self._open(targets.get(name) or self.copy.targets[0])
            try:
                standing = await swap.standing(index)
                if standing.is_index and not standing.own_aliases:
                    await swap.drop(index)
                await swap.drop_template(index)
            finally:
                await swap.close()
        shutil.rmtree(self.home, ignore_errors=True)

    async def run(self, on_progress: Callable[[Progress], None] = lambda _progress: None) -> dict[str, Any]:
        """Export, catch up, switch. Returns what became of it.

        Raises `Refused`, `NotSwitched`, `InterruptedError` after `stop`, and `Permanent` or `Transient` of the servers.
        """
        if self.state.switched_ms is None:
            await self.survey()
        self.home.mkdir(parents=True, exist_ok=True)
        if not self.resumes:
            self._save()
        for target in self._by_name():
            if target.plugin.config.kind == "management_disabled":  # that of other kinds is made by the sink
                swap = await self._open(target)
                try:
                    await swap.create(target.index)
                finally:
                    await swap.close()
        settings = Settings(data_dir=self.home, environ=self._environ)
        engine = Engine(self.copy.plan, settings, self._registry, self._clock)
        running = asyncio.create_task(engine.run())
        try:
            if self.state.switched_ms is None:
                await self._caught_up(engine, running, None, on_progress)
                await self._check()
                await self._switch()
            assert self.state.switched_ms is not None
            await self._caught_up(engine, running, self.state.switched_ms + SWITCH_MARGIN_MS, on_progress)
        finally:
            engine.stop()
            await asyncio.wait([running])
            if engine.pipelines:  # else another run has the folder
                self.state.dead_letters = self._refused()
                self._save()
        return await self._finish()

    async def _caught_up(
        self, engine: Engine, running: asyncio.Task[int], moment_ms: int | None, on_progress: Callable[[Progress], None]
    ) -> None:
        store = SqliteStore(self.home / "leases.db", self._clock)
        stop = asyncio.create_task(self._stopping.wait())
        reached: list[Lease] | None = None
        try:
            while True:
                await asyncio.wait({running, stop}, timeout=self._look_s, return_when=asyncio.FIRST_COMPLETED)
                if stop.done():
                    raise InterruptedError
                if running.done():
                    running.result()  # another run may have the folder
                    raise NotSwitched("the copy of the pipeline ended by itself; the log says why")
                failed = [pipeline for pipeline in engine.pipelines.values() if pipeline.state == "FAILED"]
                if failed:
                    raise NotSwitched("; ".join(f"pipeline {part.name} failed: {part.reason}" for part in failed))
                found = await self._progress(store, switched=moment_ms is not None)
                on_progress(found)
                source: Any = engine.pipelines[self.copy.pipeline].parts.source
                recent_ms = self._clock.now_ms() - self._lag_ms
                try:
                    if moment_ms is not None and reached is None:
                        reached = await self._reached_by_others()
                    if await source.delivered_until(max(recent_ms, moment_ms or 0)):
                        own = await store.find(f"{self.copy.pipeline}|STREAM")
                        if not behind(own, reached or []):
                            return
                except Transient:
                    continue  # asked again; the log of the source says what is wrong
        finally:
            stop.cancel()
            await store.shut()

    async def _reached_by_others(self) -> list[Lease]:
        """Where the running pipeline was in each shard after the switch: a second proof, which needs no clock."""
        if self._running is None:
            return []
        prefix = self._plan.server.source_coordination.partition_prefix
        return await self._running.find("|".join([*filter(None, [prefix]), self.copy.pipeline, "STREAM"]))

    async def _lost(self) -> list[str]:
        """Why changes are missing in the new index."""
        store = SqliteStore(self.home / "leases.db", self._clock)
        try:
            return [lease.progress["why"] for lease in await store.find(f"{self.copy.pipeline}|LOSS")]
        finally:
            await store.shut()

    async def _check(self) -> None:
        """Whether the new index is whole."""
        lost = await self._lost()
        if lost:
            raise NotSwitched(
                f"changes were lost while the new index was made: {lost[0]}. Begin anew with --restart; where the "
                "export takes long, with during_export under stream"
            )
        refused = self._refused()
        if refused > self._request.dead_letters_max:
            raise NotSwitched(
                f"the new index refused documents {refused} times: penstock dlq count {self.home / 'dead-letters'} "
                "says why. Begin anew with --restart once that is mended, or switch without them by "
                f"--dead-letters-max {refused}"
            )

    def _refused(self) -> int:
        """Dead letters of this run and those before it."""
        names = [name for name, _, _ in self._registry if name.endswith(".deadLetters")]
        return self._refused_before + round(sum(self._registry.value(name) for name in names))

    async def _progress(self, store: SqliteStore, *, switched: bool) -> Progress:
        items = total = 0
        ready = True
        for arn in self.copy.tables:
            state = await store.state(f"{self.copy.pipeline}|GLOBAL", arn) or {}
            lease = await store.get(f"{self.copy.pipeline}|EXPORT", f"{arn}|{state.get('exportTime')}")
            export = lease.progress.get("exportArn") if lease is not None else None
            known = await store.state(f"{self.copy.pipeline}|GLOBAL", export) if export else None
            ready = ready and known is not None
            total += (known or {}).get("totalRecords", 0)
        for file in await store.find(f"{self.copy.pipeline}|DATAFILE"):
            items += file.progress.get("loadedRecords", 0)
        phase = "switched" if switched else "catching up" if ready and items >= total else "export"
        return Progress(phase, items, total if ready else None)

    async def _switch(self) -> None:
        """Every name, one after the other: each in one step."""
        for target in self._by_name():
            swap = await self._open(target)
            try:
                standing = await swap.standing(target.name)
                if target.index not in standing.aliases:
                    self.state.documents_before[target.name] = await swap.count(target.name)
                    self.state.replaced[target.name] = [target.name] if standing.is_index else list(standing.aliases)
                    await swap.switch(target.name, target.index, standing)
            finally:
                await swap.close()
        self.state.switched_ms = self._clock.now_ms()
        self._save()

    async def _finish(self) -> dict[str, Any]:
        indexes = []
        for target in self._by_name():
            swap = await self._open(target)
            try:
                if target.plugin.config.kind != "management_disabled":
                    await swap.drop_template(target.index)
                indexes.append(
                    {
                        "name": target.name,
                        "index": target.index,
                        "replaced": self.state.replaced.get(target.name, []),
                        "documentsBefore": self.state.documents_before.get(target.name),
                        "documents": await swap.count(target.index),
                    }
                )
            finally:
                await swap.close()
        lost = await self._lost()
        (self.home / STATE_FILE).unlink()
        if self.state.dead_letters:  # they are all that is left of those documents
            for file in self.home.glob("leases.db*"):
                file.unlink()
        else:
            shutil.rmtree(self.home, ignore_errors=True)
        return {"indexes": indexes, "deadLetters": self.state.dead_letters, "lost": lost}

    def _by_name(self) -> list[Target]:
        """One target for each name: several sinks may write to one index."""
        return list({target.name: target for target in self.copy.targets}.values())

    async def _open(self, target: Target) -> Any:
        ctx = Context(target.pipeline, "opensearch", kind="sink", environ=self._environ, clock=self._clock)
        swap = _swap_module(target.plugin).Swap(target.plugin.config, ctx)
        await swap.start()
        return swap

    def _save(self) -> None:
        path = self.home / STATE_FILE
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self.state)))
        part.replace(path)
