"""Writes a tree as a pattern for Python's `re`.

Java ends lines at five characters, `re` at one. A *plain* pattern is right for texts without the other four
(`has_odd_line_ends`) and uses the faster `.`; an exact one is right for every text.

Single-character repeats become possessive where what follows cannot start with one of their characters: nothing is
lost, and `re` keeps no way back. Possessive repeats of groups are written as atomic groups, because `re` matches the
former wrongly before CPython 3.11.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

from penstock.lib.regex.charset import ANYTHING, NEWLINE, NOTHING, CharSet
from penstock.lib.regex.parse import RegexError
from penstock.lib.regex.tree import EMPTY, Alt, At, Atomic, Back, Chars, Group, Look, Node, Repeat, Seq, nullable, seq

LOOKBEHIND_WIDTHS_MAX = 64
STEP_ENDS_MAX = 4
"""A greedy repeat is worth stepping where it seldom finds a place to end."""

Keep = Callable[[Group], bool]
Follow = CharSet
"""Characters that what follows can start with. Empty: nothing follows, or nothing that can fail."""

_OTHER_ENDS = r"\r\x85\u2028\u2029"
_PLACES = {
    "begin": r"\A",
    "end": r"\Z",
    "boundary": r"\b",
    "no_boundary": r"\B",
}
_PLAIN_LINES = {
    "end_or_newline": "$",
    "line_begin": r"(?:(?!\Z)(?:\A|(?<=\n)))",
    "line_end": "(?m:$)",
}
_EXACT_LINES = {
    "end_or_newline": rf"(?:\Z|(?=\r\n\Z)|(?<!\r)(?=\n\Z)|(?=[{_OTHER_ENDS}]\Z))",
    "line_begin": r"(?:(?!\Z)(?:\A|(?<=[\n\x85\u2028\u2029])|(?<=\r)(?!\n)))",
    "line_end": rf"(?:\Z|(?<!\r)(?=\n)|(?=[{_OTHER_ENDS}]))",
}


def has_odd_line_ends(text: str) -> bool:
    """Whether `text` holds a line end other than `\\n`."""
    return "\r" in text or not (
        text.isascii() or ("\x85" not in text and "\u2028" not in text and "\u2029" not in text)
    )


def line_sensitive(node: Node) -> bool:
    """Whether a plain and an exact pattern of this node differ."""
    match node:
        case Chars(_, dot):
            return dot
        case At(kind, unix):
            return kind in _EXACT_LINES and not unix
        case Seq(parts) | Alt(parts):
            return any(line_sensitive(part) for part in parts)
        case Group(item) | Repeat(item) | Atomic(item) | Look(item):
            return line_sensitive(item)
        case Back():
            return False


def to_python(node: Node, *, keep: Keep = lambda group: True, plain: bool = False) -> str:
    """The node as a pattern for `re`, without flags; only the groups that `keep` names capture.

    Groups are numbered anew. Raises `RegexError` for a lookbehind without a limit.
    """
    return _Writer(keep, plain).write(node, NOTHING)


class _Writer:
    def __init__(self, keep: Keep, plain: bool) -> None:
        self.keep = keep
        self.plain = plain
        self.numbers: dict[int, int] = {}

    def write(self, node: Node, follow: Follow) -> str:  # noqa: C901 (one case for each kind of node)
        match node:
            case Chars(chars, dot):
                return "." if dot and self.plain else chars.pattern()
            case Seq(items):
                return self.sequence(items, follow)
            case Alt(options):
                return "|".join(self.write(option, follow) for option in options)
            case Repeat():
                return self.repeat(node, follow)
            case Group(item, number):
                if not self.keep(node):
                    return self.wrapped(item, follow)
                self.numbers[number] = len(self.numbers) + 1
                return f"({self.write(item, follow)})"
            case Atomic(item):
                return f"(?>{self.write(item, NOTHING)})"
            case Look(item, ahead, negative):
                return self.look(item, ahead, negative)
            case Back(number, fold, unicode):
                if number not in self.numbers:
                    return "(?!)"  # the group has not been opened yet
                inner = f"(?:\\{self.numbers[number]})"
                return f"(?{'' if unicode else 'a'}i:{inner})" if fold else inner
            case At(kind, unix):
                if kind in _PLACES:
                    return _PLACES[kind]
                return _PLAIN_LINES[kind] if self.plain or unix else _EXACT_LINES[kind]

    def sequence(self, items: tuple[Node, ...], follow: Follow) -> str:
        follows: list[Follow] = []
        for item in reversed(items):
            follows.append(follow)
            follow = starts(item, follow)
        return "".join(
            self.wrapped(item, after) for item, after in zip(items, reversed(follows), strict=True)
        )  # from the left, so that groups are numbered in order

    def wrapped(self, node: Node, follow: Follow) -> str:
        """The node where another one may stand beside it."""
        text = self.write(node, follow)
        return f"(?:{text})" if isinstance(node, Alt) else text

    def repeat(self, node: Repeat, follow: Follow) -> str:
        item, mode = node.item, node.mode
        one = isinstance(item, Chars)
        if one and mode == "greedy" and node.least != node.most and item.chars.isdisjoint(follow):  # type: ignore[union-attr]
            mode = "possessive"
        if one and node.most is None and mode != "possessive" and (text := self.stepwise(node, follow)):
            return text
        after = follow | starts(item, follow) if node.most != 1 else follow
        text = self.write(item, after if mode != "possessive" or one else NOTHING)
        if not one:
            text = f"(?:{text})"
        count = _count(node.least, node.most)
        if mode == "lazy":
            return f"{text}{count}?"
        if mode == "possessive":
            return f"{text}{count}+" if one else f"(?>{text}{count})"
        return text + count

    def stepwise(self, node: Repeat, follow: Follow) -> str:
        """A repeat of characters that goes from one possible end to the next instead of by one character.

        It can only end before a character that what follows starts with. Empty when that says nothing.
        """
        assert isinstance(node.item, Chars)
        chars = ~NEWLINE if node.item.dot and self.plain else node.item.chars
        ends, inner = chars & follow, chars & ~follow
        if not ends or not inner or (node.mode == "greedy" and len(ends) > STEP_ENDS_MAX):
            return ""
        first = f"{chars.pattern()}{_count(node.least, node.least)}" if node.least else ""
        if node.mode == "lazy":
            return f"{first}{inner.pattern()}*+(?:{ends.pattern()}{inner.pattern()}*+)*?"
        return f"{first}(?:{inner.pattern()}*+{ends.pattern()})*{inner.pattern()}*+"

    def look(self, item: Node, ahead: bool, negative: bool) -> str:
        if ahead:
            return f"(?{'!' if negative else '='}{self.write(item, NOTHING)})"
        opening = "(?<!" if negative else "(?<="
        written = [f"{opening}{self.write(option, NOTHING)})" for option in _fixed_widths(item)]
        if len(written) == 1:
            return written[0]
        return "".join(written) if negative else f"(?:{'|'.join(written)})"


def starts(node: Node, follow: Follow, *, through: bool = False) -> Follow:
    """Characters that `node` and what follows it can start with; everything where it is not known.

    `through` looks through places: right where they can only take matches away.
    """
    match node:
        case Chars(chars):
            return chars
        case Seq(items):
            for item in reversed(items):
                follow = starts(item, follow, through=through)
            return follow
        case Alt(options):
            return _union(starts(option, follow, through=through) for option in options)
        case Repeat(item, least):
            inner = starts(item, follow, through=through)
            return inner if least and not nullable(item) else inner | follow
        case Group(item) | Atomic(item):
            return starts(item, follow, through=through)
        case Look() | At():
            return follow if through else ANYTHING  # a place can fail, whatever comes next
        case Back():
            return ANYTHING


def _union(sets: Iterable[CharSet]) -> CharSet:
    whole = NOTHING
    for chars in sets:
        whole |= chars
    return whole


def _count(least: int, most: int | None) -> str:
    match least, most:
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case 0, 1:
            return "?"
        case _, None:
            return f"{{{least},}}"
        case _:
            return f"{{{least}}}" if least == most else f"{{{least},{most}}}"


def _fixed_widths(node: Node) -> list[Node]:
    """The node as alternatives of one width each, which is what `re` asks of a lookbehind."""
    options = _widths(node)
    if options is None:
        raise RegexError("Look-behind group does not have an obvious maximum length", "", 0)
    return options


def _widths(node: Node) -> list[Node] | None:  # noqa: C901 (one case for each kind of node)
    match node:
        case Chars() | At() | Look():
            return [node]
        case Seq(items):
            return _products([_widths(item) for item in items])
        case Alt(options):
            found: list[Node] = []
            for option in options:
                widths = _widths(option)
                if widths is None:
                    return None
                found += widths
            return found if len(found) <= LOOKBEHIND_WIDTHS_MAX else None
        case Repeat(item, least, most):
            if most is None or most > LOOKBEHIND_WIDTHS_MAX:
                return None
            inner = _widths(item)
            repeated: list[Node] = []
            for count in range(most, least - 1, -1):
                part = _products([inner] * count)
                if part is None or len(repeated) + len(part) > LOOKBEHIND_WIDTHS_MAX:
                    return None
                repeated += part
            return repeated
        case Atomic(item):
            return _widths(item)
        case Group(item, number, name):
            inner = _widths(item)
            return None if inner is None else [item if len(inner) > 1 else Group(item, number, name) for item in inner]
        case Back():
            return None


def _products(parts: list[list[Node] | None]) -> list[Node] | None:
    size = 1
    sure: list[list[Node]] = []
    for part in parts:
        if part is None:
            return None
        sure.append(part)
        size *= len(part)
        if size > LOOKBEHIND_WIDTHS_MAX:
            return None
    return [seq(list(choice)) if choice else EMPTY for choice in product(*sure)]
