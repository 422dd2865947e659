"""What runs where when several processes, the units, share the work of the same pipelines.

A source whose module says `SHARES_WORK = True` runs in every unit: the units share its port, or its partitions by
leases. Every other source runs in the first unit alone, or its events would come in once per unit. A pipeline behind
other pipelines runs wherever one of them does. A plugin that cannot do its work in several units at once says why by
`one_unit_only(config)` in its module; such a pipeline is refused, unless all its events are those of the first unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from penstock.core.errors import Problem
from penstock.plan.graph import PipelinePlan, Plan, PluginPlan


def is_shared(source: PluginPlan) -> bool:
    """Whether several units can run this source, each for a part of its work."""
    return bool(getattr(source.module, "SHARES_WORK", False))


def pipelines_of_all_units(pipelines: Iterable[PipelinePlan]) -> set[str]:
    """Names of the pipelines that run in every unit, not in the first one alone."""
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    alone = {name for name, pipeline in by_name.items() if _reads(pipeline) and not _shares(pipeline)}
    grows = True
    while grows:
        behind = {
            name
            for name, pipeline in by_name.items()
            if name not in alone
            and (ups := [up for up in pipeline.upstreams if up in by_name])
            and all(up in alone for up in ups)
        }
        alone |= behind
        grows = bool(behind)
    return by_name.keys() - alone


def can_share(plan: Plan) -> bool:
    """Whether there is work for a second unit."""
    everywhere = pipelines_of_all_units(plan.pipelines)
    return any(pipeline.name in everywhere and _shares(pipeline) for pipeline in plan.pipelines)


def plan_of_unit(plan: Plan, number: int) -> Plan:
    """What the unit of this number, counted from 1, runs of a plan."""
    if number == 1:
        return plan
    everywhere = pipelines_of_all_units(plan.pipelines)
    pipelines = [
        replace(pipeline, upstreams=tuple(up for up in pipeline.upstreams if up in everywhere))
        for pipeline in plan.pipelines
        if pipeline.name in everywhere
    ]
    return replace(plan, pipelines=tuple(pipelines))


def refusals(pipelines: Mapping[str, PipelinePlan], upstreams: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """A problem for each plugin that would go wrong in several units; `upstreams` says which pipelines feed which."""
    linked = [replace(pipeline, upstreams=tuple(upstreams[name])) for name, pipeline in pipelines.items()]
    everywhere = pipelines_of_all_units(linked)
    for pipeline in linked:
        if pipeline.name not in everywhere:
            continue
        sinks = [sink.plugin for sink in pipeline.sinks]
        sources = [] if pipeline.source is None else [pipeline.source]
        for plugin in (*sources, pipeline.buffer, *pipeline.processors, *sinks):
            ask = getattr(plugin.module, "one_unit_only", None)
            reason, suggestion = (ask(plugin.config) if ask is not None else None) or ("", "")
            if reason:
                yield Problem(
                    f"{plugin.name_as_written} is not supported yet with more than one unit: {reason}",
                    plugin.path,
                    plugin.file,
                    plugin.line,
                    suggestion,
                    pipeline=pipeline.name,
                    plugin=plugin.name_as_written,
                )


def _reads(pipeline: PipelinePlan) -> bool:
    return pipeline.source is not None and not pipeline.upstreams


def _shares(pipeline: PipelinePlan) -> bool:
    return _reads(pipeline) and pipeline.source is not None and is_shared(pipeline.source)
