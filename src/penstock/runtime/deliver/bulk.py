"""Delivery to a sink whose items are joined into requests."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from functools import partial
from typing import Any

from penstock.core.batch import Batch, concat
from penstock.core.errors import Failure, Permanent, Transient, Unreachable
from penstock.runtime.deliver.parcels import Item, Parcel, Part, Range, items_of, joined, whole
from penstock.runtime.deliver.surroundings import (
    RETRY_DELAY_S_MAX,
    RETRY_DELAY_S_MIN,
    SinkState,
    Surroundings,
    plain,
)
from penstock.sdk import BulkSink, metadata_told

log = logging.getLogger(__name__)

BREAKER_DELAY_S_MAX = 10.0
DRAIN_DELAY_S_MAX = 1.0
"""Longest pause before a retry while it drains: one that would come after the deadline is none."""
COLLECT_S_MAX = 0.05
"""Longest time a busy lane collects before it sends what it has."""


Dead = list[tuple[Item, Failure]]
"""Items that were refused for good, with the reason."""


class BulkDelivery:
    """Joins items into requests and keeps several of them in flight.

    An idle sink is sent to at once; a busy one when a request is full, or one reply time (50 ms at most) after its
    last reply, so that a trickle does not become a stream of one-document requests. Two items of one key never are in
    flight together, not even in one request: later ones wait in line behind the key. One that makes the last of the
    line needless (`supersedes` of the sink) takes its place and speaks for it; when it is refused, the other is sent.
    """

    def __init__(self, sink: BulkSink, surroundings: Surroundings) -> None:
        self._sink = sink
        self._around = surroundings
        self._supersedes: Callable[[bytes, bytes], bool] | None = getattr(sink, "supersedes", None)
        ctx = surroundings.ctx
        self.name = ctx.plugin
        self.state = SinkState(since_ms=ctx.clock.now_ms())
        self._now = ctx.clock.monotonic
        self._queue: deque[Part] = deque()
        self._queued_bytes = 0
        self._waiting: dict[Hashable, deque[Item]] = {}
        """Line behind each key that is queued, in flight or about to be retried; the first of a key is not in it."""
        self._in_flight = 0
        self._reply_s = 0.0
        self._rest_until = 0.0
        self._collect_until: float | None = None
        self._paused_until = 0.0
        self._strikes = 0
        self._unreachable = False
        self._draining = 0
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[asyncio.TimerHandle, Callable[[], None]] = {}
        self._parcels: set[Parcel] = set()
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._superseded = ctx.metrics.counter("itemsSuperseded")
        ctx.metrics.gauge("requestsInFlight", lambda: self._in_flight)
        ctx.metrics.gauge("queuedBytes", lambda: self._queued_bytes)
        self._retries = ctx.metrics.counter("bulkRequestNumberOfRetries")

    # taking over

    def submit(
        self, batch: Batch, on_done: Callable[[], None], on_written: Callable[[Sequence[int]], None] | None = None
    ) -> None:
        self._around.records_in.add(len(batch))
        arrived = self._around.observe(batch)
        items = self._sink.encode(batch)
        assert len(items.data) + len(items.rejected) == len(batch), "the sink lost an event while encoding"
        rejected = [
            (failure, failure.details.get("document", plain(batch.bodies[failure.index]))) for failure in items.rejected
        ]
        events = batch.copy() if self._around.keeps_events else None
        parcel = Parcel(batch, items, on_done, arrived, on_written, events)
        batch.forget_bodies()
        self._parcels.add(parcel)
        self._pending += parcel.left
        self._idle.clear()
        if rejected:
            self._run(self._bury_rejected(parcel, rejected))
        if items.data:
            if items.keys is None:
                self._queue.append(Range(parcel, 0, len(items.data)))
                self._queued_bytes += sum(map(len, items.data))
            else:
                for place, key in enumerate(items.keys):
                    self._enqueue(Item(parcel, place, key))
            if not self._pumping:
                # Once the chain has given all it has: the chunks of one load travel together.
                self._pumping = True
                asyncio.get_running_loop().call_soon(self._pump)

    def _enqueue(self, item: Item) -> None:
        if item.key is not None:
            line = self._waiting.get(item.key)
            if line is not None:
                if line and self._supersedes is not None and self._supersedes(item.data, line[-1].data):
                    item.replace(line.pop())
                    self._superseded.add()
                line.append(item)
                return
            self._waiting[item.key] = deque()
        self._queue.append(item)
        self._queued_bytes += len(item.data)

    # sending

    def _pump(self) -> None:
        """Start as many requests as the rules allow now, and a timer for when they may allow more."""
        self._pumping = False
        while self._queue and not self._closed and self._in_flight < self._sink.limits.lanes_max:
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
        if self._draining or self._queued_bytes >= self._sink.limits.request_bytes_max:
            return now
        wait_max = min(COLLECT_S_MAX, self._sink.limits.flush_timeout_s)
        if self._in_flight == 0:
            return min(self._rest_until, now + wait_max)
        if self._collect_until is None:
            self._collect_until = now + wait_max
        return self._collect_until

    def _take(self) -> tuple[list[Part], int]:
        """The parts of one request: as much of the queue as fits, one item at least."""
        room = self._sink.limits.request_bytes_max
        count_max = self._sink.limits.request_items_max
        parts: list[Part] = []
        count = 0
        while self._queue:
            part = self._queue[0]
            if isinstance(part, Item):
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
                taken = Range(part.parcel, part.start, part.start + fit, part.attempts)
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

    def _withdraw(self, part: Range) -> bool:
        """Take out the items whose promise is over (time-out, lost lease). True when the front of the queue changed."""
        if part.parcel.handle is not None:
            if not part.parcel.handle.done:
                return False
        else:
            handles, slots = part.parcel.batch.handles, part.parcel.slots
            if not any(handle.done for handle in {handles[slot] for slot in slots[part.start : part.end]} if handle):
                return False
        self._queue.popleft()
        kept: list[Item] = []
        for item in part.items():
            if item.withdrawn:
                self._queued_bytes -= len(item.data)
                self._end_item(item, ok=False)
            else:
                kept.append(item)
        self._queue.extendleft(reversed(kept))
        return True

    async def _request(self, parts: list[Part], count: int) -> None:
        begin = self._now()
        dead: Dead = []
        try:
            await self._send(parts, count, dead)
        finally:
            now = self._now()
            self._in_flight -= 1
            self._reply_s = now - begin
            self._around.elapsed.observe(self._reply_s)
            self._rest_until = now + min(self._reply_s, COLLECT_S_MAX, self._sink.limits.flush_timeout_s)
        if dead:  # apart from the lane: a slow queue of dead letters does not hold up what can be written
            self._run(self._bury(dead))
        self._pump()

    async def _send(self, parts: list[Part], count: int, dead: Dead) -> None:
        """Send and settle: every item of `parts` has ended, waits for its retry, or is in `dead` afterwards."""
        data = parts[0].parcel.data if len(parts) == 1 and whole(parts[0]) else joined(parts)
        try:
            failures = await self._sink.send(data)
        except Unreachable as error:
            self._strike(error, unreachable=True)
            self._requeue(parts)
        except Transient as error:
            self._strike(error, unreachable=False)
            self._requeue_counted(parts, str(error), dead)
        except Permanent as error:
            self._well()
            await self._split(parts, count, str(error), dead)
        except Exception as error:
            log.exception("Sink %s of pipeline %s failed unexpectedly", self.name, self._around.ctx.pipeline)
            self._well()
            await self._split(parts, count, f"{type(error).__name__}: {error}", dead)
        else:
            self._well()
            self._settle(parts, failures, dead)

    def _settle(self, parts: list[Part], failures: Sequence[Failure], dead: Dead) -> None:
        if not failures:
            for part in parts:
                if isinstance(part, Item):
                    self._written(part)
                else:
                    self._end_range(part)
            return
        by_index = {failure.index: failure for failure in failures}
        again: dict[float, list[Item]] = {}
        for index, item in enumerate(items_of(parts)):
            failure = by_index.get(index)
            if failure is None:
                self._written(item)
            elif not failure.retryable:
                dead.append((item, failure))
            else:
                item.attempts += failure.counts
                if failure.counts and self._exhausted(item.attempts):
                    dead.append((item, self._out_of_retries(failure.reason)))
                else:
                    wait = failure.retry_after_s if failure.retry_after_s is not None else -float(item.attempts)
                    again.setdefault(wait, []).append(item)
        for wait, items in again.items():
            self._retry_later(self._backoff(int(-wait)) if wait < 0 else min(wait, RETRY_DELAY_S_MAX), items)

    async def _split(self, parts: list[Part], count: int, reason: str, dead: Dead) -> None:
        """The request as a whole was refused: halve it until the bad item is alone."""
        if count == 1:
            dead.append((items_of(parts)[0], Failure(0, reason)))
            return
        items = items_of(parts)
        half = count // 2
        await self._send(list(items[:half]), half, dead)
        await self._send(list(items[half:]), count - half, dead)

    # trying again

    def _retry_later(self, delay_s: float, items: list[Item]) -> None:
        """Send refused items again after a while, before what was queued behind them."""
        self._retries.add(len(items))

        def retry() -> None:
            self._requeue(items)
            self._pump()

        self._later(delay_s, retry)

    def _requeue(self, parts: Sequence[Part]) -> None:
        self._queue.extendleft(reversed(parts))
        self._queued_bytes += sum(part.size_bytes for part in parts)

    def _requeue_counted(self, parts: Sequence[Part], reason: str, dead: Dead) -> None:
        """Back to the front of the queue, whose lanes pause; what has used up its retries becomes a dead letter."""
        rest: list[Part] = []
        for part in parts:
            part.attempts += 1
            if self._exhausted(part.attempts):
                dead += [(item, self._out_of_retries(reason)) for item in part.items()]
            else:
                rest.append(part)
        self._retries.add(sum(len(part.items()) for part in rest))
        self._requeue(rest)

    def _exhausted(self, attempts: int) -> bool:
        return self._sink.limits.max_retries is not None and attempts >= self._sink.limits.max_retries

    def _out_of_retries(self, reason: str) -> Failure:
        return Failure(
            0,
            f"Number of retries reached the limit of max retries (configured value {self._sink.limits.max_retries}. "
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
        """Exponential from 50 ms to a minute (a second while it drains), with full jitter over its upper half."""
        delay_max = DRAIN_DELAY_S_MAX if self._draining else RETRY_DELAY_S_MAX
        delay = min(RETRY_DELAY_S_MIN * 2.0 ** min(attempts - 1, 16), delay_max)
        return delay * (0.5 + self._around.ctx.random.random() / 2)

    # ends

    def _end_range(self, part: Range) -> None:
        parcel = part.parcel
        slots = parcel.slots if whole(part) else parcel.slots[part.start : part.end]
        if parcel.on_written is not None:
            parcel.on_written(slots)
        self._end(parcel, slots, ok=True)

    def _written(self, item: Item) -> None:
        """The item has arrived, and with it those that it replaced."""
        replaced, item.replaced = item.replaced, None
        for earlier in replaced or ():
            self._tell_written(earlier)
            self._end(earlier.parcel, (earlier.parcel.slots[earlier.place],), ok=True)
        self._tell_written(item)
        self._end_item(item, ok=True)

    def _tell_written(self, item: Item) -> None:
        if item.parcel.on_written is not None:
            item.parcel.on_written((item.parcel.slots[item.place],))

    def _end_item(self, item: Item, *, ok: bool) -> None:
        """The item has ended: the next of its key may go. If it was not written, what it had replaced is the next."""
        if item.key is not None:
            earlier = item.give_back()
            line = self._waiting[item.key]
            if earlier is not None:
                self._queue.appendleft(earlier)
                self._queued_bytes += len(earlier.data)
            elif line:
                follower = line.popleft()
                self._queue.append(follower)
                self._queued_bytes += len(follower.data)
            else:
                del self._waiting[item.key]
        self._end(item.parcel, (item.parcel.slots[item.place],), ok=ok)

    async def _bury(self, dead: Dead) -> None:
        letters = []
        for item, failure in dead:
            target = self._sink.dead_letter(item.data)
            if item.attempts:
                target["attempts"] = item.attempts
            target |= metadata_told(item.parcel.meta(item.parcel.slots[item.place]))
            letters.append(
                self._around.letter({**target, "status": failure.status, "message": failure.reason, **failure.details})
            )
        events = [item.parcel.refused(item.parcel.slots[item.place]) for item, _ in dead]
        ok = await self._around.bury(letters, _joined(events))
        for item, _ in dead:
            self._end_item(item, ok=ok)
        self._pump()

    async def _bury_rejected(self, parcel: Parcel, rejected: list[tuple[Failure, Any]]) -> None:
        letters = [
            self._around.letter(
                {
                    "index": None,
                    "indexId": None,
                    "document": document,
                    **metadata_told(parcel.meta(failure.index)),
                    **failure.details,
                    "status": failure.status,
                    "message": failure.reason,
                }
            )
            for failure, document in rejected
        ]
        slots = [failure.index for failure, _ in rejected]
        ok = await self._around.bury(letters, _joined([parcel.refused(slot) for slot in slots]))
        self._end(parcel, slots, ok=ok)

    def _end(self, parcel: Parcel, slots: Sequence[int], *, ok: bool) -> None:
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
            self._hurry()
            self._pump()
            await self._idle.wait()
        finally:
            self._draining -= 1

    def _hurry(self) -> None:
        """Bring forward what waits for longer than a drain may pause."""
        self._paused_until = min(self._paused_until, self._now() + DRAIN_DELAY_S_MAX)
        soon = asyncio.get_running_loop().time() + DRAIN_DELAY_S_MAX
        for timer, act in list(self._timers.items()):
            if timer.when() > soon:
                timer.cancel()
                del self._timers[timer]
                self._later(DRAIN_DELAY_S_MAX, act)

    async def close(self) -> None:
        self._closed = True
        for timer in [*self._timers, *([self._timer] if self._timer else [])]:
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for parcel in self._parcels:
            data = dict(zip(parcel.slots, parcel.data, strict=True))
            await self._around.keep_unheard(parcel.batch, partial(self._known_of, parcel, data))
            if parcel.events is not None:
                parcel.events.release_all(ok=True)
            parcel.batch.release_all(ok=False)
            parcel.on_done()
        self._parcels.clear()
        self._queue.clear()
        self._pending = 0
        self._idle.set()

    def _known_of(self, parcel: Parcel, data: dict[int, bytes], slot: int) -> dict[str, Any]:
        told = self._sink.dead_letter(data[slot]) if slot in data else {}
        return told | metadata_told(parcel.meta(slot))

    def _wake_at(self, delay_s: float) -> None:
        """Pump again in a while; an earlier appointment stands."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer, self._timer_due = loop.call_later(delay_s, self._wake), due

    def _wake(self) -> None:
        self._timer = None
        self._pump()

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        def fire() -> None:
            del self._timers[timer]
            act()

        timer = asyncio.get_running_loop().call_later(delay_s, fire)
        self._timers[timer] = act

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.critical("Delivery to %s failed", self.name, exc_info=task.exception())


def _joined(events: list[Batch | None]) -> Batch | None:
    """One batch of the events, where they were kept."""
    kept = [batch for batch in events if batch is not None]
    return concat(kept) if kept else None
