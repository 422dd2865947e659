"""Values as Java reads and writes them: numbers out of text, text out of values, instants by date patterns."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial

from penstock.core.dates import compile_parser, parse_iso
from penstock.expr.values import java_text, shortest_single

__all__ = ["instant_reader", "integer_reader", "java_text", "read_boolean", "read_double", "read_float"]

_INTEGER = re.compile(r"[+-]?\d+")  # any script's decimal digits, as in Java
_FLOATING = re.compile(
    r"[\x00-\x20]*([+-]?(?:NaN|Infinity|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))[fFdD]?[\x00-\x20]*", re.ASCII
)
_INTEGER_DIGITS_MAX = 400
_NANOS = 1_000_000_000
_NUMBER_FORMAT = "java.lang.NumberFormatException: "


def integer_reader(bits: int) -> Callable[[str], int]:
    """A function that reads a decimal integer of 8, 16, 32 or 64 bits.

    It raises ValueError with the text of Java's exception.
    """
    end = 1 << (bits - 1)
    safe_digits = len(str(end)) - 1

    def read_integer(text: str) -> int:
        if len(text) <= safe_digits and text.isdecimal():
            return int(text)
        if len(text) <= _INTEGER_DIGITS_MAX and _INTEGER.fullmatch(text):
            value = int(text)
            if -end <= value < end:
                return value
            if bits < 32:
                raise ValueError(f'{_NUMBER_FORMAT}Value out of range. Value:"{text}" Radix:10')
        raise ValueError(f'{_NUMBER_FORMAT}For input string: "{text}"')

    return read_integer


def read_double(text: str) -> float:
    """A floating point number. Raises ValueError with the text of Java's exception."""
    found = _FLOATING.fullmatch(text)
    if found is None:
        blank = not text.strip("".join(map(chr, range(0x21))))
        raise ValueError(_NUMBER_FORMAT + ("empty String" if blank else f'For input string: "{text}"'))
    return float(found[1])


def read_float(text: str) -> float:
    """A number of single precision, as the double that prints like it. Raises ValueError like `read_double`."""
    return shortest_single(read_double(text))


def read_boolean(text: str) -> bool:
    """True for `true` in any case, False for everything else."""
    return text.lower() == "true"


def instant_reader(pattern: str | None) -> Callable[[str], int | Decimal]:
    """A function from the text of a date to seconds since the epoch, with a fraction where there is one.

    Without a pattern dates are ISO 8601, those without an offset in UTC; else in the zone of this machine. Raises
    ValueError for a wrong pattern; the function raises it for a text that is no such date.
    """
    read = partial(parse_iso, zone="UTC") if pattern is None else compile_parser(pattern, "")

    def instant(text: str) -> int | Decimal:
        seconds, nanos = divmod(read(text.strip()), _NANOS)
        return Decimal(seconds * _NANOS + nanos).scaleb(-9) if nanos else seconds

    return instant
