"""Values inside an expression: Java's number kinds on top of Python's, equality, order and plain text.

A number of an event keeps its Python type. `int` is an Integer or a Long by its range; `float` is a Float that has
not been narrowed yet (the language reads every double in single precision); `Decimal` is an exact number. Only what
the range or the Python type cannot tell has a class of its own: `Long` for a small result of 64-bit arithmetic and
`Double` for the result of a division.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from penstock.core.errors import ExpressionError
from penstock.core.json_text import decimal_text

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1


class Long(int):
    """A 64-bit integer whose value would fit into 32 bits."""

    __slots__ = ()


class Double(float):
    """A floating point number of double precision that is not to be narrowed."""

    __slots__ = ()


NUMBERS: Final = frozenset((int, float, Decimal, Long, Double))
INTEGERS: Final = frozenset((int, Long))
_CONTAINERS: Final = frozenset((dict, list))

_SINGLE = struct.Struct("<f")
_pack, _unpack = _SINGLE.pack, _SINGLE.unpack


def single(number: float | Decimal) -> float:
    """`number` rounded to single precision, Infinity beyond its range."""
    try:
        narrowed: float = _unpack(_pack(number))[0]
    except OverflowError:
        return math.inf if number > 0 else -math.inf
    except ValueError:  # a Decimal that is not a number
        return math.nan
    return narrowed


def single_range(number: float) -> tuple[float, float] | None:
    """All doubles that `single` rounds to `single(number)`: from the first on, up to but without the second.

    With these two bounds a value is compared in single precision without being rounded. None beyond single range.
    """
    middle = single(number) + 0.0  # there is only one zero to compare with
    if not math.isfinite(middle):
        return None
    below, above = (_neighbour(middle, toward) for toward in (-1, 1))
    low, high = (below + middle) / 2, (middle + above) / 2
    first = low if single(low) == middle else math.nextafter(low, math.inf)
    end = math.nextafter(high, math.inf) if single(high) == middle else high
    return first, end


def _neighbour(number: float, toward: int) -> float:
    """The next number of single precision in one direction; the one after the last is where Infinity begins."""
    if number == 0:
        return math.copysign(2.0**-149, toward)
    (bits,) = struct.unpack("<i", _pack(number))
    step = toward if number > 0 else -toward
    next_number: float = _unpack(struct.pack("<i", bits + step))[0]
    return next_number if math.isfinite(next_number) else math.copysign(2.0**128, number)


def shortest_single(number: float) -> float:
    """The double that prints like `number` does in single precision: 0.3 rather than 0.30000001192092896."""
    narrowed = single(number)
    if not math.isfinite(narrowed):
        return narrowed
    for digits in (6, 7, 8):
        short = float(f"{narrowed:.{digits}g}")
        if single(short) == narrowed:
            return short
    return float(f"{narrowed:.9g}")


def plain(value: Any) -> Any:
    """`value` as it may be put into an event."""
    kind = type(value)
    if kind is Long:
        return int(value)
    if kind is Double:
        return float(value)
    if kind is frozenset:
        return sorted(value)
    return value


def equal(left: Any, right: Any) -> bool:
    """`==` of the language: numbers by value, everything else by type and value."""
    try:
        return _equal(left, right)
    except ArithmeticError:  # a Decimal that is not a number
        return False


def _equal(left: Any, right: Any) -> bool:
    kind, other = type(left), type(right)
    if kind is other:
        if kind is float:
            return left == right or single(left) == single(right)
        return _same(left, right) if kind in _CONTAINERS else bool(left == right)
    if kind in NUMBERS and other in NUMBERS:
        if kind is float or other is float:
            return single(left) == single(right)
        if (kind is Decimal and other is Double) or (kind is Double and other is Decimal):
            return bool(_double(left) == _double(right))
        return bool(left == right)
    return False


def _same(left: Any, right: Any) -> bool:
    """Deep equality of containers, where 1, 1.0 and true are three different things."""
    kind = type(left)
    if kind is not type(right):
        return False
    if kind is dict:
        if len(left) != len(right):
            return False
        return all(name in right and _same(item, right[name]) for name, item in left.items())
    if kind is list:
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


Order = Callable[[Any, Any], bool]


def _relation(order: Order) -> Order:
    def holds(left: Any, right: Any) -> bool:
        kind, other = type(left), type(right)
        if kind is int and other is int:
            return order(left, right)
        if kind not in NUMBERS or other not in NUMBERS:
            return False
        if kind is Double or other is Double:
            return order(_double(left), _double(right))
        if kind is float or other is float:
            return order(single(left), single(right))
        try:
            return order(left, right)
        except ArithmeticError:  # a Decimal that is not a number
            return False

    return holds


RELATIONS: Final[dict[str, Order]] = {
    "<": _relation(operator.lt),
    "<=": _relation(operator.le),
    ">": _relation(operator.gt),
    ">=": _relation(operator.ge),
}
"""The comparisons of the language: false unless both sides are numbers."""


def _double(number: Any) -> Any:
    kind = type(number)
    if kind is float:
        return single(number)
    if kind is Decimal:
        return math.nan if number.is_nan() else float(number)
    return number


def java_type(value: Any) -> str:
    """Simple name of the Java class that Data Prepper has for this value."""
    kind = type(value)
    if kind is int:
        if INT_MIN <= value <= INT_MAX:
            return "Integer"
        return "Long" if LONG_MIN <= value <= LONG_MAX else "BigInteger"
    return _TYPE_NAMES.get(kind, kind.__name__)


_TYPE_NAMES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "Boolean",
    str: "String",
    float: "Float",
    Long: "Long",
    Double: "Double",
    Decimal: "BigDecimal",
    list: "ArrayList",
    dict: "LinkedHashMap",
    frozenset: "Set",
}


def java_text(value: Any) -> str:
    """The plain text of a value: `{a=1, b=[true, null]}`, `1.0E10`, decimals without an exponent.

    Raises ExpressionError for integers of thousands of digits and for what is nested deeper than calls may be.
    """
    try:
        return _java_text(value)
    except ValueError:
        raise ExpressionError("An integer has too many digits to be written as text", cause="size") from None
    except RecursionError:
        raise ExpressionError("A value is nested too deeply to be written as text", cause="size") from None


def _java_text(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is int:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if value is None:
        return "null"
    if kind is dict:
        return "{" + ", ".join([f"{name}={_java_text(item)}" for name, item in value.items()]) + "}"
    if kind is list or kind is frozenset:
        return "[" + ", ".join([_java_text(item) for item in value]) + "]"
    if isinstance(value, float):
        return _float_text(value)
    if kind is Decimal and value.is_finite():
        return decimal_text(value)
    return str(value)


def _float_text(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return float.__repr__(value)
    sign, digits, exponent = Decimal(float.__repr__(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    first, *rest = map(str, digits)
    return f"{'-' if sign else ''}{first}.{''.join(rest) or '0'}E{exponent + len(rest)}"
