"""Warnings that need more than one plugin: what sources say of the pipelines around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.core.clock import Clock
from penstock.plan.blocks import Block, Draft
from penstock.plan.graph import PipelinePlan
from penstock.sdk.notes import Around, Note, SinkUse, SourceUse


def add_notes(
    drafts: Mapping[str, Draft], made: Mapping[str, PipelinePlan], upstreams: Mapping[str, Sequence[str]]
) -> None:
    """Ask the source of each pipeline that could be made, and note the warnings in the drafts."""
    now_ms = Clock().now_ms()
    for name, pipeline in made.items():
        source = pipeline.source
        ask = None if source is None else getattr(source.module, "pipeline_notes", None)
        if source is None or ask is None or upstreams[name]:
            continue
        alike = [
            SourceUse(other.name, other.source.config)
            for other in made.values()
            if other.source is not None and other.source.name == source.name and not upstreams[other.name]
        ]
        for note in ask(source.config, Around(_sinks(name, made), alike, now_ms)):
            _add(drafts, name, note)


def _sinks(name: str, made: Mapping[str, PipelinePlan]) -> list[SinkUse]:
    """All sinks behind a pipeline, each once."""
    found: list[SinkUse] = []
    names = [name]
    for reached in names:
        pipeline = made.get(reached)
        for position, sink in enumerate(pipeline.sinks if pipeline is not None else ()):
            if sink.target is None:
                found.append(SinkUse(reached, position, sink.plugin.name, sink.plugin.config))
            elif sink.target not in names:
                names.append(sink.target)
    return found


def _add(drafts: Mapping[str, Draft], name: str, note: Note) -> None:
    draft = drafts[name if note.sink is None else note.sink.pipeline]
    block: Block | None = draft.source if note.sink is None else draft.sinks[note.sink.position]
    assert block is not None, "who is asked stands there"
    label = " > ".join(part for part in (block.label, ".".join(str(step) for step in note.path)) if part)
    draft.problem(
        note.message,
        (*block.path, *note.path),
        label=label,
        suggestion=note.suggestion,
        severity="warning",
        plugin=block.name,
    )
