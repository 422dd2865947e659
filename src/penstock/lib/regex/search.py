"""Searches that refuse most texts cheaply.

A backtracking search tries every position; where the pattern begins like a word, that costs a text that does not match
many times what a match costs. Five things that follow from the pattern come before it:

1. a text that a match must contain is looked for (`in`, a few ten nanoseconds);
2. the beginning of the text is tried: most patterns describe whole lines;
3. the rare characters that a match must contain are counted, and a short piece of it is looked for;
4. what comes before the first telling text of the pattern is tried from right to left where that text stands, and the
   rest of the pattern from there on;
5. only then every position is, and only those where one of the first characters stands when these are rare.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

from penstock.core.timelimit import interruptible
from penstock.lib.regex.charset import NOTHING, CharSet
from penstock.lib.regex.emit import Keep, has_odd_line_ends, line_sensitive, starts, to_python
from penstock.lib.regex.necessary import flat, guard, looser, scarce, windows, without
from penstock.lib.regex.parse import RegexError
from penstock.lib.regex.tree import (
    At,
    Chars,
    Group,
    Look,
    Node,
    Repeat,
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
        self._items = flat(node)
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
    def possible(self) -> Callable[[str], bool]:
        """Whether a text without odd line ends can match: True also where that takes too long to say."""
        return self._possible(plain=True)

    @cached_property
    def possible_odd(self) -> Callable[[str], bool]:
        """`possible` for every text."""
        return self._possible(plain=False) if self.sensitive else self.possible

    def _possible(self, *, plain: bool) -> Callable[[str], bool]:
        beside = None if self._pivot is None else self._halves_beside(*self._pivot, plain=plain)
        pieces = [
            [_compile(to_python(piece, keep=_no_group, plain=plain)).search for piece in choice]
            for choice in windows(self._items, self._pivot)
        ]
        rare, least = scarce(self._node)

        def times(text: str, char: str) -> int:
            """How often, up to `least`; in long texts much faster than `count`, which looks at every character."""
            at = -1
            for found in range(least):
                at = text.find(char, at + 1)
                if at < 0:
                    return found
            return least

        @interruptible
        def possible(text: str) -> bool:
            if rare:
                found = 0
                for char in rare:
                    found += times(text, char)
                    if found >= least:
                        break
                else:
                    return False
            for choice in pieces:
                for search in choice:
                    if search(text) is not None:
                        break
                else:
                    return False
            return beside is None or beside(text)

        return possible

    def _halves_beside(self, place: int, pivot: str, *, plain: bool) -> Callable[[str], bool]:
        """Whether what comes before the pivot stands before it, and the rest of the pattern there."""
        head, tail = self._items[:place], self._items[place:]
        after = [Chars(CharSet.of(char)) for char in pivot]

        def before_pivot(items: list[Node]) -> Callable[..., re.Match[str] | None]:
            """For the reversed text; lets more through than can match."""
            return _compile(to_python(backwards(seq([*looser(items), *after])), plain=plain)).search

        char = guard(seq(head))
        simple = without(seq(head), char) if char else None
        in_all = before_pivot(head)
        in_most = before_pivot(flat(simple)) if simple else in_all  # texts without `char`
        rest = None if _always_matches(tail, pivot) else _compile(to_python(seq(tail), keep=_no_group, plain=plain))
        match = None if rest is None else rest.match
        width = len(pivot)

        @interruptible
        def beside(text: str) -> bool:
            end = text.rfind(pivot) + width
            if end < width:
                return False
            before, at = text[:end], 0
            search = in_all if char in before else in_most
            turned = before[::-1]
            for _ in range(PIVOTS_TRIED_MAX):
                found = search(turned, at)
                if found is None:
                    return False
                at = found.start()
                if match is None or match(text, end - at - width):
                    return True
                at += 1
            return True

        return beside

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
            odd = sensitive and ("\r" in text or not text.isascii()) and has_odd_line_ends(text)
            found = match(text) if not odd else compiled.exact.match(text) if from_start else None
            if found is None:
                if not (compiled.possible_odd if odd else compiled.possible)(text):
                    return None
                found = compiled.exact.search(text) if odd else compiled.anywhere.search(text)
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


def _no_group(group: Group) -> bool:
    return False


def _always_matches(items: list[Node], text: str) -> bool:
    """Whether a sequence that starts with `text` matches wherever this text stands."""
    if not all(isinstance(item, Chars) for item in items[: len(text)]):
        return False  # a place between two characters
    return all(isinstance(item, Repeat) and item.least == 0 for item in items[len(text) :])


def _never(text: str) -> None:
    return None


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise RegexError(f"This regular expression cannot be compiled ({error})", pattern, 0) from None


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
            texts += _texts(flat(item.item))
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
