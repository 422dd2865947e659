"""From documents to a plan: everything is checked, every problem is collected, nothing is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penstock.config.documents import Documents, Located
from penstock.config.nodes import value_of
from penstock.config.references import References
from penstock.config.server import ServerConfig, ServerDocument
from penstock.core.errors import Problem
from penstock.core.units import parse_version, version_compatible
from penstock.plan.blocks import CONNECTOR, Draft, take_apart
from penstock.plan.catalog import SINGLE_THREAD
from penstock.plan.check import Checker, connector_name, masked
from penstock.plan.conflicts import conflicts
from penstock.plan.extensions import check_extensions
from penstock.plan.graph import PipelinePlan, Plan, PluginPlan
from penstock.plan.links import FAILURE_PIPELINE, Links, link
from penstock.plan.notes import add_notes
from penstock.plan.units import refusals

COMPATIBLE_VERSION = "2.17"
"""The version of Data Prepper whose pipelines run here."""
PROFILES = ("engine",)


def make_plan(
    documents: Documents,
    *,
    profile: str = "engine",
    server_config: ServerDocument | None = None,
    references: References | None = None,
    units: int = 1,
) -> Plan:
    """Check the documents and connect the pipelines. Does no I/O.

    Without `references` their values are left open (a check offline): options that wait for one are not judged.
    A mistake in the graph as a whole, or in reading the files, lets nothing run; a mistake in one pipeline stops that
    one and those connected to it. With `units` above 1 a pipeline that several processes cannot share is one.
    """
    assert profile in PROFILES, f"unknown profile {profile}"
    server = server_config or ServerDocument(ServerConfig())
    references = references or References()
    fatal = [*documents.problems, *_versions(documents.versions), *server.problems]
    extensions = check_extensions(documents.extension, server.extensions, references)
    checker = Checker(references, server.config.experimental, extensions.secret_ids)
    drafts = {name: take_apart(located, references.read) for name, located in documents.pipelines.items()}
    made = {name: _make(draft, checker) for name, draft in drafts.items()}
    links = link(drafts)
    complete = {name: plan for name, plan in made.items() if plan is not None}
    for conflict in conflicts(complete.values(), extensions.plugins, server.config.server_port):
        drafts[conflict.pipeline].problems.append(conflict)
    add_notes(drafts, complete, links.upstreams)
    if units > 1:
        for refusal in refusals(complete, links.upstreams):
            drafts[refusal.pipeline].problems.append(refusal)
    found = [problem for draft in drafts.values() for problem in draft.problems]
    errors = [problem for problem in found if problem.severity == "error"]
    problems = masked([*fatal, *extensions.problems, *errors], references)
    warnings = [problem for problem in found if problem.severity != "error"]
    warnings = masked([*documents.warnings, *server.warnings, *extensions.warnings, *warnings], references)
    failed = set(drafts)
    if not fatal and not extensions.problems and not links.problems:
        broken = {name for name, pipeline in made.items() if pipeline is None}
        failed = links.connected(broken | {problem.pipeline for problem in errors})
    running = {name: pipeline for name, pipeline in made.items() if name not in failed and pipeline is not None}
    return Plan(
        tuple(_connected(running[name], links, running) for name in links.in_order() if name in running),
        tuple(_by_place(problems, documents)),
        tuple(_by_place(warnings, documents)),
        tuple(name for name in drafts if name not in running),
        server.config,
        extensions.plugins,
    )


def _make(draft: Draft, checker: Checker) -> PipelinePlan | None:
    """The plan of one pipeline alone; None when a part of it cannot be made."""
    source: PluginPlan | None = None
    if draft.source is not None and draft.source.name != CONNECTOR:
        source = checker.plugin(draft, draft.source)
    elif draft.source is not None and draft.source.options is not None:
        _check_connector(draft, checker)
    buffer = checker.default_buffer(draft) if draft.buffer is None else checker.plugin(draft, draft.buffer)
    processors = [checker.plugin(draft, block) for block in draft.processors]
    routes = checker.routes(draft)
    names = {name: None for name, _, _ in draft.routes}
    sinks = [checker.sink(draft, block, names) for block in draft.sinks]
    checker.values(draft)
    _check_zero_buffer(draft)
    if buffer is None or None in processors or None in sinks or (source is None and _wants_source(draft)):
        return None
    return PipelinePlan(
        draft.name,
        draft.options.workers,
        draft.options.delay,
        draft.options.buffer_bytes_max,
        source,
        (),
        buffer,
        tuple(plugin for plugin in processors if plugin is not None),
        routes,
        tuple(sink for sink in sinks if sink is not None),
        None,
        draft.located.file,
        draft.located.line,
    )


def _wants_source(draft: Draft) -> bool:
    return draft.source is not None and draft.source.name != CONNECTOR


def _check_connector(draft: Draft, checker: Checker) -> None:
    assert draft.source is not None
    if connector_name(draft.source) and draft.source.path != ("source",):
        checker.plugin(draft, draft.source)


def _check_zero_buffer(draft: Draft) -> None:
    if draft.buffer is None or draft.buffer.name != "zero":
        return
    block = draft.buffer
    if draft.options.workers > 1:
        draft.problem(
            f"ZeroBuffer cannot be used with multiple processor threads. Pipeline [{draft.name}] is configured with "
            f"{draft.options.workers} threads.",
            ("workers",),
            label=block.label,
            suggestion="set workers to 1",
            plugin="zero",
        )
    if any(processor.name in SINGLE_THREAD for processor in draft.processors):
        draft.problem(
            f"ZeroBuffer cannot be used with @SingleThread processors. Pipeline [{draft.name}] contains one or more "
            "@SingleThread processors.",
            block.path,
            label=block.label,
            suggestion="take the buffer out",
            plugin="zero",
        )


def _connected(pipeline: PipelinePlan, links: Links, running: Mapping[str, Any]) -> PipelinePlan:
    after = links.behind(FAILURE_PIPELINE) if FAILURE_PIPELINE in running else {pipeline.name}
    failures = None if pipeline.name in after else FAILURE_PIPELINE
    return replace(pipeline, upstreams=tuple(links.upstreams[pipeline.name]), failure_pipeline=failures)


def _versions(versions: tuple[Located, ...]) -> list[Problem]:
    problems = []
    for located in versions:
        text = _version_text(located)
        if text is None:
            continue
        try:
            version = parse_version(text)
        except ValueError:
            message = f"Invalid Data Prepper Version provided: {text}"
        else:
            if version_compatible(version, parse_version(COMPATIBLE_VERSION)):
                continue
            message = f"The version: {text} is not compatible with the current version: {COMPATIBLE_VERSION}"
        suggestion = 'write version: "2"'
        problems.append(Problem(message, "version", located.file, located.line, suggestion))
    return problems


def _version_text(located: Located) -> str | None:
    value = value_of(located.node, lambda scalar: scalar.text)
    return None if value in ("", "null", "~") else str(value)


def _by_place(problems: list[Problem], documents: Documents) -> list[Problem]:
    """In the order of the files, then of the lines; equal ones once."""
    files = list(dict.fromkeys(located.file for located in documents.pipelines.values()))

    def place(problem: Problem) -> tuple[int, int]:
        return (files.index(problem.file) if problem.file in files else -1, problem.line)

    return sorted(dict.fromkeys(problems), key=place)
