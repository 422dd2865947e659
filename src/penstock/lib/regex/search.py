"""Searches that refuse most texts cheaply.

A backtracking search tries every position; where the pattern begins like a word, that costs a text that does not match
many times what a match costs. Four things that follow from the pattern come before it:

1. a text that a match must contain is looked for (`in`, a few ten nanoseconds);
2. the beginning of the text is tried: most patterns describe whole lines;
3. the rest of the pattern, from its first telling text on, is tried where that text stands, and behind it the
   beginning of the pattern from right to left;
4. only then every position is, and only those where one of the first characters stands when these are rare.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

from penstock.core.timelimit import interruptible
from penstock.lib.regex.charset import NOTHING, CharSet
from penstock.lib.regex.emit import Keep, has_odd_line_ends, line_sensitive, starts, to_python
from penstock.lib.regex.parse import RegexError
from penstock.lib.regex.tree import (
    At,
    Atomic,
    Chars,
    Group,
    Look,
    Node,
    Repeat,
    Seq,
    backwards,
    groups,
    nullable,
    referred,
    seq,
)

Row = tuple[str | None, ...]
"""What the kept groups matched, None for those that took no part."""

GATE_RARITY_MIN = 1.5
PIVOT_RARITY_MIN = 2.5
PIVOTS_TRIED_MAX = 8
RARE_STARTS_MAX = 24
"""A set of first characters is worth a scan of its own up to this size."""
TELLING_STARTS_MAX = 8
"""Up to this many first characters leave so few positions that trying each of them is cheaper than a pivot."""


class Search:
    """Finds the first match of a tree. Patterns are compiled when they are first needed."""

    def __init__(self, node: Node, keep: Keep = lambda group: True) -> None:
        self._node = node
        self._referred = referred(node)
        self._keep: Keep = lambda group: group.number in self._referred or keep(group)
        captured = [group for group in groups(node) if self._keep(group)]
        self._wanted = [place for place, group in enumerate(captured) if keep(group)]
        self._all_wanted = len(self._wanted) == len(captured)
        self._items = _flat(node)
        self.literal = _gate(self._items)
        """A text without which nothing matches; empty when none is known."""
        self.sensitive = line_sensitive(node)
        """Whether texts with line ends other than `\\n` need a pattern of their own."""
        self._pivot = _pivot(self._items)

    @cached_property
    def plain(self) -> re.Pattern[str]:
        """For texts without odd line ends."""
        return _compile(to_python(self._node, keep=self._keep, plain=True))

    @cached_property
    def exact(self) -> re.Pattern[str]:
        """For every text."""
        return _compile(to_python(self._node, keep=self._keep)) if self.sensitive else self.plain

    @cached_property
    def anywhere(self) -> re.Pattern[str]:
        """Like `plain`, made for searching: `re` skips to the first characters when the pattern starts with them."""
        first = starts(self._node, NOTHING, through=True)
        if nullable(self._node) or len(first) > RARE_STARTS_MAX or isinstance(self._items[0], Chars):
            return self.plain
        return _compile(f"{first.pattern()}(?<=(?={self.plain.pattern})(?s:.))")

    @cached_property
    def rest(self) -> re.Pattern[str] | None:
        """The pattern from its first telling text on, which `re` finds faster than it tries each position."""
        if self._pivot is None:
            return None
        return _compile(to_python(seq(self._items[self._pivot[0] :]), keep=lambda group: False, plain=True))

    @cached_property
    def head_backwards(self) -> re.Pattern[str]:
        """What comes before `rest`, for the reversed text before it; lets more through than can match."""
        assert self._pivot is not None
        return _compile(to_python(backwards(seq(self._items[: self._pivot[0]])), plain=True))

    def possible(self, text: str) -> bool:
        """Whether the two halves of the pattern match beside each other; True also where that takes too long to say."""
        rest, at = self.rest, 0
        if rest is None:
            return True
        for _ in range(PIVOTS_TRIED_MAX):
            found = rest.search(text, at)
            if found is None:
                return False
            at = found.start()
            if self.head_backwards.match(text[:at][::-1]):
                return True
            at += 1
        return True

    def find(self, *, from_start: bool = True) -> Callable[[str], Row | None]:
        """A function that gives the groups of the first match, None when there is none.

        `from_start` is off where texts that match at their beginning have been sorted out before.
        """
        literal, sensitive, compiled = self.literal, self.sensitive, self
        sign = max(literal, key=_rarity, default="")  # one character is looked for even faster
        match = self.plain.match if from_start else _never

        if not self._all_wanted:
            return self._picking()

        @interruptible
        def find(text: str) -> Row | None:
            if sign not in text or literal not in text:
                return None
            if sensitive and ("\r" in text or not text.isascii()) and has_odd_line_ends(text):
                found = compiled.exact.search(text)
                return None if found is None else found.groups()
            found = match(text)
            if found is None:
                if not compiled.possible(text):
                    return None
                found = compiled.anywhere.search(text)
                if found is None:
                    return None
            return found.groups()

        return find

    def _picking(self) -> Callable[[str], Row | None]:
        """`find` for patterns that capture more than is kept, because they refer back to it."""
        wanted, literal, exact = self._wanted, self.literal, self.exact

        @interruptible
        def find(text: str) -> Row | None:
            found = exact.search(text) if literal in text else None
            if found is None:
                return None
            row = found.groups()
            return tuple([row[place] for place in wanted])

        return find


def can_start_with(node: Node, chars: str) -> bool:
    """Whether what the node matches can start with one of `chars`."""
    return bool(starts(node, NOTHING, through=True) & CharSet.of(chars))


def _never(text: str) -> None:
    return None


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise RegexError(f"This regular expression cannot be compiled ({error})", pattern, 0) from None


def _flat(node: Node) -> list[Node]:
    """The node as a sequence; groups and atomic groups dissolve, which can only let more texts match."""
    match node:
        case Seq(items):
            return [part for item in items for part in _flat(item)]
        case Group(item) | Atomic(item):
            return _flat(item)
        case Repeat(item, 1, 1):
            return _flat(item)
        case _:
            return [node]


def _texts(items: list[Node]) -> list[tuple[int, str]]:
    """The fixed texts in a sequence with their places."""
    found: list[tuple[int, str]] = []
    text, start = "", 0
    for place, item in enumerate(items):
        char = item.chars.single if isinstance(item, Chars) else None
        if char is not None:
            start = start if text else place
            text += char
        elif text and not isinstance(item, At | Look):
            found.append((start, text))
            text = ""
    if text:
        found.append((start, text))
    return found


def _rarity(text: str) -> float:
    """How little a text is to be expected in a line of a log."""
    return sum(1.0 if char == " " else 1.5 if char.isalnum() or char in "-./:" else 2.5 for char in text)


def _gate(items: list[Node]) -> str:
    texts = _texts(items)
    for item in items:
        if isinstance(item, Repeat) and item.least:
            texts += _texts(_flat(item.item))
    best = max((text for _, text in texts), key=_rarity, default="")
    return best if _rarity(best) >= GATE_RARITY_MIN else ""


def _pivot(items: list[Node]) -> tuple[int, str] | None:
    """The first telling text behind a beginning that can stand nearly anywhere."""
    if not items or isinstance(items[0], At):
        return None
    if len(starts(seq(items), NOTHING, through=True) & _ASCII) <= TELLING_STARTS_MAX:
        return None
    for place, text in _texts(items):
        if place and _rarity(text) >= PIVOT_RARITY_MIN and not referred(seq(items)):
            return place, text
    return None


_ASCII = CharSet([(0, 0x7F)])
