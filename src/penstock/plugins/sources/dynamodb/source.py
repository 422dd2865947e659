"""The source as the runtime sees it: a leader loop, a loop that takes shards, and the readers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Protocol

from penstock import sdk
from penstock.lib import aws
from penstock.lib.lease import Lease, LeaseLost, LeaseStore, MemoryStore, SqliteStore, new_owner
from penstock.plugins.sources.dynamodb.leader import Leader
from penstock.plugins.sources.dynamodb.records import Recorder
from penstock.plugins.sources.dynamodb.shard import LEASE_S, Outcome, Pace, ShardReader, Surroundings
from penstock.plugins.sources.dynamodb.stream_api import StreamApi

SHARDS_MAX = 150
"""Shards that one unit reads at once, as long as others may take the rest."""
SHARDS_ALONE_MAX = 2000
"""Shards that it reads when nobody does: late is better than never."""
NOBODY_ELSE_S = 30.0
"""How long a shard is left to other units."""
READS_AT_ONCE_MAX = 16
"""Reads that may wait for the service or for room in the buffer; bounds the records held outside the buffer."""
LEADER_LEASE_S = 180.0
MISSES_PER_REPORT = 50


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
        self._clients = clients
        self._pace = pace or Pace()
        self._given_store = store
        self._stopping = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._start_ms = ctx.clock.now_ms()  # what changes while the sinks are not ready yet counts as new
        self._readers: dict[asyncio.Task[Outcome], ShardReader] = {}
        meters = ctx.metrics
        for name in ("activeChangeEventConsumers", "activeShardsInProcessing"):
            meters.gauge(name, lambda: len(self._readers))
        self._completed = meters.counter("partitionsComplete")
        for name in ("partitionsCreated", "changeEventsProcessed", "changeEventsProcessingErrors", "shardProgress"):
            meters.counter(name)
        for name in ("bytesReceived", "bytesProcessed", "totalOpenShards"):
            meters.summary(name)
        self._shared_meters = ctx.registry.scope("dynamodb")
        for name in ("streamApiInvocations", "stream4xxErrors", "stream5xxErrors"):
            self._shared_meters.counter(name)

    async def run(self, output: sdk.Output) -> None:
        if self._stopping.is_set():
            return
        async with AsyncExitStack() as stack:
            api = await self._open_api(stack)
            store = self._open_store()
            stack.push_async_callback(store.shut)
            unit = _Unit(self, api, store, output)
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

    async def _open_api(self, stack: AsyncExitStack) -> StreamApi:
        clients = await stack.enter_async_context(self._clients or aws.sessions())
        try:
            dynamodb = await clients.client("dynamodb", self._access, wire=True)
            streams = await clients.client("dynamodbstreams", self._access, wire=True)
        except sdk.Permanent:
            raise
        except Exception as error:
            known = aws.verdict(error)
            if known is None:
                raise
            raise known from error
        return StreamApi(self._table_arn, dynamodb, streams, self._shared_meters)

    def _open_store(self) -> LeaseStore:
        if self._given_store is None and self._ctx.data_dir is not None:
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

    def __init__(self, source: DynamodbSource, api: StreamApi, store: LeaseStore, output: sdk.Output) -> None:
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
        """A shard was read to its end: its children are due."""
        self._started = False
        self._full_since = 0.0
        self._leader_lease: Lease | None = None
        self._leader = Leader(
            api,
            store,
            pipeline=ctx.pipeline,
            table_arn=source._table_arn,
            start_ms=source._start_ms,
            meters=meters,
            log=ctx.log,
        )
        self._leader_of = f"{ctx.pipeline}|LEADER"
        self._shared = Surroundings(
            api=api,
            store=store,
            output=output,
            clock=ctx.clock,
            chance=ctx.random,
            log=ctx.log,
            pace=source._pace,
            acknowledgment_timeout_s=source._acknowledgment_timeout_s,
            use_checkpoints=source._use_checkpoints,
            slots=asyncio.Semaphore(READS_AT_ONCE_MAX),
            processed=meters.counter("changeEventsProcessed"),
            errors=meters.counter("changeEventsProcessingErrors"),
            progress=meters.counter("shardProgress"),
            bytes_received=meters.summary("bytesReceived"),
            bytes_processed=meters.summary("bytesProcessed"),
        )

    async def work(self, stopping: asyncio.Event) -> None:
        """Lead, take shards and read them until `stopping`; raises what a loop raises."""
        loops = [
            asyncio.create_task(loop, name=f"dynamodb-{name}")
            for name, loop in (("lead", self._lead()), ("take", self._take_shards()), ("tick", self._tick()))
        ]
        stop = asyncio.create_task(stopping.wait())
        try:
            done, _ = await asyncio.wait([*loops, stop], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
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
            # Looked up anew: a loop may have been cut off while it took or renewed one.
            for source in (self._leader.shards_of, self._leader_of):
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
                if await self._is_leader() and await self._leader.round():
                    self._look.set()
                await self._learn()
                failures = 0
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
        await self._store.create(self._leader_of, "GLOBAL", {"initialized": False})
        self._leader_lease = await self._store.acquire(self._leader_of, self._owner, LEADER_LEASE_S)
        return self._leader_lease is not None

    async def _learn(self) -> None:
        """What the leader has found out, here or in another unit."""
        state = await self._leader.state()
        if not state or not state.get("streamArns"):
            return
        if state["streamArns"] != self._streams:
            self._look.set()
        self._table = state
        self._streams = state["streamArns"]
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
                self._log.info(
                    "No new shards acquired after %d attempts. This means that all shards are currently being consumed",
                    misses,
                )
            span = min(pace.acquire * 2 ** min(misses, 20), pace.acquire_max)
            if await _wait_for(self._look, span * self._shared.chance.uniform(0.85, 1.15)):
                misses = 0

    def _has_room(self) -> bool:
        now = self._shared.clock.monotonic()
        if len(self._readers) < SHARDS_MAX:
            self._full_since = now
            return True
        return now - self._full_since > NOBODY_ELSE_S and len(self._readers) < SHARDS_ALONE_MAX

    async def _free_shard(self) -> Lease | None:
        for arn in self._streams:
            lease = await self._store.acquire(self._leader.shards_of, self._owner, LEASE_S, prefix=f"{arn}|")
            if lease is not None:
                return lease
        return None

    def _read(self, lease: Lease) -> None:
        source, table, arn = self._source, self._table, lease.key.rpartition("|")[0]
        recorder = Recorder(
            table_name=source._table_arn.rpartition("/")[2],
            partition_key=table["partitionKey"],
            sort_key=table.get("sortKey"),
            view_on_remove=source._view_on_remove,
            start_ms=lease.progress.get("startTime", table["startTime"]),
            # DynamoDB Local cuts the stamps of its records to the minute, the service to the second.
            resolution_ms=60_000 if ":ddblocal:" in arn else 1000,
            errors=self._shared.errors,
            log=self._log,
        )
        reader = ShardReader(lease, recorder, self._shared)
        task = asyncio.create_task(reader.run(), name=f"dynamodb-{lease.key}")
        self._readers[task] = reader
        self._shared.active = len(self._readers)
        if self._shared.active == SHARDS_MAX + 1:
            self._log.warning(
                "This unit reads more than %d shards, each less often: further units would share them", SHARDS_MAX
            )
        task.add_done_callback(lambda task: self._reader_done(task, lease.key))

    def _reader_done(self, task: asyncio.Task[Outcome], key: str) -> None:
        del self._readers[task]
        self._shared.active = len(self._readers)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._shared.errors.add()
            self._log.error("Reading shard %s failed unexpectedly", key, exc_info=error)
            return  # looked for again after the usual while, not at once
        if task.result() is Outcome.ENDED:
            self._source._completed.add()
            self._ended.set()
        self._look.set()

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
