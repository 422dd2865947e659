"""The loops that call the user's function: event by event or batch by batch, at once or awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from penstock import sdk
from penstock.plugins.processors.python.code import RAISED, told
from penstock.plugins.processors.python.results import compile_events, own_meta

Fail = Callable[[sdk.Batch, int, sdk.EventError | sdk.ExpressionError], None]
Part = tuple[sdk.Body, sdk.Meta | None]
Parts = dict[int, list[Part]]
"""What the events at some places have become: none, one or several."""


@dataclass(frozen=True, slots=True)
class Calls:
    """One function and how it is called."""

    function: Callable[..., Any]
    file: Path | None
    meta: bool
    when: sdk.Expression | None
    copy: bool
    timeout_s: float
    concurrency: int
    fail: Fail
    dropped: sdk.Counter

    def one_by_one(self) -> sdk.BatchFn:
        call, with_meta = self._one(), self.meta
        function, events, copied = self.function, compile_events(copy=self.copy), _copier(copy=self.copy)

        def run(batch: sdk.Batch) -> sdk.Batch:
            parts: Parts = {}
            bodies = batch.bodies
            for index in self._places(batch):
                try:
                    if with_meta:
                        body, meta = self._arguments(batch, index)
                        self._take(batch, index, call(body, meta), meta, parts)
                        continue
                    try:
                        result = events(function(copied(bodies[index])))
                    except RAISED as error:
                        raise self._failed(error) from None
                    if type(result) is dict:
                        bodies[index] = result
                    else:
                        self._take(batch, index, result, None, parts)
                except sdk.EventError as error:
                    self.fail(batch, index, error)
            return self._spread(batch, parts)

        return run

    def concurrently(self) -> sdk.BatchFn:
        call = self._one_awaited()

        async def run(batch: sdk.Batch) -> sdk.Batch:
            parts: Parts = {}
            failures: dict[int, sdk.EventError] = {}
            places = iter(self._places(batch))

            async def work() -> None:
                for index in places:
                    try:
                        body, meta = self._arguments(batch, index)
                        result = await call(body, meta)
                        self._take(batch, index, result, meta, parts)
                    except sdk.EventError as error:
                        failures[index] = error

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, len(batch))):
                    group.create_task(work())
            for index in sorted(failures):
                self.fail(batch, index, failures[index])
            return self._spread(batch, parts)

        return run

    def in_batches(self) -> sdk.BatchFn:
        function, failed = self.function, self._failed

        def run(batch: sdk.Batch) -> sdk.Batch:
            lent = _Loan(batch, list(self._places(batch)), copy=self.copy)
            try:
                try:
                    result = function(lent.batch)
                except RAISED as error:
                    raise failed(error) from None
                parts = lent.parts(result)
            except sdk.EventError as error:
                parts = self._give_up(lent, batch, error)
            return self._spread(batch, parts, lent.outcomes)

        return run

    def in_batches_awaited(self) -> sdk.BatchFn:
        async def run(batch: sdk.Batch) -> sdk.Batch:
            lent = _Loan(batch, list(self._places(batch)), copy=self.copy)
            try:
                parts = lent.parts(await self._awaited(self.function(lent.batch)))
            except sdk.EventError as error:
                parts = self._give_up(lent, batch, error)
            return self._spread(batch, parts, lent.outcomes)

        return run

    def _places(self, batch: sdk.Batch) -> list[int] | range:
        """Where the condition holds. It is asked before any function is called."""
        if self.when is None:
            return range(len(batch))
        test, metas, origin, places = self.when.test, batch.metas, batch.origin, []
        for index, body in enumerate(batch.bodies):
            try:
                if test(body, metas[index] or origin):
                    places.append(index)
            except (sdk.EventError, sdk.ExpressionError) as error:
                self.fail(batch, index, error)
        return places

    def _arguments(self, batch: sdk.Batch, index: int) -> tuple[sdk.Body, sdk.Meta | None]:
        body = batch.bodies[index]
        if not self.meta:
            return (sdk.copy_value(body) if self.copy else body), None
        return (sdk.copy_value(body), batch.peek(index).copy()) if self.copy else (body, batch.meta(index))

    def _one(self) -> Callable[[sdk.Body, sdk.Meta | None], Any]:
        function, failed, events = self.function, self._failed, compile_events(copy=self.copy)
        if self.meta:

            def call_with_meta(body: sdk.Body, meta: sdk.Meta | None) -> Any:
                try:
                    return events(function(body, meta))
                except RAISED as error:
                    raise failed(error) from None

            return call_with_meta

        def call(body: sdk.Body, meta: sdk.Meta | None) -> Any:
            try:
                return events(function(body))
            except RAISED as error:
                raise failed(error) from None

        return call

    def _one_awaited(self) -> Callable[[sdk.Body, sdk.Meta | None], Coroutine[Any, Any, Any]]:
        events = compile_events(copy=self.copy)

        async def call(body: sdk.Body, meta: sdk.Meta | None) -> Any:
            arguments = (body, meta) if self.meta else (body,)
            return events(await self._awaited(self.function(*arguments)))

        return call

    async def _awaited(self, coroutine: Any) -> Any:
        limit = asyncio.timeout(self.timeout_s)
        try:
            async with limit:
                return await coroutine
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._failed(error) from None  # the function was cancelled, not the pipeline
        except RAISED as error:
            if limit.expired():
                raise sdk.EventError(f"The function took longer than {self.timeout_s:g} s", cause="timeout") from None
            raise self._failed(error) from None

    def _failed(self, error: BaseException) -> sdk.EventError:
        if isinstance(error, sdk.EventError):
            return error
        cause = type(error).__name__
        return sdk.EventError(told(error, self.file), cause=cause, logged=told(error, self.file, message=False))

    def _take(self, batch: sdk.Batch, index: int, result: Any, meta: sdk.Meta | None, parts: Parts) -> None:
        """Put in place what an event has become."""
        if meta is not None:
            own_meta(meta)
            batch.metas[index] = meta
        if type(result) is dict:
            batch.bodies[index] = result
            return
        shared = batch.metas[index]
        parts[index] = [(body, None if shared is None else shared.copy()) for body in result or ()]

    def _give_up(self, lent: _Loan, batch: sdk.Batch, error: sdk.EventError) -> Parts:
        """The events go on as they were, but for those that the function has ended already."""
        lent.give_back()
        for index in lent.places:
            if index not in lent.outcomes:
                self.fail(batch, index, error)
        return {index: [] for index in lent.outcomes}

    def _spread(self, batch: sdk.Batch, parts: Parts, outcomes: dict[int, bool] | None = None) -> sdk.Batch:
        """The batch with the parts of some events in their places; those without parts have ended."""
        if not parts:
            return batch
        bodies: list[sdk.Body] = []
        metas: list[sdk.Meta | None] = []
        handles: list[sdk.Handle | None] = []
        gone: dict[bool, list[int]] = {True: [], False: []}
        for index, body in enumerate(batch.bodies):
            meta, handle = batch.metas[index], batch.handles[index]
            here = parts.get(index)
            if here is None:
                here = [(body, meta)]
            elif not here:
                gone[outcomes is None or outcomes.get(index, True)].append(index)
                continue
            for part_body, part_meta in here:
                bodies.append(part_body)
                metas.append(part_meta)
                handles.append(handle)
            if handle is not None and len(here) > 1:
                handle.add(len(here) - 1)
        for ok, places in gone.items():
            if places:
                batch.release(places, ok=ok)
                self.dropped.add(len(places))
        batch.handles = [None] * len(batch)  # the others have moved
        return sdk.Batch(bodies, metas, handles, batch.origin)


def _copier(*, copy: bool) -> Callable[[sdk.Body], sdk.Body]:
    """A function that gives what the user's function may change."""
    if not copy:
        return lambda body: body

    def copied(body: sdk.Body) -> sdk.Body:
        for value in body.values():
            kind = type(value)
            if kind is dict or kind is list:
                nested: sdk.Body = sdk.copy_value(body)
                return nested
        return body.copy()  # a flat event, as most are

    return copied


class _Loan:
    """Events lent to a function under promises of their own, which tell what it has done with each of them."""

    def __init__(self, batch: sdk.Batch, places: list[int], *, copy: bool) -> None:
        self.places = places
        self.outcomes: dict[int, bool] = {}
        """How the events that the function has ended did so."""
        self._origin = batch.origin
        self._marks = [sdk.Handle(partial(self.outcomes.__setitem__, place)) for place in places]
        bodies = [batch.bodies[place] for place in places]
        metas = [batch.metas[place] for place in places]
        if copy:
            bodies = [sdk.copy_value(body) for body in bodies]
            metas = [None if meta is None else meta.copy() for meta in metas]
        self.batch = sdk.Batch(bodies, metas, list(self._marks), batch.origin)
        self._events = compile_events(copy=copy)

    def parts(self, result: Any) -> Parts:
        """What the events have become; those left out of the result are dropped. Raises EventError."""
        returned = self.batch if result is None else result
        if not isinstance(returned, sdk.Batch):
            raise sdk.EventError(f"The function returned {type(returned).__name__}, which is no batch", cause="result")
        if returned.origin is not self._origin:
            raise sdk.EventError("The function returned a batch of other events", cause="result")
        places = {id(mark): place for mark, place in zip(self._marks, self.places, strict=True)}
        parts: Parts = {place: [] for place in self.places}
        for body, meta, handle in zip(returned.bodies, returned.metas, returned.handles, strict=True):
            place = places.get(id(handle))
            if place is None or place in self.outcomes:
                raise sdk.EventError("The function returned an event that it did not get, or has ended", cause="result")
            if meta is not None:
                own_meta(meta)
            taken = self._events(body)
            if type(taken) is not dict:
                raise sdk.EventError("The function returned a batch with a body that is no object", cause="result")
            parts[place].append((taken, meta))
        self.give_back()
        return parts

    def give_back(self) -> None:
        """The promises of the loan mean nothing any more."""
        for mark in self._marks:
            mark.done = True
