"""How pipelines feed each other: connectors and `forward_to`. Both ends must agree, and nothing may go in a circle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.config.nodes import child, is_null, value_of
from penstock.core.errors import Problem
from penstock.plan.blocks import CONNECTOR, Block, Draft
from penstock.plan.check import connector_name

FAILURE_PIPELINE = "dlq_pipeline"


@dataclass(slots=True)
class Links:
    """Edges between pipelines, by name."""

    downstreams: dict[str, list[str]] = field(default_factory=dict)
    upstreams: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """Mistakes in the graph as a whole: nothing can run with one of these."""

    def add(self, source: str, target: str) -> None:
        if target not in self.downstreams[source]:
            self.downstreams[source].append(target)
            self.upstreams[target].append(source)

    def connected(self, names: Iterable[str]) -> set[str]:
        """These pipelines and all that are connected with them, in either direction."""
        found = set(names)
        todo = list(found)
        while todo:
            name = todo.pop()
            for other in (*self.downstreams[name], *self.upstreams[name]):
                if other not in found:
                    found.add(other)
                    todo.append(other)
        return found

    def behind(self, name: str) -> set[str]:
        """A pipeline and all that its events can reach."""
        found, todo = {name}, [name]
        while todo:
            for other in self.downstreams.get(todo.pop(), ()):
                if other not in found:
                    found.add(other)
                    todo.append(other)
        return found

    def in_order(self) -> list[str]:
        """All pipelines, each behind those that feed it; the failure pipeline last, with what is behind it."""
        late = self.behind(FAILURE_PIPELINE) if FAILURE_PIPELINE in self.downstreams else set()
        order: list[str] = []
        for group in ([n for n in self.downstreams if n not in late], [n for n in self.downstreams if n in late]):
            waiting = list(group)
            while waiting:
                ready = [name for name in waiting if not any(up in waiting for up in self.upstreams[name])]
                ready = ready or waiting  # a circle, which is reported: any order will do
                order += ready
                waiting = [name for name in waiting if name not in ready]
        return order


def link(drafts: Mapping[str, Draft]) -> Links:
    """The edges between the drafts; mistakes are noted in `problems` and in the drafts."""
    links = Links({name: [] for name in drafts}, {name: [] for name in drafts})
    one_sided: set[str] = set()
    for draft in drafts.values():
        for sink in draft.sinks:
            if sink.name == CONNECTOR:
                _connect(links, drafts, draft, sink, one_sided)
    for draft in drafts.values():
        if draft.source is not None and draft.source.name == CONNECTOR and draft.name not in one_sided:
            _check_source(links, drafts, draft, draft.source)
    for draft in drafts.values():
        for sink in draft.sinks:
            _forward(links, drafts, draft, sink)
    for draft in drafts.values():
        if draft.source is None and draft.name not in one_sided:
            _check_headless(links, draft)
    _check_loops(links, drafts)
    return links


def _connect(links: Links, drafts: Mapping[str, Draft], draft: Draft, sink: Block, one_sided: set[str]) -> None:
    target = connector_name(sink)
    if not target:
        message = f"name is a required attribute for sink pipeline plugin, check pipeline: {draft.name}"
        links.problems.append(draft.problem(message, sink.path, label=sink.label, plugin=CONNECTOR))
        return
    path = (*sink.path, "name")
    if target not in drafts:
        message = f"Invalid configuration, no pipeline is defined with name {target}"
        links.problems.append(draft.problem(message, path, label=f"{sink.label} > name", plugin=CONNECTOR))
        return
    source = drafts[target].source
    if source is None or source.name != CONNECTOR or connector_name(source) != draft.name:
        one_sided.add(target)
        links.problems.append(
            drafts[target].problem(
                f"Invalid configuration, expected source {draft.name} for pipeline {target} is missing",
                ("source",),
                label="source",
                suggestion=f"write source: {{pipeline: {{name: {draft.name}}}}} in {target}, "
                f"or take the sink out of {draft.name}",
                plugin=CONNECTOR,
            )
        )
    else:
        links.add(draft.name, target)


def _check_source(links: Links, drafts: Mapping[str, Draft], draft: Draft, source: Block) -> None:
    name = connector_name(source)
    path = ("source",) if source.label == "source pipeline" and source.path == ("source",) else (*source.path, "name")
    if not name:
        message = f"name is a required attribute for source pipeline plugin, check pipeline: {draft.name}"
        links.problems.append(draft.problem(message, path, label=source.label, plugin=CONNECTOR))
    elif name not in drafts:
        message = f"Invalid configuration, no pipeline is defined with name {name}"
        links.problems.append(
            draft.problem(
                message,
                path,
                label=source.label,
                plugin=CONNECTOR,
                suggestion=f"for the plugin {name} write {name}: with a colon below source",
            )
        )
    elif draft.name not in links.downstreams[name]:
        links.problems.append(
            draft.problem(
                f"Invalid configuration, expected sink {draft.name} for pipeline {name} is missing",
                path,
                label=source.label,
                suggestion=f"add the sink pipeline: {{name: {draft.name}}} to {name}",
                plugin=CONNECTOR,
            )
        )


def _forward_target(sink: Block) -> str | None:
    """The pipeline that `forward_to` of a sink names; None where it is wrong, as the check of the options says."""
    node = None if sink.options is None else child(sink.options, "forward_to")
    names = None if node is None else child(node, "pipelines")
    values = None if names is None else value_of(names)
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else None


def _forward(links: Links, drafts: Mapping[str, Draft], draft: Draft, sink: Block) -> None:
    target = _forward_target(sink)
    if target is None:
        return
    path, label = (*sink.path, "forward_to", "pipelines"), f"{sink.label} > forward_to.pipelines"
    if target not in drafts:
        draft.problem(f"forwarding pipeline {target} doesn't exist", path, label=label, plugin=sink.name)
    elif drafts[target].source is not None:
        draft.problem(
            f"forwarding pipeline {target} has a source of its own", path, label=label, plugin=sink.name,
            suggestion=f"take the source out of {target}",
        )  # fmt: skip
    else:
        links.add(draft.name, target)


def _check_headless(links: Links, draft: Draft) -> None:
    """A pipeline without a source needs somebody that sends it events."""
    node = child(draft.located.node, "source")
    if node is not None and not is_null(node):
        return  # what is wrong with the source is said already
    if draft.name != FAILURE_PIPELINE and not links.upstreams[draft.name]:
        draft.problem(
            f"Pipeline {draft.name} has no source, and no other pipeline forwards events to it",
            label="source",
            suggestion="add a source",
        )


def _check_loops(links: Links, drafts: Mapping[str, Draft]) -> None:
    done: set[str] = set()

    for start in drafts:
        trail: list[str] = []
        todo: list[tuple[str, int]] = [(start, 0)]
        while todo:
            name, step = todo.pop()
            if step == 0:
                if name in done:
                    continue
                trail.append(name)
            following = links.downstreams[name]
            if step == len(following):
                done.add(name)
                trail.pop()
                continue
            todo.append((name, step + 1))
            target = following[step]
            if target in trail:
                _report_loop(links, drafts, trail[trail.index(target) :])
            elif target not in done:
                todo.append((target, 0))


def _report_loop(links: Links, drafts: Mapping[str, Draft], circle: list[str]) -> None:
    first = circle[0]
    draft, following = drafts[first], [*circle, first][1]
    sink = next(sink for sink in draft.sinks if following in (connector_name(sink), _forward_target(sink)))
    links.problems.append(
        draft.problem(
            f"Provided configuration results in a loop, check pipeline: {first}",
            sink.path,
            label=sink.label,
            suggestion=f"break the circle {' > '.join([*circle, first])}",
            plugin=sink.name,
        )
    )
