"""Processors that drop, split, wait, hold, merge and throw, decided by the event alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.core.handle import JoinedHandle
from penstock.sdk import Batch, Body, concat
from penstock.testing.simulation.flow import part_id, parts_of
from penstock.testing.simulation.nature import Nature
from penstock.testing.simulation.scenario import StageSpec, percent_of

MERGE_MAX = 7


class SimulatedError(Exception):
    """What a simulated plugin throws: no fault of the engine."""


def make_processor(spec: StageSpec, world: Nature) -> Callable[[Batch], Batch | Awaitable[Batch]]:
    """The processor of a stage; those that hold events are `HoldingProcessor`s."""
    if spec.kind == "hold":
        return Hold(spec, world)
    if spec.kind == "merge":
        return Merge(spec, world)
    return _MAKERS[spec.kind](spec, world)


def token_of(body: Body) -> str:
    token: str = body["tokens"][0]
    return token


def _drop(spec: StageSpec, world: Nature) -> Callable[[Batch], Batch]:
    def drop(batch: Batch) -> Batch:
        return batch.drop([i for i, body in enumerate(batch.bodies) if not parts_of(spec, token_of(body))])

    return drop


def _split(spec: StageSpec, world: Nature) -> Callable[[Batch], Batch]:
    def split(batch: Batch) -> Batch:
        pieces: list[Batch] = []
        for place, body in enumerate(batch.bodies):
            token = token_of(body)
            parts = parts_of(spec, token)
            event = world.ledger.event(int(token.partition("/")[0]))
            copies = [batch.copy([place]) for _ in parts[1:]]
            for part, piece in zip(parts, [batch.select([place]), *copies], strict=True):
                piece.bodies[0]["tokens"] = [part]
                piece.bodies[0]["id"] = part_id(event.id, part)
                pieces.append(piece)
        return concat(pieces) if pieces else batch

    return split


def _wait(spec: StageSpec, world: Nature) -> Callable[[Batch], Awaitable[Batch]]:
    async def wait(batch: Batch) -> Batch:
        await asyncio.sleep(world.chance.uniform(0, spec.seconds))
        return batch

    return wait


def _throw(spec: StageSpec, world: Nature) -> Callable[[Batch], Batch]:
    def throw(batch: Batch) -> Batch:
        for body in batch.bodies:
            if percent_of(spec.name, token_of(body)) * 5 < spec.percent:
                raise SimulatedError(f"cannot stand {token_of(body)}")
        return batch

    return throw


def _tag(spec: StageSpec, world: Nature) -> Callable[[Batch], Batch]:
    def tag(batch: Batch) -> Batch:
        for place in range(len(batch)):
            batch.tag(place, [spec.name])
        return batch

    return tag


def _copy(spec: StageSpec, world: Nature) -> Callable[[Batch], Batch]:
    def copy(batch: Batch) -> Batch:
        copied = batch.copy()
        batch.release_all(ok=True)
        return copied

    return copy


_MAKERS: dict[str, Callable[[StageSpec, Nature], Callable[[Batch], Batch | Awaitable[Batch]]]] = {
    "drop": _drop,
    "split": _split,
    "wait": _wait,
    "throw": _throw,
    "tag": _tag,
    "copy": _copy,
}


class Hold:
    """Keeps batches for a while and lets them go in the order they came."""

    holds_events = True

    def __init__(self, spec: StageSpec, world: Nature) -> None:
        self._spec = spec
        self._world = world
        self._held: deque[tuple[float, Batch]] = deque()

    def __call__(self, batch: Batch) -> Batch:
        now = self._world.now_s()
        if len(batch):
            self._held.append((now + self._world.chance.uniform(0, self._spec.seconds), batch))
        due: list[Batch] = []
        while self._held and self._held[0][0] <= now:
            due.append(self._held.popleft()[1])
        return concat(due) if due else Batch([])

    def drain(self) -> Batch:
        rest = [batch for _, batch in self._held]
        self._held.clear()
        return concat(rest) if rest else Batch([])


class Merge:
    """Makes one event of several, as `aggregate` does: what becomes of it becomes of them."""

    holds_events = True

    def __init__(self, spec: StageSpec, world: Nature) -> None:
        self._spec = spec
        self._world = world
        self._tokens: list[str] = []
        self._handle: JoinedHandle | None = None
        self._first: dict[str, Any] = {}
        self._due_s = 0.0

    def __call__(self, batch: Batch) -> Batch:
        done: list[Batch] = []
        now = self._world.now_s()
        if self._handle is not None and self._due_s <= now:
            done.append(self._conclude())
        for place, body in enumerate(batch.bodies):
            if self._handle is None:
                self._handle, self._first, self._due_s = JoinedHandle(), body, now + self._spec.seconds
            self._tokens += body["tokens"]
            batch.join([place], self._handle)
            if len(self._tokens) >= MERGE_MAX:
                done.append(self._conclude())
        return concat(done) if done else Batch([])

    def drain(self) -> Batch:
        return self._conclude() if self._handle is not None else Batch([])

    def _conclude(self) -> Batch:
        handle, tokens = self._handle, self._tokens
        assert handle is not None, "there is something to conclude"
        self._handle, self._tokens = None, []
        batch = Batch([{**self._first, "tokens": tokens}])
        batch.promise(handle)
        handle.seal()
        return batch
