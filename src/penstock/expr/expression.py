"""One compiled statement."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

from penstock.core.batch import Body, Meta, copy_value
from penstock.core.clock import Clock
from penstock.core.errors import ExpressionError
from penstock.core.inline import Inline
from penstock.core.key import Key
from penstock.expr.compile import Compiler, Part
from penstock.expr.functions import Evaluate, Surroundings
from penstock.expr.parse import parse
from penstock.expr.values import java_text, java_type, plain, shortest_single

log = logging.getLogger(__name__)

Test = Callable[[Body, Meta], bool]


class Expression:
    """What a statement means: `evaluate` gives its value, `test` its truth."""

    __slots__ = (
        *("_inline", "evaluate", "failures", "is_plain", "keys"),
        *("needs_meta", "test", "text", "typed", "warnings"),
    )

    evaluate: Callable[[Body, Meta], Any]
    """The value; it shares nothing with the event. Raises ExpressionError."""
    test: Test
    """Whether the condition holds. What cannot be evaluated does not hold. Raises ExpressionError when the value is
    no Boolean."""
    typed: Callable[[Body, Meta], Any]
    """The value as the language has it: a Long or Double where `java_type` could not tell it from the value."""

    def __init__(self, text: str, part: Part, compiler: Compiler) -> None:
        self.text = text
        self.keys: frozenset[Key] = frozenset(compiler.keys)
        """The keys it reads; the root key when it reads the whole event."""
        self.needs_meta = compiler.needs_meta
        """Whether it reads metadata at all; where it does not, any `Meta` will do."""
        self.warnings: list[str] = compiler.warnings
        """Where the statement will not be read, or will not work, as its author is likely to think."""
        self.failures = 0
        """How often `test` gave false because the evaluation failed."""
        self.typed = run = compiler.function(part)
        self.evaluate = _evaluate(text, run, computed=part.computed)
        self.is_plain = part.boolean and part.safe
        """The value is a Boolean whatever the event holds."""
        self.test = run if self.is_plain else self._guarded(run)
        self._inline = Inline(part.source, **compiler.names) if self.is_plain else None

    def inline(self, prefix: str) -> Inline:
        """What `test` does, as a Python expression over `body` and `meta`, whose own names begin with `prefix`."""
        if self._inline is None:
            inline = Inline(f"{prefix}_test(body, meta)", **{f"{prefix}_test": self.test})
        else:
            inline = self._inline.prefixed(prefix)
        inline.reads_meta = self.needs_meta
        return inline

    def _guarded(self, run: Test) -> Test:
        def test(body: Body, meta: Meta) -> bool:
            try:
                value = run(body, meta)
            except ExpressionError as error:
                self._note(error)
                return False
            if value is True or value is False:
                return value
            raise ExpressionError(
                f'Unexpected expression return value of {java_text(value)} for "{self.text}"',
                logged=f'Unexpected expression return value of type {java_type(value)} for "{self.text}"',
            )

        return test

    def _note(self, error: ExpressionError) -> None:
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:  # the 1st, 2nd, 4th, 8th …, so that a log is never flooded
            log.debug('Unable to evaluate statement "%s" (%d times so far): %s', self.text, self.failures, error)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def compile_expression(
    text: str, *, clock: Clock | None = None, new_uuid: Callable[[], str] | None = None
) -> Expression:
    """Compile a statement. Raises ExpressionSyntaxError when it does not parse.

    `clock` serves `now()` and `new_uuid` serves `generateUuid()`; without them the machine's own are used.
    """
    tree = parse(text)
    compiler = Compiler(text, Surroundings(clock or Clock(), new_uuid or _random_uuid))
    return Expression(text, compiler.compile(tree), compiler)


def _random_uuid() -> str:
    return str(uuid.uuid4())


def _evaluate(text: str, run: Evaluate, *, computed: bool) -> Evaluate:
    def evaluate(body: Body, meta: Meta) -> Any:
        try:
            value = run(body, meta)
        except ExpressionError as error:
            reason = f'Unable to evaluate statement "{text}": '
            raise ExpressionError(f"{reason}{error}", logged=f"{reason}{error.logged}") from error
        kind = type(value)
        if kind is str or kind is int:
            return value
        if kind is float:
            return shortest_single(value) if computed else value
        return copy_value(plain(value))

    return evaluate
