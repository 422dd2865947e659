"""Log lines for people, for Data Prepper's readers and for machines; repeated ones are shown now and then, counted.

Payloads and secrets are not logged: plugins log keys, types and ids. What a server says of a document that it refuses
is, for that is how the cause is found; it may quote a value, so it is cut short where it is logged.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import datetime
from typing import TextIO

FORMATS = ("text", "json")
MESSAGE_CHARACTERS_MAX = 8000

_COLOURS = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31;1m", "DEBUG": "\033[2m"}
_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}


class TextFormatter(logging.Formatter):
    """`2024-02-05T10:21:21.334 [main] WARN  penstock.plugins.sink.opensearch - message`. Source: S-A28."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone()
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}"
        level = _LEVELS.get(record.levelname, record.levelname).ljust(5)
        if self._colours and (colour := _COLOURS.get(record.levelname)):
            level = f"{colour}{level}\033[0m"
        thread = "main" if record.threadName == "MainThread" else record.threadName
        text = f"{stamp} [{thread}] {level} {record.name} - {_message(record)}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `thread`, `logger`, `message`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone()
        entry: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": _LEVELS.get(record.levelname, record.levelname),
            "thread": record.threadName,
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    more = len(text) - MESSAGE_CHARACTERS_MAX
    return text if more <= 0 else f"{text[:MESSAGE_CHARACTERS_MAX]}… ({more} characters more)"


class RepeatFilter(logging.Filter):
    """Lets `burst` messages of one template through per `window_s`; the next one after that says how many were not."""

    def __init__(self, burst: int = 5, window_s: float = 30.0, templates_max: int = 1000) -> None:
        super().__init__()
        self._burst = burst
        self._window_s = window_s
        self._templates_max = templates_max
        self._seen: dict[tuple[str, int, str], list[float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.levelno, str(record.msg))
        now = time.monotonic()
        state = self._seen.get(key)
        if state is None or now - state[0] > self._window_s:
            if len(self._seen) >= self._templates_max:
                self._seen.clear()
            if state is not None and state[2]:
                record.msg = f"{record.getMessage()} ({int(state[2])} similar messages were not shown)"
                record.args = None
            self._seen[key] = [now, 1, 0]
            return True
        state[1] += 1
        if state[1] <= self._burst:
            return True
        state[2] += 1
        return False


def configure(log_format: str = "text", level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error) in one of `FORMATS`."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter()
        if log_format == "json"
        else TextFormatter(colours=stream.isatty() and not os.environ.get("NO_COLOR"))
    )
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("penstock").setLevel(level.upper())
