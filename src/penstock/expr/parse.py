"""The grammar of the expression language, from tokens to a tree.

A statement is a condition, an arithmetic expression or a concatenation of strings. Which of them it can be follows
from its operands, so one pass is enough: each node carries the `Form` in which it may stand inside an operator.
Source: `expressions` in docs/behaviour.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from penstock.core.errors import ExpressionSyntaxError
from penstock.expr import lex
from penstock.expr.lex import Token

NESTING_MAX = 50
"""Parentheses, calls, signs and negations inside each other."""
DEPTH_MAX = 150
"""Of the tree, where each operator of a chain such as `1 + 2 + 3` adds a level; `and` and `or` add only one."""
INTEGER_DIGITS_MAX = 20


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a statement; `start` and `end` are its place in the text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    value: Any
    """A str, bool, float or None, or an int of any size."""


@dataclass(frozen=True, slots=True)
class Pointer(Node):
    path: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Variable(Node):
    text: str


@dataclass(frozen=True, slots=True)
class SetOf(Node):
    members: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Call(Node):
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Group(Node):
    inner: Node


@dataclass(frozen=True, slots=True)
class Unary(Node):
    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary(Node):
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class TypeOf(Node):
    pointer: Pointer
    type_name: str


@dataclass(frozen=True, slots=True)
class Chain(Node):
    """Operands of `and` and `or`, which bind alike and are read from left to right."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


class Form(Enum):
    """What a node may be an operand of."""

    POINTER = auto()
    STRING = auto()
    FUNCTION = auto()
    ARITHMETIC = auto()
    CONCATENATION = auto()
    OTHER = auto()


_ARITHMETIC: Final = frozenset((Form.POINTER, Form.FUNCTION, Form.ARITHMETIC))
_CONCATENABLE: Final = frozenset((Form.POINTER, Form.FUNCTION, Form.STRING))
_MATCHABLE: Final = frozenset((Form.POINTER, Form.STRING))

_SUMS: Final = frozenset("+-")
_PRODUCTS: Final = frozenset("*/%")
_RELATIONS: Final = frozenset(("<", "<=", ">", ">="))
_EQUALITIES: Final = frozenset(("==", "!="))
_MATCHES: Final = frozenset(("=~", "!~"))
_MEMBERSHIPS: Final = frozenset(("in", "not in"))
_LOGIC: Final = frozenset(("and", "or"))
_LITERALS: Final = frozenset((lex.INTEGER, lex.FLOAT, lex.BOOLEAN, lex.STRING, lex.NULL))

Parsed = tuple[Node, Form]


def parse(statement: str) -> Node:
    """The tree of a statement. Raises ExpressionSyntaxError, and nothing else, for any text."""
    return _Parser(statement).statement()


class _Parser:
    def __init__(self, statement: str) -> None:
        self._text = statement
        self._tokens = lex.tokens_of(statement)
        self._at = 0
        self._nesting = 0

    def statement(self) -> Node:
        node, _ = self._conditional()
        if self._peek().kind != lex.END:
            raise self._unexpected(self._peek())
        if _depth(node) > DEPTH_MAX:
            raise self._error(self._peek(), f"the statement has more than {DEPTH_MAX} levels")
        return node

    # Each method below reads one level of the grammar, weakest first.

    def _conditional(self) -> Parsed:
        node, form = self._equality()
        rest: list[tuple[str, Node]] = []
        while self._peek().kind in _LOGIC:
            self._refuse_concatenation(form)
            operator = self._next().kind
            operand, form = self._equality()
            self._refuse_concatenation(form)
            rest.append((operator, operand))
        if not rest:
            return node, form
        return Chain(node.start, rest[-1][1].end, node, tuple(rest)), Form.OTHER

    def _equality(self) -> Parsed:
        left, form = self._match()
        while self._peek().kind in _EQUALITIES:
            self._refuse_concatenation(form)
            operator = self._next()
            right, form = self._match()
            self._refuse_concatenation(form)
            left, form = Binary(left.start, right.end, operator.kind, left, right), Form.OTHER
        return left, form

    def _match(self) -> Parsed:
        left, form = self._relational()
        if self._peek().kind not in _MATCHES:
            return left, form
        operator = self._next()
        if form not in _MATCHABLE:
            raise self._error(operator, f"{operator.kind} takes only a pointer or a string on its left side")
        right, form = self._primary()
        if form not in _MATCHABLE:
            raise self._error_in(right, f"{operator.kind} takes only a pointer or a string on its right side")
        return Binary(left.start, right.end, operator.kind, left, right), Form.OTHER

    def _relational(self) -> Parsed:
        left, form = self._membership_or_typeof()
        while self._peek().kind in _RELATIONS:
            self._refuse_concatenation(form)
            operator = self._next()
            right, form = self._membership_or_typeof()
            self._refuse_concatenation(form)
            left, form = Binary(left.start, right.end, operator.kind, left, right), Form.OTHER
        return left, form

    def _membership_or_typeof(self) -> Parsed:
        left, form = self._sum()
        if self._peek().kind == "typeof":
            return self._typeof(left), Form.OTHER
        while self._peek().kind in _MEMBERSHIPS:
            self._refuse_concatenation(form)
            operator = self._next()
            if self._peek().kind != "{":
                raise self._error(self._peek(), f"`{operator.kind}` takes a set such as {{1, 2}} on its right side")
            right = self._set()
            left, form = Binary(left.start, right.end, operator.kind, left, right), Form.OTHER
        return left, form

    def _typeof(self, pointer: Node) -> Node:
        operator = self._next()
        if not isinstance(pointer, Pointer) or pointer.quoted:
            raise self._error(
                operator, "`typeof` takes a pointer without quotes on its left side; use parentheses around it"
            )
        name = self._next()
        if name.kind != lex.TYPE_NAME:
            raise self._error(name, f"`typeof` takes one of {', '.join(sorted(lex.TYPE_NAMES))}")
        return TypeOf(pointer.start, name.end, pointer, name.text)

    def _sum(self) -> Parsed:
        left, form = self._product()
        pure = form in _CONCATENABLE
        while self._peek().kind in _SUMS:
            operator = self._next()
            right, right_form = self._product()
            strings = Form.STRING in (form, right_form) or form is Form.CONCATENATION
            pure = pure and operator.kind == "+" and right_form in _CONCATENABLE
            if strings:
                if not pure:
                    raise self._error(operator, "strings can only be joined with strings, pointers and functions, by +")
                result = Form.CONCATENATION
            else:
                self._need_arithmetic(left, form, operator)
                self._need_arithmetic(right, right_form, operator)
                result = Form.ARITHMETIC
            left, form = Binary(left.start, right.end, operator.kind, left, right), result
        return left, form

    def _product(self) -> Parsed:
        left, form = self._operand()
        while self._peek().kind in _PRODUCTS:
            operator = self._next()
            right, right_form = self._operand()
            self._need_arithmetic(left, form, operator)
            self._need_arithmetic(right, right_form, operator)
            left, form = Binary(left.start, right.end, operator.kind, left, right), Form.ARITHMETIC
        return left, form

    def _operand(self) -> Parsed:
        token = self._peek()
        if token.kind != "-":
            return self._unary()
        self._descend(token)
        self._next()
        operand, form = self._operand()
        self._need_arithmetic(operand, form, token)
        self._nesting -= 1
        return Unary(token.start, operand.end, "-", operand), Form.ARITHMETIC

    def _unary(self) -> Parsed:
        token = self._peek()
        if token.kind == "not":
            self._descend(token)
            self._next()
            operand, _ = self._unary()
            self._nesting -= 1
            return Unary(token.start, operand.end, "not", operand), Form.OTHER
        if token.kind == "(":
            self._descend(token)
            self._next()
            inner, form = self._conditional()
            self._refuse_concatenation(form)
            end = self._expect(")").end
            self._nesting -= 1
            return Group(token.start, end, inner), Form.ARITHMETIC if form in _ARITHMETIC else Form.OTHER
        return self._primary()

    def _primary(self) -> Parsed:
        token = self._next()
        match token.kind:
            case lex.POINTER:
                return Pointer(token.start, token.end, token.text, False), Form.POINTER
            case lex.QUOTED_POINTER:
                return Pointer(token.start, token.end, token.text[1:-1], True), Form.POINTER
            case lex.NAME if self._peek().kind == "(":
                return self._call(token), Form.FUNCTION
            case lex.VARIABLE:
                return Variable(token.start, token.end, token.text), Form.OTHER
            case "{":
                self._at -= 1
                return self._set(), Form.OTHER
            case lex.STRING:
                return _literal(token), Form.STRING
            case lex.INTEGER | lex.FLOAT:
                return _literal(token), Form.ARITHMETIC
            case lex.BOOLEAN | lex.NULL:
                return _literal(token), Form.OTHER
            case _:
                raise self._unexpected(token)

    def _set(self) -> SetOf:
        start = self._expect("{").start
        members = [self._set_member()]
        while self._peek().kind == ",":
            self._next()
            members.append(self._set_member())
        return SetOf(start, self._expect("}").end, tuple(members))

    def _set_member(self) -> Literal:
        token = self._next()
        if token.kind == lex.QUOTED_POINTER:
            raise self._error(token, f'a set holds no pointers; write the string as """{token.text[1:-1]}"""')
        if token.kind not in _LITERALS:
            raise self._error(
                token, "a set holds at least one value, and only numbers, strings or booleans without a sign"
            )
        return _literal(token)

    def _call(self, name: Token) -> Node:
        self._descend(name)
        self._expect("(")
        arguments: list[Node] = []
        if self._peek().kind != ")":
            arguments.append(self._conditional()[0])
            while self._peek().kind == ",":
                self._next()
                arguments.append(self._conditional()[0])
        end = self._expect(")").end
        self._nesting -= 1
        return Call(name.start, end, name.text, tuple(arguments))

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        if token.kind != lex.END:
            self._at += 1
        return token

    def _expect(self, kind: str) -> Token:
        token = self._next()
        if token.kind != kind:
            raise self._unexpected(token, f"expected {kind!r}, found")
        return token

    def _descend(self, token: Token) -> None:
        self._nesting += 1
        if self._nesting > NESTING_MAX:
            raise self._error(token, f"the statement is nested deeper than {NESTING_MAX} levels")

    def _need_arithmetic(self, node: Node, form: Form, operator: Token) -> None:
        if form not in _ARITHMETIC:
            raise self._error_in(node, f"{operator.kind} takes numbers, pointers and functions, not this operand")

    def _refuse_concatenation(self, form: Form) -> None:
        if form is Form.CONCATENATION:
            raise self._error(self._peek(), "a concatenation of strings can only be a whole statement or an argument")

    def _unexpected(self, token: Token, reason: str = "unexpected") -> ExpressionSyntaxError:
        found = "end of the statement" if token.kind == lex.END else repr(token.text)
        index = self._tokens.index(token)
        hint = _hint(token, self._tokens[index - 1] if index else None)
        return self._error(token, f"{reason} {found}{f' ({hint})' if hint else ''}")

    def _error_in(self, node: Node, reason: str) -> ExpressionSyntaxError:
        return lex.syntax_error(self._text, node.start, reason)

    def _error(self, token: Token, reason: str) -> ExpressionSyntaxError:
        return lex.syntax_error(self._text, token.start, reason)


def children(node: Node) -> tuple[Node, ...]:
    """The parts of a node, in the order of the text."""
    match node:
        case Binary():
            return node.left, node.right
        case Chain():
            return node.first, *(operand for _, operand in node.rest)
        case Unary():
            return (node.operand,)
        case Group():
            return (node.inner,)
        case Call():
            return node.arguments
        case TypeOf():
            return (node.pointer,)
        case SetOf():
            return node.members
        case _:
            return ()


def _depth(node: Node) -> int:
    depth, level = 0, [node]
    while level:
        depth += 1
        level = [child for parent in level for child in children(parent)]
    return depth


def _literal(token: Token) -> Literal:
    match token.kind:
        case lex.STRING:
            value: Any = _unquoted(token.text)
        case lex.INTEGER:
            value = _integer(token)
        case lex.FLOAT:
            value = float(token.text)
        case lex.BOOLEAN:
            value = token.text == "true"
        case _:
            value = None
    return Literal(token.start, token.end, value)


def _integer(token: Token) -> int:
    # What is longer fits no 64 bits anyway, which evaluation will say.
    return int(token.text) if len(token.text) <= INTEGER_DIGITS_MAX else 10**INTEGER_DIGITS_MAX


def _unquoted(text: str) -> str:
    """Up to three quotes go at each end, escapes stay as written: both as in Data Prepper."""
    body = text.lstrip('"') if len(text) - len(text.lstrip('"')) <= 3 else text[3:]
    trailing = min(len(body) - len(body.rstrip('"')), 3)
    return body[: len(body) - trailing]


def _hint(token: Token, before: Token | None) -> str:
    if token.kind == lex.NAME and token.text.lower() in ("and", "or", "in", "not", "typeof"):
        return f"`{token.text.lower()}` is written in lower case with one blank on each side"
    if token.kind == lex.POINTER and before is not None and before.kind in (lex.INTEGER, lex.FLOAT, lex.POINTER, ")"):
        return "a division needs a blank after /"
    if token.kind == lex.NAME and token.text[:1].isdigit():
        return "this is neither a number nor a name"
    if token.kind == lex.NAME:
        return 'strings stand in double quotes, keys start with /; a key with other signs is written "/like-this"'
    return ""
