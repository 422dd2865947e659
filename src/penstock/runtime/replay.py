"""Dead letters sent again: through the processors of their pipeline, or straight to the sink that had refused them.

A record that arrives this time is noted in its store and not sent again by a later run. One that is refused again
stays where it is: it makes no second dead letter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from penstock.core.batch import Batch, concat
from penstock.core.errors import EventError, Failure, Permanent
from penstock.core.json_text import encode
from penstock.lib.dead_letters import Filter, Record, Store, Volume, cause_in
from penstock.plan import PipelinePlan, Plan
from penstock.runtime.engine import Engine, Settings
from penstock.sdk import DeadLetter, Items, Limits, Output, read_metadata

BATCH_RECORDS = 200
QUEUE_BATCHES = 4
NOTE_RECORDS = 1000
"""A note is written at least every so many records: a run that is killed repeats no more than these."""


class Way(NamedTuple):
    """Where a record goes: a pipeline, and its sink by position, None for the whole pipeline."""

    pipeline: str
    sink: int | None

    @property
    def name(self) -> str:
        return self.pipeline if self.sink is None else f"{self.pipeline}/{self.sink + 1}"


class Ways:
    """Finds the way of each record."""

    def __init__(self, plan: Plan, *, through: str, into: str | None = None, sink: int | None = None) -> None:
        assert through in ("pipeline", "sink")
        self._pipelines = {pipeline.name: pipeline for pipeline in plan.pipelines}
        self._through = through
        self._into = into
        self._sink = sink

    def of(self, record: Record) -> Way | str:
        """The way of the record, or why there is none."""
        name = self._into or record.pipeline
        pipeline = self._pipelines.get(name)
        if pipeline is None:
            return f"there is no pipeline {name or '(none named)'}"
        if not isinstance(record.document, dict):
            return "the dead letter holds no document"
        if self._through == "pipeline":
            return Way(name, None)
        places = [
            place
            for place, sink in enumerate(pipeline.sinks)
            if sink.target is None
            and (place + 1 == self._sink if self._sink is not None else self._refused_it(sink.plugin, record))
        ]
        if len(places) == 1:
            return Way(name, places[0])
        if places:
            return f"pipeline {name} has several sinks {record.plugin_id}: choose one by its number"
        if self._sink is not None:
            return f"pipeline {name} has no sink number {self._sink}"
        return f"pipeline {name} has no sink {record.plugin_id}: send the event through the pipeline"

    @staticmethod
    def _refused_it(plugin: Any, record: Record) -> bool:
        return record.plugin_id in (plugin.name, plugin.name_as_written)


@dataclass(slots=True)
class Survey:
    """What would be replayed."""

    ways: Counter[Way] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    """Why records cannot be replayed."""
    done_before: int = 0

    @property
    def total(self) -> int:
        return self.ways.total()


@dataclass(slots=True)
class Outcome:
    """What became of the records."""

    replayed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Records that were refused again, by cause."""
    exit_code: int = 0
    """Of the engine: 0 when everything ended."""


async def survey(store: Store, wanted: Filter, ways: Ways) -> Survey:
    """Read everything once and say what would go where."""
    result = Survey()
    for volume in await store.volumes():
        done = await store.replayed(volume)
        async for record in store.read(volume):
            if not wanted.matches(record):
                continue
            if record.id in done:
                result.done_before += 1
                continue
            way = ways.of(record)
            if isinstance(way, Way):
                result.ways[way] += 1
            else:
                result.skipped[way] += 1
    return result


class Replay:
    """One run over a store. `run` returns when every record has ended or `stop` was called."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        wanted: Filter,
        ways: Ways,
        chosen: Sequence[Way],
        *,
        on_progress: Callable[[int], None] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._ways = ways
        self._on_progress = on_progress or (lambda _count: None)
        self._outcome = Outcome()
        self._volumes: list[_Progress] = []
        self._notes = asyncio.Lock()
        to_sinks = any(way.sink is not None for way in chosen)
        self._sources = {way: _RecordSource(self._ended, sends_failed_data=to_sinks) for way in chosen}
        self._engine = Engine(
            _cut_down(plan, chosen),
            replace(
                settings or Settings(),
                sources={way.name: source for way, source in self._sources.items()},
                dead_letters=_Refusals(self._outcome.refused),
                wrap_sink=_replayed if to_sinks else None,
            ),
        )

    async def run(self) -> Outcome:
        reading = asyncio.create_task(self._read())
        running = asyncio.create_task(self._engine.run())
        try:
            await asyncio.wait({reading, running}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and reading.exception() is not None:
                self._engine.stop()
            self._outcome.exit_code = await running
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            if not running.done():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            for progress in self._volumes:
                await self._note(progress)
        if not reading.cancelled() and (error := reading.exception()) is not None:
            raise error
        return self._outcome

    def stop(self) -> None:
        """Send nothing more; what is under way is finished and noted."""
        self._engine.stop()

    async def _read(self) -> None:
        try:
            for volume in await self._store.volumes():
                progress = _Progress(volume, await self._store.replayed(volume))
                self._volumes.append(progress)
                await self._read_volume(progress)
        finally:
            for source in self._sources.values():
                source.end()

    async def _read_volume(self, progress: _Progress) -> None:
        batches: dict[Way, list[Record]] = {}
        before = progress.done.copy()
        async for record in self._store.read(progress.volume):
            if record.id in before or not self._wanted.matches(record):
                continue
            way = self._ways.of(record)
            source = self._sources.get(way) if isinstance(way, Way) else None
            if source is None:
                continue
            records = batches.setdefault(way, [])  # type: ignore[arg-type]  # only a Way has a source
            records.append(record)
            if len(records) >= BATCH_RECORDS:
                await source.put(progress, batches.pop(way))  # type: ignore[arg-type]
            if len(progress.unnoted) >= NOTE_RECORDS:
                await self._note(progress)
        for way, records in batches.items():
            await self._sources[way].put(progress, records)

    def _ended(self, progress: _Progress, record: Record, ok: bool) -> None:
        if ok:
            self._outcome.replayed += 1
            progress.done.add(record.id)
            progress.unnoted.add(record.id)
        self._on_progress(1)

    async def _note(self, progress: _Progress) -> None:
        async with self._notes:
            if progress.unnoted:
                new, progress.unnoted = progress.unnoted, set()
                await self._store.note(progress.volume, progress.done, new)


@dataclass(slots=True)
class _Progress:
    """What of a volume was replayed, in this run or before."""

    volume: Volume
    done: set[str]
    unnoted: set[str] = field(default_factory=set)


class _RecordSource:
    """Brings the records of one way into its pipeline, each with a promise of its own."""

    def __init__(self, on_end: Callable[[_Progress, Record, bool], None], *, sends_failed_data: bool) -> None:
        self._on_end = on_end
        self._sends_failed_data = sends_failed_data
        self._queue: asyncio.Queue[tuple[_Progress, list[Record]] | None] = asyncio.Queue(QUEUE_BATCHES)
        self._last = False
        self._under_way = 0
        self._all_ended = asyncio.Event()
        self._stopped = asyncio.Event()

    async def put(self, progress: _Progress, records: list[Record]) -> None:
        await self._queue.put((progress, records))

    def end(self) -> None:
        """Nothing more comes."""
        self._last = True
        if not self._queue.full():
            self._queue.put_nowait(None)  # else the reader sees `_last` once the queue is empty

    async def run(self, output: Output) -> None:
        output.started()
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            while not (self._last and self._queue.empty()):
                got = asyncio.create_task(self._queue.get())
                await asyncio.wait({got, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not got.done():
                    got.cancel()
                    return
                item = got.result()
                if item is not None:
                    await self._write(output, *item)
            ended = asyncio.create_task(self._all_ended.wait())
            while self._under_way and not stopped.done():
                await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
        finally:
            stopped.cancel()

    async def stop(self) -> None:
        self._stopped.set()

    async def _write(self, output: Output, progress: _Progress, records: list[Record]) -> None:
        self._under_way += len(records)
        self._all_ended.clear()
        handles, parts, size_bytes = [], [], 0
        for record in records:
            handle = output.handle(lambda ok, record=record: self._ended(progress, record, ok))  # type: ignore[misc]
            body = record.failed_data if self._sends_failed_data else record.document
            part = Batch([dict(body)], [read_metadata(record.failed_data)])
            part.promise(handle)
            handles.append(handle)
            parts.append(part)
            size_bytes += len(encode(body))
        batch = concat(parts)
        for chunk in batch.chunks(max(1, min(BATCH_RECORDS, output.events_max))):
            await output.write(chunk, min(output.bytes_max, size_bytes * len(chunk) // len(records)))
        for handle in handles:
            handle.seal()

    def _ended(self, progress: _Progress, record: Record, ok: bool) -> None:
        self._on_end(progress, record, ok)
        self._under_way -= 1
        if self._under_way == 0:
            self._all_ended.set()


class _Refusals:
    """In place of a dead-letter queue: counts the reasons and keeps nothing, as the records are kept already."""

    def __init__(self, reasons: Counter[str]) -> None:
        self._reasons = reasons

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self._reasons[cause_in(str(letter.failed_data.get("message")))] += 1
        raise Permanent("refused again: it stays in the dead-letter queue")

    async def close(self) -> None:
        """Nothing is held."""


def _replayed(sink: Any) -> Any:
    return ReplayedBulkSink(sink) if hasattr(sink, "encode") else ReplayedWriteSink(sink)


class ReplayedBulkSink:
    """A bulk sink that is given the failed data of dead letters instead of events."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    @property
    def limits(self) -> Limits:
        limits: Limits = self._sink.limits
        return limits

    def __getattr__(self, name: str) -> Any:  # start, stop, send, dead_letter, supersedes
        return getattr(self._sink, name)

    def encode(self, batch: Batch) -> Items:
        make = getattr(self._sink, "replay", None)
        if make is None:
            documents: Items = self._sink.encode(_documents(batch))
            return documents
        data: list[bytes] = []
        slots: list[int] = []
        keys: list[Any] = []
        rejected: list[Failure] = []
        for slot, failed_data in enumerate(batch.bodies):
            try:
                data.append(make(failed_data))
            except EventError as error:
                rejected.append(Failure(slot, str(error)))
            else:
                slots.append(slot)
                id_ = failed_data.get("indexId")
                keys.append(None if id_ is None else (failed_data.get("index"), id_))
        return Items(data, slots, keys, rejected)


class ReplayedWriteSink:
    """A simple sink that is given the failed data of dead letters instead of events."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    async def start(self) -> None:
        await self._sink.start()

    async def stop(self) -> None:
        await self._sink.stop()

    async def write(self, batch: Batch) -> None:
        await self._sink.write(_documents(batch))


def _documents(batch: Batch) -> Batch:
    return Batch([body.get("document") or {} for body in batch.bodies], list(batch.metas), None, batch.origin)


def _cut_down(plan: Plan, chosen: Sequence[Way]) -> Plan:
    """Only the pipelines that replaying needs, none of them with a source of its own."""
    by_name = {pipeline.name: pipeline for pipeline in plan.pipelines}
    kept: list[PipelinePlan] = [
        replace(
            by_name[way.pipeline],
            name=way.name,
            source=None,
            upstreams=(),
            processors=(),
            routes=(),
            sinks=(replace(by_name[way.pipeline].sinks[way.sink], routes=(), forward_to=None),),
            failure_pipeline=None,
        )
        for way in chosen
        if way.sink is not None
    ]
    names = _with_those_behind([way.pipeline for way in chosen if way.sink is None], by_name)
    kept += [
        replace(
            pipeline,
            source=None,
            upstreams=tuple(name for name in pipeline.upstreams if name in names),
            failure_pipeline=None,
        )
        for pipeline in plan.pipelines
        if pipeline.name in names
    ]
    return replace(plan, pipelines=tuple(kept), skipped=())


def _with_those_behind(names: Sequence[str], by_name: dict[str, PipelinePlan]) -> set[str]:
    reached: set[str] = set()
    front = list(names)
    while front:
        name = front.pop()
        if name in reached:
            continue
        reached.add(name)
        for sink in by_name[name].sinks:
            front += [onward for onward in (sink.target, sink.forward_to) if onward is not None]
    return reached
