"""The common form of Apache's access logs, tried before the full pattern.

Most lines are simpler than `COMBINEDAPACHELOG` allows: the request line has three parts, the host is a name or an
address without a zone, the date has two digits for the day. One regular expression of single-character runs matches
these at the start of the line; what it leaves open is checked behind it (the host, the date up to the minute). A line
that passes has just one reading, so the full pattern would find the same; every other line goes to the full pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.lib.regex import Row, compile_java, interruptible
from penstock.plugins.processors.grok.patterns import PATTERNS

Find = Callable[[str], Row | None]

MINUTES_KNOWN_MAX = 4096

_HEAD = (
    r"([0-9A-Za-z:][0-9A-Za-z.:-]{0,62}+) ([a-zA-Z0-9._-]{1,256}+) ([a-zA-Z0-9._-]{1,256}+)"
    r" \[(.{17}:[0-5][0-9] [+-][0-9]{4})\]"
    r' "([A-Za-z]{1,32}+) ([^\x09-\x0d "\'][^\x09-\x0d ]*+) HTTP/([0-9]\.[0-9])" ([0-9]++) (?:([0-9]++)|-)(?![0-9.])'
)
_QUOTED = r'("[^"\\]*+(?:\\[ -~][^"\\]*+)*")'
_COMMON = re.compile(_HEAD)
_COMBINED = re.compile(rf'{_HEAD} (?:"([^"]*+)" "([^"]*+)(?<!\\)"|{_QUOTED} {_QUOTED})')
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


def common(full: Find) -> Find:
    """`%{COMMONAPACHELOG}`: the common form, then `full`."""
    match, minutes, is_minute, is_ipv6 = _COMMON.match, _minutes, _is_minute, _ipv6()

    @interruptible
    def find(text: str) -> Row | None:
        found = match(text)
        if found is not None:
            host, ident, auth, stamp, verb, request, version, response, size = found.groups()
            if (
                (stamp[:17] in minutes or is_minute(stamp[:17]))
                and ".." not in host
                and ".-" not in host
                and (":" not in host or is_ipv6(host))
            ):
                return host, ident, auth, stamp, verb, request, version, None, response, size
        return full(text)

    return find


def combined(full: Find) -> Find:
    """`%{COMBINEDAPACHELOG}`: the common form, then `full`."""
    match, minutes, is_minute, is_ipv6 = _COMBINED.match, _minutes, _is_minute, _ipv6()

    @interruptible
    def find(text: str) -> Row | None:
        found = match(text)
        if found is not None:
            host, ident, auth, stamp, verb, request, version, response, size, referrer, agent, raw_1, raw_2 = (
                found.groups()
            )
            if (
                (stamp[:17] in minutes or is_minute(stamp[:17]))
                and ".." not in host
                and ".-" not in host
                and (":" not in host or is_ipv6(host))
            ):
                if referrer is None:
                    referrer, agent = _unquote(raw_1), _unquote(raw_2)
                elif "\\" in referrer or "\\" in agent:
                    return full(text)
                return host, ident, auth, stamp, verb, request, version, None, response, size, referrer, agent
        return full(text)

    return find


def _ipv6() -> Callable[[str], object]:
    return compile_java(PATTERNS["IPV6"]).fullmatch


COMMON_FORMS: dict[str, Callable[[Find], Find]] = {
    "%{COMMONAPACHELOG}": common,
    "%{COMBINEDAPACHELOG}": combined,
}
"""Patterns with a common form, as long as nobody redefines what they are made of."""
