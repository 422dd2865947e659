"""The types that values can be converted to: `integer`, `long`, `double`, `boolean`, `string`, `big_decimal`."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal

from penstock.lib.java_values import integer_reader, java_text, read_boolean, read_double

__all__ = ["TargetType", "compile_conversion", "java_text"]

TargetType = Literal["integer", "string", "double", "boolean", "long", "big_decimal"]

DECIMAL_EXPONENT_MAX = 100_000
"""Decimals whose exponent has a greater amount are refused: as integers they would not fit into memory."""

_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,10})?", re.ASCII)
_INT_END, _LONG_END = 2**31, 2**63


def compile_conversion(kind: TargetType) -> Callable[[Any], Any]:
    """A function that converts a scalar as Data Prepper does. It raises ValueError for what has no such value."""
    return _CONVERSIONS[kind]


_read_int, _read_long = integer_reader(32), integer_reader(64)


def _to_integer(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return _read_int(value)
    if kind is bool or (kind is int and -_INT_END <= value < _INT_END):
        return int(value)
    if kind is Decimal:
        return _lower_bits(int(_bounded(value)), _INT_END)
    raise _unsupported(value)


def _to_long(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return _read_long(value)
    if kind is bool or (kind is int and -_LONG_END <= value < _LONG_END):
        return int(value)
    if kind is float and value == value:
        return int(value) if abs(value) < _LONG_END else _LONG_END - 1 if value > 0 else -_LONG_END
    if kind is Decimal:
        return _lower_bits(int(_bounded(value)), _LONG_END)
    raise _unsupported(value)


def _to_double(value: Any) -> float:
    if type(value) is str:
        return read_double(value)
    if isinstance(value, int | float | Decimal):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    raise _unsupported(value)


def _to_boolean(value: Any) -> bool:
    if type(value) is str:
        return read_boolean(value)
    if isinstance(value, int | float):
        return value != 0
    if type(value) is Decimal:
        return not value.is_zero()
    raise _unsupported(value)


def _to_string(value: Any) -> str:
    if isinstance(value, str | int | float | Decimal):
        return java_text(value)
    raise _unsupported(value)


def _to_decimal(value: Any) -> Decimal:
    if type(value) is str:
        if _DECIMAL.fullmatch(value) is None:
            raise ValueError(f'"{value[:200]}" is no decimal number')
        return _bounded(Decimal(value))
    if isinstance(value, int | Decimal):
        return _bounded(Decimal(value))
    if type(value) is float:
        return _bounded(Decimal(repr(value)))
    raise _unsupported(value)


def _bounded(value: Decimal) -> Decimal:
    if not value.is_finite() or abs(value.adjusted()) > DECIMAL_EXPONENT_MAX:
        raise ValueError(f"{value} is no decimal number, or too large a one")
    return value


def _lower_bits(value: int, end: int) -> int:
    """The value of the lower bits, as Java's narrowing gives it."""
    return (value + end) % (2 * end) - end


def _unsupported(value: Any) -> ValueError:
    return ValueError(f"Unsupported type conversion. Source class: {type(value).__name__}")


_CONVERSIONS: dict[TargetType, Callable[[Any], Any]] = {
    "integer": _to_integer,
    "long": _to_long,
    "double": _to_double,
    "boolean": _to_boolean,
    "string": _to_string,
    "big_decimal": _to_decimal,
}
