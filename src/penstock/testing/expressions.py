"""Evaluate one expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.batch import Body, Meta
from penstock.expr import Expression
from penstock.expr import compile_expression as _compile


def compile_expression(expression: str) -> Expression:
    """Compile without evaluating. Raises `penstock.ExpressionSyntaxError`."""
    return _compile(expression)


def evaluate(
    expression: str,
    event: Body,
    *,
    metadata: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
    event_type: str | None = None,
    conditional: bool = False,
) -> Any:
    """The value of an expression for an event.

    `conditional`: as conditions are evaluated, where a failing evaluation is False and any result but a boolean raises
    `penstock.ExpressionError`.
    """
    compiled = _compile(expression)
    meta = Meta(event_type or "LOG", 0, dict(metadata or {}), tags or ())
    return compiled.test(event, meta) if conditional else compiled.evaluate(event, meta)
