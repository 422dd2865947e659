"""From the tree of a statement to one Python function, made once and called for each event.

Each part becomes a piece of Python source, and the pieces are put together into one function, so that a condition
costs one call whatever its size. Source holds nothing of the user's text but numbers: keys, strings and everything
that needs more than an expression are bound to names of our own. Whatever the text decides is decided here, and an
operand that no longer matters is skipped where it cannot fail: the language evaluates both sides, which can only be
seen when one of them raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from penstock.core.batch import Body, Meta
from penstock.core.errors import ExpressionError
from penstock.core.key import MISSING, Key
from penstock.expr import arithmetic
from penstock.expr.functions import FUNCTIONS, Argument, Evaluate, Surroundings
from penstock.expr.java_regex import MatchTimeout, is_limited, whole_match
from penstock.expr.parse import Binary, Call, Chain, Group, Literal, Node, Pointer, SetOf, TypeOf, Unary, Variable
from penstock.expr.values import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    LONG_MIN,
    NUMBERS,
    RELATIONS,
    equal,
    shortest_single,
    single,
    single_range,
)

log = logging.getLogger(__name__)

ROOT: Final = Key("")
SOURCE_DEPTH_MAX = 20
"""Deeper pieces become functions of their own: Python limits how deep its brackets may go."""
SHOWN_CHARACTERS_MAX = 500
"""Longer conditions are not written out again in a warning."""


class Part(NamedTuple):
    """A compiled part of a statement: a Python expression over `body` and `meta`."""

    source: str
    boolean: bool = False
    """The result is a Boolean whatever the event holds."""
    safe: bool = False
    """It never raises."""
    key: Key | None = None
    """The key, where the part is nothing but the value of one."""
    constant: Any = MISSING
    """The value, where it is the same for all events."""
    computed: bool = False
    """A number in single precision, to be written as briefly as that precision allows."""
    depth: int = 1
    """How deep the brackets of the source go."""


class Compiler:
    """Compiles one statement and notes what it reads and where it is likely to surprise."""

    def __init__(self, statement: str, around: Surroundings) -> None:
        self.statement = statement
        self.keys: set[Key] = set()
        self.needs_meta = False
        self.warnings: list[str] = []
        self.names: dict[str, Any] = {}
        """What the names in the source stand for."""
        self._around = around
        self._variables = 0

    def compile(self, node: Node) -> Part:
        """The part of a tree. What fails for every event becomes a part that raises, and a warning."""
        part = self._compile(node)
        if part.depth > SOURCE_DEPTH_MAX:
            return part._replace(source=self._call_of(self.function(part)), depth=1)
        return part

    def function(self, part: Part) -> Evaluate:
        """The Python function of a part."""
        run: Evaluate = eval(f"lambda body, meta: {part.source}", self.names)  # noqa: S307 (source of our own making)
        return run

    def _compile(self, node: Node) -> Part:
        match node:
            case Group():
                return self.compile(node.inner)
            case Literal():
                return self._literal(node)
            case Pointer():
                return self._pointer(node)
            case Chain():
                return self._chain(node)
            case Binary():
                return self._binary(node)
            case Unary(operator="not"):
                return self._negation(node)
            case Unary():
                return self._arithmetic(node, arithmetic.negate, [self.compile(node.operand)])
            case TypeOf():
                return self._typeof(node)
            case SetOf():
                return self._set(node)
            case Call():
                return self._call(node)
            case Variable():
                return self._always_fails(f"Unsupported terminal node type symbol string: {node.text}")
            case _:
                raise AssertionError(f"no rule for {node!r}")

    def _bind(self, value: Any) -> str:
        """A name for `value` in the source."""
        name = f"_{len(self.names)}"
        self.names[name] = value
        return name

    def _call_of(self, run: Evaluate) -> str:
        return f"{self._bind(run)}(body, meta)"

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _text_of(self, node: Node) -> str:
        return self.statement[node.start : node.end]

    def _always_fails(self, message: str, *, boolean: bool = False) -> Part:
        self.warnings.append(f'"{self.statement}" fails for every event: {message}')

        def fail(body: Body, meta: Meta) -> Any:
            raise ExpressionError(message)

        return Part(self._call_of(fail), boolean)

    def _constant(self, value: Any) -> Part:
        source = repr(value) if value is None or type(value) is bool else self._bind(value)
        return Part(f"({source})", type(value) is bool, True, constant=value)

    def _literal(self, node: Literal) -> Part:
        value = node.value
        if type(value) is int and value > LONG_MAX:
            return self._always_fails(f"{self._text_of(node)} does not fit into 64 bits")
        return self._constant(shortest_single(value) if type(value) is float else value)

    def _pointer(self, node: Pointer) -> Part:
        try:
            key = Key.parse(node.path, "get")
        except ValueError as error:
            return self._always_fails(str(error))
        self.keys.add(key)
        if len(key.parts) == 1:
            return Part(f"body.get({self._bind(key.parts[0])})", safe=True, key=key)
        slow = f"{self._bind(_null_for_missing(key))}(body)"
        if len(key.parts) > 2:
            return Part(slow, safe=True, key=key)
        inner = self._variable()
        first, second = map(self._bind, key.parts)
        quick = f"{inner}.get({second}) if type({inner} := body.get({first})) is dict"
        return Part(f"({quick} else {slow})", safe=True, key=key, depth=2)

    def _chain(self, node: Chain) -> Part:
        self._warn_about_order(node)
        first, rest = self.compile(node.first), [(name, self.compile(operand)) for name, operand in node.rest]
        if first.boolean and all(part.boolean and part.safe for _, part in rest):
            return self._short_circuit(first, rest)
        fold = self._bind(_folder([name == "and" for name, _ in rest]))
        parts = [first] + [part for _, part in rest]
        return Part(
            f"{fold}({', '.join(part.source for part in parts)})",
            True,
            all(part.safe for part in parts),
            depth=1 + max(part.depth for part in parts),
        )

    def _short_circuit(self, first: Part, rest: list[tuple[str, Part]]) -> Part:
        source, depth, last_name = first.source, first.depth, rest[0][0]
        for name, part in rest:
            if name != last_name:
                source, depth, last_name = f"({source})", depth + 1, name
                if depth > SOURCE_DEPTH_MAX:
                    source, depth = self._call_of(self.function(Part(source))), 1
            source, depth = f"{source} {name} {part.source}", max(depth, part.depth)
        return Part(f"({source})", True, first.safe, depth=depth + 1)

    def _warn_about_order(self, node: Chain) -> None:
        if len({name for name, _ in node.rest}) < 2:
            return
        rule = "`and` and `or` bind alike and are read from left to right"
        if node.end - node.start > SHOWN_CHARACTERS_MAX:
            self.warnings.append(f"{rule}; use parentheses")
            return
        text = self._text_of(node.first)
        *head, (last_name, last) = node.rest
        for name, operand in head:
            text = f"({text} {name} {self._text_of(operand)})"
        self.warnings.append(f'{rule}: "{self._text_of(node)}" is read as "{text} {last_name} {self._text_of(last)}"')

    def _negation(self, node: Unary) -> Part:
        operand = self.compile(node.operand)
        source = f"(not {operand.source})" if operand.boolean else f"({operand.source} is False)"
        return Part(source, True, operand.safe, depth=operand.depth + 1)

    def _binary(self, node: Binary) -> Part:
        name = node.operator
        if name in _ARITHMETIC:
            return self._arithmetic(node, _ARITHMETIC[name], [self.compile(node.left), self.compile(node.right)])
        self._warn_about_not(node)
        left = self.compile(node.left)
        if name in ("in", "not in"):
            return self._membership(node, left)
        right = self.compile(node.right)
        if name in ("=~", "!~"):
            part = self._match(left, right, name)
        elif name in ("==", "!="):
            part = self._equality(left, right, name)
        else:
            part = self._relation(left, right, name)
        return part._replace(boolean=True, depth=2 + max(left.depth, right.depth))

    def _warn_about_not(self, node: Binary) -> None:
        left = node.left
        if isinstance(left, Unary) and left.operator == "not":
            operand, rest = self._text_of(left.operand), self.statement[left.end : node.end]
            self.warnings.append(
                f'`not` applies to one operand only: "{self._text_of(node)}" is read as '
                f'"({self._text_of(left)}){rest}"; write "not ({operand}{rest})" to negate the comparison'
            )

    def _arithmetic(self, node: Node, compute: Callable[..., Any], operands: Sequence[Part]) -> Part:
        message = f"Unable to evaluate the part of input statement: {self._text_of(node)}"

        def calculate(*values: Any) -> Any:
            try:
                return compute(*values)
            except (TypeError, ValueError, ArithmeticError) as error:
                raise ExpressionError(f"{message}: {error}") from error

        if all(part.constant is not MISSING for part in operands):
            try:
                value = calculate(*(part.constant for part in operands))
            except ExpressionError as error:
                return self._always_fails(str(error))
            return self._constant(shortest_single(value) if type(value) is float else value)
        arguments = ", ".join(part.source for part in operands)
        depth = 1 + max(part.depth for part in operands)
        return Part(f"{self._bind(calculate)}({arguments})", computed=True, depth=depth)

    def _typeof(self, node: TypeOf) -> Part:
        pointer, name = self._pointer(node.pointer), node.type_name
        if name == "double":
            self.warnings.append(
                f'"{self._text_of(node)}" is always false: numbers with a fraction are read in single precision'
            )
        if name == "array":
            return Part(f"{self._bind(_array_test(node.pointer.path))}({pointer.source})", True, depth=2)
        return Part(f"{self._bind(_TYPE_TESTS[name])}({pointer.source})", True, pointer.safe, depth=2)

    def _set(self, node: SetOf) -> Part:
        values = [member.value for member in node.members]
        kinds = {_family(value) for value in values}
        if len(kinds) != 1 or None in kinds:
            return self._always_fails("All set members should be of same type")
        if any(type(value) is int and value > LONG_MAX for value in values):
            return self._always_fails("a member of the set does not fit into 64 bits")
        return self._constant(frozenset(shortest_single(value) if type(value) is float else value for value in values))

    def _membership(self, node: Binary, left: Part) -> Part:
        assert isinstance(node.right, SetOf)
        members = self._set(node.right)
        if members.constant is MISSING:
            return members._replace(boolean=True)
        kind = _family(next(iter(members.constant)))
        if kind is float:
            holds = _number_membership([member.value for member in node.right.members])
            source = f"{self._bind(holds)}({left.source})"
        else:
            value = self._variable()
            type_name = "str" if kind is str else "bool"
            source = f"(type({value} := {left.source}) is {type_name} and {value} in {members.source})"
        if node.operator == "not in":
            source = f"(not {source})"
        return Part(source, True, left.safe, depth=left.depth + 3)

    def _match(self, left: Part, right: Part, name: str) -> Part:
        """Where a pattern does not compile, or matching takes too long, the operand check fails, which is false."""
        safe = left.safe and right.safe
        wanted = "is not None" if name == "=~" else "is None"
        if type(right.constant) is str:
            try:
                matches = whole_match(right.constant)
            except ValueError as error:
                self.warnings.append(f'"{self.statement}": {name} is always false, {error}')
                return Part(f"({left.source}, False)[1]", safe=safe)
            if is_limited(right.constant):
                return Part(f"{self._bind(_match_in_time(matches, self.statement, name))}({left.source})", safe=safe)
            value = self._variable()
            return Part(
                f"(type({value} := {left.source}) is str and {self._bind(matches)}({value}) {wanted})", safe=safe
            )
        run = self._bind(_match_any(self.statement, name))
        return Part(f"{run}({left.source}, {right.source})", safe=safe)

    def _equality(self, left: Part, right: Part, name: str) -> Part:
        if left.constant is not MISSING:
            left, right = right, left
        constant, safe = right.constant, left.safe and right.safe
        if type(constant) is str:  # nothing but the same text equals a text
            return Part(f"({left.source} {name} {right.source})", safe=safe)
        if constant is None or type(constant) is bool:
            return Part(f"({left.source} {'is' if name == '==' else 'is not'} {right.source})", safe=safe)
        negation = "" if name == "==" else "not "
        if constant is MISSING:
            return Part(f"({negation}{self._bind(_deeply_equal)}({left.source}, {right.source}))")
        value, slow = self._variable(), self._bind(equal)
        plain = self._compared(value, "==", constant)
        return Part(f"({negation}({plain.format(left.source)} else {slow}({value}, {right.source})))", safe=safe)

    def _relation(self, left: Part, right: Part, name: str) -> Part:
        if left.constant is not MISSING:
            left, right, name = right, left, _MIRRORED[name]
        value, slow, safe = self._variable(), self._bind(RELATIONS[name]), left.safe and right.safe
        if right.constant is MISSING:
            return Part(f"{slow}({left.source}, {right.source})", safe=safe)
        plain = self._compared(value, name, right.constant)
        return Part(f"({plain.format(left.source)} else {slow}({value}, {right.source}))", safe=safe)

    def _compared(self, value: str, name: str, constant: Any) -> str:
        """The quick ways to compare what goes into `{}` with a number, up to the `else` for all that is unusual."""
        kind = type(constant)
        bounds = single_range(constant) if kind is int or kind is float else None
        if bounds is None:
            return f"False if ({value} := {{}}) is None"
        first, end = map(self._bind, bounds)
        as_float = {
            "==": f"{first} <= {value} < {end}",
            ">=": f"{value} >= {first}",
            ">": f"{value} >= {end}",
            "<": f"{value} < {first}",
            "<=": f"{value} < {end}",
        }[name]
        as_int = f"{value} {name} {constant}" if kind is int else as_float
        return f"{as_int} if type({value} := {{}}) is int else {as_float} if type({value}) is float"

    def _call(self, node: Call) -> Part:
        function = FUNCTIONS.get(node.name)
        if function is None:
            hint = "; a negation needs a blank: `not (...)`" if node.name == "not" else ""
            return self._always_fails(f"Unknown function in the expression: {node.name}(){hint}")
        arguments = [self._argument(argument) for argument in node.arguments]
        self.needs_meta = self.needs_meta or function.needs_meta
        if function.reads_all:
            self.keys.add(ROOT)
        try:
            run = function.build([argument for argument, _ in arguments], self._around)
        except ExpressionError as error:
            return self._always_fails(str(error), boolean=function.boolean)
        return Part(self._call_of(run), function.boolean, function.safe and all(safe for _, safe in arguments))

    def _argument(self, node: Node) -> tuple[Argument, bool]:
        if isinstance(node, Pointer) and node.quoted:
            return Argument(constant=node.path), True
        part = self.compile(node)
        if isinstance(node, Pointer) and part.key is not None:
            return Argument(key=part.key), True
        if part.constant is not MISSING:
            return Argument(constant=part.constant), True
        return Argument(evaluate=self.function(part)), part.safe


def _null_for_missing(key: Key) -> Callable[[Body], Any]:
    get = key.get

    def read(body: Body) -> Any:
        value = get(body)
        return None if value is MISSING else value

    return read


def _folder(operators: list[bool]) -> Callable[..., bool]:
    """`and` (True) and `or` (False) from left to right; one with an operand that is no Boolean is false."""

    def fold(first: Any, *rest: Any) -> bool:
        result = first
        for both, right in zip(operators, rest, strict=True):
            if type(result) is not bool or type(right) is not bool:
                result = False
            else:
                result = (result and right) if both else (result or right)
        return bool(result)

    return fold


def _deeply_equal(left: Any, right: Any) -> bool:
    try:
        return equal(left, right)
    except RecursionError:
        raise ExpressionError("values nested too deeply to be compared") from None


def _match_in_time(matches: Callable[[str], object], statement: str, name: str) -> Callable[[Any], bool]:
    wanted = name == "=~"

    def match(text: Any) -> bool:
        try:
            return type(text) is str and (matches(text) is not None) is wanted
        except MatchTimeout as error:
            log.warning('%s of "%s" is false for an event: %s', name, statement[:SHOWN_CHARACTERS_MAX], error)
            return False

    return match


def _match_any(statement: str, name: str) -> Callable[[Any, Any], bool]:
    def match(text: Any, pattern: Any) -> bool:
        if type(text) is not str or type(pattern) is not str:
            return False
        try:
            matches = whole_match(pattern)
        except ValueError:
            return False
        return _match_in_time(matches, statement, name)(text)

    return match


_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}

_ARITHMETIC: Final[dict[str, Callable[..., Any]]] = {
    "+": arithmetic.add,
    "-": arithmetic.subtract,
    "*": arithmetic.multiply,
    "/": arithmetic.divide,
    "%": arithmetic.remainder,
}

_TYPE_TESTS: Final[dict[str, Callable[[Any], bool]]] = {
    "integer": lambda value: type(value) is int and INT_MIN <= value <= INT_MAX,
    "long": lambda value: type(value) is int and not INT_MIN <= value <= INT_MAX and LONG_MIN <= value <= LONG_MAX,
    "boolean": lambda value: type(value) is bool,
    "string": lambda value: type(value) is str,
    "map": lambda value: type(value) is dict,
    "big_decimal": lambda value: type(value) is Decimal,
    "double": lambda value: False,
}


def _array_test(path: str) -> Callable[[Any], bool]:
    def is_array(value: Any) -> bool:
        if value is None:
            raise ExpressionError(f"{path} is null and has no type")
        return type(value) is list

    return is_array


def _family(value: Any) -> type | None:
    kind = type(value)
    return None if value is None else float if kind in NUMBERS else kind


def _number_membership(members: Sequence[Any]) -> Callable[[Any], bool]:
    """`in` goes by type and value: 1 is not in {1.0}, and {1, 1.0} has two members."""
    integers = frozenset(member for member in members if type(member) is int)
    floats = frozenset(single(member) for member in members if type(member) is float)

    def holds(value: Any) -> bool:
        kind = type(value)
        if kind is int:
            return value in integers
        if kind is float:
            return single(value) in floats
        return kind is Decimal and value.is_finite() and (value in integers or single(value) in floats)

    return holds
