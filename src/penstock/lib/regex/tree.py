"""What a parsed regular expression is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.lib.regex.charset import CharSet


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of a set."""

    chars: CharSet
    dot: bool = False
    """Written as `.`: everything but a line end."""


@dataclass(frozen=True, slots=True)
class Seq:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    options: tuple[Node, ...]
    """Tried in this order."""


@dataclass(frozen=True, slots=True)
class Repeat:
    item: Node
    least: int
    most: int | None
    mode: Literal["greedy", "lazy", "possessive"] = "greedy"


@dataclass(frozen=True, slots=True)
class Group:
    """A capturing group; `number` counts opening parentheses from 1."""

    item: Node
    number: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Atomic:
    """Once matched, never matched differently."""

    item: Node


@dataclass(frozen=True, slots=True)
class Look:
    item: Node
    ahead: bool
    negative: bool


@dataclass(frozen=True, slots=True)
class Back:
    """What an earlier group matched."""

    number: int
    fold: bool = False
    unicode: bool = False


@dataclass(frozen=True, slots=True)
class At:
    """A place between two characters."""

    kind: Literal["begin", "line_begin", "end", "line_end", "end_or_newline", "boundary", "no_boundary"]
    unix: bool = False
    """Only `\\n` ends a line."""


Node = Chars | Seq | Alt | Repeat | Group | Atomic | Look | Back | At
EMPTY = Seq(())


def seq(items: list[Node]) -> Node:
    """The items one after the other, nested sequences dissolved."""
    flat: list[Node] = []
    for item in items:
        if isinstance(item, Seq):
            flat += item.items
        else:
            flat.append(item)
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))


def nullable(node: Node) -> bool:
    """Whether the node can match without a character; yes where it is not known."""
    match node:
        case Chars():
            return False
        case Seq(items):
            return all(nullable(item) for item in items)
        case Alt(options):
            return any(nullable(option) for option in options)
        case Repeat(item, least):
            return least == 0 or nullable(item)
        case Group(item) | Atomic(item):
            return nullable(item)
        case Look() | Back() | At():
            return True


def may_prefer_nothing(node: Node) -> bool:
    """Whether the node may match without a character at a place where it could match some.

    Greedy quantifiers alone try all ways to match something before the one that matches nothing.
    """
    return nullable(node) and _has_ways_to_shorten(node)


def _has_ways_to_shorten(node: Node) -> bool:
    match node:
        case Alt():
            return True
        case Repeat(item, mode=mode):
            return mode == "lazy" or _has_ways_to_shorten(item)
        case Seq(items):
            return any(map(_has_ways_to_shorten, items))
        case Group(item) | Atomic(item):
            return _has_ways_to_shorten(item)
        case Chars() | Look() | Back() | At():
            return False


def groups(node: Node) -> list[Group]:
    """The capturing groups of a node in the order of their numbers."""
    match node:
        case Seq(parts) | Alt(parts):
            return [group for part in parts for group in groups(part)]
        case Group(item):
            return [node, *groups(item)]
        case Repeat(item) | Atomic(item) | Look(item):
            return groups(item)
        case Chars() | Back() | At():
            return []


def referred(node: Node) -> frozenset[int]:
    """The numbers of the groups that the node refers back to."""
    match node:
        case Back(number):
            return frozenset((number,))
        case Seq(parts) | Alt(parts):
            return frozenset().union(*map(referred, parts))
        case Group(item) | Repeat(item) | Atomic(item) | Look(item):
            return referred(item)
        case Chars() | At():
            return frozenset()


def certain_groups(node: Node) -> list[Group]:
    """The capturing groups that take part in every match of the node."""
    match node:
        case Seq(parts):
            return [group for part in parts for group in certain_groups(part)]
        case Group(item):
            return [node, *certain_groups(item)]
        case Atomic(item) | Look(item, negative=False):
            return certain_groups(item)
        case Repeat(item, least) if least:
            return certain_groups(item)
        case _:
            return []


def backwards(node: Node) -> Node:
    """A node that matches what `node` matches, read from its end; places and ways not to go back are left out."""
    match node:
        case Chars():
            return node
        case Seq(parts):
            return seq([backwards(part) for part in reversed(parts)])
        case Alt(options):
            return Alt(tuple(backwards(option) for option in options))
        case Repeat(item, least, most):
            return Repeat(backwards(item), least, most)
        case Group(item) | Atomic(item):
            return backwards(item)
        case Look() | At():
            return EMPTY
        case Back():
            raise AssertionError("what refers back cannot be read backwards")
