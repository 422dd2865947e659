"""Names of indexes: fixed, by date `%{yyyy.MM.dd}`, by event `${/key}`, or all of it.

The date is that of the moment of writing, in UTC, and no finer than an hour. Source: `sink-opensearch` in
docs/behaviour.md.
"""

from __future__ import annotations

import re

from penstock.core.batch import Body, Meta
from penstock.core.dates import compile_formatter
from penstock.core.errors import EventError, ExpressionSyntaxError
from penstock.expr import compile_template

_DATE = re.compile(r"%\{(.*?)\}")
_FORBIDDEN_IN_DATE = '#\\/*?"<>|,:'
_FINER_THAN_HOURS = "msSAnN"
_HOUR_NS = 3_600_000_000_000
_ILLEGAL = re.compile(r'[:"*+/\\|?#><]')


class IndexName:
    """A compiled name. `compile_index_name` makes it."""

    def __init__(self, pattern: str, *, normalize: bool) -> None:
        date = _find_date(pattern)
        before, behind = (pattern, "") if date is None else (pattern[: date.start()], pattern[date.end() :])
        self.pattern = pattern
        self._before, self._behind = compile_template(before), compile_template(behind)
        self._format_date = None if date is None else compile_formatter(date[1])
        self._normalize = normalize
        self._hour: int | None = None
        self._date = ""
        self._name = ""
        self.is_dynamic = not (self._before.is_constant and self._behind.is_constant)
        """Whether parts of it come from the event."""
        self.has_date = date is not None
        self.prefix = _without_date(before, behind)
        """The name without its date and one hyphen beside it; parts of the event stay as they are written."""
        self.template_pattern = f"{before}*{behind}" if date else pattern
        """The name with `*` for its date: matches the names of all days."""
        if not self.is_dynamic and normalize:
            self.prefix = _normalized(self.prefix)
            self.template_pattern = f"{_normalized(before)}*{_legal(behind)}" if date else _normalized(pattern)

    def render(self, body: Body, meta: Meta, now_ns: int) -> str:
        """The name for one event, written at `now_ns`. Raises EventError when the event has no part of it."""
        hour = now_ns // _HOUR_NS
        if hour != self._hour:
            self._turn(hour)
        if not self.is_dynamic:
            return self._name
        name = f"{self._before.render(body, meta)}{self._date}{self._behind.render(body, meta)}"
        if self._normalize:
            name = _normalized(name)
        if not name:
            raise EventError(f"The index name {self.pattern} is empty for this event", cause="index")
        return name

    def _turn(self, hour: int) -> None:
        self._date = self._format_date(hour * _HOUR_NS) if self._format_date is not None else ""
        self._hour = hour
        if not self.is_dynamic:
            name = f"{self._before.text}{self._date}{self._behind.text}"
            self._name = _normalized(name) if self._normalize else name


def compile_index_name(pattern: str, *, normalize: bool = False) -> IndexName:
    """The name that `pattern` describes; `normalize` makes it legal: lower case, without what indexes may not hold.

    Raises ValueError, in the words of Data Prepper, for a pattern that can never give a name.
    """
    try:
        name = IndexName(pattern, normalize=normalize)
    except ExpressionSyntaxError as error:
        raise ValueError(str(error)) from None
    if not name.is_dynamic and not name.render({}, Meta(), 0):
        raise ValueError(f"Invalid characters in the index name {pattern}")
    return name


def _find_date(pattern: str) -> re.Match[str] | None:
    found = list(_DATE.finditer(pattern))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError("An index only allows one date-time pattern.")
    date = found[0][1]
    if "%{" in date:
        raise ValueError("An index doesn't allow nested date-time patterns.")
    if any(sign in date for sign in _FORBIDDEN_IN_DATE):
        signs = ", ".join(_FORBIDDEN_IN_DATE)
        raise ValueError(f"Index time pattern contains one or multiple special characters: [{signs}]")
    if any(letter in date for letter in _FINER_THAN_HOURS):
        letters = ", ".join(_FINER_THAN_HOURS)
        raise ValueError(f"Index time pattern contains time patterns that are less than one hour: [{letters}]")
    return found[0]


def _without_date(before: str, behind: str) -> str:
    if before.endswith("-"):
        return before[:-1] + behind
    return before + behind.removeprefix("-")


def _legal(text: str) -> str:
    return _ILLEGAL.sub("", text).lower()


def _normalized(name: str) -> str:
    return _legal(name).lstrip("-_")
