"""YAML text as located nodes: every key and value knows its line.

Plain values are read as YAML 1.1: `yes`, `on`, `0x1F`, `1_000` and `1e3` are what they look like; dates and
`12:30:00` stay texts. Anchors and merge keys (`<<: *x`) work. Keys are always texts. A key stands only once: a second
one is a fault, and the rest of the text is read all the same, so that its other faults are told as well.

Limits: `TEXT_BYTES_MAX` per file, `DEPTH_MAX` levels, `NODES_MAX` nodes once all aliases are written out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import yaml

TEXT_BYTES_MAX = 16 * 1024 * 1024
DEPTH_MAX = 100
NODES_MAX = 200_000
DUPLICATES_MAX = 100
_DIGITS_MAX = 1000

Path: TypeAlias = tuple[str | int, ...]


@dataclass(slots=True)
class ScalarNode:
    text: str
    plain: bool
    """Whether the text may be a number, a boolean or null: it stands without quotes and without `!!str`."""
    line: int


@dataclass(slots=True)
class ListNode:
    line: int
    items: list[Node] = field(default_factory=list)


class Entry(NamedTuple):
    line: int
    """Line of the key."""
    node: Node


@dataclass(slots=True)
class MapNode:
    line: int
    entries: dict[str, Entry] = field(default_factory=dict)


Node: TypeAlias = ScalarNode | ListNode | MapNode


class YamlError(ValueError):
    """The text is no YAML of the kind read here."""

    def __init__(self, message: str, line: int = 0, suggestion: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.suggestion = suggestion


class Reading(NamedTuple):
    """The first document of a YAML text."""

    root: Node | None
    """None for an empty text."""
    warnings: list[YamlError]
    duplicates: list[YamlError]
    """Keys that stand a second time, at most `DUPLICATES_MAX`; of their values the first one is in `root`."""


def read_nodes(data: bytes) -> Reading:
    """Read a YAML text. Raises YamlError at the first place that cannot be read."""
    text = _text(data)
    builder = _Builder()
    warnings: list[YamlError] = []
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent) and builder.root is not None:
                start: Any = event.start_mark
                line = start.line + 1
                warnings.append(YamlError("Only the first document of a file is read; this one is ignored.", line))
                break
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        reason = ": ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark else 0
        raise YamlError(reason, line, _hint(text, line, str(error.problem))) from None
    except yaml.reader.ReaderError as error:
        raise YamlError(str(error.reason), text.count("\n", 0, error.position) + 1) from None
    return Reading(builder.root, warnings, builder.duplicates)


def value_of(node: Node, scalar: Callable[[ScalarNode], Any] | None = None) -> Any:
    """The plain Python value of a node: dict, list, text, int, float, bool, None.

    `scalar` reads the scalars where it is given, `scalar_value` else.
    """
    read = scalar or scalar_value
    if isinstance(node, ScalarNode):
        return read(node)
    if isinstance(node, ListNode):
        return [value_of(item, read) for item in node.items]
    return {key: value_of(entry.node, read) for key, entry in node.entries.items()}


def scalar_value(node: ScalarNode) -> Any:
    """What a scalar means: a text, or, when it is plain, perhaps a number, a boolean or null."""
    text = node.text
    if not node.plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _INT.match(text) and len(text) <= _DIGITS_MAX:
        return _int(text.replace("_", ""))
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return _SPECIAL_FLOATS.get(text.lower(), text)


def is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.plain and scalar_value(node) is None


def locate(node: Node, path: Sequence[str | int], line: int = 0) -> int:
    """Line of what stands at `path`; where there is nothing, the line of the nearest parent. `line`: of the node."""
    line = line or node.line
    for segment in path:
        if isinstance(node, MapNode) and segment in node.entries:
            line, node = node.entries[str(segment)]
        elif isinstance(node, ListNode) and isinstance(segment, int) and 0 <= segment < len(node.items):
            node = node.items[segment]
            line = node.line
        else:
            break
    return line


def child(node: Node, segment: str | int) -> Node | None:
    """The node under one key or index."""
    if isinstance(node, MapNode) and isinstance(segment, str):
        entry = node.entries.get(segment)
        return None if entry is None else entry.node
    if isinstance(node, ListNode) and isinstance(segment, int) and 0 <= segment < len(node.items):
        return node.items[segment]
    return None


def scalars(node: Node, path: Path = ()) -> list[tuple[Path, ScalarNode]]:
    """Every scalar below a node with its path."""
    if isinstance(node, ScalarNode):
        return [(path, node)]
    if isinstance(node, ListNode):
        return [found for index, item in enumerate(node.items) for found in scalars(item, (*path, index))]
    return [found for key, entry in node.entries.items() for found in scalars(entry.node, (*path, key))]


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
for _yes, _no in (("yes", "no"), ("true", "false"), ("on", "off")):
    for _case in (str.lower, str.capitalize, str.upper):
        _WORDS[_case(_yes)], _WORDS[_case(_no)] = True, False
_NUMBER_STARTS = frozenset("0123456789+-.")
_INT = re.compile(r"[-+]?(?:0b[01_]*[01][01_]*|0x[0-9a-fA-F_]*[0-9a-fA-F][0-9a-fA-F_]*|0[0-7_]*|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOATS = {
    ".nan": float("nan"),
    ".inf": float("inf"),
    "+.inf": float("inf"),
    "-.inf": float("-inf"),
}
_CORE_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {_CORE_TAG + "str", _CORE_TAG + "timestamp"}
_PLAIN_TAGS = {_CORE_TAG + name for name in ("int", "float", "bool", "null")}


def _int(text: str) -> int:
    digits = text.lstrip("+-")
    base = 16 if digits[:2] == "0x" else 2 if digits[:2] == "0b" else 8 if digits[0] == "0" and len(digits) > 1 else 10
    value = int(digits, base)
    return -value if text[0] == "-" else value


def _text(data: bytes) -> str:
    if len(data) > TEXT_BYTES_MAX:
        raise YamlError(f"the file is larger than {TEXT_BYTES_MAX} bytes")
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"the file is not {'UTF-16' if utf16 else 'UTF-8'} text: {error.reason}"
        raise YamlError(message, data.count(b"\n", 0, error.start) + 1, "save the file as UTF-8") from None


def _hint(text: str, line: int, problem: str) -> str:
    """What most often is behind an error of the parser in this line (from 1)."""
    lines = text.split("\n", line)
    here = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return "indent with spaces: YAML takes no tabs there"
    if problem == "found character that cannot start any token":
        return "put quotes around values that start with %, @ or a backtick, and indent with spaces, not with tabs"
    if problem == "mapping values are not allowed in this context":
        return "check the indentation, and put quotes around a value that holds a colon and a space"
    if problem in ("did not find expected key", "did not find expected '-' indicator"):
        return "check the indentation: what belongs together starts in the same column"
    return ""


@dataclass(slots=True)
class _Open:
    """A list or map that is still being read."""

    node: ListNode | MapNode
    anchor: str | None
    weight: int = 1
    height: int = 1
    key: tuple[str, int] | None = None
    key_again: bool = False
    """The open key stands in the map already: its value is read and left out."""
    merges: list[tuple[Node, int]] = field(default_factory=list)


class _Builder:
    """Makes nodes of parser events, without recursion, and keeps the limits."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int, int]] = {}
        self._weight = 0
        self.duplicates: list[YamlError] = []

    def take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(str(event.anchor), line)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._start(event, line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end(line)

    def _scalar(self, event: Any, line: int) -> None:
        plain: bool = event.implicit[0]
        if event.tag is not None and event.tag != "!":
            plain = event.tag in _PLAIN_TAGS
            if not plain and event.tag not in _TEXT_TAGS:
                raise YamlError(f"the tag {event.tag} is not supported", line)
        elif event.tag == "!":
            plain = False
        holder = self._open[-1] if self._open else None
        if holder is not None and isinstance(holder.node, MapNode) and holder.key is None:
            self._key(holder, holder.node, event.value, line)
            if event.anchor:
                self._anchors[event.anchor] = (ScalarNode(event.value, plain, line), 1, 1)
            return
        node = ScalarNode(event.value, plain, line)
        if event.anchor:
            self._anchors[event.anchor] = (node, 1, 1)
        self._add(node, 1, 1, line)

    def _alias(self, anchor: str, line: int) -> None:
        found = self._anchors.get(anchor)
        if found is None:
            if any(level.anchor == anchor for level in self._open):
                raise YamlError(f"the alias *{anchor} stands inside its own anchor", line)
            raise YamlError(f"there is no anchor &{anchor} for the alias *{anchor}", line)
        node, weight, height = found
        holder = self._open[-1]
        if isinstance(holder.node, MapNode) and holder.key is None:
            if not isinstance(node, ScalarNode):
                raise YamlError("a key must be a text", line)
            self._key(holder, holder.node, node.text, line)
            return
        self._add(node, weight, height, line)

    def _key(self, holder: _Open, node: MapNode, key: str, line: int) -> None:
        holder.key, holder.key_again = (key, line), key in node.entries
        if holder.key_again and len(self.duplicates) < DUPLICATES_MAX:
            first = f"{key} stands in line {node.entries[key].line} already"
            self.duplicates.append(YamlError(f"Duplicate field '{key}'", line, first))

    def _start(self, event: Any, line: int) -> None:
        is_map = isinstance(event, yaml.MappingStartEvent)
        expected = _CORE_TAG + ("map" if is_map else "seq")
        if event.tag is not None and event.tag not in ("!", expected):
            raise YamlError(f"the tag {event.tag} is not supported", line)
        if self._open and isinstance(self._open[-1].node, MapNode) and self._open[-1].key is None:
            raise YamlError("a key must be a text", line)
        if len(self._open) >= DEPTH_MAX:
            raise YamlError(f"more than {DEPTH_MAX} levels", line)
        if event.anchor:
            self._anchors.pop(event.anchor, None)
        self._open.append(_Open(MapNode(line) if is_map else ListNode(line), event.anchor))

    def _end(self, line: int) -> None:
        done = self._open.pop()
        if isinstance(done.node, MapNode):
            _merge(done.node, done.merges)
        if done.anchor:
            self._anchors[done.anchor] = (done.node, done.weight, done.height)
        self._add(done.node, done.weight, done.height, line, counted=True)

    def _add(self, node: Node, weight: int, height: int, line: int, *, counted: bool = False) -> None:
        """Put a finished node into the list or map that is open."""
        self._weight += 1 if counted else weight
        if self._weight > NODES_MAX:
            raise YamlError(f"more than {NODES_MAX} values once every alias is written out", line)
        if len(self._open) + height > DEPTH_MAX + 1:
            raise YamlError(f"more than {DEPTH_MAX} levels", line)
        if not self._open:
            self.root = node
            return
        holder = self._open[-1]
        holder.weight += weight
        holder.height = max(holder.height, height + 1)
        if isinstance(holder.node, ListNode):
            holder.node.items.append(node)
            return
        assert holder.key is not None, "a value without a key"
        key, key_line = holder.key
        holder.key = None
        if holder.key_again:
            return
        if key == "<<":
            holder.merges.append((node, key_line))
        else:
            holder.node.entries[key] = Entry(key_line, node)


def _merge(into: MapNode, merges: list[tuple[Node, int]]) -> None:
    """`<<: *defaults`: keys that the map does not have itself; earlier maps win."""
    for node, line in merges:
        for source in node.items if isinstance(node, ListNode) else [node]:
            if not isinstance(source, MapNode):
                raise YamlError("a merge key (<<) takes a map or a list of maps", line)
            for key, entry in source.entries.items():
                into.entries.setdefault(key, entry)
