"""Format strings: text with `${...}` parts, each an event key or an expression.

A part is first read as a key. Where that gives nothing, it is evaluated as an expression if it is one, and a null
result prints nothing. Otherwise the default stands in, or formatting fails. Source: `expressions` in docs/behaviour.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from penstock.core.batch import Body, Meta
from penstock.core.clock import Clock
from penstock.core.errors import EventError, ExpressionError, ExpressionSyntaxError
from penstock.core.inline import Inline
from penstock.core.key import MISSING, Key, valid_key
from penstock.expr.expression import Expression, compile_expression
from penstock.expr.values import java_text

Render = Callable[[Body, Meta], str]

_GET_METADATA = re.compile(r'getMetadata\("([^"/\\]+)"\)')

NOT_CLOSED = "Format string is not properly formed"


class Placeholder(NamedTuple):
    """One `${...}`."""

    name: str
    key: Key | None
    expression: Expression | None


_SHORT_END: Final = 2**64
"""Integers below are written at once; `java_text` refuses those that are too long to be written."""


class Template:
    """A compiled format string."""

    __slots__ = (
        "_inline",
        "_literals",
        "_placeholders",
        "expressions",
        "is_constant",
        "keys",
        "needs_meta",
        "render",
        "text",
    )

    render: Render
    """The text for one event. Raises EventError when a part cannot be found or evaluated."""

    def __init__(self, text: str, literals: list[str], placeholders: list[Placeholder]) -> None:
        self.text = text
        self._literals = literals
        """The texts around the placeholders: one more than there are of them."""
        self._placeholders = placeholders
        self.is_constant = not placeholders
        self.expressions = tuple(part.expression for part in placeholders if part.expression is not None)
        self.keys: frozenset[Key] = frozenset(
            key
            for part in placeholders
            for key in ([part.key] if part.key else []) + ([*part.expression.keys] if part.expression else [])
        )
        """All keys it may read, those of its expressions too."""
        self.needs_meta = any(expression.needs_meta for expression in self.expressions)
        self._inline = _compiled(literals, placeholders)
        self.render = eval(f"lambda body, meta: {self._inline.source}", self._inline.names)  # noqa: S307 (our own text)

    def render_or(self, body: Body, meta: Meta, default: str) -> str:
        """The text for one event, with `default` in place of each part that cannot be found."""
        pieces = [self._literals[0]]
        for part, literal in zip(self._placeholders, self._literals[1:], strict=True):
            value = _resolve(part, body, meta)
            pieces.append(default if value is MISSING else _printed(value))
            pieces.append(literal)
        return "".join(pieces)

    def inline(self, prefix: str, otherwise: Render) -> Inline:
        """What `render` does, as a Python expression over `body` and `meta`, whose own names begin with `prefix`.

        `otherwise` is called for all that is unusual.
        """
        inline = self._inline.prefixed(prefix)
        inline.names[f"{prefix}_0"] = otherwise
        inline.reads_meta = self.needs_meta
        return inline

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def compile_template(
    text: str, *, with_expressions: bool = True, clock: Clock | None = None, new_uuid: Callable[[], str] | None = None
) -> Template:
    """Compile a format string. Raises ExpressionSyntaxError for a `${` that is not closed.

    `with_expressions=False` knows keys only.
    """
    parts = _split(text)
    if parts is None:
        raise ExpressionSyntaxError(f"{NOT_CLOSED}: {text}", position=text.rindex("${"))
    literals, names = parts

    def placeholder(name: str) -> Placeholder:
        key = Key.parse(name, "get") if valid_key(name) else None
        expression = None
        if with_expressions:
            try:
                expression = compile_expression(name, clock=clock, new_uuid=new_uuid)
            except ExpressionSyntaxError:
                expression = None
        return Placeholder(name, key, expression)

    return Template(text, literals, [placeholder(name) for name in names])


def valid_format(text: str) -> bool:
    """Whether every `${...}` is closed and is a valid key or a valid expression."""
    parts = _split(text)
    return parts is not None and all(valid_key(name) or _parses(name) for name in parts[1])


def dynamic_keys(text: str) -> list[str]:
    """The keys a format string refers to, each with a leading slash; none when it is not properly formed."""
    parts = _split(text)
    return [] if parts is None else [f"/{name.removeprefix('/')}" for name in parts[1] if valid_key(name)]


def dynamic_expressions(text: str) -> list[str]:
    """The expressions a format string refers to, other than keys; none when it is not properly formed."""
    parts = _split(text)
    return [] if parts is None else [name for name in parts[1] if not valid_key(name) and _parses(name)]


def _parses(text: str) -> bool:
    try:
        compile_expression(text)
    except ExpressionSyntaxError:
        return False
    return True


def _split(text: str) -> tuple[list[str], list[str]] | None:
    """The texts around the placeholders, and the placeholders; None when one is not closed."""
    literal, *rest = text.split("${")
    literals, names = [literal], []
    for piece in rest:
        name, closing, literal = piece.partition("}")
        if not closing:
            return None
        names.append(name)
        literals.append(literal)
    return literals, names


def _resolve(part: Placeholder, body: Body, meta: Meta) -> Any:
    """The value of a part, `MISSING` when it cannot be found; None prints nothing."""
    if part.key is not None:
        value = part.key.get(body)
        if value is not MISSING and value is not None:
            return value
    if part.expression is None:
        return MISSING
    try:
        return part.expression.evaluate(body, meta)
    except ExpressionError as error:
        raise EventError(str(error), cause="expression", logged=error.logged) from error


def _printed(value: Any) -> str:
    if value is None:
        return ""
    try:
        return java_text(value)
    except RecursionError:
        raise EventError("The value is nested too deeply for a text", cause="format") from None


def _compiled(literals: list[str], placeholders: list[Placeholder]) -> Inline:
    """An expression for the text: one that serves texts and short integers, or else a call of `_0`.

    The source holds none of the texts of the template; they are values too.
    """
    values: list[Any] = [_renderer(literals, placeholders)]

    def bound(value: Any) -> str:
        values.append(value)
        return f"_{len(values) - 1}"

    tests, pieces = [], [bound(literals[0])]
    for place, (part, literal) in enumerate(zip(placeholders, literals[1:], strict=True)):
        read, value = _reading(part, bound), f"v{place}"
        if read is None:
            pieces.append(f"{bound(partial(_found, part))}(body, meta)")
        else:
            short = f"type({value}) is int and {-_SHORT_END} < {value} < {_SHORT_END}"
            tests.append(f"(type({value} := {read}) is str or {short})")
            pieces.append(value)
        if literal:
            pieces.append(bound(literal))
    text = "".join(f"{{{piece}}}" for piece in pieces[not literals[0] :])
    source = f'f"{text}" if {" and ".join(tests)} else _0(body, meta)' if tests else "_0(body, meta)"
    return Inline(source, **{f"_{place}": value for place, value in enumerate(values)})


def _reading(part: Placeholder, bound: Callable[[Any], str]) -> str | None:
    """An expression for the value of a part; None where it is more than a key or an attribute."""
    attribute = _attribute(part)
    if attribute is not None:
        return f"meta.attributes.get({bound(attribute)})"
    if part.key is None:
        return None
    return f"body.get({bound(part.key.parts[0])})" if len(part.key.parts) == 1 else f"{bound(part.key.get)}(body)"


def _renderer(literals: list[str], placeholders: list[Placeholder]) -> Render:
    """The way that serves all values."""
    if not placeholders:
        text = literals[0]
        return lambda body, meta: text
    first, pairs = literals[0], list(zip(placeholders, literals[1:], strict=True))

    def render(body: Body, meta: Meta) -> str:
        pieces = [first]
        for part, literal in pairs:
            pieces += (_found(part, body, meta), literal)
        return "".join(pieces)

    return render


def _attribute(part: Placeholder) -> str | None:
    """The attribute that the part reads, where that is all it does."""
    found = None if part.expression is None else _GET_METADATA.fullmatch(part.name.strip())
    return found[1].strip() or None if found else None


def _found(part: Placeholder, body: Body, meta: Meta) -> str:
    value = _resolve(part, body, meta)
    if value is MISSING:
        raise EventError(f"The key {part.name} could not be found in the Event when formatting", cause="format")
    return _printed(value)
