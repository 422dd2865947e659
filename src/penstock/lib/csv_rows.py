"""Rows of comma-separated values that Python's reader refuses: blanks behind a closing quote, signs of any kind."""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.core.errors import EventError


class Unfinished(EventError):
    """A quote is not closed: more text may bring its end."""

    def __init__(self) -> None:
        super().__init__("a quote is not closed", cause="quote")


RowReader = Callable[[str, int], tuple[list[str], int]]
"""A function from a text and where a row begins to its values and where the next row begins."""


def compile_row_reader(delimiter: str, quote: str, columns_max: int) -> RowReader:
    """A function that raises EventError for text behind a closing quote and for too many columns, and `Unfinished`."""
    comma, sign = re.escape(delimiter), re.escape(quote)
    blanks = "".join(re.escape(chr(code)) for code in range(0x21) if chr(code) not in "\r\n" + delimiter)
    end = rf"(?:({comma})|\r\n?|\n|\Z)"
    inside = rf"[^{sign}]*+(?:{sign}{sign}[^{sign}]*+)*"
    quoted = re.compile(rf"{sign}({inside}){sign}(?!{sign})[{blanks}]*+{end}")
    opened = re.compile(rf"{sign}{inside}\Z")
    plain = re.compile(rf"([^{comma}\r\n]*+){end}")

    def read(text: str, at: int) -> tuple[list[str], int]:
        values: list[str] = []
        more = True
        while more:
            in_quotes = text.startswith(quote, at)
            found = (quoted if in_quotes else plain).match(text, at)
            if found is None:
                if opened.match(text, at):
                    raise Unfinished
                raise EventError("text follows a closing quote", cause="quote")
            values.append(found[1].replace(quote + quote, quote) if in_quotes else found[1])
            at, more = found.end(), found[2] is not None
            if len(values) > columns_max:
                raise EventError(f"more than {columns_max} separated values", cause="too_large")
        return values, at

    return read
