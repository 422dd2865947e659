"""Conversions to the named types."""

from decimal import Decimal

import pytest
from hypothesis import given

from penstock.lib.target_types import compile_conversion
from penstock.testing.strategies import values

KINDS = ("integer", "string", "double", "boolean", "long", "big_decimal")


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        ("integer", "-7", -7),
        ("integer", True, 1),
        ("integer", Decimal("7.9"), 7),
        ("long", -(2**63), -(2**63)),
        ("long", 1.9, 1),
        ("long", float("inf"), 2**63 - 1),
        ("double", "1.5", 1.5),
        ("double", 10**400, float("inf")),
        ("boolean", "TRUE", True),
        ("boolean", "1", False),
        ("boolean", 2, True),
        ("string", 1.0, "1.0"),
        ("string", True, "true"),
        ("big_decimal", "1.50", Decimal("1.50")),
        ("big_decimal", 0.1, Decimal("0.1")),
    ],
)
def test_conversions(kind, value, result):
    converted = compile_conversion(kind)(value)
    assert converted == result
    assert type(converted) is type(result)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", "7.5"),
        ("integer", 2**31),
        ("integer", 1.5),
        ("integer", Decimal("1E+999999999")),
        ("long", "9" * 30),
        ("long", 2**63),
        ("double", "1,5"),
        ("big_decimal", " 1"),
        ("big_decimal", "NaN"),
        ("big_decimal", "1_0"),
        ("string", None),
        ("string", {}),
    ],
)
def test_what_has_no_such_value(kind, value):
    with pytest.raises(ValueError):
        compile_conversion(kind)(value)


@given(values)
def test_nothing_but_a_value_error(value):
    for kind in KINDS:
        try:
            compile_conversion(kind)(value)
        except ValueError:
            continue
