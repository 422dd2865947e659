"""Extensions of the server configuration and of the pipeline file: found, checked, merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.config.documents import Located
from penstock.config.nodes import MapNode, value_of
from penstock.config.options import Subject, check_options, dotted
from penstock.config.references import References
from penstock.core.errors import ConfigError, Problem
from penstock.plan.catalog import DATA_PREPPER_NAMES, find
from penstock.plan.graph import PluginPlan

SERVER_ONLY = {"aws": ("configurations",), "kafka_cluster_config": ("",)}
"""Extensions, or keys of them, that a pipeline file must not set."""


@dataclass(frozen=True, slots=True)
class Extensions:
    plugins: tuple[PluginPlan, ...] = ()
    secret_ids: frozenset[str] = frozenset()
    """Ids that references to secrets may name."""
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def check_extensions(pipeline_file: Located | None, server: Located | None, references: References) -> Extensions:
    """Check the blocks; a key of the pipeline file stands before the same key of the server configuration."""
    blocks = [block for block in (pipeline_file, server) if block is not None and isinstance(block.node, MapNode)]
    taken: dict[str, Located] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for block in blocks:
        assert isinstance(block.node, MapNode)
        for name, entry in block.node.entries.items():
            located = Located(name, entry.node, block.file, entry.line)
            if block is pipeline_file:
                problems += _refused(located)
            if name not in taken:
                taken[name] = located
            elif name == "aws":
                taken[name] = _merged(taken[name], located)
    plugins = []
    for located in taken.values():
        plugin = _check(located, references, problems, warnings)
        if plugin is not None:
            plugins.append(plugin)
    ids = [name for plugin in plugins for name in getattr(plugin.config, "secrets", {})]
    written = _written_ids(taken.get("aws"))
    return Extensions(tuple(plugins), frozenset((*ids, *written)), tuple(problems), tuple(warnings))


def _written_ids(located: Located | None) -> list[str]:
    """Ids as they are written: a mistake inside one is reported once, not with every reference again."""
    if located is None or not isinstance(located.node, MapNode) or "secrets" not in located.node.entries:
        return []
    node = located.node.entries["secrets"].node
    return list(node.entries) if isinstance(node, MapNode) else []


def _merged(first: Located, second: Located) -> Located:
    """Top-level keys of `aws`: those of the pipeline file stand before those of the server configuration."""
    if not isinstance(first.node, MapNode) or not isinstance(second.node, MapNode):
        return first
    node = MapNode(first.node.line, {**second.node.entries, **first.node.entries})
    return Located(first.name, node, first.file, first.line)


def _refused(located: Located) -> list[Problem]:
    """What of an extension must not stand in a pipeline file."""
    found: list[Problem] = []
    for key in SERVER_ONLY.get(located.name, ()):
        path = (key,) if key else ()
        if key and not (isinstance(located.node, MapNode) and key in located.node.entries):
            continue
        name = "/".join(("", located.name, *path))
        found.append(
            Problem(
                f"Extension {name} cannot be set in a pipeline file.",
                f"extension > {'.'.join((located.name, *path))}",
                located.file,
                located.line_of(path),
                "move it below extensions in data-prepper-config.yaml",
            )
        )
    return found


def _check(
    located: Located, references: References, problems: list[Problem], warnings: list[Problem]
) -> PluginPlan | None:
    name = located.name
    place = f"extension > {name}"
    try:
        found = find("extension", name)
    except ConfigError as error:
        for problem in error.problems:
            if name in DATA_PREPPER_NAMES["extension"]:
                warnings.append(Problem(problem.message, place, located.file, located.line, severity="warning"))
            else:
                text = f"There is no extension named '{name}'; it has no effect."
                warnings.append(Problem(text, place, located.file, located.line, problem.suggestion, "warning"))
        return None
    values: Any = value_of(located.node, references.read)
    subject = Subject(
        f' for extension "{name}"', "", f"Extension /{name} in PipelineExtensions is configured incorrectly: "
    )
    config, faults = check_options(found.config, values if values is not None else {}, subject)
    for fault in faults:
        problem = Problem(
            fault.message, " > ".join(part for part in (place, dotted(fault.path)) if part), located.file,
            located.line_of(fault.path), fault.suggestion, fault.severity, "", name,
        )  # fmt: skip
        (problems if fault.severity == "error" else warnings).append(problem)
    if config is None:
        return None
    return PluginPlan("extension", name, name, found.module, config, place, located.file, located.line)
