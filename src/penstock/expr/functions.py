"""The functions of the expression language.

Each entry of `FUNCTIONS` gets the arguments of one call when the statement is compiled and returns what is done for
each event. What is wrong with a call whatever the event holds is raised then, as an ExpressionError. Source:
`expressions` in docs/behaviour.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

from penstock.core import json_text
from penstock.core.batch import Body, Meta
from penstock.core.clock import Clock
from penstock.core.errors import EventError, ExpressionError
from penstock.core.event import get_attribute
from penstock.core.key import MISSING, Key
from penstock.expr.values import Long, java_text, java_type

Evaluate = Callable[[Body, Meta], Any]

ADDRESSES_CACHED_MAX = 4096


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: a key that the function reads itself, a constant, or something to evaluate for each event."""

    key: Key | None = None
    constant: Any = MISSING
    evaluate: Evaluate | None = None

    def reader(self) -> Evaluate:
        """What gives the argument's value; None for a key that is missing."""
        if self.key is not None:
            get = self.key.get

            def read(body: Body, meta: Meta) -> Any:
                value = get(body)
                return None if value is MISSING else value

            return read
        if self.evaluate is not None:
            return self.evaluate
        constant = self.constant
        return lambda body, meta: constant


class Surroundings(NamedTuple):
    """Where time and randomness come from."""

    clock: Clock
    new_uuid: Callable[[], str]


class Function(NamedTuple):
    build: Callable[[Sequence[Argument], Surroundings], Evaluate]
    needs_meta: bool = False
    boolean: bool = False
    """The result is a Boolean whatever the event holds."""
    safe: bool = False
    """A call that was built never raises."""
    reads_all: bool = False
    """It reads the whole event."""


def _fail(message: str, logged: str | None = None) -> ExpressionError:
    return ExpressionError(message, logged=logged)


def _class_of(argument: Argument) -> str:
    if argument.key is not None:
        return "EventKey"
    return java_type(argument.constant)


def _text_of(argument: Argument, wrong_type: str) -> Evaluate:
    """The argument as a text, or None when it is missing. `wrong_type` is the message for any other value."""
    if argument.key is None and argument.evaluate is None and type(argument.constant) is not str:
        raise _fail(f"Unexpected argument type: {_class_of(argument)}")
    read = argument.reader()

    def text(body: Body, meta: Meta) -> str | None:
        value: object = read(body, meta)
        if value is None or isinstance(value, str):
            return value
        raise _fail(wrong_type.format(java_text(value)), wrong_type.format(java_type(value)))

    return text


def _length(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if len(arguments) != 1:
        raise _fail("length() takes only one argument")
    (argument,) = arguments
    if argument.key is not None:
        return _length_of_key(argument.key)
    if argument.evaluate is None and type(argument.constant) is not str:
        raise _fail(f"Unexpected argument type: {_class_of(argument)}")
    read = argument.reader()

    def length(body: Body, meta: Meta) -> int:
        value = read(body, meta)
        if type(value) is not str:
            raise _fail(f"Unexpected argument type: {java_type(value)}")
        return _characters(value)

    return length


def _length_of_key(key: Key) -> Evaluate:
    get, text = key.get, key.text

    def length(body: Body, meta: Meta) -> int | None:
        value = get(body)
        kind = type(value)
        if kind is str:
            return _characters(value)
        if kind is dict or kind is list:
            return len(value)
        if value is MISSING or value is None:
            return None
        raise _fail(f"{text} is not a supported type for length(). Supported: String, Map, List, Array")

    return length


def _characters(text: str) -> int:
    """Java counts UTF-16 units."""
    return len(text) if text.isascii() else len(text) + sum(character > "\uffff" for character in text)


def _contains(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if len(arguments) != 2:
        raise _fail("contains() takes exactly two arguments")
    wrong_type = 'containsSubstring() takes only string type arguments. "{}" is not of type string'
    whole, part = (_text_of(argument, wrong_type) for argument in arguments)

    def contains(body: Body, meta: Meta) -> bool:
        text = whole(body, meta)
        if text is None:  # then the other argument is not looked at
            return False
        wanted = part(body, meta)
        return wanted is not None and wanted in text

    return contains


def _starts_with(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if len(arguments) != 2:
        raise _fail("startsWith() takes exactly two arguments")
    wrong_type = 'startsWith() takes only string type arguments. "{}" is not of type string'
    whole, part = (_text_of(argument, wrong_type) for argument in arguments)

    def starts_with(body: Body, meta: Meta) -> bool:
        text = whole(body, meta)
        if text is None:
            return False
        wanted = part(body, meta)
        return wanted is not None and text.startswith(wanted)

    return starts_with


Cut = Callable[[str, str], str]


def _substring(name: str, cut: Cut) -> Function:
    def build(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
        if len(arguments) != 2:
            raise _fail(f"{name}() takes exactly two arguments")
        wrong_type = f'{name}() takes only string type arguments. "{{}}" is not of type string'
        source, delimiter = (_text_of(argument, wrong_type) for argument in arguments)

        def substring(body: Body, meta: Meta) -> str | None:
            text: str | None = source(body, meta)
            mark = delimiter(body, meta)
            if text is None or not mark or mark not in text:
                return text
            return cut(text, mark)

        return substring

    return Function(build)


def _has_tags(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if not arguments:
        raise _fail("hasTags() takes at least one argument")
    tags = [argument.constant for argument in arguments]
    if not all(type(tag) is str for tag in tags):
        raise _fail("Unexpected argument type. hasTags() takes only String type arguments")
    if not all(tag.strip() for tag in tags):
        raise _fail("Unexpected argument value. hasTags() requires non-empty strings.")
    if len(tags) == 1:
        (tag,) = tags
        return lambda body, meta: tag in meta.tags
    wanted = frozenset(tags)
    return lambda body, meta: wanted <= meta.tags


def _get_metadata(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if len(arguments) != 1:
        raise _fail("getMetadata() takes only one argument")
    (argument,) = arguments
    wrong_type = "Unexpected argument type: {}. getMetadata() takes only String type arguments"
    if argument.evaluate is None:
        if type(argument.constant) is not str:
            raise _fail(wrong_type.format(_class_of(argument)))
        name = argument.constant.strip()
        if not name:
            return lambda body, meta: None
        if "/" not in name:
            return lambda body, meta: meta.attributes.get(name)
        return lambda body, meta: get_attribute(meta, name)
    read = argument.evaluate

    def get_metadata(body: Body, meta: Meta) -> Any:
        name = read(body, meta)
        if type(name) is not str:
            raise _fail(wrong_type.format(java_type(name)))
        name = name.strip()
        return get_attribute(meta, name) if name else None

    return get_metadata


def _get_event_type(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if arguments:
        raise _fail("getEventType() does not take any arguments")
    return lambda body, meta: meta.event_type


def _cidr_contains(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if len(arguments) < 2:
        raise _fail("cidrContains() takes at least two arguments")
    key, *blocks = arguments
    if key.key is None:
        raise _fail(f"Unexpected argument type for first argument: {_class_of(key)}")
    get = key.key.get
    readers = [_block_of(block) for block in blocks]

    def cidr_contains(body: Body, meta: Meta) -> bool:
        value = get(body)
        address = _address(value) if type(value) is str else None
        networks = [read(body, meta) for read in readers]
        return address is not None and any(network.holds(address) for network in networks)

    return cidr_contains


class _Network(NamedTuple):
    version: int
    mask: int
    prefix: int

    def holds(self, address: tuple[int, int]) -> bool:
        return address[0] == self.version and address[1] & self.mask == self.prefix


def _block_of(argument: Argument) -> Callable[[Body, Meta], _Network]:
    wrong_type = "Unexpected argument type: {}. cidrContains() takes only String type arguments after the key"
    if argument.evaluate is None:
        if type(argument.constant) is not str:
            raise _fail(wrong_type.format(_class_of(argument)))
        network = _network(argument.constant)
        return lambda body, meta: network
    read = argument.evaluate

    def block(body: Body, meta: Meta) -> _Network:
        text = read(body, meta)
        if type(text) is not str:
            raise _fail(wrong_type.format(java_type(text)))
        return _network(text)

    return block


@lru_cache(maxsize=ADDRESSES_CACHED_MAX)
def _address(text: str) -> tuple[int, int] | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    return address.version, int(address)


@lru_cache(maxsize=ADDRESSES_CACHED_MAX)
def _network(text: str) -> _Network:
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise _fail(f"{text} is no CIDR block: {error}", "An argument is no CIDR block") from error
    return _Network(network.version, int(network.netmask), int(network.network_address))


def _join(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if not 1 <= len(arguments) <= 2:
        raise _fail("join() takes one or two arguments")
    *delimiters, source = arguments
    delimiter: Evaluate = lambda body, meta: ","  # noqa: E731 (one of three ways to get it)
    if delimiters:
        wrong_type = "Unexpected argument type for delimiter: {}. Expected String."
        if delimiters[0].evaluate is None and type(delimiters[0].constant) is not str:
            raise _fail(wrong_type.format(_class_of(delimiters[0])))
        delimiter = _text_of(delimiters[0], wrong_type)
    if source.key is None:
        raise _fail(f"Unexpected argument type for source key: {_class_of(source)}. Expected EventKey.")
    get, key_text = source.key.get, source.key.text

    def join(body: Body, meta: Meta) -> Any:
        mark = (delimiter(body, meta) or "").replace("\\\\,", ",")
        value = get(body)
        if type(value) is list:
            return mark.join(map(java_text, value))
        if type(value) is dict:
            return {
                name: mark.join(map(java_text, item)) if type(item) is list else item for name, item in value.items()
            }
        raise _fail(f"Unable to perform join function on {key_text}")

    return join


def _format_date_time(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if len(arguments) < 2:
        raise _fail("formatDateTime() takes at least 2 arguments")
    if len(arguments) > 4:
        raise _fail("formatDateTime() takes at most 4 arguments")
    time, *rest = arguments
    if time.key is None:
        raise _fail(f"Unexpected argument type: {_class_of(time)}. formatDateTime() takes a key first")
    get, key_text = time.key.get, time.key.text
    wrong_type = "Unsupported type passed as function argument: {}"
    for argument in rest:
        if argument.evaluate is None and type(argument.constant) is not str:
            raise _fail(wrong_type.format(_class_of(argument)))
    texts = [_text_of(argument, wrong_type) for argument in rest]
    if all(argument.evaluate is None for argument in rest):
        pattern, target, origin = _three([argument.constant for argument in rest])
        _formatter(pattern, target)
        _check_zone(origin, "Source")

    def format_date_time(body: Body, meta: Meta) -> str:
        pattern, target, origin = _three([text(body, meta) for text in texts])
        write = _formatter(pattern, target)
        _check_zone(origin, "Source")
        return write(_epoch_ns(get(body), origin, key_text))

    return format_date_time


def _three(texts: list[Any]) -> tuple[str, str, str]:
    if None in texts:
        raise _fail("Unsupported type passed as function argument: null")
    pattern, target, origin = (*texts, "UTC", "UTC")[:3]
    return pattern, target, origin


def _epoch_ns(value: Any, zone: str, key_text: str) -> int:
    from penstock.core.dates import parse_iso  # only few expressions need dates

    try:
        if type(value) is int:
            return value * 1_000_000
        if type(value) is float or isinstance(value, Decimal):
            return int(value) * 1_000_000
        if type(value) is str:
            return parse_iso(value, zone)
    except (ValueError, OverflowError) as error:
        raise _fail(f"{key_text} holds no date-time: {error}", f"{key_text} holds no date-time") from error
    if value is MISSING or value is None:
        raise _fail(f"{key_text} is missing")
    raise _fail(f"Unsupported type passed as function argument: {java_type(value)}")


@lru_cache(maxsize=512)
def _formatter(pattern: str, zone: str) -> Callable[[int], str]:
    from penstock.core.dates import compile_formatter

    _check_zone(zone, "Destination")
    try:
        write = compile_formatter(pattern, zone)
    except ValueError as error:
        raise _fail(f"Date pattern [{pattern}] is invalid: {error}") from error

    def checked(epoch_ns: int) -> str:
        try:
            return write(epoch_ns)
        except (ValueError, OverflowError) as error:
            raise _fail(f"{epoch_ns // 1_000_000} ms cannot be written as {pattern}: {error}") from error

    return checked


@lru_cache(maxsize=512)
def _check_zone(zone: str, which: str) -> None:
    from penstock.core.dates import compile_formatter

    try:
        compile_formatter("yyyy", zone)
    except ValueError as error:
        raise _fail(f"{which} time zone [{zone}] is invalid") from error


def _now(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if arguments:
        raise _fail("now() does not take any arguments")
    now_ms = around.clock.now_ms
    return lambda body, meta: Long(now_ms())


def _generate_uuid(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if arguments:
        raise _fail("generateUuid() does not take any arguments")
    new_uuid = around.new_uuid
    return lambda body, meta: new_uuid()


def _to_json_string(arguments: Sequence[Argument], around: Surroundings) -> Evaluate:
    if arguments:
        raise _fail("toJsonString takes no arguments")

    def to_json_string(body: Body, meta: Meta) -> str:
        try:
            return json_text.encode(body).decode()
        except EventError as error:
            raise _fail(str(error)) from error

    return to_json_string


FUNCTIONS: Final[dict[str, Function]] = {
    "length": Function(_length),
    "contains": Function(_contains, boolean=True),
    "startsWith": Function(_starts_with, boolean=True),
    "substringAfter": _substring("substringAfter", lambda text, mark: text.partition(mark)[2]),
    "substringAfterLast": _substring("substringAfterLast", lambda text, mark: text.rpartition(mark)[2]),
    "substringBefore": _substring("substringBefore", lambda text, mark: text.partition(mark)[0]),
    "substringBeforeLast": _substring("substringBeforeLast", lambda text, mark: text.rpartition(mark)[0]),
    "hasTags": Function(_has_tags, needs_meta=True, boolean=True, safe=True),
    "getMetadata": Function(_get_metadata, needs_meta=True),
    "getEventType": Function(_get_event_type, needs_meta=True, safe=True),
    "cidrContains": Function(_cidr_contains, boolean=True),
    "join": Function(_join),
    "formatDateTime": Function(_format_date_time),
    "now": Function(_now, safe=True),
    "generateUuid": Function(_generate_uuid, safe=True),
    "toJsonString": Function(_to_json_string, reads_all=True),
}
