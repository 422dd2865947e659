"""What a plugin gets at `build`: its names, its meters, its log, time and chance, and the loops over a batch."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from penstock.core.batch import Batch, Body, Meta
from penstock.core.clock import Clock
from penstock.core.errors import EventError, ExpressionError
from penstock.core.event import compile_document
from penstock.core.inline import Inline
from penstock.core.metrics import Registry, Scope
from penstock.expr import Expression
from penstock.lib.inline import compile_loop
from penstock.sdk.options import PluginUse
from penstock.sdk.protocols import BatchFn, EventFn

if TYPE_CHECKING:
    from penstock.lib.lease import LeaseStore


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """What every sink may be given beside its own options. The sink applies it to what it writes, not to the event."""

    tags_target_key: str | None = None
    """Key under which the tags of an event are written."""
    include_keys: tuple[str, ...] = ()
    """Only these keys are written."""
    exclude_keys: tuple[str, ...] = ()
    """These keys are not written."""

    def compile_document(self) -> Callable[[Body, Meta], Any]:
        """A function that gives what is written of an event."""
        return compile_document(
            include_keys=self.include_keys, exclude_keys=self.exclude_keys, tags_target_key=self.tags_target_key
        )


class Context:
    """The surroundings of one plugin in one pipeline. Nothing in it does I/O by itself."""

    def __init__(
        self,
        pipeline: str,
        plugin: str,
        *,
        kind: str = "processor",
        registry: Registry | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        data_dir: Path | None = None,
        environ: dict[str, str] | None = None,
        sink_options: SinkOptions | None = None,
        buffer_bytes_max: int = 64 * 1024 * 1024,
        extensions: Mapping[str, Any] | None = None,
        open_leases: Callable[[], LeaseStore] | None = None,
        lease_prefix: str = "",
        share_port: Callable[[str, int], Awaitable[int]] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.plugin = plugin
        self.kind = kind
        self.registry = registry or Registry()
        self.metrics: Scope = self.registry.scope(pipeline, plugin)
        """Meters named `<pipeline>.<plugin>.<metric>`."""
        self.clock = clock or Clock()
        self.random = chance or random.Random()  # noqa: S311 (jitter and samples, nothing secret)
        self.data_dir = data_dir
        """Where state that outlives the process may be kept; None: nowhere."""
        self.environ = environ or {}
        """Environment variables a plugin may read."""
        self.sink_options = sink_options or SinkOptions()
        """What every sink may be given beside its own options."""
        self.buffer_bytes_max = buffer_bytes_max
        """Bytes a buffer of this pipeline may hold."""
        self.open_leases = open_leases
        """Opens the store of leases that the server configuration names; None: a source has its own."""
        self.lease_prefix = lease_prefix
        self.share_port = share_port
        """Gives the port that all units of this pipeline listen on for a host and a port, 0 included; raises OSError
        when it is taken. None: this process shares it with nobody."""
        self.extensions = extensions or {}
        """What the configured extensions have built, by their names."""
        self.log = logging.getLogger(f"penstock.plugins.{kind}.{plugin}")

    def lease_source(self, kind: str) -> str:
        """The name of one kind of leases of this pipeline: `[prefix|]pipeline|KIND`."""
        return "|".join([*filter(None, [self.lease_prefix]), self.pipeline, kind])

    def build(self, use: PluginUse) -> Any:
        """Build a plugin named in the options: a codec, an action, an authentication."""
        inner = Context(
            self.pipeline,
            self.plugin,
            kind=self.kind,
            registry=self.registry,
            clock=self.clock,
            chance=self.random,
            data_dir=self.data_dir,
            environ=self.environ,
            sink_options=self.sink_options,
            buffer_bytes_max=self.buffer_bytes_max,
            extensions=self.extensions,
            open_leases=self.open_leases,
            lease_prefix=self.lease_prefix,
            share_port=self.share_port,
        )
        make = {"input_codec": "build_decoder", "output_codec": "build_encoder"}.get(use.kind, "build")
        return getattr(use.module, make)(use.config, inner)

    def each(
        self,
        change: EventFn | Inline,
        *,
        when: Expression | None = None,
        tags: Sequence[str] = (),
        failures: str = "processingErrors",
    ) -> BatchFn:
        """A loop that applies `change` to the events for which `when` holds.

        An `EventError`, or a condition that gives no Boolean, leaves that event as it was: it is tagged with `tags`,
        counted under `failures` (and by cause) and goes on. An `Inline` saves the call.
        """
        return compile_loop(change, when=when, fail=self.failure(tags, failures))

    def each_of(
        self,
        changes: Sequence[EventFn],
        *,
        when: Expression | None = None,
        tags: Sequence[str] = (),
        failures: str = "processingErrors",
    ) -> BatchFn:
        """Like `each`, for several changes of an event under one condition: it is asked once, before the first of them.

        A change that fails does not keep the others from being made; the event counts as failed once.
        """

        def change_all(body: Body) -> None:
            failure: EventError | None = None
            for change in changes:
                try:
                    change(body)
                except EventError as error:
                    failure = failure or error
            if failure is not None:
                raise failure

        return self.each(change_all, when=when, tags=tags, failures=failures)

    def each_event(
        self,
        change: Callable[[Body, Meta], None],
        *,
        when: Expression | None = None,
        tags: Sequence[str] = (),
        failures: str = "processingErrors",
    ) -> BatchFn:
        """Like `each`, for a change that reads metadata (to write it, loop over the batch and use `Batch.meta`)."""
        return self.each(Inline("change(body, meta)", change=change), when=when, tags=tags, failures=failures)

    def failure(
        self, tags: Sequence[str] = (), failures: str = "processingErrors"
    ) -> Callable[[Batch, int, EventError | ExpressionError], None]:
        """What happens to an event that a processor could not handle: tag, count by cause, log now and then."""
        counter = self.metrics.counter(failures)
        log = self.log

        def fail(batch: Batch, index: int, error: EventError | ExpressionError) -> None:
            counter.add()
            self.metrics.counter(failures + "ByCause", cause=getattr(error, "cause", "expression")).add()
            if tags:
                batch.tag(index, tags)
            log.warning("An event of pipeline %s was not changed: %s", self.pipeline, error.logged)
            log.debug("An event of pipeline %s was not changed, in full: %s", self.pipeline, error)

        return fail

    def chain(self, steps: Iterable[BatchFn]) -> BatchFn:
        """The steps one after the other. Asynchronous only when a step is."""
        fns = list(steps)
        if len(fns) == 1:
            return fns[0]

        def run(batch: Batch) -> Batch:
            for fn in fns:
                batch = cast(Batch, fn(batch))
            return batch

        async def run_async(batch: Batch) -> Batch:
            for fn in fns:
                result = fn(batch)
                batch = result if isinstance(result, Batch) else await result
            return batch

        if any(asyncio.iscoroutinefunction(fn) for fn in fns):
            return run_async
        return run
