"""Every expression vector: value, truth, syntax and format strings as Data Prepper has them."""

import json
import math
import re
from pathlib import Path

import pytest

from penstock.core.batch import Meta
from penstock.core.errors import ExpressionError, ExpressionSyntaxError
from penstock.expr import compile_expression, dynamic_expressions, dynamic_keys, java_type, valid_format

HERE = Path(__file__).parent
VECTORS = [json.loads(line) for line in (HERE / "expressions.jsonl").read_text().splitlines()]
DIFFERENT = set(re.findall(r"^\| `?(expr-[\w-]+)`? \|", (HERE / "differences.md").read_text(), re.MULTILINE))


def parameters():
    for vector in VECTORS:
        marks = [pytest.mark.xfail(strict=True, reason="see differences.md")] if vector["id"] in DIFFERENT else []
        yield pytest.param(vector, id=vector["id"], marks=marks)


def same(actual, expected, approx=None):
    if isinstance(expected, bool) or isinstance(actual, bool) or expected is None:
        return actual is expected
    if isinstance(expected, int | float) and isinstance(actual, int | float):
        return math.isclose(actual, expected, rel_tol=approx or 0.0)
    if isinstance(expected, list) and isinstance(actual, list):
        return len(actual) == len(expected) and all(map(same, actual, expected))
    if isinstance(expected, dict) and isinstance(actual, dict):
        return actual.keys() == expected.keys() and all(same(actual[name], expected[name]) for name in expected)
    return actual == expected


FORMAT_MODES = {
    "valid_format": valid_format,
    "dynamic_keys": dynamic_keys,
    "dynamic_expressions": dynamic_expressions,
}


@pytest.mark.parametrize("vector", list(parameters()))
def test_vector(vector):
    text, mode = vector["expression"], vector.get("mode")
    if mode in FORMAT_MODES:
        assert FORMAT_MODES[mode](text) == vector["expect"]
        return
    if "valid" in vector:
        if vector["valid"]:
            compile_expression(text)
        else:
            with pytest.raises(ExpressionSyntaxError, match=r"^Unable to parse statement"):
                compile_expression(text)
        return

    body = vector.get("event", {})
    meta = Meta(vector.get("event_type", "event"), attributes=vector.get("metadata", {}), tags=vector.get("tags", ()))
    run = {"value": lambda e: e.evaluate(body, meta), "conditional": lambda e: e.test(body, meta)}[mode]
    if vector.get("expect_error"):
        with pytest.raises(ExpressionError):
            run(compile_expression(text))
        return

    expression = compile_expression(text)
    actual = run(expression)
    assert same(actual, vector["expect"], vector.get("approx")), actual
    if "expect_type" in vector:
        assert java_type(expression.typed(body, meta)).lower() == vector["expect_type"].lower()
