"""Avro schemas as Arrow's, and values made to fit them without a silent change. Arrow itself is passed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from penstock.core.errors import EventError

_PRIMITIVES = {
    "null": "null",
    "boolean": "bool_",
    "int": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "bytes": "binary",
    "string": "string",
    "enum": "string",
}
_LOGICAL: dict[str, Callable[[Any], Any]] = {
    "date": lambda arrow: arrow.date32(),
    "time-millis": lambda arrow: arrow.time32("ms"),
    "time-micros": lambda arrow: arrow.time64("us"),
    "timestamp-millis": lambda arrow: arrow.timestamp("ms", "UTC"),
    "timestamp-micros": lambda arrow: arrow.timestamp("us", "UTC"),
    "local-timestamp-millis": lambda arrow: arrow.timestamp("ms"),
    "local-timestamp-micros": lambda arrow: arrow.timestamp("us"),
}


def avro_to_arrow(arrow: Any, schema: Any) -> Any:
    """The Arrow schema of an Avro record. Raises ValueError for what Parquet does not have."""
    return arrow.schema(_fields(arrow, schema, {}))


def _fields(arrow: Any, schema: Any, named: dict[str, Any]) -> list[Any]:
    return [_field(arrow, field["name"], field["type"], named) for field in schema["fields"]]


def _field(arrow: Any, name: str, schema: Any, named: dict[str, Any]) -> Any:
    nullable = schema == "null"
    if isinstance(schema, list):
        kinds = [kind for kind in schema if kind != "null"]
        if len(kinds) != 1:
            raise ValueError(f"{name} is a union of several types")
        nullable, schema = len(kinds) < len(schema), kinds[0]
    return arrow.field(name, _type(arrow, schema, named), nullable)


def _type(arrow: Any, schema: Any, named: dict[str, Any]) -> Any:
    if isinstance(schema, str):
        if schema in named:
            return named[schema]
        if schema not in _PRIMITIVES:
            raise ValueError(f"{schema} is no type")
        return getattr(arrow, _PRIMITIVES[schema])()
    if isinstance(schema, list):
        raise ValueError("a union stands where none can")
    kind = schema["type"]
    logical = schema.get("logicalType")
    if logical == "decimal":
        found = arrow.decimal128(schema["precision"], schema.get("scale", 0))
    elif logical in _LOGICAL:
        found = _LOGICAL[logical](arrow)
    elif kind == "record":
        found = arrow.struct(_fields(arrow, schema, named))
    elif kind == "array":
        found = arrow.list_(_field(arrow, "element", schema["items"], named))
    elif kind == "map":
        found = arrow.map_(arrow.string(), _field(arrow, "value", schema["values"], named))
    elif kind == "fixed":
        found = arrow.binary(schema["size"])
    else:
        found = _type(arrow, kind, named)
    if "name" in schema:
        named[schema["name"]] = found
    return found


def compile_fit(arrow: Any, kind: Any, *, closed: bool = False) -> Callable[[Any], Any]:
    """A function that makes a value of a type for Arrow; it raises EventError for a value of another type.

    With `closed` it refuses objects that have other keys than the type; without, it leaves them out.
    """
    types = arrow.types
    fit: Callable[[Any], Any]
    if types.is_struct(kind):
        fit = _struct(arrow, kind, closed)
    elif types.is_map(kind):
        fit = _map(arrow, kind, closed)
    elif types.is_list(kind):
        fit = _list(arrow, kind, closed)
    elif types.is_integer(kind) or types.is_temporal(kind):
        fit = _integer
    elif types.is_floating(kind):
        fit = _floating
    elif types.is_decimal(kind):
        fit = _decimal
    elif types.is_boolean(kind):
        fit = _one_of(bool)
    elif types.is_string(kind):
        fit = _one_of(str)
    elif types.is_null(kind):
        fit = _one_of(type(None))
    else:
        fit = _bytes
    return fit


def _refuse(value: Any, wanted: str) -> EventError:
    wrong = "The event does not fit the schema: "
    return EventError(
        f"{wrong}{str(value)[:64]!r} is no {wanted}", cause="schema", logged=f"{wrong}a value is no {wanted}"
    )


def _member(arrow: Any, field: Any, closed: bool) -> Callable[[Any], Any]:
    fit, nullable, name = compile_fit(arrow, field.type, closed=closed), field.nullable, field.name

    def member(value: Any) -> Any:
        if value is None:
            if nullable:
                return None
            raise EventError(f"The event does not fit the schema: {name} must not be null", cause="schema")
        return fit(value)

    return member


def _struct(arrow: Any, kind: Any, closed: bool) -> Callable[[Any], Any]:
    fields = [kind.field(place) for place in range(kind.num_fields)]
    members = [(field.name, _member(arrow, field, closed)) for field in fields]
    names = frozenset(name for name, _ in members)

    def fit(value: Any) -> Any:
        if type(value) is not dict:
            raise _refuse(value, "object")
        if closed and not names.issuperset(value):
            unknown = next(name for name in value if name not in names)
            raise EventError(f"The event has a key ('{unknown}') which is not included in the schema.", cause="schema")
        return {name: member(value.get(name)) for name, member in members}

    return fit


def _map(arrow: Any, kind: Any, closed: bool) -> Callable[[Any], Any]:
    member = _member(arrow, kind.item_field, closed)

    def fit(value: Any) -> Any:
        if type(value) is not dict:
            raise _refuse(value, "object")
        return [(name, member(item)) for name, item in value.items()]

    return fit


def _list(arrow: Any, kind: Any, closed: bool) -> Callable[[Any], Any]:
    member = _member(arrow, kind.value_field, closed)

    def fit(value: Any) -> Any:
        if type(value) is not list:
            raise _refuse(value, "array")
        return [member(item) for item in value]

    return fit


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return int(value)
    raise _refuse(value, "integer")


def _floating(value: Any) -> float:
    if type(value) is bool or not isinstance(value, int | float | Decimal):
        raise _refuse(value, "number")
    return float(value)


def _decimal(value: Any) -> Decimal:
    if type(value) is bool or not isinstance(value, int | float | Decimal):
        raise _refuse(value, "number")
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _one_of(kind: type) -> Callable[[Any], Any]:
    names = {bool: "Boolean", str: "text"}

    def fit(value: Any) -> Any:
        if type(value) is not kind:
            raise _refuse(value, names.get(kind, "null"))
        return value

    return fit


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if isinstance(value, bytes):
        return value
    raise _refuse(value, "text")
