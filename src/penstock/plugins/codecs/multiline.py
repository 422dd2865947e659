"""Lines of text joined into events by a pattern: a stack trace, or anything else that spans several lines.

Exactly one pattern says where events begin or end. It is a Java regular expression, searched in each line. A line ends
with `\\n`, `\\r\\n` or `\\r`; bytes that are not of the encoding become replacement characters. Empty lines are left
out. A line on which the search takes more than two seconds of CPU time is one without a match: it is logged and counted
in `matchingTimeouts`.
"""

import codecs
import io
import re
from collections.abc import Callable
from typing import Any, Self

from pydantic import ValidationInfo, field_validator, model_validator

from penstock import sdk
from penstock.lib.limited_loop import MATCHING_S_MAX
from penstock.lib.regex import RegexError, TimeLimit, TimeLimitExceeded, compile_java, interruptible

_BYTE_ORDER_MARKS = {
    "utf-16": (codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE),
    "utf-32": (codecs.BOM_UTF32_BE, codecs.BOM_UTF32_LE),
}
LINE_CHARACTERS_MAX = 64 * 1024 * 1024
"""Longest line that is read."""


class InputConfig(sdk.PluginConfig):
    event_start_pattern: str | None = None
    """A line in which this is found begins an event."""
    event_end_pattern: str | None = None
    """A line in which this is found ends an event."""
    continuation_line_start_pattern: str | None = None
    """A line in which this is found belongs to the event before it."""
    continuation_line_end_pattern: str | None = None
    """A line in which this is found belongs to the event behind it."""
    omit_matched_section: bool = False
    """Leave out what the pattern matched."""
    max_lines: int = 500
    """Lines of the largest event; further lines begin a new one."""
    max_length: int = 10_000
    """Characters of the largest event; a line that would exceed it begins a new one. A line is never cut."""
    line_separator: str = "\n"
    """Text between joined lines."""
    encoding: str = "UTF-8"
    """How characters are encoded."""

    @field_validator("max_lines", "max_length")
    @classmethod
    def _positive(cls, value: int, info: ValidationInfo) -> int:
        if value < 1:
            raise ValueError(f"{info.field_name} must be at least 1")
        return value

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            "".encode(value)  # also refuses codecs that are none of text
        except (LookupError, ValueError):
            raise ValueError("The specified encoding must be a valid charset") from None
        return value

    @model_validator(mode="after")
    def _rules(self) -> Self:
        given = [pattern for pattern in self._patterns() if pattern is not None]
        if len(given) != 1:
            raise ValueError(
                "Exactly one pattern field must be specified: event_start_pattern, event_end_pattern, "
                "continuation_line_start_pattern, or continuation_line_end_pattern"
            )
        try:
            compile_java(given[0])
        except RegexError:
            given = [""]
        if not given[0]:
            raise ValueError("The specified pattern must be a valid regular expression")
        return self

    def _patterns(self) -> tuple[str | None, ...]:
        return (
            self.event_start_pattern,
            self.event_end_pattern,
            self.continuation_line_start_pattern,
            self.continuation_line_end_pattern,
        )

    def pattern(self) -> re.Pattern[str]:
        """The one pattern that is given."""
        return compile_java(next(pattern for pattern in self._patterns() if pattern is not None))


class MultilineInput:
    def __init__(self, config: InputConfig, ctx: sdk.Context) -> None:
        self._config = config
        self._search = _LimitedSearch(config.pattern(), ctx)
        self._clock = ctx.clock

    def decoder(self) -> sdk.Decoder:
        return _MultilineDecoder(self._config, self._search, self._clock)


class _LimitedSearch:
    """Searches lines for a pattern that must not run away."""

    def __init__(self, pattern: re.Pattern[str], ctx: sdk.Context) -> None:
        @interruptible
        def search(line: str) -> re.Match[str] | None:
            return pattern.search(line)

        self._search = search
        self._limit = TimeLimit(MATCHING_S_MAX)
        self._timeouts = ctx.metrics.counter("matchingTimeouts")
        self._ctx = ctx

    def __call__(self, lines: list[str]) -> list[re.Match[str] | None]:
        """The first match in each line."""
        search = self._search
        found: list[re.Match[str] | None] = []
        while len(found) < len(lines):
            begin = len(found)
            try:
                with self._limit:
                    for line in lines[begin:]:
                        found.append(search(line))  # noqa: PERF401 (what was found before a time-out stays)
            except TimeLimitExceeded:
                if len(found) == begin:  # the limit was that of this line alone
                    self._timeouts.add()
                    self._ctx.log.warning("A line of pipeline %s takes too long to be searched", self._ctx.pipeline)
                    found.append(None)
        return found


class _MultilineDecoder:
    def __init__(
        self, config: InputConfig, search: Callable[[list[str]], list[re.Match[str] | None]], clock: sdk.Clock
    ) -> None:
        self._search = search
        self._clock = clock
        self._match_is_boundary = config.event_start_pattern is not None or config.event_end_pattern is not None
        self._ends = config.event_end_pattern is not None or config.continuation_line_end_pattern is not None
        """Whether a boundary line ends an event; else it begins one."""
        self._omit = config.omit_matched_section
        self._lines_max = config.max_lines
        self._characters_max = config.max_length
        self._separator = config.line_separator
        self._text = io.IncrementalNewlineDecoder(_text_decoder(config.encoding), translate=True)
        self._rest: list[str] = []
        """Pieces of the line that has not ended yet."""
        self._rest_characters = 0
        self._event: list[str] = []
        self._event_lines = 0
        """Lines of the open event, those that were left out included."""
        self._event_characters = 0

    def feed(self, data: bytes) -> sdk.Batch:
        return self._batch(self._joined(self._lines(self._text.decode(data))))

    def finish(self) -> sdk.Batch:
        lines = self._lines(self._text.decode(b"", final=True))
        if self._rest:
            lines.append("".join(self._rest))
            self._rest = []
        messages = self._joined(lines)
        self._close(messages)
        return self._batch(messages)

    def _batch(self, messages: list[str]) -> sdk.Batch:
        return sdk.Batch(
            [{"message": message} for message in messages], origin=sdk.Meta(received_ms=self._clock.now_ms())
        )

    def _lines(self, text: str) -> list[str]:
        """The lines that have ended."""
        lines = text.split("\n")
        if len(lines) > 1:
            lines[0] = "".join(self._rest) + lines[0]
            self._rest, self._rest_characters = [], 0
        last = lines.pop()
        if last:
            self._rest.append(last)
            self._rest_characters += len(last)
            if self._rest_characters > LINE_CHARACTERS_MAX:
                self._rest, self._rest_characters = [], 0
                raise sdk.EventError(f"A line is longer than {LINE_CHARACTERS_MAX} characters", cause="too_large")
        return lines

    def _joined(self, lines: list[str]) -> list[str]:
        """The events that are complete with these lines."""
        messages: list[str] = []
        for line, found in zip(lines, self._search(lines), strict=True):
            boundary = (found is not None) is self._match_is_boundary
            room = self._characters_max - len(self._separator) - len(line)
            if (boundary and not self._ends) or self._event_lines >= self._lines_max or self._event_characters > room:
                self._close(messages)
            self._event_lines += 1
            kept = line[: found.start()] + line[found.end() :] if found is not None and self._omit else line
            if kept:
                self._event_characters += len(kept) + (len(self._separator) if self._event else 0)
                self._event.append(kept)
            if boundary and self._ends:
                self._close(messages)
        return messages

    def _close(self, messages: list[str]) -> None:
        """The open event ends here."""
        if self._event:
            messages.append(self._separator.join(self._event))
            self._event = []
        self._event_lines = self._event_characters = 0


class _ByteOrderDecoder:
    """UTF-16 or UTF-32 in the order its mark says; without a mark, big-endian."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._first = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def decode(self, data: bytes, final: bool = False) -> str:
        if self._decoder is None:
            self._first += data
            marks = _BYTE_ORDER_MARKS[self._name]
            if len(self._first) < len(marks[0]) and not final:
                return ""
            name = self._name if self._first.startswith(marks) else self._name + "-be"
            self._decoder = codecs.getincrementaldecoder(name)("replace")
            data, self._first = self._first, b""
        return self._decoder.decode(data, final)


def _text_decoder(encoding: str) -> Any:
    name = codecs.lookup(encoding).name
    if name in _BYTE_ORDER_MARKS:
        return _ByteOrderDecoder(name)
    return codecs.getincrementaldecoder(encoding)("replace")


def build_decoder(config: InputConfig, ctx: sdk.Context) -> sdk.InputCodec:
    return MultilineInput(config, ctx)


EXAMPLES = [
    sdk.Example("Events begin with a date", config=r"event_start_pattern: '^\d{4}-\d{2}-\d{2}'"),
    sdk.Example("Indented lines belong to the event before them", config=r"continuation_line_start_pattern: '^\s'"),
]
