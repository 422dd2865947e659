"""Pipeline files: found, read and merged into one set of pipelines, with every problem located.

A bad file makes one problem; the others are read all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from penstock.config.nodes import MapNode, Node, YamlError, is_null, locate, read_nodes, scalars
from penstock.config.references import BadReference, Reference, parse_reference
from penstock.core.errors import Problem

EXTENSION_KEYS = ("extension", "pipeline_configurations")
RESERVED_NAMES = ("data-prepper", "dataPrepper", "core")
FILES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Located:
    """A node and where its key stands."""

    name: str
    node: Node
    file: str
    line: int

    def line_of(self, path: tuple[str | int, ...]) -> int:
        """Line of the value at a path below this node."""
        return locate(self.node, path, self.line)


@dataclass(frozen=True, slots=True)
class Documents:
    """The pipelines of all files, in the order of the files and their keys."""

    pipelines: dict[str, Located] = field(default_factory=dict)
    versions: tuple[Located, ...] = ()
    extension: Located | None = None
    problems: tuple[Problem, ...] = ()
    """What stands against reading the files at all: with one of these nothing can run."""
    warnings: tuple[Problem, ...] = ()

    def references(self) -> dict[Reference, tuple[Located, tuple[str | int, ...]]]:
        """Every reference in the pipelines with the first place where it stands."""
        found: dict[Reference, tuple[Located, tuple[str | int, ...]]] = {}
        for pipeline in self.pipelines.values():
            for path, scalar in scalars(pipeline.node):
                try:
                    reference = parse_reference(scalar.text)
                except BadReference:
                    continue
                if reference is not None:
                    found.setdefault(reference, (pipeline, path))
        return found


def read_pipelines(path: str | Path) -> Documents:
    """Read a file, or every `*.yaml` and `*.yml` of a directory (not of its subdirectories)."""
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml") and file.is_file())
    elif not path.exists():
        files = []
    if not files:
        hint = "there is no *.yaml or *.yml in this directory" if path.is_dir() else ""
        return Documents(problems=(Problem(f"Pipelines configuration file not found at {path}", suggestion=hint),))
    if len(files) > FILES_MAX:
        return Documents(problems=(Problem(f"More than {FILES_MAX} pipeline files in {path}"),))
    texts: list[tuple[str, bytes]] = []
    unreadable: list[Problem] = []
    for file in files:
        try:
            texts.append((str(file), file.read_bytes()))
        except OSError as error:
            reason = f"Pipeline configuration file not loadable at {file.name}"
            unreadable.append(Problem(reason, file=str(file), suggestion=str(error.strerror or "")))
    return parse_pipelines(texts, unreadable)


def parse_pipelines(texts: list[tuple[str, bytes]], problems: list[Problem] | None = None) -> Documents:
    """The pipelines of texts given with their file names."""
    reader = _Reader(list(problems or []), several=len(texts) > 1)
    for file, data in texts:
        reader.read(file, data)
    if not reader.pipelines and not reader.problems:
        file = texts[0][0] if texts else ""
        reader.problems.append(
            Problem("No valid pipeline is available for execution, exiting", file=file, suggestion="define a pipeline")
        )
    return Documents(
        reader.pipelines, tuple(reader.versions), reader.extension, tuple(reader.problems), tuple(reader.warnings)
    )


class _Reader:
    def __init__(self, problems: list[Problem], *, several: bool) -> None:
        self.pipelines: dict[str, Located] = {}
        self.versions: list[Located] = []
        self.extension: Located | None = None
        self.problems = problems
        self.warnings: list[Problem] = []
        self._several = several

    def read(self, file: str, data: bytes) -> None:
        try:
            root, warnings, duplicates = read_nodes(data)
        except YamlError as error:
            self._unreadable(error, file)
            return
        for duplicate in duplicates:
            self._unreadable(duplicate, file)
        self.warnings += [
            Problem(str(warning), file=file, line=warning.line, severity="warning") for warning in warnings
        ]
        if root is None or is_null(root):
            return
        if not isinstance(root, MapNode):
            message = "Failed to parse the configuration: expected a map of pipelines"
            self._problem(message, file, root.line, suggestion="start with a pipeline's name and a colon")
            return
        for name, (line, node) in root.entries.items():
            self._take(Located(name, node, file, line))

    def _take(self, found: Located) -> None:
        if found.name == "version":
            self.versions.append(found)
        elif found.name in EXTENSION_KEYS:
            self._take_extension(found)
        else:
            self._take_pipeline(found)

    def _take_extension(self, found: Located) -> None:
        if is_null(found.node):
            return
        if self._several:
            self._problem(
                "extension/pipeline_configurations and definition must all be defined in a single YAML file if "
                "extension/pipeline_configurations is configured.",
                found.file,
                found.line,
                path=found.name,
            )
        elif self.extension is not None:
            message = f"Failed to parse the configuration: {found.name} and {self.extension.name} are the same option"
            self._problem(message, found.file, found.line, path=found.name)
        elif not isinstance(found.node, MapNode):
            message = f"Failed to parse the configuration: {found.name} must be a map of extensions"
            self._problem(message, found.file, found.line, path=found.name)
        else:
            self.extension = found

    def _take_pipeline(self, found: Located) -> None:
        name, first = found.name, self.pipelines.get(found.name)
        if name in RESERVED_NAMES:
            self._problem(
                f"Cannot use [{name}] as pipeline names.", found.file, found.line, path=name, suggestion="rename it"
            )
        elif first is not None:
            message = f"Failed to parse the configuration: Duplicate key {name}"
            where = f"the pipeline is defined in {first.file}:{first.line} already"
            self._problem(message, found.file, found.line, path=name, suggestion=where)
        elif not name.strip():
            self._problem("A pipeline must have a name.", found.file, found.line)
        else:
            self.pipelines[name] = found

    def _unreadable(self, error: YamlError, file: str) -> None:
        self._problem(f"Failed to parse the configuration: {error}", file, error.line, suggestion=error.suggestion)

    def _problem(self, message: str, file: str, line: int, *, path: str = "", suggestion: str = "") -> None:
        self.problems.append(Problem(message, path=path, file=file, line=line, suggestion=suggestion))


def bad_references(located: Located) -> list[tuple[tuple[str | int, ...], str]]:
    """Paths below a node where something only looks like a reference, and why it is none."""
    found = []
    for path, scalar in scalars(located.node):
        try:
            parse_reference(scalar.text)
        except BadReference as error:
            found.append((path, str(error)))
    return found


def placeholders(located: Located) -> list[tuple[tuple[str | int, ...], str]]:
    """Paths below a node whose value still holds a `<<placeholder>>` of a blueprint."""
    return [
        (path, scalar.text)
        for path, scalar in scalars(located.node)
        if "<<" in scalar.text and ">>" in scalar.text.partition("<<")[2]
    ]
