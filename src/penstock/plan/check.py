"""The plugins of a pipeline, found and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, SecretStr

from penstock.config.documents import bad_references, placeholders
from penstock.config.nodes import MapNode, Path, child, scalars, value_of
from penstock.config.options import NestedProblem, Subject, check_options
from penstock.config.references import BadReference, References, parse_reference, secrets_in
from penstock.config.server import Experimental
from penstock.core.errors import ConfigError, ExpressionSyntaxError, Problem
from penstock.expr import Expression, Template, compile_expression
from penstock.plan.blocks import CONNECTOR, SINK_OPTIONS, Block, Draft, SinkOptions
from penstock.plan.catalog import Found, find, is_experimental
from penstock.plan.graph import PluginPlan, SinkPlan
from penstock.plan.walk import definition, walk
from penstock.sdk import PluginUse

DEFAULT_BUFFER = "bounded_blocking"


class Checker:
    """Checks plugins with one set of references and permissions."""

    def __init__(self, references: References, experimental: Experimental, secret_ids: frozenset[str]) -> None:
        self._references = references
        self._experimental = experimental
        self._secret_ids = secret_ids

    def plugin(self, draft: Draft, block: Block, *, without: frozenset[str] = frozenset()) -> PluginPlan | None:
        """Find a plugin and make its options of the block, some keys left out. What is wrong is noted in the draft."""
        found = self._find(draft, block)
        if found is None:
            return None
        values: dict[str, Any] = {} if block.options is None else value_of(block.options, self._references.read)
        known = set(found.config.model_fields)
        if not known:
            values = self._without_options(draft, block, values, without)
        values = {key: value for key, value in values.items() if key not in without or key in known}
        subject = Subject(
            f' for plugin "{block.name}"',
            "",
            f"Plugin {block.name} in pipeline {draft.name} is configured incorrectly: ",
        )
        config, faults = check_options(found.config, values, subject, {"resolve": self._resolver(draft.name)})
        for fault in faults:
            draft.fault(fault, block.path, block.label, block.name)
        if config is None:
            return None
        written: dict[str, Any] = {} if block.options is None else value_of(block.options)
        self._warn(draft, block, config, written)
        return PluginPlan(
            block.kind,
            found.name,
            block.name,
            found.module,
            config,
            f"{draft.name} > {block.label}",
            draft.located.file,
            draft.located.line_of(block.path),
            definition(config, written),
            () if block.options is None else secrets_in(block.options),
        )

    def default_buffer(self, draft: Draft) -> PluginPlan:
        """The buffer of a pipeline that names none."""
        found = find("buffer", DEFAULT_BUFFER)
        path = f"{draft.name} > buffer"
        located = draft.located
        return PluginPlan(
            "buffer", found.name, found.name, found.module, found.config(), path, located.file, located.line
        )

    def sink(self, draft: Draft, block: Block, routes: Mapping[str, Any]) -> SinkPlan | None:
        """A sink with the options that every sink has."""
        values: dict[str, Any] = {} if block.options is None else value_of(block.options, self._references.read)
        common = {key: value for key, value in values.items() if key in SINK_OPTIONS}
        options, faults = check_options(SinkOptions, common, Subject(f' for plugin "{block.name}"'))
        for fault in faults:
            draft.fault(fault, block.path, block.label, block.name)
        if options is not None:
            self._check_routes(draft, block, options.routes, routes)
            if options.forward_to is not None and (options.forward_to.with_data or options.forward_to.with_metadata):
                message = "with_data and with_metadata of forward_to have no effect."
                draft.problem(
                    message, (*block.path, "forward_to"), label=f"{block.label} > forward_to", severity="warning"
                )
        if block.name == CONNECTOR and not connector_name(block):
            return None  # the links say what is wrong with it
        plugin = self.plugin(draft, block, without=frozenset(SINK_OPTIONS))
        if plugin is None or options is None:
            return None
        return SinkPlan(
            plugin,
            tuple(options.routes),
            options.tags_target_key,
            tuple(options.include_keys),
            tuple(options.exclude_keys),
            options.forward_to.pipelines[0] if options.forward_to else None,
            connector_name(block) if block.name == CONNECTOR else None,
        )

    def routes(self, draft: Draft) -> tuple[tuple[str, Expression], ...]:
        """The conditions of the routes, compiled."""
        compiled = []
        for name, text, index in draft.routes:
            key = "routes" if child(draft.located.node, "routes") is not None else "route"
            path, label = (key, index, name), f"{key} {index + 1} {name}"
            try:
                condition = compile_expression(text)
            except ExpressionSyntaxError as error:
                draft.problem(
                    f"Route {name} contains an invalid conditional expression '{text}'. See "
                    "https://opensearch.org/docs/latest/data-prepper/pipelines/expression-syntax/ for valid "
                    "expression syntax.",
                    path,
                    label=label,
                    suggestion=str(error),
                )
                continue
            compiled.append((name, condition))
            for warning in condition.warnings:
                draft.problem(str(warning), path, label=label, severity="warning")
        return tuple(compiled)

    def values(self, draft: Draft) -> None:
        """Note references that cannot be resolved and placeholders that were left in."""
        label = Labels(draft)
        for path, reason in bad_references(draft.located):
            draft.problem(reason, path, label=label(path))
        for path, scalar in scalars(draft.located.node):
            problem = self._reference_problem(scalar.text)
            if problem:
                draft.problem(problem, path, label=label(path))
        for path, text in placeholders(draft.located):
            message = f"The placeholder {text} was not replaced."
            draft.problem(message, path, label=label(path), severity="warning", suggestion="put your own value there")

    def _reference_problem(self, text: str) -> str | None:
        try:
            reference = parse_reference(text)
        except BadReference:
            return None
        if reference is None:
            return None
        if reference.provider == "aws_secrets" and reference.name not in self._secret_ids:
            return f"Unable to find secretId: {reference.name}"
        return self._references.problem(reference)

    def _without_options(
        self, draft: Draft, block: Block, values: dict[str, Any], without: frozenset[str]
    ) -> dict[str, Any]:
        """A plugin without options takes anything, as in Data Prepper; here it says that it is of no use."""
        for key in values:
            if key not in without:
                self._note(
                    draft, block, (key,), f'Parameter "{key}" has no effect: plugin "{block.name}" has no options.'
                )
        return {}

    def _find(self, draft: Draft, block: Block) -> Found | None:
        try:
            found = find(block.kind, block.name)
        except ConfigError as error:
            for problem in error.problems:
                draft.problem(
                    problem.message, block.path, label=block.label, suggestion=problem.suggestion, plugin=block.name
                )
            return None
        if found.deprecation:
            draft.problem(
                found.deprecation, block.path, label=block.label, severity="warning", plugin=block.name,
                suggestion=f"write {found.name}",
            )  # fmt: skip
        if is_experimental(block.kind, found.name) and not self._experimental.allows(block.kind, found.name):
            draft.problem(
                f"Unable to create experimental plugin {block.name}. You must enable experimental plugins in "
                "data-prepper-config.yaml in order to use them.",
                block.path,
                label=block.label,
                plugin=block.name,
            )
        return found

    def _check_routes(self, draft: Draft, block: Block, used: list[str], routes: Mapping[str, Any]) -> None:
        unknown = [name for name in used if name not in routes and name != "_default"]
        if unknown:
            draft.problem(
                f'The following routes do not exist in pipeline "{draft.name}": [{", ".join(unknown)}]. '
                f"Configured routes include [{', '.join(routes)}]",
                (*block.path, "routes"),
                label=f"{block.label} > routes",
                plugin=block.name,
            )

    def _resolver(self, pipeline: str) -> Any:
        def resolve(kind: str, value: Any) -> PluginUse:
            if not isinstance(value, dict) or not value:
                raise ConfigError(NestedProblem("expected a map with one key, the name of the plugin"))
            name, options = next(iter(value.items()))
            name = str(name)
            try:
                found = find(kind, name)
            except ConfigError as error:
                raise ConfigError(
                    [NestedProblem(p.message, suggestion=p.suggestion, location=(name,)) for p in error.problems]
                ) from None
            if options is not None and options != "" and not isinstance(options, dict):
                message = f"Unexpected value for plugin '{name}': expected an object, null, or no value"
                raise ConfigError(NestedProblem(message, location=(name,)))
            subject = Subject(
                f' for plugin "{name}"', "", f"Plugin {name} in pipeline {pipeline} is configured incorrectly: "
            )
            config, faults = check_options(found.config, options or {}, subject, {"resolve": resolve})
            if config is None:
                raise ConfigError([
                    NestedProblem(f.message, suggestion=f.suggestion, severity=f.severity, location=(name, *f.path))
                    for f in faults
                ])  # fmt: skip
            return PluginUse(kind, found.name, found.module, config)  # type: ignore[arg-type]

        return resolve

    def _warn(self, draft: Draft, block: Block, config: BaseModel, written: dict[str, Any]) -> None:
        """Warn of traps in conditions and of nested plugins of which only the first is used."""
        for path, value in walk(config, written):
            if isinstance(value, PluginUse):
                node = draft.located.node
                for segment in (*block.path, *path):
                    node = child(node, segment) or node
                if isinstance(node, MapNode) and len(node.entries) > 1:
                    self._note(draft, block, path, f"Only the first of [{', '.join(node.entries)}] is used.")
                continue
            if isinstance(value, SecretStr):
                continue
            conditions = value.expressions if isinstance(value, Template) else (value,)
            for warning in (text for condition in conditions for text in condition.warnings):
                self._note(draft, block, path, warning)

    def _note(self, draft: Draft, block: Block, path: Path, message: str) -> None:
        label = " > ".join(part for part in (block.label, ".".join(str(step) for step in path)) if part)
        draft.problem(message, (*block.path, *path), label=label, severity="warning", plugin=block.name)


def connector_name(block: Block) -> str:
    """The pipeline that a connector names; empty where it names none."""
    node = None if block.options is None else child(block.options, "name")
    value = None if node is None else value_of(node)
    return value.strip() if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


class Labels:
    """Readable places of paths below a pipeline."""

    def __init__(self, draft: Draft) -> None:
        buffers = [draft.buffer] if draft.buffer else []
        sources = [draft.source] if draft.source else []
        self._blocks = [*sources, *buffers, *draft.processors, *draft.sinks]

    def __call__(self, path: Path) -> str:
        for block in self._blocks:
            size = len(block.path)
            if path[:size] == block.path:
                return " > ".join(part for part in (block.label, ".".join(str(step) for step in path[size:])) if part)
        return ".".join(str(step) for step in path)


def masked(problems: list[Problem], references: References) -> list[Problem]:
    """The problems without values of references."""
    if not references.values:
        return problems
    return [
        replace(found, message=references.mask(found.message), suggestion=references.mask(found.suggestion))
        for found in problems
    ]
