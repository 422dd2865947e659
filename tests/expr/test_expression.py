import logging
import math
import struct
from copy import deepcopy
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Meta
from penstock.core.clock import ManualClock
from penstock.core.errors import ExpressionError
from penstock.core.key import Key
from penstock.expr import compile_expression, java_text, java_type

META = Meta("LOG", attributes={"n": {"a": 5}, "list": [1]}, tags=["t1", "t2"])


def evaluate(statement, **body):
    return compile_expression(statement).evaluate(body, META)


def holds(statement, **body):
    return compile_expression(statement).test(body, META)


def narrow(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
close_doubles = singles.flatmap(
    lambda number: st.sampled_from([number, math.nextafter(number, 1e39), math.nextafter(number, -1e39)])
)
numbers = st.integers(-(2**31), 2**31 - 1) | close_doubles | st.floats(-1e6, 1e6)


@given(numbers, numbers)
def test_a_comparison_with_a_literal_is_the_comparison_of_two_keys(left, right):
    body = {"a": left, "b": right}
    literal = f"{right:.60f}".rstrip("0") + "0" if isinstance(right, float) else str(right)
    for operator in ("==", "!=", "<", "<=", ">", ">="):
        expected = holds(f"/a {operator} /b", **body)
        assert holds(f"/a {operator} {literal}", **body) is expected
        assert holds(f"{literal} {operator} /b", a=right, b=left) is holds(f"/a {operator} /b", a=right, b=left)


@given(close_doubles, close_doubles)
def test_fractions_are_compared_in_single_precision(left, right):
    assert holds("/a < /b", a=left, b=right) is (narrow(left) < narrow(right))
    assert holds("/a == /b", a=left, b=right) is (narrow(left) == narrow(right))


def test_the_edges_of_single_precision():
    largest = 3.4028234663852886e38
    assert holds("/a > 340282346638528859811704183484516925440.0", a=1e39)
    assert not holds("/a > 340282346638528859811704183484516925440.0", a=largest * (1 + 1e-9))
    assert holds("/a == 0.0", a=-0.0)
    assert holds("/a == 16777216.0", a=16777217)
    assert not holds("/a == 16777216", a=16777217)
    assert not any(holds(f"/a {operator} 1.5", a=math.nan) for operator in ("<", "<=", ">", ">=", "=="))


@pytest.mark.parametrize(
    ("statement", "value", "kind"),
    [
        ("2147483647 + 1", -2147483648, "Integer"),
        ("2147483648 - 1", 2147483647, "Long"),
        ("9223372036854775807 + 1", -9223372036854775808, "Long"),
        ("7 / 2", 3.5, "Double"),
        ("1 / 0", math.inf, "Double"),
        ("-1 / 0", -math.inf, "Double"),
        ("0.1 + 0.2", 0.3, "Float"),
        ("1.1 * 3", 3.3000002, "Float"),
        ("1 / 3.0", 0.33333334, "Float"),
        ("7 / 2 + 0.5", 4.0, "Double"),
        ("-7 % 3", -1, "Integer"),
        ("7 % -3", 1, "Integer"),
        ("- -5", 5, "Integer"),
        ("length(\"😀\")", 2, "Integer"),
        ("12345.678E33", 1.2345678e37, "Float"),
    ],
)  # fmt: skip
def test_kinds_of_numbers(statement, value, kind):
    expression = compile_expression(statement)
    result = expression.evaluate({}, META)
    assert result == value
    assert type(result) in (int, float)
    assert java_type(expression.typed({}, META)) == kind


@pytest.mark.parametrize(
    "statement",
    [
        "1 % 0",
        "7.0 % 2",
        "3000000000 % 7",
        "-(7 / 2)",
        "/missing + 1",
        "/a + 1",
        "99999999999999999999",
        "${x}",
        '"/a,b"',
    ],
)
def test_evaluation_errors(statement):
    with pytest.raises(ExpressionError, match=r"^Unable to evaluate statement"):
        evaluate(statement, a="text")
    assert not holds(f"({statement}) == 1", a="text") if "$" not in statement else True


def test_numbers_beyond_what_java_accepts_work_exactly():
    big, exact = 10**25, Decimal("1234567890.12345678901234567890")
    assert evaluate("/n", n=big) == big
    assert holds("/n > 5 and /n == /n and /n != 5", n=big)
    assert evaluate("/n + 1", n=big) == big + 1
    assert holds("/n > 1234567890 and /n < 1234567891", n=exact)
    assert evaluate("/n * 2", n=exact) == Decimal("2469135780.24691357802469135780")
    assert holds("/n == 0.1 and /n in {0.1} and /n typeof big_decimal", n=Decimal("0.1"))
    assert not holds("/n > 1", n=Decimal("NaN"))
    assert evaluate("/n / 4", n=Decimal(10)) == 2.5


def test_wrong_types_make_a_comparison_false_and_nothing_else():
    assert holds('not (/missing > 5) and not ("x" > 5) and not (true >= true) and not (/missing =~ "a")')
    assert not holds('/missing !~ "a"')
    assert not holds("1 == true")
    assert not holds("/a == 1", a=True)
    assert not holds('/a == "1"', a=1)
    assert holds("/a == /b", a={"x": [1, {"y": None}]}, b={"x": [1, {"y": None}]})
    assert not holds("/a == /b", a=[1], b=[1.0])
    assert not holds("/a == /b", a=[1], b=[True])
    assert holds("not (/a or /b)", a=1, b=True)


def test_both_sides_are_evaluated_where_that_can_be_seen():
    assert not holds("/a == 1 or /b + 1 > 0", a=1, b="text")
    assert holds("/a == 1 or /b + 1 > 0", a=1, b=0)
    assert not holds("/a == 2 and /b + 1 > 0", a=1, b="text")


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.data())
def test_logic_is_read_from_left_to_right(flags, data):
    operators = data.draw(st.lists(st.sampled_from(["and", "or"]), min_size=len(flags) - 1, max_size=len(flags) - 1))
    statement, expected = "/f0", flags[0]
    for index, operator in enumerate(operators, start=1):
        statement += f" {operator} /f{index}"
        expected = (expected and flags[index]) if operator == "and" else (expected or flags[index])
    body = {f"f{index}": flag for index, flag in enumerate(flags)}
    assert holds(statement, **body) is expected
    assert holds(statement.replace("/f", "true == /f"), **body) is expected


def test_membership_goes_by_type_and_value():
    assert holds("/a in {1, 2.5}", a=1)
    assert not holds("/a in {1}", a=1.0)
    assert holds("/a in {1, 1.0}", a=1.0)
    assert holds("/a in {1, 1.0}", a=1)
    assert not holds("/a in {1, 2}", a=True)
    assert not holds("/a in {true}", a=1)
    assert not holds("/missing in {1}")
    assert holds("/missing not in {1}")
    assert holds('/a not in {"x"}', a=["x"])
    with pytest.raises(ExpressionError, match="All set members should be of same type"):
        evaluate('/a in {1, "x"}', a=1)


def test_typeof():
    body = {"i": 1, "l": 2**31, "d": 1.5, "m": {}, "s": "", "b": False, "n": None, "a": []}
    types = {"i": "integer", "l": "long", "m": "map", "s": "string", "b": "boolean", "a": "array"}
    for key in body:
        for name in types.values():
            expected = types.get(key) == name
            assert holds(f"/{key} typeof {name}", **body) is expected
    with pytest.raises(ExpressionError, match="no type"):
        evaluate("/n typeof array", n=None)


def test_strings_keep_their_escapes():
    assert evaluate(r'"a\"b\$c\\d"') == r"a\"b\$c\\d"
    assert evaluate('""') == ""
    assert evaluate('"""/x"""') == "/x"
    assert holds(r'/a =~ "^a\$"', a="a$")


def test_a_condition_that_fails_is_false_and_counted(caplog):
    expression = compile_expression('substringAfter(/a, "x") == "y"')
    with caplog.at_level(logging.DEBUG, "penstock.expr"):
        for _ in range(100):
            assert expression.test({"a": 1}, META) is False
    assert expression.failures == 100
    assert len(caplog.records) == 7
    assert "takes only string type arguments" in caplog.records[0].getMessage()


@pytest.mark.parametrize(("statement", "value"), [("1", "1"), ("/missing", "null"), ("/a", "{x=[1, true]}")])
def test_a_condition_must_be_boolean(statement, value):
    with pytest.raises(ExpressionError) as refused:
        holds(statement, a={"x": [1, True]})
    assert f"Unexpected expression return value of {value}" in str(refused.value)


def test_a_result_shares_nothing_with_the_event():
    body = {"a": {"b": [1]}}
    before = deepcopy(body)
    compile_expression("/a").evaluate(body, META)["b"].append(2)
    assert body == before


def test_what_an_expression_reads():
    expression = compile_expression('/a/b == 1 and contains(/c, "x") and getMetadata("k") == "d"')
    assert expression.keys == {Key.parse("a/b"), Key.parse("c")}
    assert expression.needs_meta
    assert not compile_expression("/a == 1").needs_meta
    assert compile_expression("length(toJsonString()) > 5").keys == {Key.parse("", "get")}


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("/a or /b and /c", '"(/a or /b) and /c"'),
        ("/a and /b or /c and /d", '"((/a and /b) or /c) and /d"'),
        ("not /a == true", '"(not /a) == true"; write "not (/a == true)"'),
        ("(/a or /b and /c) == true", '"(/a or /b) and /c"'),
        ("not(/a)", "write|a negation needs a blank"),
        ("lenght(/a) > 1", "Unknown function in the expression: lenght()"),
        ("/a typeof double", "always false"),
        ('/a =~ "("', "always false, bad regular expression"),
        ('"/a,b" == 1', "must contain only alphanumeric chars"),
        ("length(/a, /b) == 1", "length() takes only one argument"),
    ],
)
def test_surprises_are_told(statement, told):
    warnings = compile_expression(statement).warnings
    assert len(warnings) == 1
    assert any(text in warnings[0] for text in told.split("|"))


@pytest.mark.parametrize("statement", ["/a and /b and /c", "/a or (/b and /c)", "not (/a == true)", "not /a and /b"])
def test_clear_statements_give_no_warning(statement):
    assert compile_expression(statement).warnings == []


def test_time_and_randomness_come_from_outside():
    clock = ManualClock(5_000_000_000)
    assert compile_expression("now() + 1", clock=clock).evaluate({}, META) == 5001
    assert compile_expression("generateUuid()", new_uuid=lambda: "u").evaluate({}, META) == "u"
    assert len(set(map(lambda _: evaluate("generateUuid()"), range(3)))) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, {"b": True}], "c": "d"}, "{a=[1, null, {b=true}], c=d}"),
        (1e10, "1.0E10"),
        (1.5e-4, "1.5E-4"),
        (-12345678.9, "-1.23456789E7"),
        (9999999.0, "9999999.0"),
        (0.001, "0.001"),
        (-0.0, "-0.0"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (Decimal("3.937E+4"), "39370"),
        (Decimal("1.50"), "1.50"),
    ],
)
def test_plain_text_of_values(value, text):
    assert java_text(value) == text
