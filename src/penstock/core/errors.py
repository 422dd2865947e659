"""The errors of the engine, one kind for each way a thing can go wrong.

PenstockError
├── ConfigError              the YAML is wrong; `problems` lists everything found at once
├── EventError               this one event is bad: tagged and counted, or dead-lettered
│   └── ExpressionError          an expression cannot be evaluated for it
│       └── ExpressionSyntaxError    the expression does not even parse
├── Transient                try again later (`retry_after_s` when the other side named a time)
│   └── Unreachable              there was no answer at all: waiting for it uses up no retries
├── Permanent                trying again is of no use
└── BufferFull               no room within the time given; nothing of the write was left behind
    └── BufferTooSmall       the write can never fit
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class PenstockError(Exception):
    """Everything the engine raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a pipeline file or in the server configuration."""

    message: str
    """What is wrong, in the words of Data Prepper where it has them."""
    path: str = ""
    """Where in the document: `pipeline > processor 2 rename_keys > entries.0.to_ky`."""
    file: str = ""
    line: int = 0
    """Line in the file, counted from 1; 0 when unknown."""
    suggestion: str = ""
    """The likely fix."""
    severity: str = "error"
    """`error` refuses the pipeline, `warning` only tells."""
    pipeline: str = ""
    """Name of the sub-pipeline the mistake stands in."""
    plugin: str = ""
    """Name of the plugin the mistake stands in."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part)
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        return f"{text} ({self.suggestion})" if self.suggestion else text


class ConfigError(PenstockError):
    """The configuration is wrong."""

    def __init__(self, problems: str | Problem | list[Problem]) -> None:
        if isinstance(problems, str):
            problems = [Problem(problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems: list[Problem] = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class EventError(PenstockError):
    """This event cannot be handled; the others can."""

    def __init__(self, message: str, *, cause: str = "error", logged: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        """Short stable word for counters, such as `timeout` or `no_match`."""
        self.logged = message if logged is None else logged
        """What logs say: the message without values of the event, for which they are no place."""


class ExpressionError(EventError):
    """An expression cannot be evaluated for this event."""

    def __init__(self, message: str, *, cause: str = "expression", logged: str | None = None) -> None:
        super().__init__(message, cause=cause, logged=logged)


class ExpressionSyntaxError(ExpressionError):
    """An expression does not parse."""

    def __init__(self, message: str, *, position: int = 0) -> None:
        super().__init__(message)
        self.position = position
        """Where in the statement, counted from 0."""


class Transient(PenstockError):
    """It may work later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unreachable(Transient):
    """The other side is away: connection refused or cut, or no answer in time."""


class Permanent(PenstockError):
    """It will never work."""


class BufferFull(PenstockError):
    """There was no room in time."""


class BufferTooSmall(BufferFull):
    """The write is larger than the whole buffer."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """One item that a sink could not write."""

    index: int
    """Position in the items given to `send`."""
    reason: str
    retryable: bool = False
    status: int = 0
    """HTTP-like status of the item, 0 when there is none."""
    details: dict[str, object] = {}
    retry_after_s: float | None = None
    counts: bool = True
    """Whether trying it again uses up one of its retries; not so for an item that only waits its time."""

    def at(self, index: int) -> Failure:
        """The same of another item."""
        return msgspec.structs.replace(self, index=index)
