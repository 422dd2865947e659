"""`+ - * / %` and the sign, with Java's rules for mixed kinds of numbers.

32- and 64-bit integers wrap around, a Float makes the result a Float, dividing integers gives a Double. Integers
beyond 64 bits and decimals, which Data Prepper refuses, are computed exactly.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, Final

from penstock.expr.values import INT_MAX, INT_MIN, INTEGERS, LONG_MAX, LONG_MIN, NUMBERS, Double, Long, single

Arithmetic = Callable[[Any, Any], Any]

_EXACT: Final = Context(prec=76)
"""Twice the 38 digits that a number may have, so that a product is exact."""


def add(left: Any, right: Any) -> Any:
    """The sum of two numbers, or two strings joined. Raises TypeError for anything else."""
    if type(left) is str and type(right) is str:
        return left + right
    return _sum(left, right)


def _binary(exact: Arithmetic, exact_decimal: Arithmetic) -> Arithmetic:
    def compute(left: Any, right: Any) -> Any:
        kind, other = type(left), type(right)
        if kind in INTEGERS and other in INTEGERS:
            return _wrapped(left, right, exact(left, right))
        _need_numbers(kind, other)
        if Decimal in (kind, other) and kind not in _FLOATING and other not in _FLOATING:
            return exact_decimal(Decimal(left), Decimal(right))
        return _floating(exact, left, right)

    return compute


def divide(left: Any, right: Any) -> Any:
    """A Float when a Float is involved, else a Double. By zero: Infinity or NaN."""
    kind, other = type(left), type(right)
    _need_numbers(kind, other)
    if kind in _FLOATING or other in _FLOATING:
        return _floating(_quotient, left, right)
    if Decimal in (kind, other):
        left, right = Decimal(left), Decimal(right)
        return Double(_EXACT.divide(left, right) if right else _quotient(float(left), 0.0))
    return Double(_quotient(left, right))


def remainder(left: Any, right: Any) -> int:
    """The remainder of two 32-bit integers, with the sign of `left`."""
    if not _is_integer(left):
        raise TypeError("requires left operand to be an Integer.")
    if not _is_integer(right):
        raise TypeError("requires right operand to be an Integer.")
    rest: int = abs(left) % abs(right)
    return -rest if left < 0 else rest


def negate(value: Any) -> Any:
    """The number with the other sign."""
    kind = type(value)
    if kind in INTEGERS:
        return _wrapped(value, value, -value)
    if kind is float:
        return -value
    if kind is Decimal:
        return value.copy_negate()
    raise TypeError("requires operand to be an Integer, a Long or a Float.")


_FLOATING: Final = frozenset((float, Double))


def _is_integer(value: Any) -> bool:
    return type(value) is int and INT_MIN <= value <= INT_MAX


def _need_numbers(kind: type, other: type) -> None:
    if kind not in NUMBERS:
        raise TypeError("requires left operand to be a number.")
    if other not in NUMBERS:
        raise TypeError("requires right operand to be a number.")


def _wrapped(left: int, right: int, result: int) -> int:
    """`result` in the width of its operands; beyond 64 bits it stays exact."""
    if _is_integer(left) and _is_integer(right):
        return (int(result) - INT_MIN) % 2**32 + INT_MIN
    if not (LONG_MIN <= left <= LONG_MAX and LONG_MIN <= right <= LONG_MAX):
        return int(result)
    result = (int(result) - LONG_MIN) % 2**64 + LONG_MIN
    return Long(result) if INT_MIN <= result <= INT_MAX else result


def _floating(compute: Arithmetic, left: Any, right: Any) -> float:
    """In double precision when a Double or a Decimal is involved, else in single precision."""
    kinds = {type(left), type(right)}
    left, right = _widened(left), _widened(right)
    if Double in kinds or Decimal in kinds:
        return Double(compute(left, right))
    return single(compute(single(left), single(right)))


def _widened(value: Any) -> float:
    return single(value) if type(value) is float else float(value)


def _quotient(left: float, right: float) -> float:
    try:
        return left / right
    except ZeroDivisionError:
        if left == 0 or math.isnan(left):
            return math.nan
        return math.inf if (left > 0) == (math.copysign(1.0, right) > 0) else -math.inf


subtract: Final = _binary(operator.sub, _EXACT.subtract)
multiply: Final = _binary(operator.mul, _EXACT.multiply)
_sum: Final = _binary(operator.add, _EXACT.add)
