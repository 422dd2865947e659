"""Sources as they are in the world: clients that post, a queue that hands out again, a log with checkpoints.

What a `…State` holds outlives the process; what a source holds does not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from penstock.core.errors import BufferFull
from penstock.core.handle import Handle
from penstock.sdk import Batch, Output, Source
from penstock.testing.simulation.nature import Life, Nature
from penstock.testing.simulation.scenario import Event

REQUEST_TIMEOUT_S = 10.0
WRITE_SHARE = 0.8
RECEIVES_MAX = 30
"""Times that a message is handed out before the queue gives up on it."""
REREADS_MAX = 5
"""Times that a log is read again from one position."""
LOG_TIMEOUT_S = 600.0


@dataclass(slots=True)
class Message:
    """Events that are accounted for together."""

    events: list[Event]
    brought: int = 0
    """How often they were brought."""
    visible_s: float = 0.0
    done: bool = False


@dataclass(slots=True)
class RequestsState:
    """What clients have to post."""

    clients: list[list[Message]]

    def source(self, world: Nature, life: Life) -> Source:
        return RequestSource(self, world, life)


@dataclass(slots=True)
class QueueState:
    """A queue: a message that was handed out shows up again unless it is deleted in time."""

    messages: list[Message]
    visibility_s: float

    def source(self, world: Nature, life: Life) -> Source:
        return QueueSource(self, world, life)


@dataclass(slots=True)
class Partition:
    """A log and how far it need not be read again."""

    events: list[Event]
    checkpoint: int = 0
    round: int = 0
    refusals: dict[int, int] = field(default_factory=dict)
    """How often reading began anew at a position."""
    skip: set[int] = field(default_factory=set)
    """Positions of pages that are given up."""


@dataclass(slots=True)
class LogState:
    """Logs that are read in order."""

    partitions: list[Partition]
    page_events: int
    window: int

    def source(self, world: Nature, life: Life) -> Source:
        return LogSource(self, world, life)


State = RequestsState | QueueState | LogState


def make_state(kind: str, events: list[Event], world: Nature) -> State:
    """The durable side of a source that has `events` to bring."""
    chance = world.chance
    if kind == "log":
        count = chance.choice((1, 3))
        partitions: list[list[Event]] = [[] for _ in range(count)]
        for event in events:  # by id, so that the order of an id is that of its partition
            partitions[sum(event.id.encode()) % count].append(event)
        return LogState([Partition(part) for part in partitions], chance.choice((1, 5, 20)), chance.choice((1, 4, 20)))
    messages: list[Message] = []
    place = 0
    size_max = chance.choice((1, 10))
    while place < len(events):
        size = chance.randint(1, size_max)
        messages.append(Message(events[place : place + size]))
        place += size
    if kind == "queue":
        return QueueState(messages, chance.choice((30.0, 120.0, 600.0)))
    clients = chance.choice((1, 4, 20))
    return RequestsState([messages[start::clients] for start in range(clients)])


class _Watched:
    """What all simulated sources share: batches, promises that are watched, an end that can be waited for."""

    def __init__(self, world: Nature, life: Life) -> None:
        self._world = world
        self._life = life
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()

    async def stop(self) -> None:
        self._stopped.set()
        self._changed.set()

    def _batch(self, events: Sequence[Event], round_: int) -> Batch:
        return Batch([event.body(round_) for event in events])

    def _promise(self, output: Output, batch: Batch, on_done: Callable[[bool], None]) -> Handle:
        """A handle for the batch. What it says counts only while this process lives, and only once."""
        life = self._life
        heard: list[bool] = []
        numbers = {int(body["tokens"][0]) for body in batch.bodies}

        def hear(ok: bool) -> None:
            if not life.alive:
                return
            heard.append(ok)
            if len(heard) > 1:
                self._world.ledger.violate(f"a promise ended more than once: {heard}")
                return
            if not ok:
                self._world.ledger.disturbed = True
                self._world.ledger.taken_back |= numbers
            on_done(ok)
            self._changed.set()

        handle = output.handle(hear)
        batch.promise(handle)
        life.handles.append(handle)
        return handle

    async def _write(
        self, output: Output, batch: Batch, timeout_s: float | None, *, give_up: Handle | None = None
    ) -> bool:
        size = sum(80 + len(body["pad"]) for body in batch.bodies)
        if size <= output.bytes_max and output.write_now(batch, size):
            return True
        try:
            await output.write(batch, min(size, output.bytes_max), timeout_s)
        except BufferFull:
            batch.release_all(ok=False)
            if give_up is not None:
                give_up.seal()
            return False
        return True

    async def _pause(self, seconds: float) -> None:
        """Until something changes, `seconds` at most."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _all(self, work: Sequence[Awaitable[None]]) -> None:
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


class RequestSource(_Watched):
    """Clients post and wait for the answer; whatever is not 200 they post again."""

    def __init__(self, state: RequestsState, world: Nature, life: Life) -> None:
        super().__init__(world, life)
        self._state = state

    async def run(self, output: Output) -> None:
        output.started()
        await self._all([self._client(messages, output) for messages in self._state.clients])

    async def _client(self, messages: list[Message], output: Output) -> None:
        chance = self._world.chance
        for message in messages:
            while not message.done:
                if self._stopped.is_set():
                    return
                status = await self._post(message, output)
                if status == 200:
                    message.done = True
                else:
                    self._world.ledger.disturbed = True
                    await self._pause(chance.uniform(0.1, 5))
            if chance.random() < 0.3:
                await self._pause(chance.expovariate(1.0))

    async def _post(self, message: Message, output: Output) -> int:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        patience_s = REQUEST_TIMEOUT_S * (1 + message.brought)  # slow pipelines are to come to an end as well
        batch = self._batch(message.events, message.brought)
        message.brought += 1
        numbers = [event.number for event in message.events]
        if len(batch) > output.events_max:
            raise AssertionError("requests of the simulation always fit")
        if not self._world.scenario.acknowledgments:
            if not await self._write(output, batch, patience_s * WRITE_SHARE):
                return 408
            self._life.unpromised += numbers
            self._world.ledger.told.update(numbers)
            return 200
        delivered: asyncio.Future[bool] = loop.create_future()
        handle = self._promise(output, batch, lambda ok: None if delivered.done() else delivered.set_result(ok))
        if not await self._write(output, batch, patience_s * WRITE_SHARE, give_up=handle):
            return 408
        handle.seal()
        try:
            async with asyncio.timeout(max(0.0, begin + patience_s - loop.time())):
                ok = await delivered
        except TimeoutError:
            handle.expire()
            return 408
        if ok:
            self._world.ledger.is_told(numbers)
        return 200 if ok else 503


class QueueSource(_Watched):
    """Receives messages, deletes those that are done."""

    def __init__(self, state: QueueState, world: Nature, life: Life) -> None:
        super().__init__(world, life)
        self._state = state
        self._out = 0

    async def run(self, output: Output) -> None:
        output.started()
        messages = self._state.messages
        while not self._stopped.is_set() and not all(message.done for message in messages):
            now = self._world.now_s()
            ready = [message for message in messages if not message.done and message.visible_s <= now]
            for message in ready[: max(0, 10 - self._out)]:
                if message.brought >= RECEIVES_MAX:
                    self._give_up(message)
                elif not self._stopped.is_set():
                    await self._hand_out(message, output)
            await self._pause(1.0 if ready and self._out < 10 else 5.0)

    async def _hand_out(self, message: Message, output: Output) -> None:
        message.brought += 1
        if message.brought > 1:
            self._world.ledger.disturbed = True
        visibility_s = self._state.visibility_s * message.brought  # slow pipelines are to come to an end as well
        message.visible_s = self._world.now_s() + visibility_s
        batch = self._batch(message.events, message.brought)
        self._out += 1

        def ended(ok: bool) -> None:
            self._out -= 1
            if ok:
                message.done = True
                self._world.ledger.is_told(event.number for event in message.events)
            else:
                message.visible_s = self._world.now_s() + 1.0

        handle = self._promise(output, batch, ended)
        timer = asyncio.get_running_loop().call_later(visibility_s, handle.expire)
        self._life.timers.append(timer)
        if await self._write(output, batch, 20.0, give_up=handle):
            handle.seal()

    def _give_up(self, message: Message) -> None:
        message.done = True
        for event in message.events:
            self._world.ledger.park_at_source(event.number)


@dataclass(slots=True)
class _Page:
    start: int
    end: int
    handle: Handle | None = None
    ok: bool | None = None


class LogSource(_Watched):
    """Reads partitions in order, several pages ahead; what is refused is read again with all behind it."""

    def __init__(self, state: LogState, world: Nature, life: Life) -> None:
        super().__init__(world, life)
        self._state = state

    async def run(self, output: Output) -> None:
        output.started()
        await self._all([self._read(partition, output) for partition in self._state.partitions])

    async def _read(self, partition: Partition, output: Output) -> None:
        while partition.checkpoint < len(partition.events) and not self._stopped.is_set():
            partition.round += 1
            if partition.round > 1:
                self._world.ledger.disturbed = True
            refused = await self._read_on(partition, output)
            if refused is not None:
                count = partition.refusals[refused] = partition.refusals.get(refused, 0) + 1
                if count > REREADS_MAX:
                    self._give_up(partition, refused)
                await self._pause(min(60.0, 2.0**count))

    async def _read_on(self, partition: Partition, output: Output) -> int | None:
        """From the checkpoint to the end, or to the first refusal, whose position is returned."""
        pages: deque[_Page] = deque()
        position = partition.checkpoint
        deadline = self._world.now_s() + LOG_TIMEOUT_S
        while partition.checkpoint < len(partition.events):
            refused = next((page for page in pages if page.ok is False), None)
            if refused is None and self._world.now_s() > deadline:
                refused = next((page for page in pages if page.ok is None), None)
            if refused is not None:
                for page in pages:
                    if page.handle is not None and page.ok is None:
                        page.handle.expire()
                return refused.start
            if self._stopped.is_set():
                return None
            if position < len(partition.events) and len(pages) < self._state.window:
                page = _Page(position, min(position + self._state.page_events, len(partition.events)))
                pages.append(page)
                await self._bring(partition, page, pages, output)
                position = page.end
            else:
                await self._pause(10.0)
        return None

    async def _bring(self, partition: Partition, page: _Page, pages: deque[_Page], output: Output) -> None:
        events = partition.events[page.start : page.end]
        if page.start in partition.skip:
            page.ok = True
            self._advance(partition, pages)
            return
        batch = self._batch(events, partition.round)

        def ended(ok: bool) -> None:
            page.ok = ok
            if ok:
                self._advance(partition, pages)

        page.handle = self._promise(output, batch, ended)
        if await self._write(output, batch, 60.0, give_up=page.handle):
            page.handle.seal()

    def _advance(self, partition: Partition, pages: deque[_Page]) -> None:
        """Move the checkpoint behind the pages that are done without a gap."""
        while pages and pages[0].ok:
            page = pages.popleft()
            partition.checkpoint = page.end
            if page.start not in partition.skip:
                self._world.ledger.is_told(event.number for event in partition.events[page.start : page.end])

    def _give_up(self, partition: Partition, start: int) -> None:
        partition.skip.add(start)
        for event in partition.events[start : start + self._state.page_events]:
            self._world.ledger.park_at_source(event.number)
