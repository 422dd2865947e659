"""Groups events by the values of some keys and lets an action make something of each group.

A group begins with its first event and is concluded `group_duration` later (`tail_sampler` decides for itself), at the
next call of the processor, which comes at least every half second; when the pipeline drains all groups are concluded.
Results are new events without the tags and attributes of their parts.

Delivery promises: an event that became part of a result (`append`, `count`, `histogram`, `put_all`, `sum`) ends when
the result does. Its source hears of it after `group_duration` at the earliest, so time-outs of acknowledgments have to
be longer than that. When the process dies first, events of open groups are asked for again from sources that can be
asked. Events that an action drops, and those that do not meet `aggregate_when`, end at once, as done. An event that an
action cannot handle goes on as it is, without `aggregated_events_tag`.

Groups are kept in memory, at most 1 000 000 and about 512 MiB of their JSON text together. Beyond that the oldest are
concluded early, counted in `groupsConcludedEarly`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Hashable
from typing import Annotated, Any, Self

from pydantic import field_validator, model_validator
from pydantic_core import PydanticCustomError

from penstock import sdk
from penstock.lib.aggregation import DROPPED, HELD, MERGED, PASSED, Action, Group, compile_identity

GROUPS_MAX = 1_000_000
STATE_BYTES_MAX = 512 * 1024 * 1024
CONCLUDED_MAX = 10_000
"""Groups that are concluded in one call: the process stays responsive when many are due at once."""
HANDLE_BYTES = 256
"""What the promise of one more request, message or page takes that waits for a group."""


class Config(sdk.PluginConfig):
    identification_keys: sdk.NonEmpty[list[sdk.ReadKey]]
    """Keys whose values make a group, together. A missing value counts as null."""
    action: Annotated[sdk.PluginUse, sdk.Nested("aggregate_action")]
    """What is made of a group."""
    group_duration: sdk.Duration = 180.0
    """Age at which a group is concluded."""
    local_mode: bool = False
    """Groups of their own in each unit where there are several; with one unit it changes nothing."""
    output_unaggregated_events: bool = False
    """Also let the events themselves go on. Needs `aggregated_events_tag`."""
    aggregated_events_tag: str | None = None
    """Tag of the results, and of the events that the action lets pass."""
    aggregate_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are aggregated; the others are dropped."""
    acknowledge_on_conclude: bool = False
    """Let events end when their group is concluded instead of when the result is delivered. A lost result is lost."""
    disable_group_acknowledgments: bool = False
    """Let events end as soon as they are part of a group. What a group holds is lost with the process."""

    @field_validator("action", mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value is None:
            raise PydanticCustomError("missing", "must not be null")
        return value

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.output_unaggregated_events and self.aggregated_events_tag is None:
            raise ValueError("Aggregated Events Tag must be set when output_unaggregated_events is set")
        return self


def one_unit_only(config: Config) -> tuple[str, str] | None:
    """Why several units cannot share the events, and what to do about it."""
    if config.local_mode:
        return None
    return (
        "each unit would make groups of its own from the events that it happens to get.",
        "run one unit, or set local_mode: true where a result per unit will do",
    )


class Aggregate:
    """The groups of one pipeline. It holds events, or what they promised, until their group is concluded."""

    holds_events = True

    def __init__(
        self,
        config: Config,
        ctx: sdk.Context,
        *,
        groups_max: int = GROUPS_MAX,
        state_bytes_max: int = STATE_BYTES_MAX,
    ) -> None:
        self._config = config
        self._clock = ctx.clock
        action = ctx.build(config.action)
        assert isinstance(action, Action)
        self._action = action
        self._identity = compile_identity(config.identification_keys)
        self._name = config.identification_keys[0].top if len(config.identification_keys) == 1 else None
        """The only key, where it is a name at the top of an event: a text under it is a group's key by itself."""
        self._names = [key.text for key in config.identification_keys]
        self._tags = [config.aggregated_events_tag] if config.aggregated_events_tag is not None else []
        self._lifetime_s = config.group_duration if self._action.quiet_s is None else self._action.quiet_s
        self._groups: OrderedDict[Hashable, Group] = OrderedDict()
        """In the order in which they are due."""
        self._groups_max = groups_max
        self._state_bytes_max = state_bytes_max
        self._state_bytes = 0
        self._concluded: list[sdk.Batch] = []
        """Results that have not gone on yet."""
        self._fail = ctx.failure(failures="actionHandleEventsProcessingErrors")
        counter = ctx.metrics.counter
        self._handled_out, self._handled_dropped = (
            counter("actionHandleEventsOut"),
            counter("actionHandleEventsDropped"),
        )
        self._concluded_out = counter("actionConcludeGroupEventsOut")
        self._concluded_dropped = counter("actionConcludeGroupEventsDropped")
        self._conclude_errors = counter("actionConcludeGroupProcessingErrors")
        self._early = counter("groupsConcludedEarly")
        self._log = ctx.log
        ctx.metrics.gauge("currentAggregateGroups", lambda: len(self._groups))
        ctx.metrics.gauge("aggregateStateBytes", lambda: self._state_bytes)

    def __call__(self, batch: sdk.Batch) -> sdk.Batch | Awaitable[sdk.Batch]:
        now = self._clock.monotonic()
        for _ in range(CONCLUDED_MAX):
            group = next(iter(self._groups.values()), None)
            if group is None or group.due_s > now:
                break
            self._conclude(group)
        events = self._handle(batch, now) if len(batch) else None
        while self._groups and (len(self._groups) > self._groups_max or self._state_bytes > self._state_bytes_max):
            self._early.add()
            self._conclude(next(iter(self._groups.values())))
        results, self._concluded = self._concluded, []
        if events is not None:
            results.append(events)
        out = sdk.concat(results) if results else batch
        wait_s = self._action.wait_s()
        return _later(out, wait_s) if wait_s > 0 else out

    def drain(self) -> sdk.Batch:
        while self._groups:
            self._conclude(next(iter(self._groups.values())))
        results, self._concluded = self._concluded, []
        return sdk.concat(results) if results else sdk.Batch([])

    def _handle(self, batch: sdk.Batch, now: float) -> sdk.Batch:  # noqa: C901 (one loop: calls would cost more than they say)
        """Hand each event to the action; returns those that go on."""
        if self._config.output_unaggregated_events:
            return self._handle_copies(batch, now)
        take, groups, tags, quiet_s = self._action.take, self._groups, self._tags, self._action.quiet_s
        when, identity, name = self._config.aggregate_when, self._identity, self._name
        test, first_only = None if when is None else when.test, self._action.takes_first_only
        key: Hashable
        metas, origin = batch.metas, batch.origin
        passed: list[int] = []
        dropped: list[int] = []
        merged: list[int] = []
        wholes: list[Group] = []
        held: dict[Hashable, tuple[Group, list[int]]] = {}
        for index, body in enumerate(batch.bodies):
            try:
                if test is not None and not test(body, metas[index] or origin):
                    dropped.append(index)
                    continue
                text = None if name is None else body.get(name)
                key, values = (text, (text,)) if type(text) is str else identity(body)
                group = groups.get(key)
                if group is None:
                    group = self._open(key, values, now)
                elif first_only:
                    dropped.append(index)
                    continue
                before = group.size_bytes
                fate = take(group, body, metas[index] or origin)
            except (sdk.EventError, sdk.ExpressionError) as error:
                self._fail(batch, index, error)
                passed.append(index)
                continue
            if fate is PASSED:
                passed.append(index)
                if tags:
                    batch.tag(index, tags)
            elif fate is DROPPED:
                dropped.append(index)
            elif fate is MERGED:
                merged.append(index)
                wholes.append(group)
            elif key in held:
                held[key][1].append(index)
            else:
                held[key] = group, [index]
            self._state_bytes += group.size_bytes - before
            if quiet_s is not None:
                group.due_s = now + quiet_s
                groups.move_to_end(key)
        for group, indices in held.values():
            group.held.append(batch.select(indices))
        if not self._merge(batch, merged, wholes):
            dropped += merged
        self._handled_out.add(len(passed))
        self._handled_dropped.add(len(batch) - len(passed))
        if len(passed) == len(batch):
            return batch
        out = batch.select(passed)
        if dropped:
            batch.release(dropped, ok=True)
        return out

    def _handle_copies(self, batch: sdk.Batch, now: float) -> sdk.Batch:
        """The same where the events themselves go on: the action gets copies."""
        when = self._config.aggregate_when
        pieces: list[sdk.Batch] = []
        going: list[int] = []
        dropped: list[int] = []
        out = 0
        for index, body in enumerate(batch.bodies):
            meta = batch.peek(index)
            try:
                if when is not None and not when.test(body, meta):
                    dropped.append(index)
                    continue
                key, values = self._identity(body)
                group = self._groups.get(key)
                if group is None:
                    group = self._open(key, values, now)
                before = group.size_bytes
                fate = self._action.take(group, sdk.copy_value(body), meta)
                self._state_bytes += group.size_bytes - before
            except (sdk.EventError, sdk.ExpressionError) as error:
                self._fail(batch, index, error)
                going.append(index)
                out += 1
                continue
            if fate is PASSED:
                copied = batch.copy([index])
                copied.tag(0, self._tags)
                pieces += [batch.select(going), copied]
                going = []
                out += 1
            elif fate is MERGED:
                self._merge_copy(batch, index, group)
            elif fate is HELD:
                group.held.append(batch.copy([index]))
            going.append(index)
            if self._action.quiet_s is not None:
                group.due_s = now + self._action.quiet_s
                self._groups.move_to_end(key)
        self._handled_out.add(out)
        self._handled_dropped.add(len(batch) - out)
        pieces.append(batch.select(going))
        if dropped:
            batch.release(dropped, ok=True)
        return sdk.concat(pieces)

    def _open(self, key: Hashable, values: tuple[object, ...], now: float) -> Group:
        group = self._groups[key] = Group(key, values, now + self._lifetime_s)
        self._state_bytes += group.size_bytes
        return group

    def _merge(self, batch: sdk.Batch, indices: list[int], groups: list[Group]) -> bool:
        """Let events wait for the results of their groups. False where they do not wait."""
        if self._config.disable_group_acknowledgments:
            return False
        handles = [group.handle or self._open_handle(group) for group in groups]
        for group, is_new in zip(groups, batch.join_each(indices, handles), strict=True):
            if is_new:
                group.size_bytes += HANDLE_BYTES
                self._state_bytes += HANDLE_BYTES
        return True

    def _merge_copy(self, batch: sdk.Batch, index: int, group: Group) -> None:
        """The same for an event that goes on itself as well."""
        if self._config.disable_group_acknowledgments:
            return
        handle = group.handle or self._open_handle(group)
        parts = handle.parts
        batch.join([index], handle, stays=True)
        more_bytes = HANDLE_BYTES * (handle.parts - parts)
        group.size_bytes += more_bytes
        self._state_bytes += more_bytes

    @staticmethod
    def _open_handle(group: Group) -> sdk.JoinedHandle:
        handle = group.handle = sdk.JoinedHandle()
        return handle

    def _conclude(self, group: Group) -> None:
        """Close a group; what comes of it waits in `_concluded`."""
        del self._groups[group.key]
        self._state_bytes -= group.size_bytes
        concluded = False
        try:
            if group.held:
                self._let_go(group)
            else:
                self._finish(group)
            concluded = True
        except sdk.EventError as error:
            self._conclude_errors.add()
            self._log.error("The result of a group cannot be made: %s", error.logged)
        finally:
            if not concluded:  # its events are not part of anything: their sources are to know
                if group.handle is not None:
                    group.handle.expire()
                for batch in group.held:
                    batch.release_all(ok=False)

    def _finish(self, group: Group) -> None:
        result = self._action.conclude(group, dict(zip(self._names, group.values, strict=True)))
        promise: sdk.Handle | None = group.handle
        if result is None:
            self._concluded_dropped.add()
            if promise is not None:
                promise.seal()
            return
        if promise is None or self._config.acknowledge_on_conclude:
            if promise is not None:
                promise.seal()
            promise = sdk.Handle()  # nobody waits for this result
        body, event_type = result
        batch = sdk.Batch([body], [sdk.Meta(event_type, self._clock.now_ms(), tags=self._tags)])
        batch.promise(promise)
        promise.seal()
        self._concluded.append(batch)
        self._concluded_out.add()

    def _let_go(self, group: Group) -> None:
        if not self._action.keeps(group):
            self._concluded_dropped.add()
            for batch in group.held:
                batch.release_all(ok=True)
            return
        for batch in group.held:
            if self._tags:
                for index in range(len(batch)):
                    batch.tag(index, self._tags)
            self._concluded.append(batch)
            self._concluded_out.add(len(batch))
        group.held = []


async def _later(batch: sdk.Batch, wait_s: float) -> sdk.Batch:
    await asyncio.sleep(wait_s)
    return batch


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return Aggregate(config, ctx)


EXAMPLES = [
    sdk.Example(
        "Put the parts of a request together",
        config="""
identification_keys: [request_id]
group_duration: 10s
action:
  put_all:
""",
        before=[{"request_id": 1, "path": "/a"}, {"request_id": 2, "path": "/b"}, {"request_id": 1, "status": 200}],
        after=[{"request_id": 1, "path": "/a", "status": 200}, {"request_id": 2, "path": "/b"}],
        options={"flush_after_s": 10},
    ),
    sdk.Example(
        "Drop repeated messages",
        config="""
identification_keys: [host, message]
group_duration: 60s
action:
  remove_duplicates:
""",
        before=[{"host": "a", "message": "up"}, {"host": "a", "message": "up"}, {"host": "b", "message": "up"}],
        after=[{"host": "a", "message": "up"}, {"host": "b", "message": "up"}],
    ),
    sdk.Example(
        "Count the errors of a minute, beside the events themselves",
        config="""
identification_keys: [service]
group_duration: 60s
aggregate_when: '/level == "ERROR"'
output_unaggregated_events: true
aggregated_events_tag: aggregated
action:
  append:
    keys_to_append: [code]
""",
        before=[{"service": "a", "level": "ERROR", "code": 1}, {"service": "a", "level": "ERROR", "code": 2}],
        after=[
            {"service": "a", "level": "ERROR", "code": 1},
            {"service": "a", "level": "ERROR", "code": 2},
            {"service": "a", "level": "ERROR", "code": [1, 2]},
        ],
        tags=[[], [], ["aggregated"]],
        options={"flush_after_s": 60},
    ),
]
