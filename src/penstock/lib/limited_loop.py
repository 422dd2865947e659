"""The loop of processors that match regular expressions of the user: no event may take longer than a limit."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.batch import Batch
from penstock.core.errors import EventError, ExpressionError
from penstock.core.inline import Inline
from penstock.core.timelimit import BYTES_MAX
from penstock.expr import Expression
from penstock.lib.inline import PLACE, compile_limited_loop
from penstock.lib.regex import TimeLimit

MATCHING_S_MAX = 2.0
"""CPU seconds that matching may take for one event."""

_MIB = BYTES_MAX // 1024 // 1024

Fail = Callable[[Batch, int, EventError | ExpressionError], None]


def each_limited(
    change: Callable[[Batch, int], None] | Inline,
    *,
    when: Expression | None,
    fail: Fail,
    seconds: float | None = None,
) -> Callable[[Batch], Batch]:
    """A loop that calls `change` with the places for which `when` holds; those that fail or take too long go to `fail`.

    Only functions marked `interruptible` inside of `change` are interrupted. When a batch has met the limit, it is set
    again for the event at hand: an event fails for its own matches alone. `seconds` is `MATCHING_S_MAX` unless given.
    """
    limit = TimeLimit(MATCHING_S_MAX if seconds is None else seconds)
    inline = change if isinstance(change, Inline) else Inline(f"change(batch, {PLACE})", change=change)
    handle = compile_limited_loop(inline, when=when, fail=fail)

    def run(batch: Batch) -> Batch:
        place, end = 0, len(batch)
        while place < end:
            begin = place
            with limit:
                place = handle(batch, begin)
            if place == begin:
                fail(
                    batch,
                    place,
                    EventError(f"Matching took over {limit.seconds:g} s of CPU time, or {_MIB} MiB", cause="timeout"),
                )
                place += 1
        return batch

    return run
