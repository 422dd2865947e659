"""Reads the regular expressions of `java.util.regex` (Java 17).

Unsupported: `\\X`, `\\b{g}`, `\\G` anywhere but at the start, canonical equivalence.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NoReturn

from penstock.lib.regex.charset import (
    ANYTHING,
    DIGIT,
    HORIZONTAL_SPACE,
    LINE_ENDS,
    NEWLINE,
    NOTHING,
    POSIX,
    SPACE,
    VERTICAL_SPACE,
    WORD,
    CharSet,
    category,
)
from penstock.lib.regex.tree import EMPTY, Alt, At, Atomic, Back, Chars, Group, Look, Node, Repeat, Seq, seq

NESTING_MAX = 150
REPEAT_MAX = 2**31 - 1


class RegexError(ValueError):
    """The pattern is wrong, or uses what cannot be translated."""

    def __init__(self, reason: str, pattern: str, at: int) -> None:
        shown = pattern if len(pattern) <= 200 else pattern[:200] + "…"
        super().__init__(f"{reason} near index {at} of regular expression {shown}")
        self.reason = reason
        self.pattern = pattern
        self.at = at


_NAME = re.compile(r"\x00\d+|[A-Za-z_@][\w.@\-]*", re.ASCII)
_QUANTIFIER = re.compile(r"(\d+)(?:(,)(\d*))?\}", re.ASCII)
_FLAGS = re.compile(r"([idmsuxU]*)(?:-([idmsuxU]*))?([:)])")
_ESCAPED_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_CLASSES = {
    "d": DIGIT,
    "D": ~DIGIT,
    "s": SPACE,
    "S": ~SPACE,
    "w": WORD,
    "W": ~WORD,
    "h": HORIZONTAL_SPACE,
    "H": ~HORIZONTAL_SPACE,
    "v": VERTICAL_SPACE,
    "V": ~VERTICAL_SPACE,
}
_PLACES: dict[str, Literal["boundary", "no_boundary", "begin", "end", "end_or_newline"]] = {
    "b": "boundary",
    "B": "no_boundary",
    "A": "begin",
    "z": "end",
    "Z": "end_or_newline",
}
_LINE_BREAK = Alt((Seq((Chars(CharSet.of("\r")), Chars(NEWLINE))), Chars(VERTICAL_SPACE)))


def parse(pattern: str) -> Node:
    """The tree of a Java pattern. Raises `RegexError`."""
    return _Parser(pattern).whole()


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.flags: frozenset[str] = frozenset()
        self.groups = 0
        self.names: dict[str, list[int]] = {}
        self.depth = 0

    def fail(self, reason: str) -> NoReturn:
        raise RegexError(reason, self.text, self.at)

    def peek(self) -> str:
        self.skip_comments()
        return self.text[self.at : self.at + 1]

    def skip_comments(self) -> None:
        if "x" not in self.flags:
            return
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\n\x0b\f\r":
                self.at += 1
            elif char == "#":
                while self.at < len(self.text) and self.text[self.at] not in "\n\r\x85\u2028\u2029":
                    self.at += 1
            else:
                return

    def take(self, text: str) -> bool:
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def next(self, what: str) -> str:
        if self.at >= len(self.text):
            self.fail(f"Unexpected end in {what}")
        char = self.text[self.at]
        self.at += 1
        return char

    def whole(self) -> Node:
        node = self.alternatives()
        if self.at < len(self.text):
            self.fail("Unmatched closing ')'")
        return node

    def alternatives(self) -> Node:
        flags = self.flags
        self.depth += 1
        if self.depth > NESTING_MAX:
            self.fail(f"Groups are nested more than {NESTING_MAX} deep")
        options = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            options.append(self.sequence())
        self.depth -= 1
        self.flags = flags
        return options[0] if len(options) == 1 else Alt(tuple(options))

    def sequence(self) -> Node:
        items: list[Node] = []
        while (char := self.peek()) and char not in "|)":
            item = self.atom()
            if item is not EMPTY or self.peek() in ("*", "+", "?"):
                items.append(self.quantified(item))
        return seq(items)

    def quantified(self, item: Node) -> Node:
        bounds = self.bounds()
        if bounds is None:
            return item
        mode: Literal["greedy", "lazy", "possessive"] = "greedy"
        if self.peek() == "?":
            self.at += 1
            mode = "lazy"
        elif self.peek() == "+":
            self.at += 1
            mode = "possessive"
        if self.peek() in ("*", "+", "?"):
            self.fail(f"Dangling meta character '{self.peek()}'")
        if isinstance(item, At | Look):
            item = item if bounds[0] else EMPTY
        elif item is not EMPTY:
            item = Repeat(item, *bounds, mode)
        return self.quantified(item)

    def bounds(self) -> tuple[int, int | None] | None:
        """How often the atom before may occur; None when nothing is said."""
        match self.peek():
            case "*":
                bounds: tuple[int, int | None] = (0, None)
            case "+":
                bounds = (1, None)
            case "?":
                bounds = (0, 1)
            case "{":
                return self.counts()
            case _:
                return None
        self.at += 1
        return bounds

    def counts(self) -> tuple[int, int | None]:
        found = _QUANTIFIER.match(self.text, self.at + 1)
        if not found:
            self.fail("Illegal repetition")
        least = int(found[1])
        most = least if not found[2] else int(found[3]) if found[3] else None
        if max(least, most or 0) > REPEAT_MAX or (most is not None and most < least):
            self.fail("Illegal repetition range")
        self.at = found.end()
        return least, most

    def atom(self) -> Node:
        char = self.next("the pattern")
        match char:
            case "(":
                return self.group()
            case "[":
                return Chars(self.folded(self.char_class()))
            case "\\":
                return self.escape()
            case ".":
                if "s" in self.flags:
                    return Chars(ANYTHING)
                return Chars(~NEWLINE) if "d" in self.flags else Chars(~LINE_ENDS, dot=True)
            case "^":
                return At("line_begin" if "m" in self.flags else "begin", "d" in self.flags)
            case "$":
                return At("line_end" if "m" in self.flags else "end_or_newline", "d" in self.flags)
            case "*" | "+" | "?":
                self.at -= 1
                self.fail(f"Dangling meta character '{char}'")
            case "{":
                self.at -= 1
                self.fail("Illegal repetition")
            case _:
                pass
        return self.literal(char)

    def literal(self, char: str) -> Chars:
        return Chars(self.folded(CharSet.of(char)))

    def folded(self, chars: CharSet) -> CharSet:
        return chars.folded(unicode="u" in self.flags or "U" in self.flags) if "i" in self.flags else chars

    def group(self) -> Node:
        if not self.take("?"):
            self.groups += 1
            return self.closed(self.groups, None)
        for opening, ahead, negative in (
            ("=", True, False),
            ("!", True, True),
            ("<=", False, False),
            ("<!", False, True),
        ):
            if self.take(opening):
                return Look(self.inner(), ahead, negative)
        if self.take(">"):
            return Atomic(self.inner())
        if self.take("<"):
            name = _NAME.match(self.text, self.at)
            if not name or self.text[name.end() : name.end() + 1] != ">":
                self.fail("A group name starts with a letter and ends with '>'")
            self.at = name.end() + 1
            self.groups += 1
            self.names.setdefault(name[0], []).append(self.groups)
            return self.closed(self.groups, name[0])
        return self.flag_group()

    def closed(self, number: int, name: str | None) -> Node:
        return Group(self.inner(), number, name)

    def inner(self) -> Node:
        node = self.alternatives()
        if not self.take(")"):
            self.fail("Unclosed group")
        return node

    def flag_group(self) -> Node:
        found = _FLAGS.match(self.text, self.at)
        if not found:
            self.fail("Unknown inline modifier or group")
        self.at = found.end()
        before, wanted = self.flags, (self.flags | set(found[1])) - set(found[2] or "")
        self.flags = wanted
        if found[3] == ")":
            return EMPTY  # in force until the enclosing group ends
        node = self.inner()
        self.flags = before
        return node if not isinstance(node, Seq) or node.items else EMPTY

    def escape(self) -> Node:  # noqa: C901 (one case for each kind of escape)
        char = self.next("an escape")
        if char in _CLASSES:
            return Chars(self.predefined(char))
        if char in "pP":
            return Chars(self.folded(self.property(char == "P")))
        if char in _PLACES:
            if char == "b" and self.text.startswith("{", self.at):
                self.fail("\\b{…} is not supported")
            return At(_PLACES[char], "d" in self.flags)
        match char:
            case "Q":
                quoted = self.quoted()
                if self.peek() in ("*", "+", "?", "{") and len(quoted) > 1:
                    last = self.quantified(self.literal(quoted[-1]))  # a quantifier binds to the last character
                    return seq([*(self.literal(part) for part in quoted[:-1]), last])
                return seq([self.literal(part) for part in quoted])
            case "E":
                return EMPTY
            case "R":
                return Atomic(_LINE_BREAK)
            case "G":
                if self.at != 2:
                    self.fail("\\G is only supported at the start of the pattern")
                return At("begin")
            case "k":
                return self.named_back()
            case "X":
                self.fail("\\X is not supported")
            case _ if char in "123456789":
                return self.numbered_back(char)
            case _:
                pass
        return self.literal(self.escaped_char(char))

    def quoted(self) -> str:
        """The text between `\\Q` and `\\E`, or up to the end."""
        end = self.text.find("\\E", self.at)
        text = self.text[self.at :] if end < 0 else self.text[self.at : end]
        self.at = len(self.text) if end < 0 else end + 2
        return text

    def predefined(self, char: str) -> CharSet:
        if "U" not in self.flags or char in "hHvV":
            return _CLASSES[char]
        chars = _property({"d": "IsDigit", "s": "IsWhite_Space", "w": "Isword"}[char.lower()])
        assert chars is not None, "a property that is always known"
        return chars if char.islower() else ~chars

    def named_back(self) -> Node:
        found = re.compile(r"<([^>]+)>").match(self.text, self.at)
        numbers = self.names.get(found[1], []) if found else []
        if found is None or len(numbers) != 1:
            self.fail("\\k must name exactly one group that comes before it")
        self.at = found.end()
        return self.back(numbers[0])

    def numbered_back(self, first: str) -> Node:
        digits = first
        while (char := self.text[self.at : self.at + 1]) and char in "0123456789" and int(digits + char) <= self.groups:
            digits += char
            self.at += 1
        if int(digits) > self.groups:
            return Chars(NOTHING)  # as in Java: a group that is not there never matches
        return self.back(int(digits))

    def back(self, number: int) -> Back:
        return Back(number, "i" in self.flags, "u" in self.flags or "U" in self.flags)

    def escaped_char(self, char: str) -> str:
        """The character of an escape that stands for one; `char` follows the backslash."""
        if char in _ESCAPED_CONTROLS:
            return _ESCAPED_CONTROLS[char]
        match char:
            case "0":
                return chr(self.number(r"[0-3]?[0-7]{1,2}", 8, "octal"))
            case "x":
                if self.take("{"):
                    point = self.number(r"[0-9A-Fa-f]{1,6}(?=\})", 16, "hexadecimal")
                    self.at += 1
                    if point > 0x10FFFF:
                        self.fail("Hexadecimal code point is too big")
                    return chr(point)
                return chr(self.number(r"[0-9A-Fa-f]{2}", 16, "hexadecimal"))
            case "u":
                return self.utf16()
            case "c":
                return chr(ord(self.next("a control escape")) ^ 0x40)
            case "N":
                named = re.compile(r"\{([^}]+)\}").match(self.text, self.at)
                if not named:
                    self.fail("Illegal character name escape")
                self.at = named.end()
                try:
                    return unicodedata.lookup(named[1])
                except KeyError:
                    self.fail("Unknown character name")
            case _ if char.isascii() and char.isalpha():
                self.fail("Illegal or unsupported escape sequence")
            case _:
                pass
        return char

    def utf16(self) -> str:
        unit = self.number(r"[0-9A-Fa-f]{4}", 16, "Unicode")
        if 0xD800 <= unit < 0xDC00 and (
            low := re.compile(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})").match(self.text, self.at)
        ):
            self.at = low.end()
            return chr(0x10000 + ((unit - 0xD800) << 10) + int(low[1], 16) - 0xDC00)
        return chr(unit)

    def number(self, form: str, radix: int, what: str) -> int:
        found = re.compile(form).match(self.text, self.at)
        if not found:
            self.fail(f"Illegal {what} escape sequence")
        self.at = found.end()
        return int(found[0], radix)

    def char_class(self) -> CharSet:
        """The class behind an opening bracket, up to its closing one."""
        self.depth += 1
        if self.depth > NESTING_MAX:
            self.fail(f"Groups are nested more than {NESTING_MAX} deep")
        negated = self.take("^")
        chars, empty = NOTHING, True
        while True:
            char = self.peek()
            if not char:
                self.fail("Unclosed character class")
            if char == "]" and not empty:
                self.at += 1
                break
            if self.take("&&"):
                while self.take("&&"):
                    pass
                right = self.intersected()
                if right is not None:
                    chars = right if empty else chars & right
            else:
                chars |= self.class_item()
            empty = False
        self.depth -= 1
        chars = self.folded(chars)
        return ~chars if negated else chars

    def intersected(self) -> CharSet | None:
        """The right side of `&&`, up to the next one or the closing bracket; None when there is nothing."""
        chars, empty = NOTHING, True
        while True:
            char = self.peek()
            if not char:
                self.fail("Unclosed character class")
            if char == "]" or self.text.startswith("&&", self.at):
                return None if empty else self.folded(chars)
            chars |= self.class_item()
            empty = False

    def class_item(self) -> CharSet:
        char = self.next("a character class")
        if char == "[":
            return self.char_class()
        if char == "\\":
            following = self.next("an escape")
            if following in _CLASSES:
                return self.predefined(following)
            if following in "pP":
                return self.property(following == "P")
            if following == "Q":
                return CharSet.of(self.quoted())
            if following == "E":
                return NOTHING
            char = self.escaped_char(following)
        if self.text.startswith("-", self.at) and self.text[self.at + 1 : self.at + 2] not in ("]", "[", ""):
            self.at += 1
            last = self.next("a character range")
            if last == "\\":
                last = self.next("an escape")
                if last in _CLASSES or last in "pP":
                    self.fail("Illegal character range")
                last = self.escaped_char(last)
            if last < char:
                self.fail("Illegal character range")
            return CharSet([(ord(char), ord(last))])
        return CharSet.of(char)

    def property(self, negated: bool) -> CharSet:
        name = self.next("a character property")
        if name == "{":
            end = self.text.find("}", self.at)
            if end < 0:
                self.fail("Unclosed character family")
            name, self.at = self.text[self.at : end], end + 1
        if name.startswith("^"):
            self.fail("Unknown character property")
        chars = _property(name)
        if chars is None:
            self.fail(f"Unknown character property {{{name}}}")
        return ~chars if negated else chars


def _property(name: str) -> CharSet | None:
    if name in POSIX:
        return POSIX[name]
    key, _, value = name.rpartition("=")
    if key in ("general_category", "gc"):
        return _category(value)
    if key:
        return None
    return _category(name.removeprefix("Is")) or _unicode(name)


_CATEGORY = re.compile("L[ultmo]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Z[slp]?|C[cfson]?")


def _category(name: str) -> CharSet | None:
    if name in ("LC", "L&"):
        return category("Lu") | category("Ll") | category("Lt")
    return category(name) if _CATEGORY.fullmatch(name) else None


def _unicode(name: str) -> CharSet | None:
    """Java's `Is…` and `java…` properties that follow from the general categories."""
    key = name.removeprefix("Is").removeprefix("java").lower()
    if key not in _PROPERTIES:
        return None
    categories, more = _PROPERTIES[key]
    chars = more
    for each in categories:
        chars |= category(each)
    return chars


_PROPERTIES: dict[str, tuple[tuple[str, ...], CharSet]] = {
    "alphabetic": (("L", "Nl"), NOTHING),
    "letter": (("L",), NOTHING),
    "digit": (("Nd",), NOTHING),
    "letterordigit": (("L", "Nd"), NOTHING),
    "uppercase": (("Lu",), NOTHING),
    "lowercase": (("Ll",), NOTHING),
    "titlecase": (("Lt",), NOTHING),
    "punctuation": (("P",), NOTHING),
    "control": (("Cc",), NOTHING),
    "isocontrol": (("Cc",), NOTHING),
    "white_space": (("Z",), SPACE | CharSet.of("\x85")),
    "whitespace": (("Z",), SPACE | CharSet.of("\x85")),
    "word": (("L", "M", "Nd", "Pc"), NOTHING),
}
