"""Drops events that match a condition. They count as delivered.

A condition that cannot be evaluated is false: the event is kept. `handle_failed_events` decides about conditions that
give no Boolean; where Data Prepper does the opposite of what the option says, this plugin does what it says.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from penstock import sdk
from penstock.lib.inline import compile_places


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _given(value: Any) -> Any:
    if value is None or value == "":
        raise PydanticCustomError("string_too_short", "must not be empty", {"min_length": 1, "actual_length": 0})
    return value


class Config(sdk.PluginConfig):
    drop_when: Annotated[sdk.ValueExpression, BeforeValidator(_given)]
    """Events that match this expression are dropped; `"true"` drops all."""
    handle_failed_events: Annotated[
        Literal["drop", "drop_silently", "skip", "skip_silently"], BeforeValidator(_lower)
    ] = "skip"
    """What happens to an event for which the condition gives no Boolean: `skip` keeps it, `drop` drops it; the silent
    forms log nothing."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    if config.drop_when.is_plain:
        return _drop_plainly(config.drop_when)
    test = config.drop_when.test
    drop_failed = config.handle_failed_events.startswith("drop")
    silent = config.handle_failed_events.endswith("silently")
    failures = ctx.metrics.counter("processingErrors")
    log = ctx.log

    def is_dropped(body: sdk.Body, meta: sdk.Meta) -> bool:
        try:
            return test(body, meta)
        except sdk.ExpressionError as error:
            failures.add()
            if not silent:
                log.warning("The condition of drop_events cannot be used: %s", error.logged)
            return drop_failed

    def drop(batch: sdk.Batch) -> sdk.Batch:
        metas, origin = batch.metas, batch.origin
        return batch.drop([i for i, body in enumerate(batch.bodies) if is_dropped(body, metas[i] or origin)])

    return drop


def _drop_plainly(condition: sdk.Expression) -> sdk.BatchFn:
    """For conditions that are true or false whatever the event holds."""
    places = compile_places(condition)

    def drop(batch: sdk.Batch) -> sdk.Batch:
        return batch.drop(places(batch))

    return drop


EXAMPLES = [
    sdk.Example(
        "Drop what is of no interest",
        config='drop_when: /level == "debug" or /status == 204',
        before=[{"level": "debug"}, {"level": "info"}, {"status": 204}, {}],
        after=[{"level": "info"}, {}],
    ),
]
