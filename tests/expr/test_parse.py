import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.batch import Meta
from penstock.core.errors import ExpressionError, ExpressionSyntaxError
from penstock.expr import compile_expression, compile_template, valid_format
from penstock.expr.parse import DEPTH_MAX, NESTING_MAX

OPERANDS = [
    "/a", "/b/0", '"/q p"', '"s"', '"""/t"""', "1", "2.5", "1.5E-3", "3000000000", "99999999999999999999", "true",
    "null", "${v}", "{1,2}", "{true}", '{"x", 1}', "integer", "double", "array", "unknown()", "generateUuid()", "now()",
]  # fmt: skip
OPERATORS = [
    "not ", " and ", " or ", " in ", " not in ", " typeof ", "==", "!=", "<", "<=", ">", ">=", "=~", "!~",
    "+", "-", " * ", " / ", "%", "(", ")", "{", "}", ",", " ", "\t", "'", "$",
    "length(", "contains(", "getMetadata(", "join(", "formatDateTime(", "hasTags(", "cidrContains(", "substringAfter(",
]  # fmt: skip
statements = st.lists(st.sampled_from(OPERANDS) | st.sampled_from(OPERATORS), max_size=14).map("".join)
BINARY = [operator for operator in OPERATORS if operator.strip() in {*"+-*/%<>", "<=", ">=", "==", "!=", "and", "or"}]
FUNCTIONS = [
    "length",
    "contains",
    "startsWith",
    "substringAfterLast",
    "getMetadata",
    "join",
    "formatDateTime",
    "cidrContains",
]
well_formed = st.recursive(
    st.sampled_from(OPERANDS[:13]),
    lambda inner: (
        st.tuples(inner, st.sampled_from(BINARY), inner).map("".join)
        | inner.map("({})".format)
        | inner.map("not ({})".format)
        | inner.map("-{}".format)
        | inner.map("{} in {{1, 2.5}}".format)
        | st.tuples(st.sampled_from(FUNCTIONS), st.lists(inner, max_size=3).map(", ".join)).map("{0[0]}({0[1]})".format)
    ),
    max_leaves=8,
)
bodies = st.dictionaries(
    st.sampled_from("ab"),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("0"), inner, max_size=1),
        max_leaves=3,
    ),
)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=30) | statements | well_formed, bodies)
def test_any_text_either_is_a_syntax_error_or_runs(text, body):
    try:
        expression = compile_expression(text)
    except ExpressionSyntaxError as error:
        assert str(error).startswith('Unable to parse statement "')
        assert 0 <= error.position <= len(text)
        return
    for call in (expression.evaluate, expression.test):
        try:
            call(body, Meta())
        except ExpressionError:
            continue


@pytest.mark.parametrize(
    ("piece", "times", "end"),
    [
        ("(", 10_000, ""),
        ("not ", 10_000, "true"),
        ("-", 10_000, "1"),
        ("f(", 10_000, ""),
        ("1 + ", 5_000, "1"),
        ('"a"+', 5_000, '"a"'),
        ("/a == ", 5_000, "1"),
        ("x", 100_000, ""),
        ("\\", 50_000, '"'),
        ("{1,", 10_000, ""),
        ("9", 70_000, ""),
    ],
)
def test_huge_statements_are_refused(piece, times, end):
    with pytest.raises(ExpressionSyntaxError) as refused:
        compile_expression(piece * times + end)
    assert len(str(refused.value)) < 1500


def test_many_conditions_in_a_row_are_no_problem():
    expression = compile_expression("/a == 1 and /b == 2 or " * 2_000 + "/c == 3")
    assert expression.test({"c": 3}, Meta())
    assert not expression.test({"a": 1}, Meta())
    assert expression.test({"a": 1, "b": 2}, Meta())
    assert len(expression.warnings) == 1
    assert len(expression.warnings[0]) < 2_000
    assert compile_expression("9" * 10_000).warnings != []


@given(st.text(max_size=30) | st.lists(statements | st.sampled_from(["${", "}"]), max_size=6).map("".join))
def test_any_text_is_a_template_or_a_syntax_error(text):
    try:
        compile_template(text)
    except ExpressionSyntaxError:
        assert not valid_format(text)


@pytest.mark.parametrize(
    ("statement", "position", "reason"),
    [
        ("6 /2", 2, "a division needs a blank after /"),
        ("/a-b == 1", 3, "a key with other signs"),
        ("/a == 'x'", 6, "double quotes"),
        ("/a = 1", 3, "equality is written =="),
        ("/a==1 && /b==2", 6, "` and `"),
        ("/a==1 AND /b==2", 6, "lower case with one blank"),
        ("/a==1\nand /b==2", 6, "lower case with one blank"),
        ("/list[0]", 5, "addressed as /list/0"),
        ('/a == "costs $5"', 6, r"\$"),
        ("007", 0, "neither a number nor a name"),
        ('/a in {"/x"}', 7, '"""/x"""'),
        ("/a in 5", 6, "takes a set"),
        ('/a + "b" == "ab"', 9, "only be a whole statement or an argument"),
        ("not /a typeof integer", 6, "use parentheses"),
        ('"/a" typeof integer', 4, "pointer without quotes"),
        ("/a typeof int", 10, "takes one of array, big_decimal"),
        ("(true) =~ \"x\"", 7, "only a pointer or a string"),
        ("1 + true", 4, "takes numbers"),
        ('"a" - "b"', 4, "by +"),
        ("(/a == 1", 8, "expected ')', found end of the statement"),
        ("/a ==", 5, "unexpected end of the statement"),
        ("1" + " + 1" * (DEPTH_MAX + 1), 605, "levels"),
        ("(" * (NESTING_MAX + 1) + "1" + ")" * (NESTING_MAX + 1), NESTING_MAX, "nested deeper"),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_the_way_out(statement, position, reason):
    with pytest.raises(ExpressionSyntaxError) as refused:
        compile_expression(statement)
    assert refused.value.position == position
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "statement",
    [
        "6 / 2",
        "/a/ /b",
        "/a - -1",
        "/a-1",
        "/a==1 and  /b==2",
        "not not true",
        "not (/a typeof integer)",
        "/a == /b =~ \"x\"",
        "/a in {1} in {true}",
        "length(\"a\" + /b) > 1",
        "not(true)",
        "f(1, /a, \"/b\", g(), 1 + 2, /a == 1)",
        "1.050",
        "(" * NESTING_MAX + "1" + ")" * NESTING_MAX,
        "/a == 1" + " or /b == 2 and /c == 3" * 500,
    ],
)  # fmt: skip
def test_statements_that_are_accepted(statement):
    assert compile_expression(statement).text == statement
