"""All pipelines of a process: built from a plan, brought up, watched, drained."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from penstock.core.clock import Clock
from penstock.core.errors import PenstockError, Permanent
from penstock.core.metrics import Registry
from penstock.plan import PipelinePlan, Plan, SinkPlan
from penstock.plan.graph import PluginPlan
from penstock.runtime.data_dir import take_data_dir
from penstock.runtime.dead_letters import DeadLetterFile
from penstock.runtime.deliver import BulkDelivery, Delivery, Surroundings, WriteDelivery
from penstock.runtime.leases import lease_opener
from penstock.runtime.parts import Branch, Parts, Stage
from penstock.runtime.pipeline import Pipeline
from penstock.runtime.routes import topological
from penstock.runtime.secrets import Renewal, SecretRefresher
from penstock.sdk import Buffer, Context, DeadLetterWriter, PluginUse, Sink, SinkOptions, Source

log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_CONFIG = 1
EXIT_FAILED = 3
EXIT_NOT_DRAINED = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine runs, beside its plan."""

    data_dir: Path | None = None
    """Where leases, checkpoints and dead letters live; None: nothing outlives the process."""
    data_dir_is_ours: bool = False
    """A process that started this one holds the lock of the data directory."""
    share_port: Callable[[str, str, int], Awaitable[int]] | None = None
    """The port for pipeline, host and port that this process listens on together with others."""
    drain_timeout_s: float = 30.0
    """Longest time that draining may take."""
    stop_on_failure: bool = False
    """Stop all pipelines when one fails."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Stand-ins for the sources of pipelines, by pipeline name: for tests and dry runs."""
    sinks: Mapping[tuple[str, int], Sink] = field(default_factory=dict)
    """Stand-ins for sinks, by pipeline name and position."""
    dead_letters: DeadLetterWriter | None = None
    """Where all dead letters go, whatever the pipelines say."""
    wrap_sink: Callable[[Any], Any] | None = None
    """Put around every sink."""
    seed: int | None = None
    renewal: Renewal | None = None
    """How the plan is made anew once a secret has another value; None: secrets are not read again."""


class Engine:
    """Runs the pipelines of a plan until they end, `stop` is called, or nothing is left that can run."""

    def __init__(
        self, plan: Plan, settings: Settings | None = None, registry: Registry | None = None, clock: Clock | None = None
    ) -> None:
        self.plan = plan
        self.settings = settings or Settings()
        self.registry = registry or Registry()
        self.clock = clock or Clock()
        self.pipelines: dict[str, Pipeline] = {}
        self.undrained: dict[str, int] = {}
        """Events per pipeline that a drain could not deliver in time."""
        self.drained = asyncio.Event()
        """Set when every pipeline is down."""
        self._random = random.Random(self.settings.seed)  # noqa: S311 (jitter, nothing secret)
        self._open_leases = lease_opener(self.plan.server.source_coordination, self.clock)
        self._stop = asyncio.Event()
        self._ready: dict[str, asyncio.Event] = {}
        self._bringing: list[asyncio.Task[None]] = []
        self._lock: int | None = None
        self._files: dict[Path, DeadLetterFile] = {}
        self._writers: list[DeadLetterWriter] = []
        self._extensions: dict[str, Any] = {}
        self._refreshing: asyncio.Task[None] | None = None

    # build

    def build(self) -> None:
        """Make every pipeline of the plan. One that cannot be made is left out with those connected to it."""
        if self.settings.data_dir is not None and not self.settings.data_dir_is_ours:
            self._lock = take_data_dir(self.settings.data_dir)
        self._extensions = {plugin.name: self._extension(plugin) for plugin in self.plan.extensions}
        by_name = {pipeline.name: pipeline for pipeline in self.plan.pipelines}
        order = topological(list(by_name), lambda name: by_name[name].upstreams)
        failed: set[str] = set()
        for name in reversed(order):
            try:
                self.pipelines[name] = self._build_pipeline(by_name[name])
            except PenstockError as error:
                log.error("Failed building pipeline [%s]: %s", name, error)
                failed.add(name)
            except Exception:
                log.exception("Failed building pipeline [%s]", name)
                failed.add(name)
        for name in self._connected(failed):
            self.pipelines.pop(name, None)
        self.pipelines = {name: self.pipelines[name] for name in order if name in self.pipelines}
        for pipeline in self.pipelines.values():
            for branch, sink in zip(pipeline.parts.branches, by_name[pipeline.name].sinks, strict=True):
                if sink.target is not None:
                    branch.target = self.pipelines[sink.target]
                if sink.forward_to is not None:
                    branch.forward = self.pipelines[sink.forward_to]
        self._ready = {name: asyncio.Event() for name in self.pipelines}

    def _connected(self, names: set[str]) -> set[str]:
        """`names` and every pipeline they are connected to, up and down."""
        links: dict[str, set[str]] = {pipeline.name: set() for pipeline in self.plan.pipelines}
        for pipeline in self.plan.pipelines:
            for upstream in pipeline.upstreams:
                links.setdefault(upstream, set()).add(pipeline.name)
                links[pipeline.name].add(upstream)
        reached: set[str] = set()
        front = list(names)
        while front:
            name = front.pop()
            if name not in reached:
                reached.add(name)
                front += links.get(name, ())
        return reached

    def _context(self, plan: PipelinePlan, name: str, kind: str, options: SinkOptions | None = None) -> Context:
        share_port = self.settings.share_port
        return Context(
            plan.name,
            name,
            kind=kind,
            registry=self.registry,
            clock=self.clock,
            chance=random.Random(self._random.random()),  # noqa: S311 (jitter, nothing secret)
            data_dir=self.settings.data_dir,
            environ=dict(self.settings.environ),
            sink_options=options,
            buffer_bytes_max=plan.buffer_bytes_max,
            open_leases=self._open_leases,
            lease_prefix=self.plan.server.source_coordination.partition_prefix or "",
            extensions=self._extensions,
            share_port=partial(share_port, plan.name) if share_port is not None else None,
        )

    def _extension(self, plugin: PluginPlan) -> Any:
        ctx = Context(
            "extensions",
            plugin.name,
            kind="extension",
            registry=self.registry,
            clock=self.clock,
            data_dir=self.settings.data_dir,
            environ=dict(self.settings.environ),
        )
        return plugin.module.build(plugin.config, ctx)

    def _build_pipeline(self, plan: PipelinePlan) -> Pipeline:
        buffer_ctx = self._context(plan, plan.buffer.name, "buffer")
        buffer = plan.buffer.module.build(plan.buffer.config, buffer_ctx)
        stages = [self._stage(plan, index) for index in range(len(plan.processors))]
        source: Source | None = self.settings.sources.get(plan.name)
        if source is None and plan.source is not None and not plan.upstreams:
            source_ctx = self._context(plan, plan.source.name, "source")
            source = plan.source.module.build(plan.source.config, source_ctx)
        contexts: dict[str, Context] = {}
        dead_letters = self._dead_letters(plan.name)
        branches = [self._branch(plan, index, sink, contexts, buffer) for index, sink in enumerate(plan.sinks)]
        parts = Parts(plan.name, buffer, stages, list(plan.routes), branches, source, plan.workers, contexts)
        around = Surroundings(self._context(plan, "PipelineRunner", "pipeline"), dead_letters)
        return Pipeline(parts, around, self.clock, lambda: self.pipelines.get(plan.failure_pipeline or ""))

    def _stage(self, plan: PipelinePlan, index: int) -> Stage:
        processor = plan.processors[index]
        ctx = self._context(plan, processor.name_as_written, "processor")
        run = processor.module.build(processor.config, ctx)
        metrics = ctx.metrics
        return Stage(
            processor.name_as_written,
            run,
            metrics.counter("recordsIn"),
            metrics.counter("recordsOut"),
            metrics.timer("timeElapsed"),
            run.drain if getattr(run, "holds_events", False) else None,
        )

    def _branch(
        self, plan: PipelinePlan, index: int, sink: SinkPlan, contexts: dict[str, Context], buffer: Buffer
    ) -> Branch:
        name = sink.plugin.name_as_written
        if sink.target is not None:
            return Branch(f"pipeline {sink.target}", sink.routes)
        options = SinkOptions(sink.tags_target_key, tuple(sink.include_keys), tuple(sink.exclude_keys))
        ctx = self._context(plan, name, "sink", options)
        contexts[name] = ctx
        built: Any = self.settings.sinks.get((plan.name, index))
        if built is None:
            built = sink.plugin.module.build(sink.plugin.config, ctx)
        if self.settings.wrap_sink is not None:
            built = self.settings.wrap_sink(built)
        own = self._own_dead_letters(sink, built, ctx)
        around = Surroundings(
            ctx,
            own or self._dead_letters(plan.name),
            (lambda: self.pipelines.get(plan.failure_pipeline or "")) if plan.failure_pipeline and not own else None,
            buffer,
        )
        bulk = hasattr(built, "encode")
        delivery: Delivery = BulkDelivery(built, around) if bulk else WriteDelivery(built, around)
        return Branch(name, sink.routes, delivery, built, None, reads_later=not bulk)

    def _own_dead_letters(self, sink: SinkPlan, built: Any, ctx: Context) -> DeadLetterWriter | None:
        """The queue that the options of the sink name."""
        if self.settings.dead_letters is not None:
            return None
        use = getattr(sink.plugin.config, "dlq", None)
        if isinstance(use, PluginUse):
            writer: DeadLetterWriter = ctx.build(use)
            self._writers.append(writer)
            return writer
        file = getattr(built, "dead_letter_file", None)
        return self._dead_letter_file(Path(file), wrapped=True) if file else None

    def _dead_letters(self, pipeline: str) -> DeadLetterWriter:
        if self.settings.dead_letters is not None:
            return self.settings.dead_letters
        if self.settings.data_dir is None:
            return NoDeadLetters()
        return self._dead_letter_file(self.settings.data_dir / "dead-letters" / f"{pipeline}.jsonl")

    def _dead_letter_file(self, path: Path, *, wrapped: bool = False) -> DeadLetterFile:
        if path not in self._files:
            self._files[path] = DeadLetterFile(path, wrapped=wrapped)
        return self._files[path]

    # run

    async def run(self) -> int:
        """Build, run until the end, drain. Returns the exit code of the process."""
        self.build()
        if not self.pipelines:
            log.error("No valid pipeline is available for execution, exiting")
            self._give_up_data_dir()
            self.drained.set()
            return EXIT_CONFIG
        self.start()
        await self._until_done()
        return await self.shut_down(self.settings.drain_timeout_s)

    def start(self) -> None:
        """Bring every pipeline up; those that fail leave the others running."""
        loop = asyncio.get_running_loop()
        for pipeline in self.pipelines.values():
            pipeline.start_workers()
        self._bringing = [loop.create_task(self._bring_up(pipeline)) for pipeline in self.pipelines.values()]
        if self.settings.renewal is not None:
            self._refreshing = loop.create_task(self._refresher(self.settings.renewal).run(), name="secrets")

    def _refresher(self, renewal: Renewal) -> SecretRefresher:
        running = tuple(pipeline for pipeline in self.plan.pipelines if pipeline.name in self.pipelines)
        sinks = {
            (name, index): branch.sink
            for name, pipeline in self.pipelines.items()
            for index, branch in enumerate(pipeline.parts.branches)
        }
        chance = random.Random(self._random.random())  # noqa: S311 (jitter, nothing secret)
        return SecretRefresher(replace(self.plan, pipelines=running), renewal, sinks, self.registry, self.clock, chance)

    async def _bring_up(self, pipeline: Pipeline) -> None:
        try:
            await pipeline.start_sinks()
        except Permanent as error:
            log.error("Failed to initialize a sink of pipeline [%s] due to a configuration error.", pipeline.name)
            pipeline.fail(str(error))
            return
        except Exception as error:
            log.exception("Pipeline [%s] could not be started", pipeline.name)
            pipeline.fail(f"{type(error).__name__}: {error}")
            return
        for branch in pipeline.parts.branches:
            for onward in (branch.target, branch.forward):
                if onward is not None:
                    await self._ready[onward.name].wait()
        self._ready[pipeline.name].set()
        pipeline.start_source()

    def stop(self) -> None:
        """Ask for the end; `run` drains and returns."""
        self._stop.set()

    async def _until_done(self) -> None:
        """Return when the end is asked for, or when no pipeline can do anything any more."""
        loop = asyncio.get_running_loop()
        stop = loop.create_task(self._stop.wait())
        ends = {loop.create_task(pipeline.ended.wait()) for pipeline in self.pipelines.values()}
        waiting: set[asyncio.Task[Any]] = {stop, *ends}
        while not stop.done():
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            failed = [p for p in self.pipelines.values() if p.state == "FAILED"]
            for pipeline in failed:
                self._fail_connected(pipeline)
            fed = [p for p in self.pipelines.values() if p.parts.source is not None]
            if all(pipeline.ended.is_set() for pipeline in fed or self.pipelines.values()):
                break
            if failed and self.settings.stop_on_failure:
                break
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    def _fail_connected(self, pipeline: Pipeline) -> None:
        """What is connected to a failed pipeline cannot go on either: its events have nowhere to go."""
        for name in self._connected({pipeline.name}):
            other = self.pipelines.get(name)
            if other is not None and other is not pipeline and other.state not in ("FAILED", "ENDED"):
                other.fail(f"it is connected to pipeline [{pipeline.name}], which failed: {pipeline.reason}")

    async def shut_down(self, timeout_s: float) -> int:
        """Stop the sources, let everything out, close. Returns the exit code."""
        beside = [*self._bringing, *([self._refreshing] if self._refreshing else [])]
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        complete = True
        try:
            async with asyncio.timeout(timeout_s):
                stops = [p.stop_source(timeout_s) for p in self.pipelines.values()]
                await asyncio.gather(*stops)
                for pipeline in self.pipelines.values():  # in the direction of the flow
                    await pipeline.drain()
                await asyncio.gather(*(pipeline.settle_source() for pipeline in self.pipelines.values()))
        except TimeoutError:
            complete = False
        for pipeline in self.pipelines.values():
            left = pipeline.undelivered()
            if left:
                complete = False
                self.undrained[pipeline.name] = left
                log.warning("Pipeline [%s] was shut down with %d events undelivered", pipeline.name, left)
        await asyncio.gather(*(pipeline.close() for pipeline in self.pipelines.values()))
        for writer in (*self._writers, *self._files.values()):
            await writer.close()
        self._give_up_data_dir()
        self.drained.set()
        if not complete:
            log.warning("Not everything was drained within %.0f s", timeout_s)
        if any(pipeline.state == "FAILED" for pipeline in self.pipelines.values()) or self.plan.skipped:
            return EXIT_FAILED
        return EXIT_OK if complete else EXIT_NOT_DRAINED

    def _give_up_data_dir(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # status

    @property
    def meters(self) -> Registry:
        return self.registry

    async def refresh(self) -> None:
        """The state of this process is always the present one."""

    def names(self) -> list[str]:
        """The pipelines that run."""
        return list(self.pipelines)

    def not_started(self) -> list[str]:
        """Pipelines whose source does not take data yet."""
        return [
            name
            for name, pipeline in self.pipelines.items()
            if not (
                pipeline.source_started
                if pipeline.parts.source is not None
                else self._ready.get(name, asyncio.Event()).is_set()
            )
        ]

    def status(self) -> dict[str, Any]:
        """State of every pipeline and sink, for people and for `/status`."""
        return {
            "pipelines": [
                {
                    "name": name,
                    "state": pipeline.state,
                    "reason": pipeline.reason,
                    "sinks": [
                        {
                            "name": branch.name,
                            "status": branch.delivery.state.status,
                            "lastError": branch.delivery.state.last_error,
                            "sinceMs": branch.delivery.state.since_ms,
                            "pending": branch.delivery.pending(),
                        }
                        for branch in pipeline.parts.branches
                        if branch.delivery is not None
                    ],
                }
                for name, pipeline in self.pipelines.items()
            ]
        }


class NoDeadLetters:
    """Where nothing may be kept, a refused event stays undelivered."""

    async def write(self, letters: Sequence[object]) -> None:
        raise OSError("no dead-letter queue is configured and there is no data directory to keep refused events in")

    async def close(self) -> None:
        """There is nothing to close."""
