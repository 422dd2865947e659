"""The source as the runtime sees it: a leader loop, loops that take exports, files and shards, and the readers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Protocol

from penstock import sdk
from penstock.lib import aws
from penstock.lib.lease import Lease, LeaseLost, LeaseStore, MemoryStore, SqliteStore, Status, new_owner
from penstock.plugins.sources.dynamodb.api import ShardGone, TableApi
from penstock.plugins.sources.dynamodb.balance import NOBODY_ELSE_S, Balance
from penstock.plugins.sources.dynamodb.data_file import FileReader
from penstock.plugins.sources.dynamodb.export import Exporter, ExportOptions
from penstock.plugins.sources.dynamodb.export_items import ItemReader
from penstock.plugins.sources.dynamodb.leader import Leader
from penstock.plugins.sources.dynamodb.losses import Losses
from penstock.plugins.sources.dynamodb.reader import LEASE_S, LeasedReader, Outcome, Pace, Surroundings
from penstock.plugins.sources.dynamodb.records import Recorder
from penstock.plugins.sources.dynamodb.removals import send_again
from penstock.plugins.sources.dynamodb.shard import RETENTION_MS, ShardReader

SHARDS_MAX = 150
"""Shards that one unit reads at once, as long as others may take the rest."""
SHARDS_ALONE_MAX = 2000
"""Shards that it reads when nobody does: late is better than never."""
READS_AT_ONCE_MAX = 16
"""Reads that may wait for the service or for room in the buffer; bounds the records held outside the buffer."""
LEADER_LEASE_S = 180.0
ROUNDS_PER_LOOK_AT_FILES = 5
"""Looks at other units per look at the files that they load."""
MISSES_PER_REPORT = 50
_EXPORT_WAITS = (
    ", or that the export is still in progress. New shards will not be consumed until the export is fully processed."
)
FILES_MAX = 4
"""Exported files that one unit loads at once: one is downloaded while another is parsed."""


class Clients(Protocol):
    """Where the clients come from: `penstock.lib.aws`, or a fake."""

    async def __aenter__(self) -> Clients: ...

    async def __aexit__(self, *error: object) -> None: ...

    async def client(self, service: str, access: aws.Access, *, wire: bool = False) -> Any: ...


class DynamodbSource:
    """One table. The positions live in the lease store, so that a new `run` goes on where the last one ended."""

    def __init__(
        self,
        ctx: sdk.Context,
        *,
        table_arn: str,
        access: aws.Access,
        view_on_remove: str = "NEW_IMAGE",
        use_checkpoints: bool = True,
        discovery_interval_s: float = 60.0,
        acknowledgment_timeout_s: float | None = None,
        file_acknowledgment_timeout_s: float | None = None,
        stream: bool = True,
        export: ExportOptions | None = None,
        export_access: aws.Access | None = None,
        during_export: bool = False,
        leader_key: str = "GLOBAL",
        clients: Clients | None = None,
        store: LeaseStore | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._ctx = ctx
        self._log = ctx.log
        self._table_arn = table_arn
        self._access = access
        self._view_on_remove = view_on_remove
        self._use_checkpoints = use_checkpoints
        self._discovery_interval_s = discovery_interval_s
        self._acknowledgment_timeout_s = acknowledgment_timeout_s
        self._file_acknowledgment_timeout_s = file_acknowledgment_timeout_s
        self._stream = stream
        self._export = export
        self._export_access = export_access or access
        self._during_export = during_export
        self._leader_key = leader_key
        self._clients = clients
        self._pace = pace or Pace()
        self._given_store = store
        self._unit: _Unit | None = None
        self._stopping = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._start_ms = ctx.clock.now_ms()  # what changes while the sinks are not ready yet counts as new
        self._readers: dict[asyncio.Task[Outcome], LeasedReader] = {}
        meters = ctx.metrics
        self._completed = meters.counter("partitionsComplete")
        for name in (
            "partitionsCreated",
            "changeEventsProcessed",
            "changeEventsProcessingErrors",
            "shardProgress",
            "streamGaps",
        ):
            meters.counter(name)
        for name in ("JobSuccess", "JobFailure", "S3ObjectsTotal", "S3ObjectsProcessed"):
            meters.counter(f"export{name}")
        for name in ("RecordsTotal", "RecordsProcessed", "RecordProcessingErrors"):
            meters.counter(f"export{name}")
        for name in ("bytesReceived", "bytesProcessed", "totalOpenShards"):
            meters.summary(name)
        self._shared_meters = ctx.registry.scope("dynamodb")
        for name in ("ApiInvocations", "4xxErrors", "5xxErrors"):
            self._shared_meters.counter(f"stream{name}")
            self._shared_meters.counter(f"export{name}")

    def active(self, kind: type[LeasedReader]) -> int:
        """Readers of that kind at work."""
        return sum(1 for reader in self._readers.values() if isinstance(reader, kind))

    async def delivered_until(self, moment_ms: int) -> bool:
        """Whether the export and every change made before this moment are delivered; of all units only this one is
        asked. Raises `Transient`."""
        return self._unit is not None and await self._unit.delivered_until(moment_ms)

    async def run(self, output: sdk.Output) -> None:
        if self._stopping.is_set():
            return
        async with AsyncExitStack() as stack:
            api = await self._open_api(stack)
            store = self._open_store()
            stack.push_async_callback(store.shut)
            unit = self._unit = _Unit(self, api, store, output)
            ended = False
            try:
                await unit.work(self._stopping)
                ended = await unit.settle(self._pace.stop)
            finally:
                if not ended and self._stopping.is_set() and not _is_cancelled():
                    # Events that a processor holds are flushed only after this source has ended.
                    self._closing = asyncio.create_task(_close_later(unit, stack.pop_all()))
                else:
                    await asyncio.shield(unit.cut_off())

    async def stop(self) -> None:
        """Read nothing more. A second call waits for the last checkpoints, where events were still on their way."""
        if self._closing is not None and not self._closing.done():
            await asyncio.wait([self._closing], timeout=self._pace.stop)
        self._stopping.set()

    async def _open_api(self, stack: AsyncExitStack) -> TableApi:
        clients = await stack.enter_async_context(self._clients or aws.sessions())
        try:
            dynamodb = await clients.client("dynamodb", self._access, wire=True)
            streams = await clients.client("dynamodbstreams", self._access, wire=True)
            s3 = await clients.client("s3", self._export_access) if self._export is not None else None
        except sdk.Permanent:
            raise
        except Exception as error:
            known = aws.verdict(error)
            if known is None:
                raise
            raise known from error
        return TableApi(self._table_arn, dynamodb, streams, self._shared_meters, s3)

    def _open_store(self) -> LeaseStore:
        if self._given_store is not None:
            return self._given_store
        if self._ctx.open_leases is not None:
            return self._ctx.open_leases()
        if self._ctx.data_dir is not None:
            return SqliteStore(self._ctx.data_dir / "leases.db", self._ctx.clock)
        if self._given_store is None:
            self._log.warning(
                "There is no data directory: the positions in the streams of %s are forgotten when this process ends, "
                "and changes made until the next start are skipped",
                self._table_arn,
            )
            self._given_store = MemoryStore(self._ctx.clock)
        return self._given_store


class _Unit:
    """One run of the source."""

    def __init__(self, source: DynamodbSource, api: TableApi, store: LeaseStore, output: sdk.Output) -> None:
        ctx = source._ctx
        meters = ctx.metrics
        self._source = source
        self._pace = source._pace
        self._log = ctx.log
        self._store = store
        self._output = output
        self._owner = new_owner()
        self._readers = source._readers
        self._streams: list[str] = []
        self._table: dict[str, Any] = {}
        self._look = asyncio.Event()
        """Shards may be free."""
        self._ended = asyncio.Event()
        """A shard or a file was read to its end: its children, or the changes, are due."""
        self._look_files = asyncio.Event()
        """Files may be free."""
        self._started = False
        self._full_since = 0.0
        self._leader_lease: Lease | None = None
        names = ctx.lease_source
        losses = Losses(
            store,
            kept_of=names("LOSS"),
            pipeline=ctx.pipeline,
            table_arn=source._table_arn,
            clock=ctx.clock,
            meters=meters,
            log=ctx.log,
        )
        self._api = api
        self._leader = Leader(
            api,
            store,
            names=names,
            table_arn=source._table_arn,
            start_ms=source._start_ms,
            clock=ctx.clock,
            meters=meters,
            log=ctx.log,
            losses=losses,
            stream=source._stream,
            view_on_remove=source._view_on_remove,
            export=source._export,
            during_export=source._during_export,
        )
        self._leader_of = names("LEADER")
        self._others_of = [self._leader_of]
        if source._export is not None:
            self._others_of += [self._leader.export_of, self._leader.files_of, names("REMOVAL")]
        self._balance = Balance(
            store,
            owner=self._owner,
            table_arn=source._table_arn,
            members_of=names(f"UNIT|{source._table_arn}"),
            shards_of=self._leader.shards_of,
            others_of=self._others_of,
            clock=ctx.clock,
            log=ctx.log,
        )
        self._shared = Surroundings(
            api=api,
            store=store,
            output=output,
            clock=ctx.clock,
            chance=ctx.random,
            log=ctx.log,
            pace=source._pace,
            acknowledgment_timeout_s=source._acknowledgment_timeout_s,
            file_acknowledgment_timeout_s=source._file_acknowledgment_timeout_s,
            use_checkpoints=source._use_checkpoints,
            slots=asyncio.Semaphore(READS_AT_ONCE_MAX),
            meters=meters,
            losses=losses,
            table_arn=source._table_arn,
            removals_of=names("REMOVAL"),
            during_export=source._during_export,
        )
        if source._export is None:
            self._shared.loaded.set()
        for name in ("activeChangeEventConsumers", "activeShardsInProcessing"):
            meters.gauge(name, lambda: source.active(ShardReader))
        meters.gauge("activeExportS3ObjectConsumers", lambda: source.active(FileReader))
        meters.gauge("streamRetentionLeft", self._retention_left_s)

    async def work(self, stopping: asyncio.Event) -> None:
        """Lead, take shards and read them until `stopping`; raises what a loop raises."""
        todo = {"lead": self._lead(), "tick": self._tick(), "share": self._share()}
        if self._source._stream:
            todo["take"] = self._take_shards()
        if self._source._export is not None:
            todo |= {"export": self._take_export(), "files": self._take_files(), "report": self._report()}
            todo["removals"] = send_again(self._shared, self._owner, lambda: self._recorder(self._streams[-1]))
        loops = [asyncio.create_task(loop, name=f"dynamodb-{name}") for name, loop in todo.items()]
        stop = asyncio.create_task(stopping.wait())
        try:
            waiting = {*loops, stop}
            while stop in waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # the loops of the export end with it, the others never without an error
        finally:
            for task in [*loops, stop]:
                task.cancel()
            await asyncio.gather(*loops, stop, return_exceptions=True)
            for reader in self._readers.values():
                reader.stop()

    async def settle(self, timeout_s: float | None) -> bool:
        """Let the readers finish; True when all have. Then the leader's lease is given back too."""
        ticking = asyncio.create_task(self._tick())
        try:
            if self._readers:
                await asyncio.wait(list(self._readers), timeout=timeout_s)
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
        if self._readers:
            return False
        await self.cut_off()
        return True

    async def cut_off(self) -> None:
        """End at once: what is on its way is withdrawn and read again another time."""
        readers = list(self._readers)
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        self._leader_lease = None
        try:
            await self._balance.leave()
            # Looked up anew: a loop may have been cut off while it took or renewed one.
            for source in [self._leader.shards_of, *self._others_of]:
                for lease in await self._store.find(source):
                    if lease.owner == self._owner:
                        await self._store.give_up(lease)
        except (LeaseLost, sdk.Transient) as error:
            self._log.warning("A lease could not be given back: %s", error)

    async def _lead(self) -> None:
        interval = self._source._discovery_interval_s
        failures = 0
        while True:
            wait = interval
            try:
                if await self._is_leader():
                    if await self._leader.round():
                        self._look.set()
                    self._look_files.set()
                await self._learn()
                failures = 0
                if not self._started:  # another unit is about to find out
                    wait = min(interval, self._pace.discover_min)
            except (sdk.Transient, sdk.Permanent, LeaseLost) as error:
                self._log.error("Exception occurred in primary scheduling loop: %s", error)
                wait = min(2.0**failures, self._pace.retry_max, max(interval, 1.0))
                failures = min(failures + 1, 10)
            if await _wait_for(self._ended, wait):
                await self._lay_out_children()

    async def _lay_out_children(self) -> None:
        """Children that the last listing shows already follow their parents at once, without a call."""
        while self._ended.is_set():
            self._ended.clear()
            try:
                found = self._leader_lease is not None and await self._leader.children() > 0
                if self._leader_lease is not None and not self._shared.loaded.is_set():
                    await self._leader.check_export()
                await self._learn()
            except (sdk.Transient, sdk.Permanent) as error:
                self._log.error("Exception occurred in primary scheduling loop: %s", error)
                found = False
            if found:
                self._look.set()
                await _wait_for(self._ended, self._pace.discover_min)
            else:
                await asyncio.sleep(self._pace.discover_min)

    async def _is_leader(self) -> bool:
        try:
            if self._leader_lease is not None:
                known = {"initialized": bool(self._streams), "streamArns": self._streams}
                self._leader_lease = await self._store.save(self._leader_lease, known, LEADER_LEASE_S)
                return True
        except LeaseLost:
            self._leader_lease = None
        key = self._source._leader_key
        await self._store.create(self._leader_of, key, {"initialized": False})
        self._leader_lease = await self._store.acquire(self._leader_of, self._owner, LEADER_LEASE_S, prefix=key)
        return self._leader_lease is not None

    async def _learn(self) -> None:
        """What the leader has found out, here or in another unit."""
        state = await self._leader.state()
        ready = "streamArns" if self._source._stream else "exportTime"
        if not state or not state.get(ready):
            return
        if state["streamArns"] != self._streams:
            self._look.set()
        self._table = state
        self._streams = state["streamArns"]
        if state.get("exportLoaded"):
            self._shared.loaded.set()
        if not self._started:
            self._started = True
            self._output.started()

    async def _take_shards(self) -> None:
        pace = self._pace
        misses = 0
        while True:
            self._look.clear()
            try:
                lease = await self._free_shard() if self._has_room() else None
            except (sdk.Transient, LeaseLost) as error:
                self._log.warning("No shard could be taken: %s", error)
                lease = None
            if lease is not None:
                misses = 0
                self._read(lease)
                continue
            misses += 1
            if misses % MISSES_PER_REPORT == 0 and not self._readers:
                waits = "" if self._shared.loaded.is_set() else _EXPORT_WAITS
                self._log.info(
                    "No new shards acquired after %d attempts. "
                    "This means that all shards are currently being consumed%s",
                    misses,
                    waits,
                )
            span = min(pace.acquire * 2 ** min(misses, 20), pace.acquire_max)
            if await _wait_for(self._look, span * self._shared.chance.uniform(0.85, 1.15)):
                misses = 0

    async def _share(self) -> None:
        """Leave to other units what is due to them, and notice what they leave."""
        rounds = 0
        while True:
            if self._started:
                try:
                    free, ended = await self._balance.look(self._shard_readers(), self._streams)
                except (sdk.Transient, LeaseLost) as error:
                    self._log.warning("Work cannot be shared with other units now: %s", error)
                    free = ended = False
                if free:
                    self._look.set()
                    self._look_files.set()
                rounds += 1
                waits = not self._shared.loaded.is_set() and not self._balance.alone
                if ended or (waits and rounds % ROUNDS_PER_LOOK_AT_FILES == 0):
                    self._ended.set()
            span = self._store.look_s if self._started else self._pace.discover_min
            await asyncio.sleep(span * self._shared.chance.uniform(0.85, 1.15))

    def _shard_readers(self) -> list[LeasedReader]:
        return [reader for reader in self._readers.values() if isinstance(reader, ShardReader)]

    def _retention_left_s(self) -> float:
        """How long the oldest change that this unit knows of and has not delivered is kept in the stream, seconds."""
        readers = [reader for reader in self._readers.values() if isinstance(reader, ShardReader)]
        since = [since_ms for reader in readers if (since_ms := reader.unread_since_ms) is not None]
        if not since:
            return RETENTION_MS / 1000
        return max(0.0, (min(since) + RETENTION_MS - self._shared.clock.now_ms()) / 1000)

    async def delivered_until(self, moment_ms: int) -> bool:
        """Whether the export and every change made before this moment are delivered. Raises `Transient`."""
        if not self._shared.loaded.is_set() or await self._store.find(self._shared.removals_of):
            return False
        if not self._source._stream:
            return True
        for arn in self._streams:
            try:
                shards = await self._api.shards(arn)
            except ShardGone:
                continue
            leases = {lease.key: lease.status for lease in await self._store.find(self._leader.shards_of)}
            until = {
                reader.lease.key: reader.until_ms
                for reader in self._readers.values()
                if isinstance(reader, ShardReader)
            }
            for shard in shards:
                key = f"{arn}|{shard.id}"
                if leases.get(key) is not Status.COMPLETED and until.get(key, 0) < moment_ms:
                    return False
        return bool(self._streams)

    def _has_room(self) -> bool:
        now = self._shared.clock.monotonic()
        if not self._balance.may_take(self._shard_readers()):
            return False
        if self._shared.active < SHARDS_MAX:
            self._full_since = now
            return True
        return now - self._full_since > NOBODY_ELSE_S and self._shared.active < SHARDS_ALONE_MAX

    async def _free_shard(self) -> Lease | None:
        for arn in self._streams:
            lease = await self._store.acquire(self._leader.shards_of, self._owner, LEASE_S, prefix=f"{arn}|")
            if lease is not None:
                return lease
        return None

    async def _take_export(self) -> None:
        exporter = Exporter(
            self._shared,
            _given(self._source._export),
            owner=self._owner,
            export_of=self._leader.export_of,
            files_of=self._leader.files_of,
            global_of=self._leader.global_of,
        )
        failures = 0
        while not self._shared.loaded.is_set():
            span = self._pace.acquire_max
            try:
                if await exporter.take():
                    self._look_files.set()
                    self._ended.set()
                    continue
                failures = 0
            except (sdk.Transient, sdk.Permanent, LeaseLost) as error:
                self._log.error("The export of table %s cannot go on now: %s", self._source._table_arn, error)
                span = min(2.0**failures, self._pace.retry_max)
                failures = min(failures + 1, 10)
            await _wait_for(self._look_files, span)
            await asyncio.sleep(self._pace.discover_min if self._look_files.is_set() else 0)

    async def _take_files(self) -> None:
        """Load files, a few at once, until all are loaded."""
        pace = self._pace
        while not self._shared.loaded.is_set():
            self._look_files.clear()
            try:
                lease = await self._free_file() if self._source.active(FileReader) < FILES_MAX else None
            except (sdk.Transient, LeaseLost) as error:
                self._log.warning("No file could be taken: %s", error)
                lease = None
            if lease is not None:
                self._load(lease)
            else:
                await _wait_for(self._look_files, pace.acquire_max)

    async def _free_file(self) -> Lease | None:
        if not self._table:
            return None
        key = f"{self._source._table_arn}|{self._table.get('exportTime')}"
        export = await self._store.get(self._leader.export_of, key)
        if export is None or export.progress.get("status") != "Completed":
            return None
        prefix = f"{export.progress['exportArn']}|"
        return await self._store.acquire(self._leader.files_of, self._owner, LEASE_S, prefix=prefix)

    def _load(self, lease: Lease) -> None:
        source, table, progress = self._source, self._table, lease.progress
        items = ItemReader(
            table_name=source._table_arn.rpartition("/")[2],
            partition_key=table["partitionKey"],
            sort_key=table.get("sortKey"),
            form=progress["format"],
            incremental=progress["incremental"],
            at_ms=progress["exportStartTime"],
            view_on_remove=source._view_on_remove,
            log=self._log,
        )
        self._begin(FileReader(lease, items, self._shared))

    async def _report(self) -> None:
        """Say now and then how far the export is loaded."""
        began: tuple[float, int] | None = None
        while not self._shared.loaded.is_set():
            await _wait_for(self._shared.loaded, self._pace.report)
            try:
                found = await self._leader.loaded() if self._leader_lease is not None else None
            except sdk.Transient:
                continue  # the leader's loop tells
            if found is None:
                continue
            now = self._shared.clock.monotonic()
            began = began or (now, found.items)
            left = ""
            if found.items > began[1] and now > began[0]:
                rate = (found.items - began[1]) / (now - began[0])
                left = f", about {max(0, found.items_total - found.items) / rate / 60:.0f} min left"
            self._log.info(
                "The export of table %s is loaded in part: %d of %d files, %d of %d items%s",
                self._source._table_arn,
                found.files,
                found.files_total,
                found.items,
                found.items_total,
                left,
            )

    def _recorder(self, arn: str, start_ms: int | None = None) -> Recorder:
        source, table = self._source, self._table
        return Recorder(
            table_name=source._table_arn.rpartition("/")[2],
            partition_key=table["partitionKey"],
            sort_key=table.get("sortKey"),
            view_on_remove=source._view_on_remove,
            start_ms=table["startTime"] if start_ms is None else start_ms,
            # DynamoDB Local cuts the stamps of its records to the minute, the service to the second.
            resolution_ms=60_000 if ":ddblocal:" in arn else 1000,
            errors=self._shared.errors,
            log=self._log,
        )

    def _read(self, lease: Lease) -> None:
        arn = lease.key.rpartition("|")[0]
        recorder = self._recorder(arn, lease.progress.get("startTime"))
        self._begin(ShardReader(lease, recorder, self._shared))
        if self._shared.active == SHARDS_MAX + 1:
            self._log.warning(
                "This unit reads more than %d shards, each less often: further units would share them", SHARDS_MAX
            )

    def _begin(self, reader: LeasedReader) -> None:
        task = asyncio.create_task(reader.run(), name=f"dynamodb-{reader.lease.key}")
        self._readers[task] = reader
        self._shared.active = self._source.active(ShardReader)
        task.add_done_callback(lambda task: self._reader_done(task, reader))

    def _reader_done(self, task: asyncio.Task[Outcome], reader: LeasedReader) -> None:
        del self._readers[task]
        self._shared.active = self._source.active(ShardReader)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._shared.errors.add()
            self._log.error("Reading %s %s failed unexpectedly", reader.kind, reader.lease.key, exc_info=error)
            return  # looked for again after the usual while, not at once
        if task.result() is Outcome.ENDED:
            self._source._completed.add()
            self._ended.set()
            if isinstance(reader, FileReader):
                self._shared.meters.counter("exportS3ObjectsProcessed").add()
                self._log.info("File %s of the export is loaded: %d items", reader.key, reader.loaded)
        (self._look_files if isinstance(reader, FileReader) else self._look).set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._pace.save)
            for reader in list(self._readers.values()):
                await reader.tick()


async def _close_later(unit: _Unit, stack: AsyncExitStack) -> None:
    async with stack:
        try:
            await unit.settle(None)
        finally:
            await asyncio.shield(unit.cut_off())


def _given(options: ExportOptions | None) -> ExportOptions:
    assert options is not None, "only called with an export"
    return options


async def _wait_for(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event came in time."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
