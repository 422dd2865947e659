"""Avro object container files: a record is an event.

Reading takes the container block by block. Enumerations are text, bytes are text in base64, dates and times are the
numbers they are stored as. Numbers of single precision have the digits they are written with: 0.1 rather than
0.10000000149011612. What does not begin like a container gives no events, is logged and counted in `notContainers`; a
damaged container is an error. Writing needs a schema, or makes one of the first event: then every field may be null,
and keys that the first event did not have are errors. Needs the extra `penstock[avro]`.
"""

import base64
import io
import json
import os
from collections.abc import Callable
from typing import Any

from penstock import sdk
from penstock.lib import avro
from penstock.sdk.schemas import SchemaOptions

BLOCK_BYTES = 64 * 1024
"""Blocks are written when they have this size."""


class InputConfig(sdk.PluginConfig):
    """There is nothing to configure."""


class OutputConfig(SchemaOptions):
    format_name = "Avro"


def _library() -> Any:
    try:
        import fastavro
    except ImportError:
        raise sdk.ConfigError(
            'The avro codec needs the Python package fastavro; install it with: pip install "penstock[avro]"'
        ) from None
    return fastavro


class AvroInput:
    def __init__(self, ctx: sdk.Context) -> None:
        self._library = _library()
        self._ctx = ctx
        ctx.metrics.counter("notContainers")

    def decoder(self) -> sdk.Decoder:
        return _AvroDecoder(self._library, self._ctx)


class _AvroDecoder:
    def __init__(self, library: Any, ctx: sdk.Context) -> None:
        self._read: Callable[[io.BytesIO], Any] = library.reader
        self._ctx = ctx
        self._pieces: list[bytes] = []
        self._size = 0
        self._look_at_bytes = 0
        """Size of what is left at which it is looked at again, which keeps the work linear."""
        self._header: avro.Header | None = None
        self._head = b""
        """The header for `read`, with plain types and without compression."""
        self._inflater = avro.Inflater("null")
        self._has_bytes = False
        self._singles: Callable[[Any], Any] | None = None
        """Changes a record with numbers of single precision."""
        self._foreign = False

    def feed(self, data: bytes) -> sdk.Batch:
        if self._foreign:
            return self._batch([])
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._look_at_bytes:
            return self._batch([])
        data = b"".join(self._pieces)
        if not data.startswith(avro.MAGIC[: len(data)]) and self._header is None:
            self._refuse()
            return self._batch([])
        data, bodies = self._blocks(data)
        self._pieces, self._size = [data], len(data)
        self._look_at_bytes = len(data) * 3 // 2
        if len(data) > 2 * avro.BLOCK_BYTES_MAX:
            raise sdk.EventError("A block of the Avro container is too large", cause="too_large")
        return self._batch(bodies)

    def finish(self) -> sdk.Batch:
        data = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        if not data:
            return self._batch([])
        if self._header is None and len(data) < len(avro.MAGIC):
            self._refuse()
            return self._batch([])
        rest, bodies = self._blocks(data)
        if rest or self._header is None:
            raise sdk.EventError("The Avro container ends too early", cause="avro")
        return self._batch(bodies)

    def _refuse(self) -> None:
        self._foreign = True
        self._pieces = []
        self._ctx.metrics.counter("notContainers").add()
        self._ctx.log.error("An exception has occurred while parsing avro InputStream: this is no Avro container")

    def _batch(self, bodies: list[sdk.Body]) -> sdk.Batch:
        return sdk.Batch(bodies, origin=sdk.Meta(received_ms=self._ctx.clock.now_ms()))

    def _blocks(self, data: bytes) -> tuple[bytes, list[sdk.Body]]:
        """Read the whole blocks; returns what is left over and the events."""
        if self._header is None:
            try:
                header, end = avro.header_at_start(data)
            except avro.Short:
                if len(data) > avro.HEADER_BYTES_MAX:
                    raise sdk.EventError("The header of the Avro container is too large", cause="too_large") from None
                return data, []
            self._begin(header)
            data = data[end:]
        assert self._header is not None, "it was read before any block"
        end = avro.blocks_end(data, self._header.sync)
        if not end:
            return data, []
        return data[end:], self._records(data[:end], self._header.sync)

    def _begin(self, header: avro.Header) -> None:
        try:
            schema = avro.without_logical_types(header.schema())
            shape = avro.shape_of(schema)
            self._singles = avro.compile_singles(schema) if "float" in shape.kinds else None
        except RecursionError:
            raise sdk.EventError("The schema of the Avro container is nested too deeply", cause="avro") from None
        if shape.contains_itself:
            self._read = _reader_with_a_limit_of_depth()
        self._has_bytes = not shape.kinds.isdisjoint(("bytes", "fixed"))
        self._inflater = avro.Inflater(header.metadata.get("avro.codec", b"null").decode("utf-8", "replace"))
        plain = {**header.metadata, "avro.schema": json.dumps(schema).encode(), "avro.codec": b"null"}
        self._head = avro.Header(plain, header.sync).encode()
        self._header = header

    def _records(self, blocks: bytes, sync: bytes) -> list[sdk.Body]:
        pieces = [self._head]
        for count, data in self._inflater.plain_blocks(blocks):
            pieces += (avro.long_bytes(count), avro.long_bytes(len(data)), data, sync)
        try:
            records = list(self._read(io.BytesIO(b"".join(pieces))))
        except Exception as error:
            raise sdk.EventError(f"The Avro container cannot be read: {error}", cause="avro") from error
        if any(type(record) is not dict for record in records):
            raise sdk.EventError("The Avro container holds values that are no records", cause="avro")
        if self._singles is not None:
            records = list(map(self._singles, records))
        return [_without_bytes(record) for record in records] if self._has_bytes else records


def _reader_with_a_limit_of_depth() -> Callable[[io.BytesIO], Any]:
    """The library's reader in Python, for values nested as deep as they like: the one in C overruns its stack."""
    from fastavro._read_py import reader

    return reader


def _without_bytes(value: Any) -> Any:
    if type(value) is dict:
        return {name: _without_bytes(item) for name, item in value.items()}
    if type(value) is list:
        return [_without_bytes(item) for item in value]
    return base64.b64encode(value).decode() if type(value) is bytes else value


class AvroOutput:
    extension = "avro"

    def __init__(self, config: OutputConfig, ctx: sdk.Context) -> None:
        self._library = _library()
        self._document = ctx.sink_options.compile_document()
        self._schema = config.schema_for(ctx.sink_options, self._library.parse_schema)

    def encoder(self) -> sdk.Encoder:
        return _AvroEncoder(self._library, self._document, self._schema)


class _AvroEncoder:
    def __init__(self, library: Any, document: Callable[[sdk.Body, sdk.Meta], Any], schema: Any) -> None:
        self._library = library
        self._document = document
        self._schema = schema
        self._made = schema is None
        """Whether the schema is made of the first event."""
        self._parsed: Any = None
        self._check: Callable[[Any], None] | None = None
        """Refuses what the writer would change; a schema made of an event has unions, where it changes nothing."""
        if schema is not None:
            self._parsed, self._check = library.parse_schema(schema), avro.compile_check(schema)
        self._sync = os.urandom(avro.SYNC_BYTES)
        self._block = io.BytesIO()
        self._count = 0

    def start(self) -> bytes:
        return b"" if self._schema is None else self._header()

    def write(self, batch: sdk.Batch) -> bytes:
        if not len(batch):
            return b""
        documents = [self._document(body, batch.peek(place)) for place, body in enumerate(batch.bodies)]
        head = b""
        if self._schema is None:
            self._schema = avro.schema_of(documents[0])
            self._parsed = self._library.parse_schema(self._schema)
            head = self._header()
        begin, write = self._block.tell(), self._library.schemaless_writer
        for document in documents:
            try:
                if self._check is not None:
                    self._check(document)
                write(self._block, self._parsed, document, strict_allow_default=self._made)
            except Exception as error:
                self._block.seek(begin)
                self._block.truncate()
                raise self._refused(document, error) from error
        self._count += len(documents)
        return head + (self._end_block() if self._block.tell() >= BLOCK_BYTES else b"")

    def finish(self) -> bytes:
        return self._end_block()

    def _refused(self, document: Any, error: Exception) -> sdk.EventError:
        unknown = avro.unknown_key(self._schema, document) if self._made else None
        if unknown is not None:
            return sdk.EventError(
                f"The event has a key ('{unknown}') which is not included in the schema.", cause="schema"
            )
        return sdk.EventError(f"The event does not fit the schema: {error}", cause="schema")

    def _header(self) -> bytes:
        metadata = {"avro.schema": json.dumps(self._schema).encode(), "avro.codec": b"null"}
        return avro.Header(metadata, self._sync).encode()

    def _end_block(self) -> bytes:
        if not self._count:
            return b""
        data, count = self._block.getvalue(), self._count
        self._block, self._count = io.BytesIO(), 0
        return avro.long_bytes(count) + avro.long_bytes(len(data)) + data + self._sync


def build_decoder(config: InputConfig, ctx: sdk.Context) -> sdk.InputCodec:
    return AvroInput(ctx)


def build_encoder(config: OutputConfig, ctx: sdk.Context) -> sdk.OutputCodec:
    return AvroOutput(config, ctx)


EXAMPLES = {
    "input_codec": [sdk.Example("Records of a container", config="{}")],
    "output_codec": [
        sdk.Example("Events that are all alike", config="auto_schema: true"),
        sdk.Example(
            "A schema of one's own",
            config="""
schema: |
  {"type": "record", "name": "Person", "fields": [
    {"name": "name", "type": "string"},
    {"name": "age", "type": ["null", "int"], "default": null}
  ]}
""",
        ),
    ],
}
