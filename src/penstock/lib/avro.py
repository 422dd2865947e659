"""Avro without a library: object container files cut into their parts, and schemas made from events.

A container is a header (magic, metadata with the schema, a sync marker) and blocks: count, size, data, the marker.
Blocks are decompressed here, within bounds, for a library does it without any.
"""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from penstock.core.errors import ConfigError, EventError
from penstock.expr.values import shortest_single
from penstock.lib.compression import Corrupt, TooLarge, decompress

MAGIC = b"Obj\x01"
SYNC_BYTES = 16
HEADER_BYTES_MAX = 16 * 1024 * 1024
BLOCK_BYTES_MAX = 256 * 1024 * 1024
"""Largest block that is read."""
INFLATED_BYTES_MAX = 64 * 1024 * 1024
"""Largest block once decompressed."""
UNSUSPICIOUS_BYTES = 16 * 1024 * 1024
RATIO_MAX = 100
"""Beyond the first 16 MiB, blocks may inflate to so many times their size."""
RECORDS_MAX = 1_000_000
"""Records of one block."""

SHOWN_CHARACTERS_MAX = 100
"""How much of a value that does not fit a message shows."""

_INT = range(-(1 << 31), 1 << 31)
_LONG = range(-(1 << 63), 1 << 63)

Schema = dict[str, Any] | list[Any] | str
"""An Avro schema as its JSON."""


class Short(Exception):
    """What is to be read is not there as a whole yet."""


def long_at(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position` and where it ends. Raises `Short`, and EventError for what is none."""
    shift = value = 0
    while True:
        if position >= len(data):
            raise Short
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7
        if shift > 63:
            raise EventError("This is no Avro: a number is too long", cause="avro")


def long_bytes(value: int) -> bytes:
    """A number of 64 bits as Avro writes it."""
    value = (value << 1) ^ (value >> 63)
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a container."""

    metadata: dict[str, bytes]
    sync: bytes

    def schema(self) -> Any:
        """The schema of its records. Raises EventError."""
        try:
            return json.loads(self.metadata["avro.schema"])
        except (KeyError, ValueError, RecursionError):
            raise EventError("The header of the Avro container has no schema", cause="avro") from None

    def encode(self) -> bytes:
        """Its bytes."""
        pieces = [MAGIC, long_bytes(len(self.metadata))]
        for name, value in self.metadata.items():
            text = name.encode()
            pieces += [long_bytes(len(text)), text, long_bytes(len(value)), value]
        return b"".join([*pieces, b"\x00", self.sync])


def header_at_start(data: bytes) -> tuple[Header, int]:
    """The header that `data` begins with and where it ends. Raises `Short`; EventError where there is none."""
    if not data.startswith(MAGIC[: len(data)]):
        raise EventError("This is no Avro container", cause="avro")
    position, metadata = len(MAGIC), {}
    while True:
        count, position = long_at(data, position)
        if count == 0:
            break
        if count < 0:
            _, position = long_at(data, position)
        for _ in range(abs(count)):
            name, position = _bytes_at(data, position)
            metadata[name.decode("utf-8", "replace")], position = _bytes_at(data, position)
    end = position + SYNC_BYTES
    if end > len(data):
        raise Short
    return Header(metadata, data[position:end]), end


def _bytes_at(data: bytes, position: int) -> tuple[bytes, int]:
    size, position = long_at(data, position)
    if not 0 <= size <= HEADER_BYTES_MAX:
        raise EventError("The header of the Avro container is damaged", cause="avro")
    if position + size > len(data):
        raise Short
    return data[position : position + size], position + size


def blocks_end(data: bytes, sync: bytes) -> int:
    """Where the last whole block in `data` ends; 0 when there is none. Raises EventError for a damaged one."""
    end = 0
    try:
        while end < len(data):
            count, position = long_at(data, end)
            size, position = long_at(data, position)
            if count < 0 or not 0 <= size <= BLOCK_BYTES_MAX:
                raise EventError("The Avro container is damaged: a block has an impossible size", cause="avro")
            position += size
            if position + SYNC_BYTES > len(data):
                return end
            if data[position : position + SYNC_BYTES] != sync:
                raise EventError("The Avro container is damaged: a block does not end where it should", cause="avro")
            end = position + SYNC_BYTES
    except Short:
        pass
    return end


class Inflater:
    """Decompresses the blocks of one container."""

    def __init__(self, codec: str) -> None:
        """Raises EventError for a compression that is not known."""
        if codec not in ("null", "deflate", "bzip2", "xz", "snappy", "zstandard"):
            raise EventError(f"The Avro container is compressed by {codec[:100]!r}, which cannot be read", cause="avro")
        self._codec = codec
        self._in_bytes = self._out_bytes = 0

    def plain_blocks(self, blocks: bytes) -> Iterator[tuple[int, bytes]]:
        """Number of records and data of each of some whole blocks. Raises EventError for damaged and for huge ones."""
        at = 0
        while at < len(blocks):
            count, at = long_at(blocks, at)
            size, at = long_at(blocks, at)
            data = blocks[at : at + size]
            at += size + SYNC_BYTES
            if count > RECORDS_MAX:
                raise EventError(
                    f"A block of the Avro container has more than {RECORDS_MAX} records", cause="too_large"
                )
            yield count, data if self._codec == "null" else self._inflated(data)

    def _inflated(self, data: bytes) -> bytes:
        self._in_bytes += len(data)
        room = max(UNSUSPICIOUS_BYTES, RATIO_MAX * self._in_bytes) - self._out_bytes
        try:
            inflated = _decompress(data, self._codec, min(INFLATED_BYTES_MAX, room))
        except TooLarge:
            raise EventError(
                "A block of the Avro container is too large once decompressed", cause="too_large"
            ) from None
        except (Corrupt, zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise EventError(f"A block of the Avro container cannot be decompressed: {error}", cause="avro") from None
        except ConfigError as error:
            raise EventError(f"The Avro container cannot be read: {error}", cause="avro") from None
        self._out_bytes += len(inflated)
        return inflated


def _decompress(data: bytes, codec: str, limit: int) -> bytes:
    if codec == "zstandard":
        return decompress(data, "zstd", limit)
    if codec == "snappy":
        block, checksum = decompress(data[:-4], "snappy", limit), data[-4:]
        if zlib.crc32(block) != int.from_bytes(checksum, "big"):
            raise Corrupt("its checksum is wrong")
        return block
    member: Any = zlib.decompressobj(-15) if codec == "deflate" else _OTHERS[codec]()
    inflated: bytes = member.decompress(data, limit + 1)
    if len(inflated) > limit:
        raise TooLarge(f"more than {limit} bytes after decompression")
    if not member.eof:
        raise Corrupt("it is cut off")
    return inflated


_OTHERS = {"bzip2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}


def parse_schema(text: str) -> Schema:
    """The schema written as `text`. Raises ValueError for what is no JSON or cannot be a record."""
    try:
        schema = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(schema, dict) or schema.get("type") != "record" or not isinstance(schema.get("fields"), list):
        raise ValueError("it is no record")
    return schema


def schema_of(body: dict[str, Any]) -> dict[str, Any]:
    """The schema of events like this one: every field may be null. Raises EventError where a type cannot be told."""
    return _record_schema(body, "Event", set())


def _record_schema(body: dict[str, Any], name: str, taken: set[str]) -> dict[str, Any]:
    unique, number = name, 1
    while unique in taken:  # a name stands for one type in a schema
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    fields = [
        {"name": _checked(key), "type": ["null", _value_schema(key, value, taken)], "default": None}
        for key, value in body.items()
    ]
    return {"type": "record", "name": unique, "fields": fields}


def _checked(name: str) -> str:
    if not _is_letter(name[:1]) or not all(_is_letter(character) or character.isdecimal() for character in name):
        raise EventError(f"Unable to auto-generate a schema because '{name}' is no name of a field", cause="schema")
    return name


def _is_letter(character: str) -> bool:
    """Letters of any script, as Data Prepper takes them."""
    return character == "_" or character.isalpha()


def _value_schema(key: str, value: Any, taken: set[str]) -> Schema:
    match value:
        case None:
            reason = f"a provided value is null. key='{key}'."
            raise EventError(f"Unable to auto-generate a schema because {reason}", cause="schema")
        case bool():
            return "boolean"
        case int() if value in _INT:
            return "int"
        case int() if value in _LONG:
            return "long"
        case float() | Decimal():
            return "double"
        case str():
            return "string"
        case dict():
            return _record_schema(value, key[:1].upper() + key[1:], taken)
        case [first, *_]:
            return {"type": "array", "items": ["null", _value_schema(key, first, taken)]}
        case []:
            raise EventError(
                "Cannot determine the element type for the Avro array because a provided list is empty and has no type "
                f"information. key='{key}'.",
                cause="schema",
            )
        case _:
            raise EventError(
                f"Unable to auto-generate a schema for field '{key}' because the type '{type(value).__name__}' is not "
                "a recognized type for auto-generation.",
                cause="schema",
            )


def compile_check(schema: Schema) -> Callable[[Any], None]:
    """A function that raises ValueError for a value that a writer would change to make it fit the schema.

    Writers test the types of a union themselves, but take any value for a boolean, text for a number, and integers of
    more than 32 bits for an `int`.
    """
    return _Checks().of(schema)


class _Checks:
    """The checks of one schema; named types are looked up when a value comes, for they may contain themselves."""

    def __init__(self) -> None:
        self._named: dict[str, Callable[[Any], None]] = {}

    def of(self, schema: Schema) -> Callable[[Any], None]:
        if isinstance(schema, str):
            return _CHECKS.get(schema) or (lambda value: self._named.get(schema, _any_value)(value))
        if isinstance(schema, list):
            for kind in schema:  # what is named inside may be used outside
                self.of(kind)
            return _any_value
        match schema["type"]:
            case "record":
                return self._record(schema)
            case "array":
                return _array(self.of(schema["items"]))
            case "map":
                return _map(self.of(schema["values"]))
            case str() | dict() as kind:
                return self.of(kind)
            case _:
                return _any_value

    def _record(self, schema: dict[str, Any]) -> Callable[[Any], None]:
        fields: list[tuple[str, Callable[[Any], None]]] = []

        def record(value: Any) -> None:
            if type(value) is not dict:
                raise ValueError(f"{_shown(value)} is no record")
            for name, check in fields:
                if name in value:
                    try:
                        check(value[name])
                    except ValueError as error:
                        raise ValueError(f"{name}: {error}") from None

        name = schema["name"]
        self._named[name] = record
        if "namespace" in schema:
            self._named[f"{schema['namespace']}.{name}"] = record
        fields += [(field["name"], self.of(field["type"])) for field in schema["fields"]]
        return record


def _array(item: Callable[[Any], None]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not list:
            raise ValueError(f"{_shown(value)} is no array")
        for inner in value:
            item(inner)

    return check


def _map(member: Callable[[Any], None]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not dict:
            raise ValueError(f"{_shown(value)} is no map")
        for inner in value.values():
            member(inner)

    return check


def _any_value(value: Any) -> None:
    """The writer refuses what does not fit."""


def _null(value: Any) -> None:
    if value is not None:
        raise ValueError(f"{_shown(value)} is not null")


def _boolean(value: Any) -> None:
    if type(value) is not bool:
        raise ValueError(f"{_shown(value)} is no boolean")


def _number(value: Any) -> None:
    if type(value) not in (int, float, Decimal):
        raise ValueError(f"{_shown(value)} is no number")


def _integer(kind: str, values: range) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        is_number = type(value) in (int, float, Decimal)
        if not is_number or not values.start <= value < values.stop or value != int(value):
            raise ValueError(f"{_shown(value)} is no {kind}")

    return check


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"


_CHECKS: dict[str, Callable[[Any], None]] = {
    "boolean": _boolean,
    "int": _integer("int", _INT),
    "long": _integer("long", _LONG),
    "float": _number,
    "double": _number,
    "null": _null,
    **dict.fromkeys(("string", "bytes"), _any_value),
}


def compile_singles(schema: Schema) -> Callable[[Any], Any] | None:
    """A function that gives numbers of single precision the digits they are written with; None where there are none.

    It may change records in place. Where a union has several types that a value may be of, such as
    `float` and `double`, it leaves the value alone.
    """
    return _Singles().of(schema)


_Change = Callable[[Any], Any]


class _Singles:
    """The changes of one schema; named types are looked up when a value comes, for they may contain themselves."""

    def __init__(self) -> None:
        self._named: dict[str, _Change] = {}

    def of(self, schema: Schema) -> _Change | None:
        if schema == "float":
            return shortest_single
        if isinstance(schema, str):
            return (lambda value: self._named.get(schema, _same)(value)) if schema not in _CHECKS else None
        if isinstance(schema, list):
            return self._union(schema)
        match schema["type"]:
            case "record":
                return self._record(schema)
            case "array":
                return _each_item(self.of(schema["items"]))
            case "map":
                return _each_member(self.of(schema["values"]))
            case str() | dict() as kind if kind not in ("enum", "fixed"):
                return self.of(kind)
            case _:
                return None

    def _union(self, kinds: list[Any]) -> _Change | None:
        by_type: dict[type, list[_Change | None]] = {}
        for kind in kinds:
            by_type.setdefault(_type_of(kind), []).append(self.of(kind))
        only = {kind: changes[0] for kind, changes in by_type.items() if len(changes) == 1 and changes[0] is not None}
        return (lambda value: only.get(type(value), _same)(value)) if only else None

    def _record(self, schema: dict[str, Any]) -> _Change:
        fields: list[tuple[str, _Change]] = []

        def record(value: Any) -> Any:
            for name, change in fields:
                value[name] = change(value[name])
            return value

        name = schema["name"]
        self._named[name] = record
        if "namespace" in schema:
            self._named[f"{schema['namespace']}.{name}"] = record
        for field in schema["fields"]:
            change = self.of(field["type"])
            if change is not None:
                fields.append((field["name"], change))
        return record


def _type_of(kind: Any) -> type:
    """The type of the values of a type in a union; that of the records for a name."""
    name = kind["type"] if isinstance(kind, dict) else kind
    if name in ("float", "double"):
        return float
    if name == "array":
        return list
    return object if (isinstance(name, str) and name in _CHECKS) or name in ("enum", "fixed") else dict


def _each_item(change: _Change | None) -> _Change | None:
    if change is None:
        return None

    def items(values: Any) -> Any:
        return [change(value) for value in values]

    return items


def _each_member(change: _Change | None) -> _Change | None:
    if change is None:
        return None

    def members(values: Any) -> Any:
        return {name: change(value) for name, value in values.items()}

    return members


def _same(value: Any) -> Any:
    return value


def unknown_key(schema: Schema, value: Any) -> str | None:
    """A key of an event that its schema does not have, at any depth."""
    if isinstance(schema, list):
        found = (unknown_key(kind, value) for kind in schema if kind != "null")
        return next((key for key in found if key is not None), None)
    if not isinstance(schema, dict):
        return None
    if schema.get("type") == "record" and isinstance(value, dict):
        fields = {field["name"]: field["type"] for field in schema["fields"]}
        for key, item in value.items():
            unknown = key if key not in fields else unknown_key(fields[key], item)
            if unknown is not None:
                return unknown
    if schema.get("type") == "array" and isinstance(value, list):
        return next((key for item in value if (key := unknown_key(schema["items"], item)) is not None), None)
    return None


def without_logical_types(schema: Any) -> Any:
    """The schema with plain numbers for dates and times, as Data Prepper reads them; decimals stay."""
    if isinstance(schema, list):
        return [without_logical_types(kind) for kind in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: without_logical_types(part) if name in _PARTS else part for name, part in schema.items()}
    if isinstance(schema.get("fields"), list):
        plain["fields"] = [
            {**field, "type": without_logical_types(field.get("type"))} if isinstance(field, dict) else field
            for field in schema["fields"]
        ]
    if plain.get("logicalType") != "decimal":
        plain.pop("logicalType", None)
    return plain


_PARTS = frozenset(("type", "items", "values"))


VALUES_MAX = 100_000
"""Values of one record, those in lists and maps not counted."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is to be known of a schema before values of it are read."""

    kinds: frozenset[str]
    """The names of all types in it."""
    contains_itself: bool
    """Whether values may be nested without end."""


def shape_of(schema: Any) -> Shape:
    """Look at a schema.

    Raises RecursionError for one that is nested too deeply, and EventError for one of which a few bytes stand for any
    number of values.
    """
    weights = _Weights(schema)
    weights.weigh(schema)
    return Shape(frozenset(kinds(schema)), weights.contains_itself)


class _Weights:
    """How many values a value of a schema has inside, and whether it takes no bytes at all."""

    def __init__(self, schema: Any) -> None:
        self.contains_itself = False
        self._named: dict[str, Any] = {}
        self._known: dict[str, tuple[int, bool] | None] = {}
        """Weights by name; None while that is being found out."""
        self._find_names(schema)

    def weigh(self, schema: Any) -> tuple[int, bool]:
        if isinstance(schema, list):  # one byte tells which of its types comes
            return max((self.weigh(kind)[0] for kind in schema), default=1), False
        if isinstance(schema, str):
            return self._weigh_named(schema)
        if not isinstance(schema, dict):
            return 1, False
        match schema.get("type"):
            case "record" | "error":
                fields = [self.weigh(field.get("type")) for field in _fields(schema)]
                values = 1 + sum(values for values, _ in fields)
                if values > VALUES_MAX:
                    raise EventError(f"A record of the Avro container has more than {VALUES_MAX} values", cause="avro")
                return values, all(free for _, free in fields)
            case "array":
                if self.weigh(schema.get("items"))[1]:
                    raise EventError("The Avro container has lists of values that take no bytes", cause="avro")
                return 1, False
            case "map":
                self.weigh(schema.get("values"))
                return 1, False
            case "fixed":
                return 1, schema.get("size") == 0
            case kind:
                return self.weigh(kind)

    def _weigh_named(self, name: str) -> tuple[int, bool]:
        if name not in self._named:
            return 1, name == "null"
        if name not in self._known:
            self._known[name] = None
            self._known[name] = self.weigh(self._named[name])
        weight = self._known[name]
        if weight is None:
            self.contains_itself = True
            return 1, True
        return weight

    def _find_names(self, schema: Any) -> None:
        if isinstance(schema, dict) and isinstance(name := schema.get("name"), str):
            self._named[name] = schema
            if isinstance(schema.get("namespace"), str):
                self._named[f"{schema['namespace']}.{name}"] = schema
        for part in _inner(schema):
            self._find_names(part)


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    fields = schema.get("fields")
    return [field for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []


def _inner(schema: Any) -> Iterator[Any]:
    """The schemas right inside of one."""
    if isinstance(schema, list):
        yield from schema
    elif isinstance(schema, dict):
        for name in _PARTS & schema.keys():
            yield schema[name]
        for field in _fields(schema):
            yield field.get("type")


def kinds(schema: Any) -> Iterator[str]:
    """The names of all types in a schema."""
    if isinstance(schema, str):
        yield schema
    for part in _inner(schema):
        yield from kinds(part)
