"""Delivery to one sink: accumulation, lanes, order, retry, dead letters and the release of every event.

Nobody else retries, dead-letters or releases. Source of the rules: `delivery` in docs/behaviour.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.core.batch import Batch
from penstock.core.errors import EventError, Failure, Permanent, Transient, Unreachable
from penstock.core.json_text import encode
from penstock.runtime.dead_letters import DeadLetter, DeadLetterWriter
from penstock.sdk import BulkSink, Context, Items, WriteSink

log = logging.getLogger(__name__)

RETRY_DELAY_S_MIN = 0.05
RETRY_DELAY_S_MAX = 60.0
BREAKER_DELAY_S_MAX = 10.0
COLLECT_S_MAX = 0.05
"""Longest time a busy lane collects before it sends what it has."""


class Delivery(Protocol):
    """The way of a pipeline to one of its sinks."""

    name: str
    state: SinkState

    def submit(self, batch: Batch, on_done: Callable[[], None]) -> None:
        """Take the events over. What of the bodies is needed is read before this returns, except by `WriteDelivery`.

        `on_done` is called once all of them have ended.
        """

    async def drain(self) -> None:
        """Return when every event has ended."""

    def pending(self) -> int:
        """Events not yet ended."""

    async def close(self) -> None:
        """Stop at once; what is pending ends undelivered."""


@dataclass(slots=True)
class SinkState:
    """What an operator sees of a sink."""

    status: str = "STARTING"
    """`STARTING`, `OK` or `DEGRADED`."""
    last_error: str = ""
    since_ms: int = 0


class Surroundings:
    """What every delivery needs: where dead letters go, time, chance, names and meters."""

    def __init__(self, ctx: Context, dead_letters: DeadLetterWriter) -> None:
        self.ctx = ctx
        self.dead_letters = dead_letters
        self._dead = ctx.metrics.counter("deadLetters")
        self._dead_failed = ctx.metrics.counter("deadLetterErrors")
        self.records_in = ctx.metrics.counter("recordsIn")
        self.latency = ctx.metrics.timer("PipelineLatency")
        self.end_to_end = ctx.metrics.timer("EndToEndLatency")

    def letter(self, failed_data: dict[str, Any]) -> DeadLetter:
        ctx = self.ctx
        return DeadLetter(ctx.plugin, ctx.plugin, ctx.pipeline, ctx.clock.now_ns(), failed_data)

    async def bury(self, letters: Sequence[DeadLetter]) -> bool:
        """Write dead letters; False when even that fails, then the events count as undelivered."""
        try:
            await self.dead_letters.write(letters)
        except (OSError, Transient, Permanent) as error:
            self._dead_failed.add(len(letters))
            log.error("Failed to write a document to the DLQ: %s", error)
            return False
        self._dead.add(len(letters))
        log.warning(
            "Pipeline [%s] %s: %d events went to the dead-letter queue; the first because: %s",
            self.ctx.pipeline,
            self.ctx.plugin,
            len(letters),
            letters[0].failed_data.get("message"),
        )
        return True

    def observe(self, batch: Batch) -> Callable[[], None]:
        """Call the result when the batch has arrived: records how long it took."""
        clock = self.ctx.clock
        received = batch.peek(0).received_ms if len(batch) else 0
        metas = batch.metas if any(batch.metas) else ()
        origination = [m.origination_ms for m in metas if m is not None and m.origination_ms is not None]
        count = len(batch)

        def arrived() -> None:
            now = clock.now_ms()
            if received:
                self.latency.observe(max(0, now - received) / 1000, count)
            for then in origination:
                self.end_to_end.observe(max(0, now - then) / 1000)

        return arrived


class _Parcel:
    """The items of one batch and how many of them have not ended."""

    __slots__ = ("arrived", "batch", "data", "handle", "left", "on_done", "slots")

    def __init__(
        self, batch: Batch, items: Items, on_done: Callable[[], None], arrived: Callable[[], None] | None
    ) -> None:
        self.batch = batch
        self.data = items.data
        self.slots = items.slots
        self.left = len(items.data) + len(items.rejected)
        first = batch.handles[0]
        self.handle = first if batch.handles.count(first) == len(batch.handles) else None
        """The one promise all events of the batch belong to, where there is only one."""
        self.on_done = on_done
        self.arrived = arrived

    def end(self, slots: Sequence[int], *, ok: bool) -> None:
        self.batch.release(slots, ok=ok)
        self.left -= len(slots)
        assert self.left >= 0, "more items ended than there were"
        if self.left == 0:
            if ok and self.arrived is not None:
                self.arrived()
            self.on_done()


@dataclass(slots=True, eq=False)
class _Item:
    """One item that is looked at by itself: it has a key, or was refused once."""

    parcel: _Parcel
    place: int
    key: Hashable | None
    attempts: int = 0

    @property
    def data(self) -> bytes:
        return self.parcel.data[self.place]

    @property
    def size_bytes(self) -> int:
        return len(self.parcel.data[self.place])

    def items(self) -> list[_Item]:
        return [self]

    @property
    def withdrawn(self) -> bool:
        handle = self.parcel.batch.handles[self.parcel.slots[self.place]]
        assert handle is not None
        return handle.done


@dataclass(slots=True, eq=False)
class _Range:
    """A stretch of a parcel whose items have no keys."""

    parcel: _Parcel
    start: int
    end: int
    attempts: int = 0

    def items(self) -> list[_Item]:
        return [_Item(self.parcel, place, None, self.attempts) for place in range(self.start, self.end)]

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.parcel.data[self.start : self.end]))


_Part = _Range | _Item


class BulkDelivery:
    """Joins items into requests and keeps several of them in flight.

    An idle sink is sent to at once; a busy one when a request is full, or one reply time (50 ms at most) after its
    last reply, so that a trickle does not become a stream of one-document requests. Two items of one key never are in
    flight together, not even in one request: later ones wait in line behind the key.
    """

    def __init__(self, sink: BulkSink, surroundings: Surroundings) -> None:
        self._sink = sink
        self._around = surroundings
        self._limits = sink.limits
        ctx = surroundings.ctx
        self.name = ctx.plugin
        self.state = SinkState(since_ms=ctx.clock.now_ms())
        self._now = ctx.clock.monotonic
        self._queue: deque[_Part] = deque()
        self._queued_bytes = 0
        self._waiting: dict[Hashable, deque[_Item]] = {}
        """Line behind each key that is queued, in flight or about to be retried; the first of a key is not in it."""
        self._in_flight = 0
        self._reply_s = 0.0
        self._rest_until = 0.0
        self._collect_until: float | None = None
        self._paused_until = 0.0
        self._strikes = 0
        self._unreachable = False
        self._draining = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._parcels: set[_Parcel] = set()
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        ctx.metrics.gauge("requestsInFlight", lambda: self._in_flight)
        ctx.metrics.gauge("queuedBytes", lambda: self._queued_bytes)
        self._retries = ctx.metrics.counter("bulkRequestNumberOfRetries")

    # taking over

    def submit(self, batch: Batch, on_done: Callable[[], None]) -> None:
        self._around.records_in.add(len(batch))
        arrived = self._around.observe(batch)
        items = self._sink.encode(batch)
        assert len(items.data) + len(items.rejected) == len(batch), "the sink lost an event while encoding"
        rejected = [(failure, _document(batch, failure)) for failure in items.rejected]
        batch.forget_bodies()
        parcel = _Parcel(batch, items, on_done, arrived)
        self._parcels.add(parcel)
        self._pending += parcel.left
        self._idle.clear()
        if rejected:
            self._run(self._bury_rejected(parcel, rejected))
        if items.data:
            if items.keys is None:
                self._queue.append(_Range(parcel, 0, len(items.data)))
                self._queued_bytes += sum(map(len, items.data))
            else:
                for place, key in enumerate(items.keys):
                    self._enqueue(_Item(parcel, place, key))
            self._pump()

    def _enqueue(self, item: _Item) -> None:
        if item.key is not None:
            line = self._waiting.get(item.key)
            if line is not None:
                line.append(item)
                return
            self._waiting[item.key] = deque()
        self._queue.append(item)
        self._queued_bytes += len(item.data)

    # sending

    def _pump(self) -> None:
        """Start as many requests as the rules allow now, and a timer for when they may allow more."""
        while self._queue and not self._closed and self._in_flight < self._limits.lanes_max:
            now = self._now()
            start_at = self._start_at(now)
            if start_at > now:
                self._wake_at(start_at - now)
                return
            self._collect_until = None
            parts, count = self._take()
            if not parts:
                continue
            self._in_flight += 1
            self._run(self._request(parts, count))
            if self._unreachable:
                return

    def _start_at(self, now: float) -> float:
        """When the next request may start, in the time of `now`."""
        if self._paused_until > now:
            return self._paused_until
        if self._unreachable and self._in_flight:
            return now + COLLECT_S_MAX
        if self._draining or self._queued_bytes >= self._limits.request_bytes_max:
            return now
        wait_max = min(COLLECT_S_MAX, self._limits.flush_timeout_s)
        if self._in_flight == 0:
            return min(self._rest_until, now + wait_max)
        if self._collect_until is None:
            self._collect_until = now + wait_max
        return self._collect_until

    def _take(self) -> tuple[list[_Part], int]:
        """The parts of one request: as much of the queue as fits, one item at least."""
        room = self._limits.request_bytes_max
        count_max = self._limits.request_items_max
        parts: list[_Part] = []
        count = 0
        while self._queue:
            part = self._queue[0]
            if isinstance(part, _Item):
                if part.withdrawn:
                    self._queue.popleft()
                    self._queued_bytes -= len(part.data)
                    self._end_item(part, ok=False)
                    continue
                size = len(part.data)
                if count and (size > room or count >= count_max):
                    break
                self._queue.popleft()
                self._queued_bytes -= size
                room -= size
                count += 1
                parts.append(part)
                continue
            if self._withdraw(part):
                continue
            sizes = list(map(len, part.parcel.data[part.start : part.end]))
            total = sum(sizes)
            if total <= room and count + len(sizes) <= count_max:
                self._queue.popleft()
                taken = part
            else:
                fit = 0
                size = 0
                for item_size in sizes:
                    if (count + fit and size + item_size > room) or count + fit >= count_max:
                        break
                    size += item_size
                    fit += 1
                if fit == 0:
                    break
                taken = _Range(part.parcel, part.start, part.start + fit, part.attempts)
                total = size
                if fit == len(sizes):
                    self._queue.popleft()
                else:
                    part.start += fit
            self._queued_bytes -= total
            room -= total
            count += taken.end - taken.start
            parts.append(taken)
            if room <= 0:
                break
        return parts, count

    def _withdraw(self, part: _Range) -> bool:
        """Take out the items whose promise is over (time-out, lost lease). True when the front of the queue changed."""
        if part.parcel.handle is not None:
            if not part.parcel.handle.done:
                return False
        else:
            handles, slots = part.parcel.batch.handles, part.parcel.slots
            if not any(handle.done for handle in {handles[slot] for slot in slots[part.start : part.end]} if handle):
                return False
        self._queue.popleft()
        kept: list[_Item] = []
        for item in part.items():
            if item.withdrawn:
                self._queued_bytes -= len(item.data)
                self._end_item(item, ok=False)
            else:
                kept.append(item)
        self._queue.extendleft(reversed(kept))
        return True

    async def _request(self, parts: list[_Part], count: int) -> None:
        begin = self._now()
        try:
            await self._send(parts, count)
        finally:
            now = self._now()
            self._in_flight -= 1
            self._reply_s = now - begin
            self._rest_until = now + min(self._reply_s, COLLECT_S_MAX, self._limits.flush_timeout_s)
        self._pump()

    async def _send(self, parts: list[_Part], count: int) -> None:
        """Send and settle: every item of `parts` has ended or waits for its retry when this returns."""
        data = parts[0].parcel.data if len(parts) == 1 and _whole(parts[0]) else _joined(parts)
        try:
            failures = await self._sink.send(data)
        except Unreachable as error:
            self._strike(error, unreachable=True)
            self._requeue(parts)
        except Transient as error:
            self._strike(error, unreachable=False)
            await self._requeue_counted(parts, str(error))
        except Permanent as error:
            self._well()
            await self._split(parts, count, str(error))
        except Exception as error:
            log.exception("Sink %s of pipeline %s failed unexpectedly", self.name, self._around.ctx.pipeline)
            self._well()
            await self._split(parts, count, f"{type(error).__name__}: {error}")
        else:
            self._well()
            await self._settle(parts, failures)

    async def _settle(self, parts: list[_Part], failures: Sequence[Failure]) -> None:
        if not failures:
            for part in parts:
                if isinstance(part, _Item):
                    self._end_item(part, ok=True)
                else:
                    self._end_range(part)
            return
        by_index = {failure.index: failure for failure in failures}
        dead: list[tuple[_Item, Failure]] = []
        again: dict[float, list[_Item]] = {}
        for index, item in enumerate(_items(parts)):
            failure = by_index.get(index)
            if failure is None:
                self._end_item(item, ok=True)
            elif not failure.retryable:
                dead.append((item, failure))
            else:
                item.attempts += 1
                if self._exhausted(item.attempts):
                    dead.append((item, self._out_of_retries(failure.reason)))
                else:
                    wait = failure.retry_after_s if failure.retry_after_s is not None else -float(item.attempts)
                    again.setdefault(wait, []).append(item)
        for wait, items in again.items():
            self._retry_later(self._backoff(int(-wait)) if wait < 0 else min(wait, RETRY_DELAY_S_MAX), items)
        if dead:
            await self._bury(dead)

    async def _split(self, parts: list[_Part], count: int, reason: str) -> None:
        """The request as a whole was refused: halve it until the bad item is alone."""
        if count == 1:
            await self._bury([(_items(parts)[0], Failure(0, reason))])
            return
        items = _items(parts)
        half = count // 2
        await self._send(list(items[:half]), half)
        await self._send(list(items[half:]), count - half)

    # trying again

    def _retry_later(self, delay_s: float, items: list[_Item]) -> None:
        """Send refused items again after a while, before what was queued behind them."""
        self._retries.add(len(items))

        def retry() -> None:
            self._requeue(items)
            self._pump()

        self._later(delay_s, retry)

    def _requeue(self, parts: Sequence[_Part]) -> None:
        self._queue.extendleft(reversed(parts))
        self._queued_bytes += sum(part.size_bytes for part in parts)

    async def _requeue_counted(self, parts: Sequence[_Part], reason: str) -> None:
        """Back to the front of the queue, whose lanes pause; what has used up its retries becomes a dead letter."""
        dead: list[tuple[_Item, Failure]] = []
        rest: list[_Part] = []
        for part in parts:
            part.attempts += 1
            if self._exhausted(part.attempts):
                dead += [(item, self._out_of_retries(reason)) for item in part.items()]
            else:
                rest.append(part)
        self._retries.add(sum(len(part.items()) for part in rest))
        self._requeue(rest)
        if dead:
            await self._bury(dead)

    def _exhausted(self, attempts: int) -> bool:
        return self._limits.max_retries is not None and attempts >= self._limits.max_retries

    def _out_of_retries(self, reason: str) -> Failure:
        return Failure(
            0,
            f"Number of retries reached the limit of max retries (configured value {self._limits.max_retries}. "
            f"Last exception message: {reason})",
        )

    def _strike(self, error: Transient, *, unreachable: bool) -> None:
        """The sink refused a whole request: every lane pauses, longer each time in a row."""
        self._strikes += 1
        self._unreachable = unreachable
        if error.retry_after_s is not None:
            delay = min(error.retry_after_s, RETRY_DELAY_S_MAX)
        else:
            delay = min(self._backoff(self._strikes), BREAKER_DELAY_S_MAX)
        self._paused_until = max(self._paused_until, self._now() + delay)
        if self.state.status != "DEGRADED":
            self.state.status = "DEGRADED"
            self.state.since_ms = self._around.ctx.clock.now_ms()
        self.state.last_error = str(error)
        if self._strikes % 5 == 1:
            log.warning(
                "Bulk Operation Failed. Number of retries %d. Retrying... Pipeline [%s] %s: %s",
                self._strikes,
                self._around.ctx.pipeline,
                self.name,
                error,
            )

    def _well(self) -> None:
        if self._strikes or self.state.status != "OK":
            if self._strikes:
                log.info("Pipeline [%s] %s answers again", self._around.ctx.pipeline, self.name)
            self._strikes = 0
            self._unreachable = False
            self.state = SinkState("OK", "", self._around.ctx.clock.now_ms())

    def _backoff(self, attempts: int) -> float:
        """Exponential from 50 ms to a minute, with full jitter over its upper half."""
        delay = min(RETRY_DELAY_S_MIN * 2.0 ** min(attempts - 1, 16), RETRY_DELAY_S_MAX)
        return delay * (0.5 + self._around.ctx.random.random() / 2)

    # ends

    def _end_range(self, part: _Range) -> None:
        parcel = part.parcel
        slots = parcel.slots if _whole(part) else parcel.slots[part.start : part.end]
        self._end(parcel, slots, ok=True)

    def _end_item(self, item: _Item, *, ok: bool) -> None:
        if item.key is not None:
            line = self._waiting[item.key]
            if line:
                follower = line.popleft()
                self._queue.append(follower)
                self._queued_bytes += len(follower.data)
            else:
                del self._waiting[item.key]
        self._end(item.parcel, (item.parcel.slots[item.place],), ok=ok)

    async def _bury(self, dead: list[tuple[_Item, Failure]]) -> None:
        letters = []
        for item, failure in dead:
            target = self._sink.dead_letter(item.data)
            letters.append(
                self._around.letter({**target, "status": failure.status, "message": failure.reason, **failure.details})
            )
        ok = await self._around.bury(letters)
        for item, _ in dead:
            self._end_item(item, ok=ok)
        self._pump()

    async def _bury_rejected(self, parcel: _Parcel, rejected: list[tuple[Failure, Any]]) -> None:
        letters = [
            self._around.letter(
                {
                    "index": None,
                    "indexId": None,
                    "document": document,
                    **failure.details,
                    "status": failure.status,
                    "message": failure.reason,
                }
            )
            for failure, document in rejected
        ]
        ok = await self._around.bury(letters)
        self._end(parcel, [failure.index for failure, _ in rejected], ok=ok)

    def _end(self, parcel: _Parcel, slots: Sequence[int], *, ok: bool) -> None:
        self._pending -= len(slots)
        parcel.end(slots, ok=ok)
        if parcel.left == 0:
            self._parcels.discard(parcel)
        if self._pending == 0:
            self._idle.set()

    # life

    def pending(self) -> int:
        return self._pending

    async def drain(self) -> None:
        self._draining += 1
        try:
            self._pump()
            await self._idle.wait()
        finally:
            self._draining -= 1

    async def close(self) -> None:
        self._closed = True
        for timer in [*self._timers, *([self._timer] if self._timer else [])]:
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for parcel in self._parcels:
            parcel.batch.release_all(ok=False)
            parcel.on_done()
        self._parcels.clear()
        self._queue.clear()
        self._pending = 0
        self._idle.set()

    def _wake_at(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if not self._timer.cancelled() and loop.time() < self._timer.when() <= loop.time() + delay_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay_s, self._pump)

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(delay_s, fire)
        self._timers.add(timer)

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.critical("Delivery to %s failed", self.name, exc_info=task.exception())


class WriteDelivery:
    """Hands whole batches to a simple sink, one after the other, and retries them."""

    def __init__(self, sink: WriteSink, surroundings: Surroundings) -> None:
        self._sink = sink
        self._around = surroundings
        self.name = surroundings.ctx.plugin
        self.state = SinkState(since_ms=surroundings.ctx.clock.now_ms())
        self._queue: deque[tuple[Batch, Callable[[], None], Callable[[], None]]] = deque()
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def submit(self, batch: Batch, on_done: Callable[[], None]) -> None:
        self._around.records_in.add(len(batch))
        self._queue.append((batch, on_done, self._around.observe(batch)))
        self._pending += len(batch)
        self._idle.clear()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._queue:
            batch, on_done, arrived = self._queue.popleft()
            if any(handle.done for handle in {*batch.handles} if handle is not None):
                gone = [i for i, handle in enumerate(batch.handles) if handle is not None and handle.done]
                self._pending -= len(gone)
                batch = batch.drop(gone, ok=False)
            ok = await self._write(batch) if len(batch) else True
            self._pending -= len(batch)
            batch.release_all(ok=ok)
            if ok:
                arrived()
            on_done()
        if self._pending == 0:
            self._idle.set()

    async def _write(self, batch: Batch) -> bool:
        attempts = 0
        clock = self._around.ctx.clock
        while True:
            try:
                await self._sink.write(batch)
            except Transient as error:
                attempts += 1
                self.state = SinkState("DEGRADED", str(error), clock.now_ms())
                if attempts % 5 == 1:
                    log.warning("Sink %s: %s; trying again", self.name, error)
                delay = min(RETRY_DELAY_S_MIN * 2.0 ** min(attempts - 1, 16), RETRY_DELAY_S_MAX)
                await asyncio.sleep(error.retry_after_s or delay)
            except Exception as error:
                if not isinstance(error, Permanent):
                    log.exception("Sink %s failed unexpectedly", self.name)
                reason = str(error) if isinstance(error, Permanent) else f"{type(error).__name__}: {error}"
                return await self._around.bury(
                    [
                        self._around.letter({"status": 0, "message": reason, "document": _plain(body)})
                        for body in batch.bodies
                    ]
                )
            else:
                if self.state.status != "OK":
                    self.state = SinkState("OK", "", clock.now_ms())
                return True

    def pending(self) -> int:
        return self._pending

    async def drain(self) -> None:
        await self._idle.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _whole(part: _Part) -> bool:
    return isinstance(part, _Range) and part.start == 0 and part.end == len(part.parcel.data)


def _joined(parts: list[_Part]) -> list[bytes]:
    data: list[bytes] = []
    for part in parts:
        if isinstance(part, _Item):
            data.append(part.data)
        else:
            data += part.parcel.data[part.start : part.end]
    return data


def _items(parts: list[_Part]) -> list[_Item]:
    items: list[_Item] = []
    for part in parts:
        if isinstance(part, _Item):
            items.append(part)
        else:
            items += part.items()
    return items


def _document(batch: Batch, failure: Failure) -> Any:
    """The event of a failure for its dead letter, unless the sink gave a better one."""
    return failure.details.get("document", _plain(batch.bodies[failure.index]))


def _plain(value: Any) -> Any:
    """The value if it can be written as JSON, else its text form: a dead letter must always be writable."""
    try:
        encode(value)
    except EventError:
        return repr(value)[:1_000_000]
    return value
