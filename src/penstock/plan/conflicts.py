"""What is right by itself but cannot run beside the rest: one port taken twice, a missing extension."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from penstock.core.errors import Problem
from penstock.plan.graph import PipelinePlan, PluginPlan


def conflicts(
    pipelines: Iterable[PipelinePlan], extensions: Iterable[PluginPlan], admin_port: int
) -> Iterator[Problem]:
    """A warning for each source that wants a port which is taken, and each plugin whose extension is not configured.

    They are no errors: the rest runs, and who checks a part of a configuration may have the extension elsewhere.
    """
    taken = {admin_port: "the admin endpoints"} if admin_port else {}
    configured = {extension.name for extension in extensions}
    for pipeline in pipelines:
        source = pipeline.source
        port = None if source is None else getattr(source.config, "port", None)
        if source is not None and isinstance(port, int) and port:
            if port in taken:
                yield _problem(
                    pipeline,
                    source,
                    f"Port {port} is taken by {taken[port]} already.",
                    "choose another port, or let one pipeline take everything and route it to others",
                )
            taken.setdefault(port, f"the {source.name_as_written} source of pipeline {pipeline.name}")
        for plugin in pipeline.processors:
            needed = getattr(plugin.module, "NEEDS_EXTENSION", None)
            if needed is not None and needed not in configured:
                yield _problem(
                    pipeline,
                    plugin,
                    f"{needed} configuration is required when using {plugin.name_as_written} processor.",
                    f"configure {needed} under extensions of data-prepper-config.yaml or pipeline_configurations",
                )


def _problem(pipeline: PipelinePlan, plugin: PluginPlan, message: str, suggestion: str) -> Problem:
    return Problem(
        message,
        plugin.path,
        plugin.file,
        plugin.line,
        suggestion,
        "warning",
        pipeline=pipeline.name,
        plugin=plugin.name_as_written,
    )
