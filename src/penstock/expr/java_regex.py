"""Java's regular expressions, rewritten for Python where the two spell things differently."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from penstock.core.timelimit import TimeLimit, TimeLimitExceeded, interruptible

PATTERNS_CACHED_MAX = 512
MATCHING_S_MAX = 0.5
"""CPU seconds that one match may take."""
SHORT_TEXT_MAX = 1_000
"""Texts up to this length are matched without a limit by patterns with no more than two choices of length."""

_CLASSES: Final = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x00-\x7f",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Alnum": "a-zA-Z0-9",
    "Punct": r"!-/:-@\[-`{-~",
    "Graph": "!-~",
    "Print": " -~",
    "Blank": r" \t",
    "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9a-fA-F",
    "Space": r" \t\n\x0b\f\r",
    # Unicode categories by their most common members: letters and digits as `str` knows them.
    "IsAlphabetic": r"^\W\d_",
    "L": r"^\W\d_",
    "IsLetter": r"^\W\d_",
    "N": r"\d",
    "Nd": r"\d",
    "IsDigit": r"\d",
}
_UNICODE: Final = frozenset(("IsAlphabetic", "L", "IsLetter", "N", "Nd", "IsDigit"))

_TOKEN = re.compile(
    r"""
      \\Q(?P<quoted>.*?)(?:\\E|\Z)
    | \\(?P<negated>[pP])(?:\{(?P<property>\w+)\}|(?P<letter>\w))
    | \\x\{(?P<point>[0-9A-Fa-f]{1,6})\}
    | \\k<(?P<backreference>\w+)>
    | \\(?P<escape>.)
    | \(\?<(?P<group>[A-Za-z][A-Za-z0-9]*)>
    | (?P<open>\[\^?\]?)
    | (?P<close>\])
    | (?P<intersection>&&)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES: Final = {
    "z": r"\Z",
    "Z": r"(?=\n?\Z)",
    "h": r"[ \t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000]",
    "H": r"[^ \t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000]",
    "R": r"(?:\r\n|[\n\x0b\x0c\r\x85\u2028\u2029])",
    "e": r"\x1b",
}


class MatchTimeout(ValueError):
    """A match took too long."""


@lru_cache(maxsize=PATTERNS_CACHED_MAX)
def whole_match(pattern: str) -> Callable[[str], object]:
    """The function that tells whether all of a text matches a Java pattern. Raises ValueError for a bad pattern.

    The function raises `MatchTimeout`, but only where `is_limited` says so.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's advice on how sets will be read some day is of no use to users
        try:
            translated = translate(pattern)
            fullmatch = re.compile(translated, re.ASCII).fullmatch
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"bad regular expression {pattern}: {error}") from error
    choices = _choices(translated)
    if choices <= 1:
        return fullmatch
    unlimited_length_max = SHORT_TEXT_MAX if choices == 2 else 0
    limit = TimeLimit(MATCHING_S_MAX)

    @interruptible
    def match(text: str) -> object:
        return fullmatch(text)

    def match_in_time(text: str) -> object:
        if len(text) <= unlimited_length_max:
            return fullmatch(text)
        try:
            with limit:
                return match(text)
        except TimeLimitExceeded:
            raise MatchTimeout(f"matching took longer than {MATCHING_S_MAX:g} s of CPU time") from None

    return match_in_time


def is_limited(pattern: str) -> bool:
    """Whether there are texts for which the pattern may take too long."""
    return _choices(translate(pattern)) > 1


def _choices(translated: str) -> int:
    """How many lengths `re` has to choose, at least 3 where choices contain choices: the exponent of its time."""
    bare = _INERT.sub("x", translated)
    references = len(_REFERENCE.findall(translated))
    repeated_group = 3 if _REPEATED_GROUP.search(bare) else 0
    return max(len(_CHOICE.findall(bare)) + references, repeated_group)


_INERT = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_CHOICE = re.compile(r"(?<!\()[*+?]|\{(?!\d+\})")
_REPEATED_GROUP = re.compile(r"\)(?:[*+?]|\{)")
_REFERENCE = re.compile(r"\\[1-9]|\(\?P=")


def translate(pattern: str) -> str:
    """A pattern for `re.ASCII` that means what `pattern` means in Java."""
    parts: list[str] = []
    position = 0
    depth = 0  # of [ ], where a set inside a set is a union
    for found in _TOKEN.finditer(pattern):
        parts.append(pattern[position : found.start()])
        position = found.end()
        kind = found.lastgroup
        if kind == "open":
            if depth and found[0] != "[":
                raise ValueError("a negated set inside a set is not supported")
            parts.append("" if depth else found[0])
            depth += 1
        elif kind == "close":
            parts.append("]" if depth < 2 else "")
            depth = max(depth - 1, 0)
        elif kind == "intersection":
            if depth:
                raise ValueError("intersections of sets (&&) are not supported")
            parts.append(found[0])
        else:
            parts.append(_rewritten(found, depth > 0))
    parts.append(pattern[position:])
    return "".join(parts)


def _rewritten(found: re.Match[str], in_set: bool) -> str:
    if found["quoted"] is not None:
        return re.escape(found["quoted"])
    if found["negated"]:
        return _property(found["property"] or found["letter"], found["negated"] == "P", in_set)
    if found["point"]:
        return re.escape(chr(min(int(found["point"], 16), 0x10FFFF)))
    if found["backreference"]:
        return f"(?P={found['backreference']})"
    if found["group"]:
        return f"(?P<{found['group']}>"
    escape = found["escape"]
    rewritten = _ESCAPES.get(escape)
    if rewritten is None:
        return found[0] if escape.isascii() and (escape.isalnum() or not escape.isspace()) else re.escape(escape)
    return rewritten[1:-1] if in_set and rewritten.startswith("[") else rewritten


def _property(name: str, negated: bool, in_set: bool) -> str:
    members = _CLASSES.get(name)
    if members is None:
        raise ValueError(f"unknown character property {{{name}}}")
    if name in _UNICODE:
        # Only these look beyond ASCII, which the rest of the pattern must not; a group of its own allows it.
        if in_set:
            raise ValueError(f"the property {{{name}}} cannot stand inside [ ]")
        flipped = members.removeprefix("^") if members.startswith("^") else f"^{members}"
        return f"(?u:[{flipped if negated else members}])"
    if not in_set:
        return f"[{'^' if negated else ''}{members}]"
    if negated:
        raise ValueError(f"the negated property {{{name}}} cannot stand inside [ ]")
    return members
