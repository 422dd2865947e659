"""Java's regular expressions in Python's `re`: translated, searched cheaply, limited in time.

`compile_java` gives a pattern with Java's meaning: `\\w`, `\\d` and `\\s` are ASCII, word boundaries are Unicode, five
characters end a line, classes nest and intersect. `Search` finds groups in texts of which many do not match.
`TimeLimit` ends a match that runs away. What cannot be translated raises `RegexError` before any text is seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from penstock.core.timelimit import TimeLimit, TimeLimitExceeded, interruptible
from penstock.lib.regex.emit import to_python
from penstock.lib.regex.parse import RegexError, parse
from penstock.lib.regex.search import Row, Search, can_start_with
from penstock.lib.regex.tree import Group, Node, certain_groups, groups, may_prefer_nothing, nullable

__all__ = [
    "Group",
    "Node",
    "RegexError",
    "Row",
    "Search",
    "TimeLimit",
    "TimeLimitExceeded",
    "can_start_with",
    "certain_groups",
    "compile_finder",
    "compile_java",
    "group_names",
    "groups",
    "interruptible",
    "may_prefer_nothing",
    "nullable",
    "parse",
    "to_python",
]


def compile_java(pattern: str) -> re.Pattern[str]:
    """A Java pattern for `re`. Groups keep their numbers but not their names (`group_names`). Raises `RegexError`."""
    try:
        return re.compile(to_python(parse(pattern)))
    except (re.error, RecursionError, OverflowError) as error:
        raise RegexError(f"This regular expression cannot be compiled ({error})", pattern, 0) from None


def compile_finder(pattern: str) -> Callable[[str], Iterator[re.Match[str]]]:
    """A function that gives the matches of a Java pattern in a text, one after the other. Raises `RegexError`.

    Behind a match without a character Java goes on one character further; Python would look for a longer match at the
    same place.
    """
    compiled = compile_java(pattern)
    if not may_prefer_nothing(parse(pattern)):
        return compiled.finditer
    search = compiled.search

    def find(text: str) -> Iterator[re.Match[str]]:
        at = 0
        while at <= len(text):
            found = search(text, at)
            if found is None:
                return
            yield found
            begin, end = found.span()
            at = end + (begin == end)

    return find


def group_names(pattern: str) -> dict[str, int]:
    """The named groups of a Java pattern with their numbers."""
    return {group.name: group.number for group in groups(parse(pattern)) if group.name is not None}
