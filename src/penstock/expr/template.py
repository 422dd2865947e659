"""Format strings: text with `${...}` parts, each an event key or an expression.

A part is first read as a key. Where that gives nothing, it is evaluated as an expression if it is one, and a null
result prints nothing. Otherwise the default stands in, or formatting fails. Source: `expressions` in docs/behaviour.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final, NamedTuple

from penstock.core.batch import Body, Meta
from penstock.core.clock import Clock
from penstock.core.errors import EventError, ExpressionError, ExpressionSyntaxError
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


_PLAIN: Final = frozenset((str, int))
"""Types that are written as Python writes them."""


class Template:
    """A compiled format string."""

    __slots__ = ("_literals", "_placeholders", "expressions", "is_constant", "keys", "needs_meta", "render", "text")

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
        self.render = _renderer(literals, placeholders)

    def render_or(self, body: Body, meta: Meta, default: str) -> str:
        """The text for one event, with `default` in place of each part that cannot be found."""
        pieces = [self._literals[0]]
        for part, literal in zip(self._placeholders, self._literals[1:], strict=True):
            value = _resolve(part, body, meta)
            pieces.append(default if value is MISSING else _printed(value))
            pieces.append(literal)
        return "".join(pieces)

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
        raise EventError(str(error), cause="expression") from error


def _printed(value: Any) -> str:
    if value is None:
        return ""
    try:
        return java_text(value)
    except RecursionError:
        raise EventError("The value is nested too deeply for a text", cause="format") from None


def _renderer(literals: list[str], placeholders: list[Placeholder]) -> Render:
    if not placeholders:
        text = literals[0]
        return lambda body, meta: text
    if len(placeholders) == 1:
        return _one(placeholders[0], *literals)
    return _many(literals, placeholders)


def _one(part: Placeholder, before: str, after: str) -> Render:
    """The most common template of all: one key with text around it."""

    def render(body: Body, meta: Meta) -> str:
        return f"{before}{_found(part, body, meta)}{after}"

    if part.key is None:
        attribute = _attribute(part)
        return render if attribute is None else _one_attribute(attribute, before, after, render)
    get = part.key.get

    if len(part.key.parts) == 1:
        name = part.key.parts[0]

        def render_top(body: Body, meta: Meta) -> str:
            value: Any = body.get(name)
            kind = type(value)
            if kind is str or (kind is int and -_SHORT_END < value < _SHORT_END):
                return f"{before}{value}{after}"
            return render(body, meta)

        return render_top

    def render_key(body: Body, meta: Meta) -> str:
        value = get(body)
        kind = type(value)
        if kind is str or (kind is int and -_SHORT_END < value < _SHORT_END):
            return f"{before}{value}{after}"
        return render(body, meta)

    return render_key


def _attribute(part: Placeholder) -> str | None:
    """The attribute that the part reads, where that is all it does."""
    found = None if part.expression is None else _GET_METADATA.fullmatch(part.name.strip())
    return found[1].strip() or None if found else None


def _one_attribute(name: str, before: str, after: str, otherwise: Render) -> Render:
    """`${getMetadata("name")}`: ids, actions and versions of events that come from databases."""

    def render(body: Body, meta: Meta) -> str:
        value: Any = meta.attributes.get(name)
        kind = type(value)
        if kind is str or (kind is int and -_SHORT_END < value < _SHORT_END):
            return f"{before}{value}{after}"
        return otherwise(body, meta)

    def render_bare(body: Body, meta: Meta) -> str:
        value = meta.attributes.get(name)
        if type(value) is str:
            return value
        return otherwise(body, meta)

    return render if before or after else render_bare


def _many(literals: list[str], placeholders: list[Placeholder]) -> Render:
    first = literals[0]
    pairs = [
        (part, part.key.get if part.key is not None else None, _attribute(part), literal)
        for part, literal in zip(placeholders, literals[1:], strict=True)
    ]

    def render(body: Body, meta: Meta) -> str:
        pieces = [first]
        for part, get, attribute, literal in pairs:
            value = meta.attributes.get(attribute) if attribute is not None else None if get is None else get(body)
            if type(value) is str:
                pieces.append(value)
            else:
                pieces.append(_found(part, body, meta))
            pieces.append(literal)
        return "".join(pieces)

    names = [part.key.parts[0] for part in placeholders if part.key is not None and len(part.key.parts) == 1]
    if len(names) < len(placeholders):
        return render
    pick, pattern = itemgetter(*names), "%s".join(literal.replace("%", "%%") for literal in literals)

    def render_top(body: Body, meta: Meta) -> str:
        try:
            values = pick(body)
            if _PLAIN.issuperset(map(type, values)):
                text: str = pattern % values
                return text
        except (KeyError, ValueError):
            pass  # a key that is not there, or a number too long to be written: `render` says so
        return render(body, meta)

    return render_top


def _found(part: Placeholder, body: Body, meta: Meta) -> str:
    value = _resolve(part, body, meta)
    if value is MISSING:
        raise EventError(f"The key {part.name} could not be found in the Event when formatting", cause="format")
    return _printed(value)
