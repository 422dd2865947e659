"""The language of conditions (`*_when`, routes), of `value_expression` and of `${...}` in format strings."""

from __future__ import annotations

from penstock.expr.expression import Expression, compile_expression
from penstock.expr.template import Template, compile_template, dynamic_expressions, dynamic_keys, valid_format
from penstock.expr.values import java_text, java_type

__all__ = [
    "Expression",
    "Template",
    "compile_expression",
    "compile_template",
    "dynamic_expressions",
    "dynamic_keys",
    "java_text",
    "java_type",
    "valid_format",
]
