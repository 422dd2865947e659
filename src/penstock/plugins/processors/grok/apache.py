"""The common form of Apache's access logs, tried before the full pattern.

Most lines are simpler than `COMBINEDAPACHELOG` allows: the request line has three parts, the host is a name or an
address without a zone, the date has two digits for the day. One regular expression of single-character runs matches
these at the start of the line; what it leaves open is checked behind it (the host, the date up to the minute). A line
that passes has just one reading, so the full pattern would find the same; every other line goes to the full pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.lib.regex import Row, compile_java
from penstock.plugins.processors.grok.patterns import PATTERNS

Find = Callable[[str], Row | None]

MINUTES_KNOWN_MAX = 4096


@dataclass(frozen=True, slots=True)
class CommonForm:
    """How the fields of a common line are had, as source: `v0`, `v1` … stand for the fields of the full pattern."""

    pattern: re.Pattern[str]
    """Matched at the start of the text. It never goes back more than a step, so it needs no limit of time."""
    groups: str
    """The names that take its groups."""
    accept: str
    """Whether the line is common indeed, an expression of these names."""
    finish: tuple[str, ...] = ()
    """Statements that give the fields their final texts."""
    absent: frozenset[int] = frozenset()
    """Fields that no common line has."""
    names: Mapping[str, Any] = field(default_factory=dict)
    """What `accept` and `finish` use."""

    def find(self, full: Find, fields: int) -> Find:
        """The common form, then `full`."""
        row = ", ".join("None" if place in self.absent else f"v{place}" for place in range(fields))
        lines = [
            "def find(text):",
            "    found = match(text)",
            "    if found is not None:",
            f"        {self.groups} = found.groups()",
            f"        if {self.accept}:",
            *(f"            {line}" for line in self.finish),
            f"            return {row}",
            "    return full(text)",
        ]
        names = {**self.names, "match": self.pattern.match, "full": full}
        exec(compile("\n".join(lines), "<grok common form>", "exec"), names)  # noqa: S102 (our own constants)
        find: Find = names["find"]
        return find


_HEAD = (
    r"([0-9A-Za-z:][0-9A-Za-z.:-]{0,62}+) ([a-zA-Z0-9._-]{1,256}+) ([a-zA-Z0-9._-]{1,256}+)"
    r" \[(.{17}:[0-5][0-9] [+-][0-9]{4})\]"
    r' "([A-Za-z]{1,32}+) ([^\x09-\x0d "\'][^ ]*+) HTTP/([0-9]\.[0-9])" ([0-9]++) (?:([0-9]++)|-)(?![0-9.])'
)
_QUOTED = r'("[^"\\]*+(?:\\[ -~][^"\\]*+)*")'
_MINUTE = re.compile(
    r"(?:0[1-9]|[12][0-9]|3[01])/(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/[0-9]{4}"
    r":(?:[01][0-9]|2[0-3]):[0-5][0-9]"
)
_minutes: set[str] = set()


def _is_minute(text: str) -> bool:
    """Whether the text is a date up to the minute; remembered, as lines that follow each other share it."""
    if not _MINUTE.fullmatch(text):
        return False
    if len(_minutes) >= MINUTES_KNOWN_MAX:
        _minutes.clear()
    _minutes.add(text)
    return True


def _unquote(text: str) -> str:
    inner = text[1:-1]
    return text if '"' in inner else inner


_HEAD_IS_COMMON = (
    "(v3[:17] in minutes or is_minute(v3[:17]))"
    ' and v5.isprintable() and ".." not in v0 and ".-" not in v0 and (":" not in v0 or is_ipv6(v0))'
)
_NAMES: dict[str, Any] = {
    "minutes": _minutes,
    "is_minute": _is_minute,
    "is_ipv6": compile_java(PATTERNS["IPV6"]).fullmatch,
    "unquote": _unquote,
}
_RAW_REQUEST = frozenset((7,))

COMMON_FORMS: dict[str, CommonForm] = {
    "%{COMMONAPACHELOG}": CommonForm(
        re.compile(_HEAD),
        "v0, v1, v2, v3, v4, v5, v6, v8, v9",
        _HEAD_IS_COMMON,
        absent=_RAW_REQUEST,
        names=_NAMES,
    ),
    "%{COMBINEDAPACHELOG}": CommonForm(
        re.compile(rf'{_HEAD} (?:"([^"]*+)" "([^"]*+)(?<!\\)"|(?=[^\\]*+\\){_QUOTED} {_QUOTED})'),
        "v0, v1, v2, v3, v4, v5, v6, v8, v9, v10, v11, quoted_10, quoted_11",
        rf'{_HEAD_IS_COMMON} and (v10 is None or "\\" not in v10 and "\\" not in v11)',
        finish=("if v10 is None: v10, v11 = unquote(quoted_10), unquote(quoted_11)",),
        absent=_RAW_REQUEST,
        names=_NAMES,
    ),
}
"""Patterns with a common form, as long as nobody redefines what they are made of."""
