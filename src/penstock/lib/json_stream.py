"""JSON values one after the other in a stream of bytes, however it is cut into pieces."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from penstock.core.errors import EventError
from penstock.core.json_text import decode

_decode = msgspec.json.Decoder().decode
_MALFORMED_AT = re.compile(r"\(byte (\d+)\)")
_TRAILING = "trailing characters"
_TRUNCATED = "truncated"
_BLANK = b" \t\r\n"
_MARK = b"\xef\xbb\xbf"
_GROWTH = 1.5
"""An unfinished value is looked at again when there is half as much more of it, which keeps the work linear."""


def without_mark(data: bytes) -> bytes:
    """`data` without the byte order mark that some programs put before UTF-8."""
    return data[len(_MARK) :] if data.startswith(_MARK) else data


def first_value(data: memoryview | bytes) -> tuple[Any, int] | None:
    """The first value in `data` and where what follows it begins; None while it is not complete.

    A number or word at the very end counts as complete. Raises ValueError when it is malformed or nested too deeply.
    """
    try:
        return _decode(data), len(data)
    except msgspec.DecodeError as error:
        message = str(error)
        found = _MALFORMED_AT.search(message)
        if found is not None and _TRAILING in message:
            end = int(found[1]) - 1
            return _decode(data[:end]), end
        if _TRUNCATED not in message and (found is None or int(found[1]) < len(data)):
            raise
        return None  # cut off, maybe within a number
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


class JsonValues:
    """Values on lines of their own, several on a line, or over several lines; blanks between them mean nothing."""

    def __init__(self, value_bytes_max: int) -> None:
        self._value_bytes_max = value_bytes_max
        self._pieces: list[bytes] = []
        """What has not been read yet."""
        self._size = 0
        self._is_start = True
        """Whether nothing has been read yet."""
        self._look_at_bytes = 0
        """Size at which an unfinished value is tried again; 0 where what is left is the start of a line."""

    def feed(self, data: bytes) -> list[Any]:
        """The values that are complete now. Raises `EventError` where there is no JSON, or a value is too large."""
        self._pieces.append(data)
        self._size += len(data)
        values: list[Any] = []
        if self._size >= self._look_at_bytes if self._look_at_bytes else b"\n" in data:
            data = self._joined()
            rest = data[self._read(data, values) :]
            self._pieces, self._size = [rest], len(rest)
        if self._size > self._value_bytes_max:
            self._pieces, self._size = [], 0
            raise EventError(f"A JSON value is larger than {self._value_bytes_max} bytes", cause="too_large")
        return values

    def finish(self) -> list[Any]:
        """The values of what is left. Raises `EventError` where the last one is cut off."""
        values: list[Any] = []
        data = self._joined()
        self._pieces, self._size, self._look_at_bytes = [], 0, 0
        view, position = memoryview(data), 0
        while True:
            while position < len(data) and data[position] in _BLANK:
                position += 1
            if position == len(data):
                return values
            found = _first(view[position:])
            if found is None:
                raise EventError("The JSON ends in the middle of a value", cause="json")
            values.append(found[0])
            position += found[1]

    def _joined(self) -> bytes:
        data = b"".join(self._pieces)
        if self._is_start:
            self._is_start = False
            return without_mark(data)
        return data

    def _read(self, data: bytes, values: list[Any]) -> int:
        """Read what is complete; returns where the rest begins."""
        position = 0
        while position < len(data):
            if not self._look_at_bytes:
                position = self._lines(data, position, values)
                if not self._look_at_bytes:
                    break
            position = self._across_lines(data, position, values)
            if self._look_at_bytes:
                break
        return position

    def _lines(self, data: bytes, position: int, values: list[Any]) -> int:
        """Read whole lines; returns where the unfinished one begins, or an odd one."""
        while (end := data.find(b"\n", position)) >= 0:
            line = data[position:end]
            if line and not line.isspace():
                try:
                    values.append(decode(line))
                except ValueError:
                    self._look_at_bytes = 1  # several values, or one that goes on in the next line
                    break
            position = end + 1
        return position

    def _across_lines(self, data: bytes, position: int, values: list[Any]) -> int:
        """Read values until one ends at the end of a line, then lines are looked at again; returns where that is."""
        view = memoryview(data)
        while True:
            while position < len(data) and data[position] in _BLANK:
                position += 1
                if data[position - 1] == 10:
                    self._look_at_bytes = 0
                    return position
            found = _first(view[position:]) if position < len(data) else None
            if found is None:
                self._look_at_bytes = max(1, int((len(data) - position) * _GROWTH))
                return position
            values.append(found[0])
            begin, position = position, position + found[1]
            line_end = data.rfind(b"\n", begin, position)
            if line_end >= 0 and data[line_end:position].isspace():  # blanks were skipped over a line's end
                self._look_at_bytes = 0
                return position


def _first(data: memoryview | bytes) -> tuple[Any, int] | None:
    try:
        return first_value(data)
    except ValueError as error:
        raise EventError(f"This is no JSON: {error}", cause="json") from error
