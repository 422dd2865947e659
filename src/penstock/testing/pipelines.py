"""Run whole pipelines in memory: sources are fed, sinks are watched."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.config.documents import parse_pipelines
from penstock.core.batch import Body
from penstock.core.errors import ConfigError
from penstock.plan import Plan, make_plan
from penstock.runtime.engine import Engine, Settings
from penstock.testing.fakes import ListSource, MemoryDeadLetters, MemorySink
from penstock.testing.result import Result, batch_of
from penstock.testing.virtual import LoopClock, VirtualLoop

BATCH_EVENTS = 100


def run_pipeline(yaml_text: str, inputs: Sequence[Body] | Mapping[str, Sequence[Body]]) -> dict[str, list[Result]]:
    """What arrives at each sink, by `<pipeline>/<number of the sink, from 0>`.

    The pipelines run as they are written, but for their sources and sinks: `inputs` stands for what the source brings
    (of every pipeline that has one, or by pipeline name). Time is virtual. Events that a plugin failed on are under
    `<pipeline>/dlq`. Raises `penstock.ConfigError` with everything that is wrong.
    """
    plan = make_plan(parse_pipelines([("pipeline.yaml", yaml_text.encode())]))
    if plan.problems:
        raise ConfigError(list(plan.problems))
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(plan, inputs))


async def _run(plan: Plan, inputs: Sequence[Body] | Mapping[str, Sequence[Body]]) -> dict[str, list[Result]]:
    clock = LoopClock(asyncio.get_running_loop())
    sources: dict[str, Any] = {}
    sinks: dict[tuple[str, int], MemorySink] = {}
    for pipeline in plan.pipelines:
        if pipeline.source is not None:
            events = inputs.get(pipeline.name, ()) if isinstance(inputs, Mapping) else inputs
            batches = [
                batch_of(events[start : start + BATCH_EVENTS], received_ms=clock.now_ms())
                for start in range(0, len(events), BATCH_EVENTS)
            ]
            sources[pipeline.name] = ListSource(batches)
        for index, sink in enumerate(pipeline.sinks):
            if sink.target is None:
                sinks[pipeline.name, index] = MemorySink()
    letters = MemoryDeadLetters()
    settings = Settings(sources=sources, sinks=sinks, dead_letters=letters, environ={}, seed=1, drain_timeout_s=3600.0)
    engine = Engine(plan, settings, clock=clock)
    await engine.run()
    found = {
        f"{name}/{index}": [
            Result(body, sorted(tags), attributes, event_type) for body, tags, attributes, event_type in sink.events
        ]
        for (name, index), sink in sinks.items()
    }
    for letter in letters.letters:
        found.setdefault(f"{letter.pipeline_name}/dlq", []).append(Result(letter.failed_data["document"]))
    return found
