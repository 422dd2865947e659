"""Delivery to a sink whose items are joined into requests."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import accumulate, compress
from typing import Any

from penstock.core.batch import Batch, concat
from penstock.core.errors import Failure, Permanent, Transient, Unreachable
from penstock.runtime.deliver.pace import DRAIN_DELAY_S_MAX, Pace
from penstock.runtime.deliver.parcels import Item, Parcel, Part, Piece, Request, items_of
from penstock.runtime.deliver.send_queue import SendQueue
from penstock.runtime.deliver.surroundings import SinkState, Surroundings, plain
from penstock.sdk import BulkSink, DeadLetter, Failures, metadata_told

log = logging.getLogger(__name__)

RETRY_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of refused items that wait outside of the buffer, so that a few of a load do not hold the room of all."""

Dead = list[tuple[Item, Failure]]
"""Items that were refused for good, with the reason."""


class BulkDelivery:
    """Joins items into requests, keeps several of them in flight, and sees each item to its end.

    What is sent next is the matter of `SendQueue`, when it is sent that of `Pace`.
    """

    def __init__(self, sink: BulkSink, surroundings: Surroundings) -> None:
        self._sink = sink
        self._around = surroundings
        ctx = surroundings.ctx
        self.name = ctx.plugin
        self.state = SinkState(since_ms=ctx.clock.now_ms())
        self._now = ctx.clock.monotonic
        superseded = ctx.metrics.counter("itemsSuperseded")
        self._queue = SendQueue(getattr(sink, "supersedes", None), superseded.add, self._withdrawn)
        self._pace = Pace(self._now, ctx.random)
        self._in_flight = 0
        self._resting = 0
        """Lanes that pause after their request was refused as a whole."""
        self._kept_bytes = 0
        self._draining = 0
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[asyncio.TimerHandle, Callable[[], None]] = {}
        self._parcels: set[Parcel] = set()
        self._unburied: dict[tuple[Parcel, int], dict[str, Any]] = {}
        """What is known of the events, by parcel and slot, whose dead letters are not written yet."""
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        ctx.metrics.gauge("requestsInFlight", lambda: self._in_flight)
        ctx.metrics.gauge("queuedBytes", lambda: self._queue.size_bytes)
        self._retries = ctx.metrics.counter("bulkRequestNumberOfRetries")

    # taking over

    def submit(
        self, batch: Batch, on_done: Callable[[], None], on_written: Callable[[Sequence[int]], None] | None = None
    ) -> None:
        self._around.admit(batch)
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
            self._bury_rejected(parcel, rejected)
        if items.data:
            self._queue.put_parcel(parcel, items)
            if not self._pumping:
                # Once the chain has given all it has: the chunks of one load travel together.
                self._pumping = True
                asyncio.get_running_loop().call_soon(self._pump)

    # sending

    def _pump(self) -> None:
        """Start as many requests as the rules allow now, and a timer for when they may allow more."""
        self._pumping = False
        while self._queue and not self._closed:
            limits = self._sink.limits
            if self._in_flight + self._resting >= limits.lanes_max:
                return
            around = self._around
            is_full = around.is_awaited()
            is_all = is_full and not self._in_flight and around.is_read_out()
            start_at = self._pace.start_at(
                limits, self._in_flight, self._queue.size_bytes, is_full=is_full, is_all=is_all
            )
            if start_at is not None:
                self._wake_at(start_at - self._now())
                return
            parts, count = self._queue.take(self._pace.request_bytes_max(limits), limits.request_items_max)
            if not parts:
                continue
            self._in_flight += 1
            self._run(self._request(parts, count))
            if self._pace.knocks:
                return

    async def _request(self, parts: list[Part], count: int) -> None:
        begin = self._now()
        dead: Dead = []
        try:
            await self._send(parts, count, dead)
        finally:
            self._in_flight -= 1
            reply_s = self._now() - begin
            self._around.elapsed.observe(reply_s)
            self._pace.replied(reply_s, self._sink.limits)
        self._pump()
        if dead:
            self._bury(dead)

    async def _send(self, parts: list[Part], count: int, dead: Dead) -> None:
        """Send and settle: every item of `parts` has ended, waits for its retry, or is in `dead` afterwards."""
        try:
            failures = Failures.of(await self._sink.send(Request(parts, count)))
            failures.check(count)
        except Unreachable as error:
            self._strike(error, reached=False)
            for part in parts:
                part.sent = part.sent or 1
            self._queue.put_back(parts)
        except Transient as error:
            self._try_again(parts, self._strike(error, reached=True), str(error), dead)
        except Permanent as error:
            self._well()
            await self._split(parts, count, str(error), dead)
        except Exception as error:
            log.exception("Sink %s of pipeline %s failed unexpectedly", self.name, self._around.ctx.pipeline)
            self._well()
            await self._split(parts, count, f"{type(error).__name__}: {error}", dead)
        else:
            self._well()
            if failures:
                self._settle(parts, failures, dead)
            else:
                self._have_arrived(parts)

    async def _split(self, parts: list[Part], count: int, reason: str, dead: Dead) -> None:
        """The request as a whole was refused: halve it until the bad item is alone."""
        if count == 1:
            dead.append((items_of(parts)[0], Failure(0, reason)))
            return
        items = items_of(parts)
        half = count // 2
        await self._send(list(items[:half]), half, dead)
        await self._send(list(items[half:]), count - half, dead)

    # what became of the items

    def _settle(self, parts: Sequence[Part], failures: Failures, dead: Dead) -> None:
        """Some items were refused."""
        refused = _by_part(parts, failures)
        levels = _next_levels(parts, refused)
        self._have_arrived([part for number, part in enumerate(parts) if number not in refused])
        again: dict[float, list[Part]] = {}
        for number, reasons in refused.items():
            part = parts[number]
            if isinstance(part, Piece) and (arrived := _others(part, reasons)) is not None:
                self._end_some(part, arrived)
            if isinstance(part, Piece) and len(reasons) > 1:
                part.data = list(part.data)  # taken apart once, not for each reason
            waiting: dict[tuple[float | None, bool], list[int]] = {}
            for offsets, failure in reasons:
                if not failure.retryable:
                    dead += [(item, failure) for item in part.select(offsets).items()]
                elif failure.counts and self._exhausted(part.attempts + 1):
                    rest = part.select(offsets)
                    rest.attempts += 1
                    out_of_retries = self._out_of_retries(failure.reason)
                    dead += [(item, out_of_retries) for item in rest.items()]
                else:
                    waiting.setdefault((failure.retry_after_s, failure.counts), []).extend(offsets)
            for (after, counts), offsets in waiting.items():
                rest = part.select(sorted(offsets) if len(reasons) > 1 else offsets)
                if counts:
                    self._pace.strain()
                    rest.attempts += 1
                    rest.sent = 2
                rest.level = levels[part.level]
                again.setdefault(-float(rest.level) if after is None else after, []).append(rest)
        for after, rests in again.items():
            self._retry_later(self._pace.backoff_s(int(-after)) if after < 0 else self._pace.wait_s(after), rests)

    def _end_some(self, piece: Piece, arrived: bytes | bytearray) -> None:
        """The items of a piece that are marked have arrived."""
        if piece.keys is not None:
            self._queue.are_free(list(compress(piece.keys, arrived)))
        self._end_written(piece.parcel, list(compress(piece.slots, arrived)))

    def _have_arrived(self, parts: Sequence[Part]) -> None:
        """These were written, and with an item those that it replaced. A parcel hears of all its items at once."""
        written: dict[Parcel, list[int]] = {}
        for part in parts:
            if isinstance(part, Piece):
                part.parcel.parts.discard(part)
                self._end_written(part.parcel, part.slots)
                if part.keys is not None:
                    self._queue.are_free(part.keys)
                continue
            replaced, part.replaced = part.replaced, None
            for item in (*(replaced or ()), part):
                item.parcel.parts.discard(item)
                slots = written.get(item.parcel)
                if slots is None:
                    written[item.parcel] = [item.slot]
                else:
                    slots.append(item.slot)
            self._queue.has_ended(part)
        for parcel, slots in written.items():
            self._end_written(parcel, slots)

    def _end_written(self, parcel: Parcel, slots: Sequence[int]) -> None:
        if parcel.on_written is not None:
            parcel.on_written(slots)
        self._end(parcel, slots, ok=True)

    def _withdrawn(self, item: Item) -> None:
        self._end_item(item, ok=False)

    def _end_item(self, item: Item, *, ok: bool) -> None:
        self._queue.has_ended(item)
        item.parcel.parts.discard(item)
        self._end(item.parcel, (item.slot,), ok=ok)

    def _end(self, parcel: Parcel, slots: Sequence[int], *, ok: bool) -> None:
        self._pending -= len(slots)
        parcel.end(slots, ok=ok)
        if parcel.left == 0:
            self._parcels.discard(parcel)
            self._kept_bytes -= parcel.kept_bytes
        if self._pending == 0:
            self._idle.set()

    # trying again

    def _try_again(self, parts: Sequence[Part], pause_s: float, reason: str, dead: Dead) -> None:
        """A request was refused as a whole: what has not used up its retries is sent again, by the same lane."""
        rest: list[Part] = []
        for part in parts:
            part.attempts += 1
            part.sent = part.sent or 1
            if self._exhausted(part.attempts):
                dead += [(item, self._out_of_retries(reason)) for item in part.items()]
            else:
                rest.append(part)
        self._retries.add(sum(map(len, rest)))
        if not pause_s:
            self._queue.put_back(rest)
            return
        self._resting += 1
        if self._pace.refuses_some:  # one that takes nothing is to be felt at the source
            self._keep(rest)

        def go_on() -> None:
            self._resting -= 1
            self._queue.put_back(rest)
            self._pump()

        self._later(pause_s, go_on)

    def _retry_later(self, delay_s: float, parts: Sequence[Part]) -> None:
        """Send refused items again after a while, before what was queued behind them."""
        self._retries.add(sum(map(len, parts)))
        self._keep(parts)

        def retry() -> None:
            self._queue.put_back(parts)
            self._pump()

        self._later(delay_s, retry)

    def _keep(self, parts: Sequence[Part]) -> None:
        """Give the room of their whole loads back, as long as there is room for what is left of them."""
        for parcel in dict.fromkeys([part.parcel for part in parts]):
            if parcel.on_done is not None and (not parcel.is_bare or self._kept_bytes >= RETRY_BYTES_MAX):
                continue
            left = sum([part.size_bytes for part in parcel.parts])
            self._kept_bytes += left - parcel.kept_bytes
            parcel.kept_bytes = left
            parcel.give_room()

    def _exhausted(self, attempts: int) -> bool:
        return self._sink.limits.max_retries is not None and attempts >= self._sink.limits.max_retries

    def _out_of_retries(self, reason: str) -> Failure:
        return Failure(
            0,
            f"Number of retries reached the limit of max retries (configured value {self._sink.limits.max_retries}. "
            f"Last exception message: {reason})",
        )

    def _strike(self, error: Transient, *, reached: bool) -> float:
        """The sink refused a whole request. Seconds for which the lane pauses; 0: all of them do."""
        pause_s = self._pace.strike(error, reached=reached, lanes=self._sink.limits.lanes_max)
        if self.state.status != "DEGRADED":
            self.state.status = "DEGRADED"
            self.state.since_ms = self._around.ctx.clock.now_ms()
        self.state.last_error = str(error)
        if self._pace.strikes % 5 == 1:
            log.warning(
                "Bulk Operation Failed. Number of retries %d. Retrying... Pipeline [%s] %s: %s",
                self._pace.strikes,
                self._around.ctx.pipeline,
                self.name,
                error,
            )
        return pause_s

    def _well(self) -> None:
        if self._pace.strikes or self.state.status != "OK":
            if self._pace.strikes:
                log.info("Pipeline [%s] %s answers again", self._around.ctx.pipeline, self.name)
            self.state = SinkState("OK", "", self._around.ctx.clock.now_ms())
        self._pace.well()

    # dead letters

    def _bury(self, dead: Dead) -> None:
        letters = []
        for item, failure in dead:
            target = self._sink.dead_letter(item.data) | metadata_told(item.parcel.meta(item.slot))
            if item.attempts:
                target["attempts"] = item.attempts
            letters.append(
                self._around.letter({**target, "status": failure.status, "message": failure.reason, **failure.details})
            )

        def end(place: int, *, ok: bool) -> None:
            self._end_item(dead[place][0], ok=ok)

        self._account(letters, [(item.parcel, item.slot) for item, _ in dead], end)

    def _bury_rejected(self, parcel: Parcel, rejected: list[tuple[Failure, Any]]) -> None:
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

        def end(place: int, *, ok: bool) -> None:
            self._end(parcel, (slots[place],), ok=ok)

        self._account(letters, [(parcel, slot) for slot in slots], end)

    def _account(self, letters: list[DeadLetter], owners: list[tuple[Parcel, int]], end: Callable[..., None]) -> None:
        """Begin to write the letters of these events, and note what they say: `close` may cut that off at any time.

        Apart from the lane: a slow queue of dead letters does not hold up what can be written.
        """
        self._unburied |= {owner: letter.failed_data for owner, letter in zip(owners, letters, strict=True)}
        self._run(self._see_buried(letters, owners, end))

    async def _see_buried(
        self, letters: list[DeadLetter], owners: list[tuple[Parcel, int]], end: Callable[..., None]
    ) -> None:
        """Write the letters and call `end` for each place.

        Where they cannot be written, the sources that listen hear no and ask again. The other events stay here until
        it works: they hold room in the buffer, so nothing is lost but time.
        """

        def ended(places: Sequence[int], *, ok: bool) -> None:
            for place in places:
                del self._unburied[owners[place]]
                end(place, ok=ok)

        places = range(len(letters))
        events = _joined([parcel.refused(slot) for parcel, slot in owners])
        if await self._around.bury(letters, events):
            ended(places, ok=True)
        else:
            handles = [parcel.batch.handles[slot] for parcel, slot in owners]
            unheard = [place for place in places if (handle := handles[place]) and not (handle.heard or handle.done)]
            ended(sorted(set(places).difference(unheard)), ok=False)
            if unheard:
                await self._around.bury_until_kept([letters[place] for place in unheard])
                ended(unheard, ok=True)
        self._pump()

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
            self._pace.draining = self._draining > 0

    def _hurry(self) -> None:
        """Bring forward what waits for longer than a drain may pause."""
        self._pace.hurry()
        self._around.pauses.hurry()
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
            data = {item.slot: item.data for item in items_of(list(parcel.parts))}
            await self._around.keep_unheard(parcel.batch, partial(self._known_of, parcel, data))
            if parcel.events is not None:
                parcel.events.release_all(ok=True)
            parcel.batch.release_all(ok=False)
            parcel.give_room()
        self._parcels.clear()
        self._queue.clear()
        self._pending = 0
        self._kept_bytes = 0
        self._idle.set()

    def _known_of(self, parcel: Parcel, data: dict[int, bytes], slot: int) -> dict[str, Any]:
        known = self._unburied.get((parcel, slot))
        if known is not None:
            return known
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


Refused = list[tuple[list[int], Failure]]
"""Offsets of refused items in their part, and why."""


def _by_part(parts: Sequence[Part], failures: Failures) -> dict[int, Refused]:
    """What was refused of each part, by its number; parts of which all was taken are not there."""
    starts = list(accumulate(map(len, parts), initial=0))
    found: dict[int, Refused] = {}
    for places, failure in failures.groups:
        first = 0
        while first < len(places):
            number = bisect_right(starts, places[first]) - 1
            start = starts[number]
            last = bisect_left(places, starts[number + 1], first)
            found.setdefault(number, []).append(([place - start for place in places[first:last]], failure))
            first = last
    return found


def _others(piece: Piece, refused: Refused) -> bytearray | None:
    """A mark for each item of the piece that was not refused; None when all were."""
    arrived = bytearray(b"\1") * len(piece)
    for offsets, _ in refused:
        for offset in offsets:
            arrived[offset] = 0
    return arrived if any(arrived) else None


def _next_levels(parts: Sequence[Part], refused: dict[int, Refused]) -> dict[int, int]:
    """The level of what is refused again, by its level before.

    Those that waited wait longer next time when trying again helped fewer than half of them: a server that refuses some
    of everything gets through everything quickly, one that takes nothing is asked ever more rarely.
    """
    balances = {0: -1}
    for number, part in enumerate(parts):
        if part.level:
            again = sum([len(offsets) for offsets, failure in refused.get(number, ()) if failure.retryable])
            balances[part.level] = balances.get(part.level, 0) + len(part) - 2 * again
    return {level: level if balance >= 0 else level + 1 for level, balance in balances.items()}


def _joined(events: list[Batch | None]) -> Batch | None:
    """One batch of the events, where they were kept."""
    kept = [batch for batch in events if batch is not None]
    return concat(kept) if kept else None
