"""The shape of a pipeline: which plugin stands where, before any of them is looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import AliasChoices, Field, field_validator, model_validator

from penstock import sdk
from penstock.config.documents import Located
from penstock.config.models import option_names
from penstock.config.nodes import Entry, ListNode, MapNode, Node, Path, ScalarNode, child, is_null, scalar_value
from penstock.config.options import Fault, Subject, check_options
from penstock.core.errors import Problem

CONNECTOR = "pipeline"
BUFFER_BYTES_MAX = 64 * 1024 * 1024
WORKERS_MAX = 1000


class PipelineOptions(sdk.PluginConfig):
    """The keys of a pipeline."""

    workers: int = 1
    """How many batches may be under way between buffer and sinks."""
    delay: int = 3000
    """Longest time a worker waits to fill a batch, ms."""
    source: Any = None
    """Where events come from: one plugin, or the name of another pipeline. None where others forward to this one."""
    buffer: Any = None
    """What holds events between source and processors: `bounded_blocking` unless set."""
    processor: Any = None
    """Plugins that change events, in order."""
    routes: Annotated[Any, Field(validation_alias=AliasChoices("routes", "route"))] = None
    """Named conditions that sinks choose events by."""
    sink: Any = None
    """Plugins that events go to."""
    buffer_bytes_max: sdk.ByteSize = BUFFER_BYTES_MAX
    """Most bytes of events held in the buffer and on their way to the sinks."""

    @field_validator("workers")
    @classmethod
    def _workers(cls, value: int) -> int:
        if value <= 0:
            raise ValueError(f"Invalid configuration, workers cannot be {value}")
        if value > WORKERS_MAX:
            raise ValueError(f"Invalid configuration, workers cannot be {value}: at most {WORKERS_MAX}")
        return value

    @field_validator("delay")
    @classmethod
    def _delay(cls, value: int) -> int:
        if value < 0:
            raise ValueError("Invalid configuration, delay must be a non-negative integer.")
        return value

    @field_validator("buffer_bytes_max")
    @classmethod
    def _bytes(cls, value: int) -> int:
        if value <= 0:
            raise ValueError("Invalid configuration, buffer_bytes_max must be positive.")
        return value


class ForwardTo(sdk.PluginConfig):
    """A pipeline that gets events after a sink has written them."""

    pipelines: list[str]
    """Exactly one name."""
    with_data: dict[str, Any] = Field(default_factory=dict)
    """Has no effect, as in Data Prepper."""
    with_metadata: dict[str, Any] = Field(default_factory=dict)
    """Has no effect, as in Data Prepper."""

    @field_validator("pipelines")
    @classmethod
    def _one(cls, value: list[str]) -> list[str]:
        if len(value) != 1:
            raise ValueError("Supports only one forwarding pipeline")
        return value


class SinkOptions(sdk.PluginConfig):
    """Options of every sink."""

    routes: list[str] = Field(default_factory=list)
    """Events of these routes only; `_default` stands for events of no route. Empty: all events."""
    tags_target_key: str | None = None
    """Key that gets the tags of the event."""
    include_keys: list[str] = Field(default_factory=list)
    """Only these top-level keys are written."""
    exclude_keys: list[str] = Field(default_factory=list)
    """These top-level keys are not written."""
    forward_to: ForwardTo | None = None
    """Pipeline without a source that gets the events once they are written."""

    @field_validator("include_keys")
    @classmethod
    def _include(cls, value: list[str]) -> list[str]:
        return _plain_keys("include_keys", value)

    @field_validator("exclude_keys")
    @classmethod
    def _exclude(cls, value: list[str]) -> list[str]:
        return _plain_keys("exclude_keys", value)

    @model_validator(mode="after")
    def _not_both(self) -> SinkOptions:
        if self.include_keys and self.exclude_keys:
            raise ValueError("include_keys and exclude_keys cannot both exist in the configuration at the same time.")
        return self


def _plain_keys(option: str, keys: list[str]) -> list[str]:
    if any("/" in key for key in keys):
        raise ValueError(f"{option} cannot contain /")
    return sorted(keys)


SINK_OPTIONS = option_names(SinkOptions)


@dataclass(frozen=True, slots=True)
class Block:
    """One plugin as it is written."""

    kind: str
    name: str
    label: str
    """`processor 2 rename_keys`"""
    path: Path
    """Where its options stand below the pipeline."""
    options: Node | None
    """None: it has none."""
    number: int = 0


@dataclass(slots=True)
class Draft:
    """A pipeline that was taken apart, with what is wrong about its shape."""

    located: Located
    read: Callable[[ScalarNode], Any]
    options: PipelineOptions = field(default_factory=PipelineOptions)
    source: Block | None = None
    buffer: Block | None = None
    processors: list[Block] = field(default_factory=list)
    routes: list[tuple[str, str, int]] = field(default_factory=list)
    """Name, condition, position."""
    sinks: list[Block] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.located.name

    def problem(
        self, message: str, path: Path = (), *, label: str = "", suggestion: str = "", severity: str = "error",
        plugin: str = "",
    ) -> Problem:  # fmt: skip
        """Note a problem at a path below the pipeline."""
        found = Problem(
            message,
            " > ".join(part for part in (self.name, label) if part),
            self.located.file,
            self.located.line_of(path),
            suggestion,
            severity,
            self.name,
            plugin,
        )
        self.problems.append(found)
        return found

    def fault(self, fault: Fault, base: Path, label: str, plugin: str = "") -> None:
        """Note a fault of options that stand at `base`."""
        label = " > ".join(part for part in (label, ".".join(str(step) for step in fault.path)) if part)
        self.problem(
            fault.message, (*base, *fault.path), label=label, suggestion=fault.suggestion, severity=fault.severity,
            plugin=plugin,
        )  # fmt: skip


def take_apart(located: Located, read: Callable[[ScalarNode], Any]) -> Draft:
    """The blocks of a pipeline. What has the wrong shape is noted and left out."""
    draft = Draft(located, read)
    node = located.node
    if not isinstance(node, MapNode):
        draft.problem(
            f'Parameter "{located.name}" is invalid: expected a map with source, processor and sink.',
            suggestion="indent the keys of the pipeline below its name",
        )
        return draft
    _take_options(draft, node)
    _take_source(draft, child(node, "source"))
    buffer = child(node, "buffer")
    if buffer is not None and not is_null(buffer):
        draft.buffer = _block(draft, "buffer", buffer, ("buffer",))
    _take_processors(draft, child(node, "processor"))
    for key in ("routes", "route"):
        _take_routes(draft, child(node, key), key)
    _take_sinks(draft, child(node, "sink"))
    return draft


def _take_options(draft: Draft, node: MapNode) -> None:
    values: dict[str, Any] = {key: None for key in node.entries}
    for key in ("workers", "delay", "buffer_bytes_max"):
        scalar = child(node, key)
        if isinstance(scalar, ScalarNode):
            values[key] = draft.read(scalar)
        elif scalar is not None:
            values[key] = [] if isinstance(scalar, ListNode) else {}
    options, faults = check_options(PipelineOptions, values, Subject(root=draft.name + "."))
    for fault in faults:
        holder = _empty_before(node, fault.path[0]) if len(fault.path) == 1 else None
        if holder is not None and not fault.suggestion:
            fault = replace(fault, suggestion=f"indent {fault.path[0]} below {holder}")
        draft.fault(fault, (), "")
    draft.options = options or draft.options


def _empty_before(node: MapNode, key: str | int) -> str | None:
    """The part of a pipeline that stands empty right before an unknown key."""
    if key in option_names(PipelineOptions):
        return None
    names = list(node.entries)
    before = names[names.index(str(key)) - 1] if key in names[1:] else ""
    empty = before in ("source", "buffer", "processor", "sink") and is_null(node.entries[before].node)
    return before if empty else None


def _take_source(draft: Draft, node: Node | None) -> None:
    if node is None or is_null(node):
        return
    if isinstance(node, ScalarNode):  # short form: the name of another pipeline
        options = MapNode(node.line)
        options.entries["name"] = Entry(node.line, node)
        draft.source = Block("source", CONNECTOR, "source pipeline", ("source",), options)
        return
    if isinstance(node, ListNode):
        draft.problem(
            "A pipeline has exactly one source, not a list.", ("source",), label="source",
            suggestion="give each source a pipeline of its own and connect them to a common one",
        )  # fmt: skip
        return
    names = list(node.entries)
    if len(names) > 1:
        draft.problem(
            f"A pipeline has exactly one source, found [{', '.join(names)}].",
            ("source", names[1]),
            label=f"source {names[1]}",
            suggestion=f"move {names[1]} into a pipeline of its own",
            plugin=names[1],
        )
    if names:
        draft.source = _named_block(draft, "source", names[0], node, ("source",), f"source {names[0]}")
    else:
        draft.problem("A source is a map with one key, the name of the plugin.", ("source",), label="source")


def _take_processors(draft: Draft, node: Node | None) -> None:
    if node is None or is_null(node):
        return
    if not isinstance(node, ListNode):
        draft.problem(
            f'Parameter "{draft.name}.processor" is invalid: expected a list of plugins.', ("processor",),
            label="processor", suggestion="put a dash before each processor",
        )  # fmt: skip
        return
    for index, item in enumerate(node.items):
        block = _block(draft, "processor", item, ("processor", index), index + 1)
        if block is not None:
            draft.processors.append(block)


def _take_sinks(draft: Draft, node: Node | None) -> None:
    if node is None or is_null(node):
        draft.problem("Sinks must not be null", ("sink",), label="sink", suggestion="add a sink")
        return
    if isinstance(node, MapNode):  # without dashes: each key is a sink
        for number, name in enumerate(node.entries, 1):
            draft.sinks.append(_named_block(draft, "sink", name, node, ("sink",), f"sink {number} {name}", number))
    elif isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            block = _block(draft, "sink", item, ("sink", index), index + 1)
            if block is not None:
                draft.sinks.append(block)
    else:
        _not_a_block(draft, "sink", node, ("sink",), "sink")
        return
    if not (node.entries if isinstance(node, MapNode) else node.items):
        message = "Invalid configuration, at least one sink is required"
        draft.problem(message, ("sink",), label="sink", suggestion="add a sink")


def _take_routes(draft: Draft, node: Node | None, key: str) -> None:
    if node is None or is_null(node):
        return
    if not isinstance(node, ListNode):
        draft.problem(
            f'Parameter "{draft.name}.{key}" is invalid: expected a list of routes.', (key,), label=key,
            suggestion="put a dash before each route",
        )  # fmt: skip
        return
    for index, item in enumerate(node.items):
        path, label = (key, index), f"{key} {index + 1}"
        if not isinstance(item, MapNode) or not item.entries:
            message = "A route is a map with one key, its name, and a condition."
            draft.problem(message, path, label=label, suggestion="write - name: 'condition'")
        elif len(item.entries) > 1:
            draft.problem("Route has too many fields.", path, label=label, suggestion="put a dash before each route")
        else:
            ((name, entry),) = item.entries.items()
            if isinstance(entry.node, ScalarNode) and isinstance(scalar_value(entry.node), str):
                draft.routes.append((name, entry.node.text, index))
            else:
                message = "Route has a condition which is not a string."
                draft.problem(message, (*path, name), label=f"{label} {name}", suggestion="put quotes around it")


def _block(draft: Draft, kind: str, node: Node, path: Path, number: int = 0) -> Block | None:
    label = f"{kind} {number}" if number else kind
    if not isinstance(node, MapNode) or len(node.entries) != 1:
        _not_a_block(draft, kind, node, path, label)
        return None
    (name,) = node.entries
    return _named_block(draft, kind, name, node, path, f"{label} {name}", number)


def _not_a_block(draft: Draft, kind: str, node: Node, path: Path, label: str) -> None:
    message = f"A {kind} is a map with one key, the name of the plugin"
    suggestion = ""
    if isinstance(node, MapNode) and node.entries:
        message += f"; found [{', '.join(node.entries)}]"
        suggestion = "indent its options below its name, or put a dash before each plugin"
    elif isinstance(node, ScalarNode) and node.text:
        suggestion = f"write {node.text}: with a colon"
    draft.problem(message + ".", path, label=label, suggestion=suggestion)


def _named_block(draft: Draft, kind: str, name: str, node: MapNode, path: Path, label: str, number: int = 0) -> Block:
    path = (*path, name)
    options: Node | None = node.entries[name].node
    if isinstance(options, ScalarNode):
        value = scalar_value(options)
        if isinstance(value, str) and value:
            draft.problem(
                f"String values not allowed for plugin '{name}'", path, label=label, plugin=name,
                suggestion=f"put the options of {name} below it",
            )  # fmt: skip
        elif value is not None and value != "":
            token = "VALUE_FALSE" if value is False else _TOKENS[type(value)]
            draft.problem(_unexpected(name, token), path, label=label, plugin=name)
        options = None
    elif isinstance(options, ListNode):
        draft.problem(_unexpected(name, "START_ARRAY"), path, label=label, plugin=name)
        options = None
    return Block(kind, name, label, path, options, number)


_TOKENS = {bool: "VALUE_TRUE", int: "VALUE_NUMBER_INT", float: "VALUE_NUMBER_FLOAT"}


def _unexpected(name: str, token: str) -> str:
    return f"Unexpected value for plugin '{name}': expected an object, null, or no value, but got {token}"
