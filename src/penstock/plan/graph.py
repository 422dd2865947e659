"""The plan: what runs and how it is connected. Immutable; `str(plan)` shows it as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from penstock.config.references import Reference
from penstock.config.server import ServerConfig
from penstock.core.errors import Problem
from penstock.expr import Expression


@dataclass(frozen=True, slots=True)
class PluginPlan:
    """A plugin with its checked options, ready for `module.build(config, ctx)`."""

    kind: str
    name: str
    """Its proper name."""
    name_as_written: str
    """Its name in the pipeline, which may be an older one; metrics use it."""
    module: ModuleType = field(repr=False)
    config: Any = field(repr=False)
    """The options: a model of the module. Never shown, they may hold secrets."""
    path: str
    """Where it stands: `log-pipeline > processor 2 rename_keys`."""
    file: str
    line: int
    definition: dict[str, Any] = field(default_factory=dict, repr=False)
    """The options as they were written, fit to be shown: references unresolved, secrets masked."""
    secrets: tuple[tuple[str, Reference], ...] = ()
    """References to secrets, each with the option of the plugin that it stands in."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name_as_written}"


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """A sink and what of the events it gets."""

    plugin: PluginPlan
    routes: tuple[str, ...] = ()
    """Names of routes, `_default` included; empty: all events."""
    tags_target_key: str | None = None
    include_keys: tuple[str, ...] = ()
    exclude_keys: tuple[str, ...] = ()
    forward_to: str | None = None
    """Pipeline that gets the events once they are written."""
    target: str | None = None
    """The receiving pipeline where the sink is the connector `pipeline`; else None."""


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    name: str
    workers: int
    delay_ms: int
    buffer_bytes_max: int
    source: PluginPlan | None
    """None: other pipelines write into the buffer."""
    upstreams: tuple[str, ...]
    """Pipelines that send events here, through a connector or `forward_to`."""
    buffer: PluginPlan
    processors: tuple[PluginPlan, ...]
    routes: tuple[tuple[str, Expression], ...]
    sinks: tuple[SinkPlan, ...]
    failure_pipeline: str | None = None
    """Pipeline for events that a processor failed on; None for that pipeline itself and for those behind it."""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        head = f"{self.name} (workers {self.workers}, delay {self.delay_ms} ms, buffer {self.buffer.name_as_written})"
        lines = [head, f"  from {self._sources()}"]
        lines += [f"  processor {n} {plugin.name_as_written}" for n, plugin in enumerate(self.processors, 1)]
        lines += [f"  route {name}: {condition.text}" for name, condition in self.routes]
        for number, sink in enumerate(self.sinks, 1):
            arrow = f" -> {sink.target}" if sink.target else f", then -> {sink.forward_to}" if sink.forward_to else ""
            routes = f" [{', '.join(sink.routes)}]" if sink.routes else ""
            lines.append(f"  sink {number} {sink.plugin.name_as_written}{arrow}{routes}")
        if self.failure_pipeline:
            lines.append(f"  failures -> {self.failure_pipeline}")
        return "\n".join(lines)

    def _sources(self) -> str:
        if self.source is not None:
            return str(self.source)
        return ", ".join(f"pipeline {name}" for name in self.upstreams) or "the failures of other pipelines"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that can run, and everything that is wrong."""

    pipelines: tuple[PipelinePlan, ...] = ()
    """Those that can run, sources before what they feed."""
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    skipped: tuple[str, ...] = ()
    """Pipelines that cannot run, and those connected to them."""
    server: ServerConfig = field(default_factory=ServerConfig)
    extensions: tuple[PluginPlan, ...] = ()

    def __str__(self) -> str:
        parts = [str(pipeline) for pipeline in self.pipelines]
        if self.skipped:
            parts.append(f"skipped: {', '.join(self.skipped)}")
        return "\n\n".join(parts)
