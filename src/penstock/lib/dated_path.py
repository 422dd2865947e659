"""Paths with dates, such as `dlq/%{yyyy}/%{MM}/%{dd}`: any number of `%{…}` parts, filled with the time in UTC.

A part is no finer than an hour, so that what is written in one hour lies together. Source: `dead-letters` in
docs/behaviour.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.core.dates import compile_formatter

_DATE = re.compile(r"%\{(.*?)\}")
_FORBIDDEN_IN_DATE = '#\\/*?"<>|,:'
_FINER_THAN_HOURS = "msSAnN"
_HOUR_NS = 3_600_000_000_000

Render = Callable[[int], str]


def compile_dated_path(pattern: str) -> Render:
    """A function from nanoseconds since the epoch to the path. Raises ValueError for a pattern that is none."""
    pieces: list[str | Render] = []
    end = 0
    for found in _DATE.finditer(pattern):
        pieces += [pattern[end : found.start()], _formatter(found[1])]
        end = found.end()
    pieces.append(pattern[end:])
    if len(pieces) == 1:
        return lambda now_ns: pattern

    def render(now_ns: int) -> str:
        hour_ns = now_ns - now_ns % _HOUR_NS
        return "".join(piece if isinstance(piece, str) else piece(hour_ns) for piece in pieces)

    return render


def _formatter(date: str) -> Render:
    if "%{" in date:
        raise ValueError("An object key doesn't allow nested date-time patterns.")
    if any(sign in date for sign in _FORBIDDEN_IN_DATE):
        signs = ", ".join(_FORBIDDEN_IN_DATE)
        raise ValueError(f"Time pattern contains one or multiple special characters: [{signs}]")
    if any(letter in date for letter in _FINER_THAN_HOURS):
        letters = ", ".join(_FINER_THAN_HOURS)
        raise ValueError(f"Time pattern contains time patterns that are less than one hour: [{letters}]")
    return compile_formatter(date)
