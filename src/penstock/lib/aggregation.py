"""What the aggregate processor and its actions share: groups, what becomes of an event, and the action itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import Enum, auto
from typing import Any

from penstock.core.batch import Batch, Body, Meta
from penstock.core.clock import Clock
from penstock.core.dates import compile_formatter
from penstock.core.errors import EventError
from penstock.core.handle import JoinedHandle
from penstock.core.json_text import INLINE_ENCODE, encode
from penstock.core.key import MISSING, Key
from penstock.lib.instants import instant_text, read_instant

GROUP_BYTES = 512
"""What a group without any state takes."""


class Fate(Enum):
    """What an action made of an event."""

    PASSED = auto()
    """It goes on as it is."""
    DROPPED = auto()
    """It ends here, and nothing of it is left."""
    MERGED = auto()
    """It has become part of the group's result."""
    HELD = auto()
    """It waits in the group and goes on, or ends, when the group is concluded."""


PASSED, DROPPED, MERGED, HELD = Fate  # looking a member up in its class costs as much as handling an event


class Group:
    """Events with the same values under the identification keys."""

    __slots__ = ("due_s", "handle", "held", "key", "size_bytes", "state", "values")

    def __init__(self, key: Hashable, values: tuple[Any, ...], due_s: float) -> None:
        self.key = key
        self.values = values
        """What the events have under the identification keys; None where they have nothing."""
        self.due_s = due_s
        """When the group is concluded, on the monotonic clock."""
        self.state: Any = None
        """Belongs to the action; None as long as it has kept nothing."""
        self.handle: JoinedHandle | None = None
        """Waits for the group's result on behalf of the events that are part of it."""
        self.held: list[Batch] = []
        self.size_bytes = GROUP_BYTES
        """What the group takes, about: actions add the JSON size of what they keep."""


class Action:
    """What happens to the events of a group. It keeps what it knows in `Group.state`."""

    takes_first_only = False
    """Only the first event of a group is taken; the others are dropped, whatever they hold."""
    quiet_s: float | None = None
    """A group is concluded when nothing came for so long; None: after the processor's `group_duration`."""

    def take(self, group: Group, body: Body, meta: Meta) -> Fate:
        """Handle one event. The body belongs to the action when it answers `MERGED`.

        Raises `EventError`, and then the group is as it was: the event goes on.
        """
        raise NotImplementedError

    def conclude(self, group: Group, identification: Body) -> tuple[Body, str] | None:
        """The result of a group that got events and its event type; None when there is none."""
        return None

    def keeps(self, group: Group) -> bool:
        """Whether the held events of a group go on."""
        return True

    def wait_s(self) -> float:
        """Seconds that the events taken so far have to wait before they go on."""
        return 0.0


def compile_identity(keys: Sequence[Key]) -> Callable[[Body], tuple[Hashable, tuple[Any, ...]]]:
    """A function that gives a body's place among the groups and its values under `keys`.

    Values are equal when they are of one type: the number 1 is neither `"1"` nor 1.0 nor true. An absent value is
    null. The function raises EventError for a value that cannot be written as JSON.
    """
    getters = [key.get for key in keys]

    if len(getters) == 1:
        get = getters[0]

        def identity_of_one(body: Body) -> tuple[Hashable, tuple[Any, ...]]:
            value = get(body)
            if type(value) is str:
                return value, (value,)
            if value is MISSING:
                value = None
            return _comparable(value), (value,)

        return identity_of_one

    def identity(body: Body) -> tuple[Hashable, tuple[Any, ...]]:
        values = tuple([None if (value := get(body)) is MISSING else value for get in getters])
        for value in values:
            if type(value) is not str:
                return tuple([_comparable(value) for value in values]), values
        return values, values

    return identity


def _comparable(value: Any) -> Hashable:
    if type(value) is str or type(value) is int or value is None:
        return value
    try:
        ordered = _sorted(value)
    except (RecursionError, TypeError):
        raise EventError("A value is nested too deeply, or has keys that are no texts", cause="json") from None
    return encode(ordered)  # bytes are no value of an event, so they equal nothing but each other


def _sorted(value: Any) -> Any:
    if type(value) is dict:
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if type(value) is list else value


def weight(value: Any) -> int:
    """Bytes of the JSON text of a value. Raises EventError where there is none."""
    try:
        return len(_dumps(value, _fragment))
    except TypeError:
        return len(encode(value))


_dumps, _fragment = INLINE_ENCODE.names["dumps"], INLINE_ENCODE.names["fragment"]


def read_number(value: Any) -> float:
    """A number, or the text of one. Raises EventError."""
    if type(value) is not bool and value is not None and not isinstance(value, dict | list):
        try:
            number = float(value)
        except (ValueError, OverflowError, TypeError):
            pass
        else:
            if number == number:
                return number
    raise EventError(f"Unable to read a number from a value of type {type(value).__name__}", cause="number")


class Span:
    """From the earliest start to the latest end of events, in nanoseconds since the epoch."""

    __slots__ = ("end_ns", "start_ns")

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self.start_ns = start_ns
        self.end_ns = end_ns

    def widen(self, start_ns: int, end_ns: int) -> None:
        """Cover this span too."""
        if start_ns < self.start_ns:
            self.start_ns = start_ns
        if end_ns > self.end_ns:
            self.end_ns = end_ns


def compile_span(start_key: Key, end_key: Key, clock: Clock) -> Callable[[Body], tuple[int, int]]:
    """A function that gives start and end of an event; now where the event does not say. It raises EventError."""
    get_start, get_end = start_key.get, end_key.get

    def span(body: Body) -> tuple[int, int]:
        start, end = get_start(body), get_end(body)
        now = clock.now_ns()
        return (
            now if start is MISSING or start is None else read_instant(start),
            now if end is MISSING or end is None else read_instant(end),
        )

    return span


def compile_local_time() -> Callable[[int], str]:
    """A function that writes an instant in the time zone of this machine, to the millisecond."""
    return compile_formatter("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "")


def exemplar(value: float, attributes: Body, meta: Meta, now_ns: int) -> Body:
    """An event that stands for many, as OpenTelemetry metrics carry it."""
    is_span = meta.event_type == "TRACE"
    return {
        "time": instant_text(now_ns),
        "value": value,
        "attributes": attributes,
        "spanId": attributes.get("spanId") if is_span else None,
        "traceId": attributes.get("traceId") if is_span else None,
    }


def metric(kind: str, name: str, unit: str, description: str, span: Span, **members: Any) -> Body:
    """The event of a delta metric of OpenTelemetry."""
    return {
        "kind": kind,
        "name": name,
        "description": description,
        "unit": unit,
        "startTime": instant_text(span.start_ns),
        "time": instant_text(span.end_ns),
        "aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA",
        **members,
    }
