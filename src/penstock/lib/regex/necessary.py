"""What must hold for a pattern to match, in forms that are cheaper to find out than whether it matches.

Everything here errs on one side: it may hold for a text that does not match, never fail for one that does.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from penstock.lib.regex.charset import NOTHING, CharSet
from penstock.lib.regex.emit import starts
from penstock.lib.regex.tree import (
    EMPTY,
    Alt,
    At,
    Atomic,
    Back,
    Chars,
    Group,
    Look,
    Node,
    Repeat,
    Seq,
    backwards,
    nullable,
    referred,
    seq,
)

MARK_CHARACTERS_MAX = 4
MARKS_MAX = 24
WINDOW_ITEMS_MAX = 16
SHORT_REPEAT_MAX = 6
WINDOW_SIZE_MAX = 100
OPEN_RUNS_MAX = 1
CHOICES_MAX = 4
LARGE_CHOICE = 24
"""A choice of so many character sets is worth a simpler form."""
WIDE = 1_000
"""A set of so many characters goes on to the end of the line."""

_FREQUENT = CharSet.of(":/-")
_COMMON = CharSet([(ord(low), ord(high)) for low, high in ("09", "AZ", "az")]) | CharSet.of(" _.-\t\n")


def scarce(node: Node) -> tuple[str, int]:
    """Characters, and how many of them every match holds at least; ("", 0) when that tells nothing."""
    sets = required(node)
    counts = {chars: sum(each.issubset(chars) for each in sets) for chars in sets if chars.isdisjoint(_FREQUENT)}
    if not counts:
        return "", 0
    chars = max(counts, key=lambda chars: counts[chars])
    members = "".join(chr(point) for low, high in chars.ranges for point in range(low, high + 1))
    return (members, counts[chars]) if counts[chars] > 1 else ("", 0)


def required(node: Node) -> list[CharSet]:
    """Small sets of rare characters: every match holds one of each set, in this order."""
    match node:
        case Chars(chars):
            return [chars] if 0 < len(chars) <= MARK_CHARACTERS_MAX and chars.isdisjoint(_COMMON) else []
        case Seq(items):
            return [chars for item in items for chars in required(item)][:MARKS_MAX]
        case Alt(options):
            joined = [_union(sets) for sets in zip(*map(required, options), strict=False)]
            return [chars for chars in joined if len(chars) <= MARK_CHARACTERS_MAX]
        case Repeat(item, least):
            return (required(item) * min(least, MARKS_MAX))[:MARKS_MAX]
        case Group(item) | Atomic(item):
            return required(item)
        case Look() | Back() | At():
            return []


def windows(items: list[Node], pivot: tuple[int, str] | None) -> list[list[Node]]:
    """Short pieces that start with a rare character: every match holds one of each list.

    They are what starts at the pivot of the sequence and its end or the last such piece of it, or one of each option of
    a choice.
    """
    if referred(seq(items)):
        return []
    lists: list[list[Node]] = []
    if pivot is not None:
        piece = _piece(items[pivot[0] :])
        if len(piece) > len(pivot[1]):
            lists.append([seq(piece)])
    for place in range(len(items) - 1, -1, -1):
        item = items[place]
        if isinstance(item, Chars) and item.chars.single and item.chars.isdisjoint(_COMMON | _FREQUENT):
            end = items[place:]
            piece = end if sum(map(_open_runs, end)) <= OPEN_RUNS_MAX else _piece(end)
            if len(piece) > 2:
                lists.append([seq(piece)])
                break
    for item in items if not lists else ():
        if isinstance(item, Alt) and len(item.options) <= CHOICES_MAX:
            found = [_longest_piece(flat(option)) for option in item.options]
            if all(len(piece) > 2 for piece in found):
                return [[seq(piece) for piece in found]]
    return lists


def _open_runs(node: Node) -> int:
    """How many runs without an end may have to be gone back through; more than `OPEN_RUNS_MAX` when they are nested."""
    match node:
        case Repeat(Chars(), _, most, mode):
            return int(most is None and mode != "possessive")
        case Repeat(item, _, most, _):
            if most is None:
                return OPEN_RUNS_MAX + 1 if _has_ways(item) else 0
            return _open_runs(item) * most
        case Seq(parts) | Alt(parts):
            return sum(map(_open_runs, parts))
        case Group(item) | Atomic(item) | Look(item):
            return _open_runs(item)
        case Chars() | Back() | At():
            return 0


def _has_ways(node: Node) -> bool:
    """Whether the node may match the same beginning of a text in several ways."""
    match node:
        case Repeat(item, least, most, mode):
            return (mode != "possessive" and least != most) or _has_ways(item)
        case Seq(parts):
            return any(map(_has_ways, parts))
        case Group(item) | Atomic(item):
            return _has_ways(item)
        case Alt() | Back():
            return True
        case Chars() | At() | Look():
            return False


def _longest_piece(items: list[Node]) -> list[Node]:
    pieces = [
        _piece(items[place:])
        for place, item in enumerate(items)
        if isinstance(item, Chars)
        and item.chars.single
        and not item.chars.single.isalnum()
        and item.chars.single != " "
    ]
    return max(pieces, key=len, default=[])


def _piece(items: list[Node]) -> list[Node]:
    """The beginning of the sequence up to its first long item, and what that one can start with."""
    found: list[Node] = []
    for place, item in enumerate(items):
        if isinstance(item, At | Look):
            continue
        if len(found) == WINDOW_ITEMS_MAX:
            break
        if not _short(item):
            rest = seq(items[place:])
            first = starts(rest, NOTHING, through=True)
            if not nullable(rest) and len(first) < WIDE:
                found.append(Chars(first))
            break
        found.append(item)
    return found


def _short(node: Node) -> bool:
    match node:
        case Chars():
            return True
        case Seq(parts) | Alt(parts):
            return _size(node) <= WINDOW_SIZE_MAX and all(map(_short, parts))
        case Group(item):
            return _short(item)
        case Repeat(item, _, most):
            return most is not None and most <= SHORT_REPEAT_MAX and _short(item)
        case At() | Look():
            return True
        case Atomic() | Back():
            return False


def flat(node: Node) -> list[Node]:
    """The node as a sequence; groups and atomic groups dissolve, which can only let more texts match."""
    match node:
        case Seq(items):
            return [part for item in items for part in flat(item)]
        case Group(item) | Atomic(item):
            return flat(item)
        case Repeat(item, 1, 1):
            return flat(item)
        case _:
            return [node]


def guard(node: Node) -> str:
    """A character that stands before a run of nearly any characters in some part of the node; empty: there is none."""
    match node:
        case Seq(items):
            for item, following in pairwise(items):
                if isinstance(item, Chars) and item.chars.single and _wide(following):
                    return item.chars.single
            return next(filter(None, map(guard, items)), "")
        case Alt(options):
            return next(filter(None, map(guard, options)), "")
        case Repeat(item) | Group(item) | Atomic(item):
            return guard(item)
        case _:
            return ""


def without(node: Node, char: str) -> Node | None:
    """The node for texts that do not hold `char`; None when it matches none of them."""
    match node:
        case Chars(chars):
            return None if chars.single == char else node
        case Seq(items):
            parts = [part for item in items if (part := without(item, char)) is not None]
            return seq(parts) if len(parts) == len(items) else None
        case Alt(options):
            parts = [part for option in options if (part := without(option, char)) is not None]
            return Alt(tuple(parts)) if parts else None
        case Repeat(item, least, most, mode):
            part = without(item, char)
            return Repeat(part, least, most, mode) if part is not None else None if least else EMPTY
        case Group(item) | Atomic(item):
            return without(item, char)
        case Look() | Back() | At():
            return node


def looser(items: list[Node]) -> list[Node]:
    """The items of a sequence with runs of characters in place of large choices.

    Only where such a run ends at what comes before it, so that it is found without going back.
    """
    found: list[Node] = []
    for item in items:
        chars = _all_chars(item) if isinstance(item, Alt) and _size(item) >= LARGE_CHOICE else None
        if chars and " " not in chars and chars.isdisjoint(starts(backwards(seq(found)), NOTHING, through=True)):
            least = 0 if nullable(item) else 1
            found.append(Repeat(Chars(chars), least, None if found else least))
        elif isinstance(item, Repeat) and (item.least, item.most) == (0, 1) and found and _size(found[-1]) == 1:
            before = found.pop()  # two ways to go on are told apart faster than a part that may be left out
            found.append(Alt((before, seq([before, item.item]))))
        else:
            found.append(item)
    return found


def _all_chars(node: Node) -> CharSet | None:
    """All characters in what the node matches; None where that is not known."""
    match node:
        case Chars(chars):
            return chars
        case Seq(parts) | Alt(parts):
            sets = [_all_chars(part) for part in parts]
            return None if None in sets else _union(filter(None, sets))
        case Group(item) | Repeat(item) | Atomic(item):
            return _all_chars(item)
        case Look() | At():
            return NOTHING
        case Back():
            return None


def _size(node: Node) -> int:
    """How many character sets the node is made of."""
    match node:
        case Chars():
            return 1
        case Seq(parts) | Alt(parts):
            return sum(map(_size, parts))
        case Group(item) | Repeat(item) | Atomic(item):
            return _size(item)
        case Look() | Back() | At():
            return 0


def _wide(node: Node) -> bool:
    return (
        isinstance(node, Repeat) and node.most is None and isinstance(node.item, Chars) and len(node.item.chars) >= WIDE
    )


def _union(sets: Iterable[CharSet]) -> CharSet:
    whole = NOTHING
    for chars in sets:
        whole |= chars
    return whole
