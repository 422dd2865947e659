"""From the tree of a statement to one Python closure, made once and called for each event.

Whatever the text decides is decided here: keys are looked up by closures made for their depth, constants are
folded into their comparison, and a condition that cannot fail skips the operand that no longer matters (the
language evaluates both sides, which can only be seen when one of them raises).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from penstock.core.batch import Body, Meta
from penstock.core.errors import ExpressionError
from penstock.core.key import MISSING, Key
from penstock.expr import arithmetic
from penstock.expr.functions import FUNCTIONS, Argument, Evaluate, Surroundings
from penstock.expr.java_regex import whole_match
from penstock.expr.parse import Binary, Call, Chain, Group, Literal, Node, Pointer, SetOf, TypeOf, Unary, Variable
from penstock.expr.values import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    LONG_MIN,
    NUMBERS,
    equal,
    relation,
    shortest_single,
    single,
)

ROOT: Final = Key("")


class Part(NamedTuple):
    """A compiled part of a statement."""

    run: Evaluate
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


class Compiler:
    """Compiles one statement and notes what it reads and where it is likely to surprise."""

    def __init__(self, statement: str, around: Surroundings) -> None:
        self.statement = statement
        self.keys: set[Key] = set()
        self.needs_meta = False
        self.warnings: list[str] = []
        self._around = around

    def compile(self, node: Node) -> Part:
        """The closure of a tree. What can only fail for every event becomes a closure that raises, and a warning."""
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

    def _source(self, node: Node) -> str:
        return self.statement[node.start : node.end]

    def _always_fails(self, message: str, *, boolean: bool = False) -> Part:
        self.warnings.append(f'"{self.statement}" fails for every event: {message}')

        def fail(body: Body, meta: Meta) -> Any:
            raise ExpressionError(message)

        return Part(fail, boolean)

    def _literal(self, node: Literal) -> Part:
        value = node.value
        if type(value) is int and value > LONG_MAX:
            return self._always_fails(f"{self._source(node)} does not fit into 64 bits")
        if type(value) is float:
            value = shortest_single(value)
        return Part(lambda body, meta: value, type(value) is bool, True, constant=value)

    def _pointer(self, node: Pointer) -> Part:
        try:
            key = Key.parse(node.path, "get")
        except ValueError as error:
            return self._always_fails(str(error))
        self.keys.add(key)
        return Part(_reader(key), safe=True, key=key)

    def _chain(self, node: Chain) -> Part:
        self._warn_about_order(node)
        parts = [self.compile(node.first)] + [self.compile(operand) for _, operand in node.rest]
        operators = [name for name, _ in node.rest]
        safe = all(part.safe for part in parts)
        if all(part.boolean for part in parts[1:]) and all(part.safe for part in parts[1:]) and parts[0].boolean:
            return Part(_short_circuit([part.run for part in parts], operators), True, safe)
        return Part(_both_sides([part.run for part in parts], operators), True, safe)

    def _warn_about_order(self, node: Chain) -> None:
        if len({name for name, _ in node.rest}) == 2:
            text = self._source(node.first)
            *head, (last_name, last) = node.rest
            for name, operand in head:
                text = f"({text} {name} {self._source(operand)})"
            self.warnings.append(
                f'`and` and `or` bind alike and are read from left to right: "{self._source(node)}" is read as '
                f'"{text} {last_name} {self._source(last)}"'
            )

    def _negation(self, node: Unary) -> Part:
        operand = self.compile(node.operand)
        run = operand.run
        if operand.boolean:
            return Part(lambda body, meta: not run(body, meta), True, operand.safe)
        return Part(lambda body, meta: run(body, meta) is False, True, operand.safe)

    def _binary(self, node: Binary) -> Part:
        name = node.operator
        if name in _ARITHMETIC:
            return self._arithmetic(node, _ARITHMETIC[name], [self.compile(node.left), self.compile(node.right)])
        self._warn_about_not(node)
        left = self.compile(node.left)
        if name in ("in", "not in"):
            return self._membership(node, left)
        right = self.compile(node.right)
        safe = left.safe and right.safe
        if name in ("=~", "!~"):
            return Part(self._match(left, right, name == "=~"), True, safe)
        if name in ("==", "!="):
            one_is_constant = left.constant is not MISSING or right.constant is not MISSING
            return Part(_equality(left, right, name == "=="), True, safe and one_is_constant)
        return Part(_relation(left, right, name), True, safe)

    def _warn_about_not(self, node: Binary) -> None:
        left = node.left
        if isinstance(left, Unary) and left.operator == "not":
            operand, rest = self._source(left.operand), self.statement[left.end : node.end]
            self.warnings.append(
                f'`not` applies to one operand only: "{self._source(node)}" is read as "({self._source(left)}){rest}"; '
                f'write "not ({operand}{rest})" to negate the comparison'
            )

    def _arithmetic(self, node: Node, compute: Callable[..., Any], operands: Sequence[Part]) -> Part:
        message = f"Unable to evaluate the part of input statement: {self._source(node)}"
        if all(part.constant is not MISSING for part in operands):
            return self._folded(message, compute, [part.constant for part in operands])
        if len(operands) == 1:
            run = operands[0].run

            def negate(body: Body, meta: Meta) -> Any:
                value = run(body, meta)
                try:
                    return compute(value)
                except (TypeError, ArithmeticError) as error:
                    raise ExpressionError(f"{message}: {error}") from error

            return Part(negate, computed=True)

        left, right = operands[0].run, operands[1].run

        def calculate(body: Body, meta: Meta) -> Any:
            one, other = left(body, meta), right(body, meta)
            try:
                return compute(one, other)
            except (TypeError, ArithmeticError) as error:
                raise ExpressionError(f"{message}: {error}") from error

        return Part(calculate, computed=True)

    def _folded(self, message: str, compute: Callable[..., Any], constants: list[Any]) -> Part:
        try:
            value = compute(*constants)
        except (TypeError, ArithmeticError) as error:
            return self._always_fails(f"{message}: {error}")
        if type(value) is float:
            value = shortest_single(value)
        return Part(lambda body, meta: value, safe=True, constant=value)

    def _typeof(self, node: TypeOf) -> Part:
        pointer = self._pointer(node.pointer)
        run = pointer.run
        if node.type_name == "double":
            self.warnings.append(
                f'"{self._source(node)}" is always false: numbers with a fraction are read in single precision'
            )
        if node.type_name == "array":

            def is_array(body: Body, meta: Meta) -> bool:
                value = run(body, meta)
                if value is None:
                    raise ExpressionError(f"{node.pointer.path} is null and has no type")
                return type(value) is list

            return Part(is_array, True)
        test = _TYPE_TESTS[node.type_name]
        return Part(lambda body, meta: test(run(body, meta)), True, pointer.safe)

    def _set(self, node: SetOf) -> Part:
        values = [
            shortest_single(member.value) if type(member.value) is float else member.value for member in node.members
        ]
        kinds = {_family(value) for value in values}
        if len(kinds) != 1 or None in kinds:
            return self._always_fails("All set members should be of same type")
        if any(type(value) is int and value > LONG_MAX for value in values):
            return self._always_fails("a member of the set does not fit into 64 bits")
        members = frozenset(values)
        return Part(lambda body, meta: members, safe=True, constant=members)

    def _membership(self, node: Binary, left: Part) -> Part:
        assert isinstance(node.right, SetOf)
        members = self._set(node.right)
        if members.constant is MISSING:
            return members._replace(boolean=True)
        run, wanted = left.run, node.operator == "in"
        holds = _membership_test([member.value for member in node.right.members])
        return Part(lambda body, meta: holds(run(body, meta)) is wanted, True, left.safe)

    def _match(self, left: Part, right: Part, wanted: bool) -> Evaluate:
        text_of = left.run
        if right.constant is MISSING:
            pattern_of = right.run

            def match(body: Body, meta: Meta) -> bool:
                text, pattern = text_of(body, meta), pattern_of(body, meta)
                if type(text) is not str or type(pattern) is not str:
                    return False
                try:
                    return (whole_match(pattern)(text) is not None) is wanted
                except ValueError:  # a pattern that does not compile is a failed operand check, which is false
                    return False

            return match

        try:
            matches = whole_match(right.constant)
        except ValueError as error:
            self.warnings.append(f'"{self.statement}" is never true here: {error}')
            return lambda body, meta: False

        def match_constant(body: Body, meta: Meta) -> bool:
            text = text_of(body, meta)
            return type(text) is str and (matches(text) is not None) is wanted

        return match_constant

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
        return Part(run, function.boolean, function.safe and all(safe for _, safe in arguments))

    def _argument(self, node: Node) -> tuple[Argument, bool]:
        if isinstance(node, Pointer):
            if node.quoted:
                return Argument(constant=node.path), True
            part = self._pointer(node)
            if part.key is not None:
                return Argument(key=part.key), True
        else:
            part = self.compile(node)
            if part.constant is not MISSING:
                return Argument(constant=part.constant), True
        return Argument(evaluate=part.run), part.safe


def _reader(key: Key) -> Evaluate:
    """The value of a key; what is missing is null."""
    if len(key.parts) == 1:
        name = key.parts[0]
        return lambda body, meta: body.get(name)
    get = key.get

    def read(body: Body, meta: Meta) -> Any:
        value = get(body)
        return None if value is MISSING else value

    return read


def _short_circuit(runs: list[Evaluate], operators: list[str]) -> Evaluate:
    """For operands that are Boolean and, but for the first, never raise."""
    if len(runs) == 2:
        left, right = runs
        if operators[0] == "and":
            return lambda body, meta: left(body, meta) and right(body, meta)
        return lambda body, meta: left(body, meta) or right(body, meta)
    if len(runs) == 3 and operators == ["and", "and"]:
        one, two, three = runs
        return lambda body, meta: one(body, meta) and two(body, meta) and three(body, meta)
    first, rest = runs[0], [(name == "and", run) for name, run in zip(operators, runs[1:], strict=True)]

    def chain(body: Body, meta: Meta) -> bool:
        result = first(body, meta)
        for go_on_when, run in rest:
            if result is go_on_when:
                result = run(body, meta)
        return bool(result)

    return chain


def _both_sides(runs: list[Evaluate], operators: list[str]) -> Evaluate:
    """Left to right, each operand evaluated; an operator with an operand that is no Boolean is false."""
    first, rest = runs[0], [(name == "and", run) for name, run in zip(operators, runs[1:], strict=True)]

    def chain(body: Body, meta: Meta) -> bool:
        result = first(body, meta)
        for both, run in rest:
            right = run(body, meta)
            if type(result) is not bool or type(right) is not bool:
                result = False
            else:
                result = (result and right) if both else (result or right)
        return bool(result)

    return chain


def _equality(left: Part, right: Part, wanted: bool) -> Evaluate:
    if left.constant is not MISSING and right.constant is MISSING:
        left, right = right, left
    run, constant = left.run, right.constant
    if constant is not MISSING:
        kind = type(constant)
        top = left.key.parts[0] if left.key is not None and len(left.key.parts) == 1 else None
        if kind is str and top is not None:  # nothing but the same text equals a text
            if wanted:
                return lambda body, meta: body.get(top) == constant
            return lambda body, meta: body.get(top) != constant
        if kind is str:
            return lambda body, meta: (run(body, meta) == constant) is wanted
        if constant is None or kind is bool:
            if wanted:
                return lambda body, meta: run(body, meta) is constant
            return lambda body, meta: run(body, meta) is not constant
        if kind is int:

            def equals_integer(body: Body, meta: Meta) -> bool:
                value = run(body, meta)
                return (value == constant if type(value) is int else equal(value, constant)) is wanted

            return equals_integer
        return lambda body, meta: equal(run(body, meta), constant) is wanted

    other = right.run

    def equals(body: Body, meta: Meta) -> bool:
        try:
            return equal(run(body, meta), other(body, meta)) is wanted
        except RecursionError:
            raise ExpressionError("values nested too deeply to be compared") from None

    return equals


_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _relation(left: Part, right: Part, name: str) -> Evaluate:
    if type(left.constant) in (int, float) and right.constant is MISSING:
        left, right, name = right, left, _MIRRORED[name]
    run, holds = left.run, _quietly(relation(_ORDERS[name]))
    constant = right.constant
    if constant is MISSING:
        other = right.run
        return lambda body, meta: holds(run(body, meta), other(body, meta))
    if type(constant) not in NUMBERS:
        return _evaluated_but_false(run)
    if type(constant) not in (int, float):
        return lambda body, meta: holds(run(body, meta), constant)
    if type(constant) is int and left.key is not None and len(left.key.parts) == 1:
        return _INTEGER_RELATIONS[name](left.key.parts[0], constant, holds)
    if type(constant) is float:
        return _float_relation(run, single(constant), _ORDERS[name], holds)
    order = _ORDERS[name]

    def compare(body: Body, meta: Meta) -> bool:
        value = run(body, meta)
        return order(value, constant) if type(value) is int else holds(value, constant)

    return compare


def _quietly(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        try:
            return holds(left, right)
        except ArithmeticError:  # a Decimal that is not a number
            return False

    return compare


def _evaluated_but_false(run: Evaluate) -> Evaluate:
    def compare(body: Body, meta: Meta) -> bool:
        run(body, meta)
        return False

    return compare


def _float_relation(
    run: Evaluate, constant: float, order: Callable[[Any, Any], bool], holds: Callable[[Any, Any], bool]
) -> Evaluate:
    def compare(body: Body, meta: Meta) -> bool:
        value = run(body, meta)
        kind = type(value)
        if kind is float or kind is int:
            return order(single(value), constant)
        return holds(value, constant)

    return compare


# The most common condition of all, a number at the top of the event against a whole number, written out because a
# call of `operator.ge` costs as much as the rest of it.


def _at_least(name: str, constant: int, holds: Callable[[Any, Any], bool]) -> Evaluate:
    def compare(body: Body, meta: Meta) -> bool:
        value = body.get(name)
        return value >= constant if type(value) is int else holds(value, constant)

    return compare


def _at_most(name: str, constant: int, holds: Callable[[Any, Any], bool]) -> Evaluate:
    def compare(body: Body, meta: Meta) -> bool:
        value = body.get(name)
        return value <= constant if type(value) is int else holds(value, constant)

    return compare


def _more(name: str, constant: int, holds: Callable[[Any, Any], bool]) -> Evaluate:
    def compare(body: Body, meta: Meta) -> bool:
        value = body.get(name)
        return value > constant if type(value) is int else holds(value, constant)

    return compare


def _less(name: str, constant: int, holds: Callable[[Any, Any], bool]) -> Evaluate:
    def compare(body: Body, meta: Meta) -> bool:
        value = body.get(name)
        return value < constant if type(value) is int else holds(value, constant)

    return compare


_INTEGER_RELATIONS: Final = {">=": _at_least, "<=": _at_most, ">": _more, "<": _less}

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


def _family(value: Any) -> type | None:
    kind = type(value)
    return None if value is None else float if kind in NUMBERS else kind


def _membership_test(members: Sequence[Any]) -> Callable[[Any], bool]:
    """`in` goes by type and value: 1 is not in {1.0}."""
    kind = _family(members[0])
    if kind is str or kind is bool:
        values = frozenset(members)
        return lambda value: type(value) is kind and value in values
    integers = frozenset(member for member in members if type(member) is int)
    floats = frozenset(single(member) for member in members if type(member) is float)

    def holds(value: Any) -> bool:
        kind = type(value)
        if kind is int:
            return value in integers
        if kind is float:
            return single(value) in floats
        return kind is Decimal and (value in integers or single(value) in floats)

    return holds
