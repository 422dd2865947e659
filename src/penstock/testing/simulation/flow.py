"""Where each event has to go: a plain reading of the scenario to hold the engine against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.testing.simulation.scenario import NO_ROUTE, PipelineSpec, Scenario, SinkSpec, StageSpec, percent_of

SPLIT_PARTS = 2


def parts_of(stage: StageSpec, token: str) -> list[str]:
    """What a stage makes of the event `token` stands for: nothing, itself, or several."""
    hit = percent_of(stage.name, token) < stage.percent
    if stage.kind == "drop" and hit:
        return []
    if stage.kind == "split" and hit:
        return [f"{token}/{stage.name}.{part}" for part in range(SPLIT_PARTS)]
    return [token]


def part_id(id_: str, token: str) -> str:
    """The id of a part: that of its event, and the same whenever the event is asked for again."""
    _, _, path = token.partition("/")
    return f"{id_}~{path}" if path else id_


def number_of(token: str) -> int:
    """The event a token comes from."""
    return int(token.partition("/")[0])


def chosen(spec: PipelineSpec, sink: SinkSpec, n: int) -> bool:
    """Whether an event goes to a sink of its pipeline."""
    if not sink.routes:
        return True
    matching = {name for name, (low, high) in spec.routes.items() if low <= n < high} or {NO_ROUTE}
    return bool(matching.intersection(sink.routes))


def destinations(
    scenario: Scenario,
    pipeline: PipelineSpec,
    token: str,
    n: int,
    parked: Callable[[str, str], bool],
    refused: Callable[[str, str], bool],
) -> Iterator[tuple[str, str]]:
    """Sink and token for each place that an event has to arrive at.

    An event that was parked in a pipeline need not go on; one that a sink has refused is not forwarded.
    """
    tokens = [token]
    for stage in pipeline.stages:
        tokens = [part for one in tokens if not parked(pipeline.name, one) for part in parts_of(stage, one)]
    for one in tokens:
        if parked(pipeline.name, one):
            continue
        for sink in pipeline.sinks:
            if not chosen(pipeline, sink, n):
                continue
            if sink.kind == "pipeline":
                yield from destinations(scenario, scenario.pipeline(sink.name), one, n, parked, refused)
                continue
            if refused(sink.name, one):
                continue
            yield sink.name, one
            if sink.forward is not None:
                yield from destinations(scenario, scenario.pipeline(sink.forward), one, n, parked, refused)


def sinks_of(scenario: Scenario, pipeline: PipelineSpec) -> Iterator[str]:
    """Every sink that an event may come to from the head of a pipeline."""
    for sink in pipeline.sinks:
        if sink.kind == "pipeline":
            yield from sinks_of(scenario, scenario.pipeline(sink.name))
            continue
        yield sink.name
        if sink.forward is not None:
            yield from sinks_of(scenario, scenario.pipeline(sink.forward))
