"""Calls a function of yours with each event, or with each batch of them.

It returns the event, changed in place or as a new object; a list, which splits the event; or None, which drops it.
Whatever it raises, and a result that JSON cannot hold, is a failure of that event alone, which goes on as it was. The
guide's page on the python processor tells more.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from penstock import sdk
from penstock.plugins.processors.python.calls import Calls
from penstock.plugins.processors.python.code import CodeError, bind, check_file, find_file, load, shape_of, signature_of

TIMEOUT_S = 30.0
CONCURRENCY = 16


class Config(sdk.PluginConfig):
    path: str | None = None
    """Python file with the function, relative to the working directory. It is read when the pipeline is built."""
    module: str | None = None
    """Name of an importable module with the function, instead of `path`."""
    function: sdk.NonEmpty[str]
    """Name of the function. Its first argument is the event, a dictionary; or a batch of events when it is named
    `batch` or annotated `penstock.sdk.Batch`. A second one, `meta`, is the metadata. `async def` is fine."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Anything; the function gets it as its keyword argument `options`."""
    copy_events: Annotated[bool, Field(validation_alias="copy")] = True
    """Let the function work on a copy, so that an event for which it fails stays as it was and what it returns is
    shared with nobody. `false` is faster: what the function did before it failed stays done."""
    timeout: sdk.Duration = TIMEOUT_S
    """Longest wait for one call of an `async def` function."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = CONCURRENCY
    """Events of a batch for which an `async def` function runs at the same time. Their order stays."""
    tags_on_failure: list[str] = Field(default_factory=lambda: ["_python_failure"])
    """Tags for events for which the function failed."""
    python_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are given to the function."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.path is None) == (self.module is None):
            raise ValueError("Exactly one of path or module must be specified.")
        if not self.function.isidentifier():
            raise ValueError(f"{self.function} is no name of a function.")
        file = find_file(self.path, self.module)
        if file is not None:
            check_file(file, self.function, options=bool(self.options))
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    """Raises ConfigError with file and line when the code cannot be loaded."""
    try:
        file = find_file(config.path, config.module)
        function = load(file, config.path, config.module, config.function)
        name = f"{config.path or config.module}: {config.function}"
        shape = shape_of(signature_of(function), name, options=bool(config.options))
        awaited = _is_async(function)
        for option in ("timeout", "concurrency"):
            if option in config.model_fields_set and not awaited:
                raise CodeError(f"{name} is no async def, which is what {option} is for")
        if inspect.isasyncgenfunction(function):
            raise CodeError(f"{name} is an asynchronous generator; return a list instead")
    except CodeError as error:
        raise sdk.ConfigError(str(error)) from error
    calls = Calls(
        bind(function, shape, config.options),
        file,
        shape.meta,
        config.python_when,
        config.copy_events,
        config.timeout,
        config.concurrency,
        ctx.failure(config.tags_on_failure),
        ctx.metrics.counter("eventsDropped"),
    )
    if shape.batch:
        return calls.in_batches_awaited() if awaited else calls.in_batches()
    return calls.concurrently() if awaited else calls.one_by_one()


def _is_async(function: Any) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 (an object whose call is a coroutine function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


EXAMPLES = [
    sdk.Example(
        "Rules in a file",
        config="""
            path: docs/guide/python/enrich.py
            function: enrich
            options: {health_check: /health}
        """,
        before=[{"host": "web-1", "path": "/cart"}, {"host": "web-1", "path": "/health"}, {"host": "mail-1"}],
        after=[{"host": "web-1", "path": "/cart", "team": "shop"}, {"host": "mail-1"}],
        tags=[[], ["_python_failure"]],
        metadata=[{"index": "logs-shop"}, {}],
    ),
    sdk.Example(
        "A function of an importable module",
        config="{module: copy, function: deepcopy}",
        before=[{"a": 1}],
        after=[{"a": 1}],
    ),
]
