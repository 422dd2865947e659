"""Parquet files: a row is an event.

Reading puts the file aside first, in memory up to 16 MiB and then in a temporary file, because its directory comes
last. `finish` gives all rows; `rest` gives them batch by batch, for files larger than memory. Dates, times and time
stamps are the numbers they are stored as, but for the outdated 96-bit time stamps, which are ISO 8601 text. Binary
values are text where they are UTF-8, else base64. Numbers of single precision have the digits they are written with:
0.1 rather than 0.10000000149011612.

Writing needs an Avro schema, or makes one of the first event: then every field may be null, and keys that the first
event did not have are errors. Compression is inside of the file. Needs the extra `penstock[parquet]`.
"""

import base64
import io
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from penstock import sdk
from penstock.lib import avro
from penstock.lib.arrow import avro_to_arrow, compile_fit
from penstock.sdk.schemas import SchemaOptions

MEMORY_BYTES_MAX = 16 * 1024 * 1024
"""Larger files are put aside on disk."""
FILE_BYTES_MAX = 16 * 1024 * 1024 * 1024
"""Largest file that is read."""
ROWS_MAX = 1024
"""Rows of a batch that is read."""
UNSUSPICIOUS_VALUES = 4_000_000
VALUES_PER_BYTE_MAX = 100
"""Beyond the first millions a column may have so many values for each byte of the file."""
UNSUSPICIOUS_BYTES = 64 * 1024 * 1024
RATIO_MAX = 100
"""Beyond the first 64 MiB a column may inflate to so many times the size of the file."""
GROUP_ROWS_MAX = 100_000
GROUP_BYTES_MAX = 64 * 1024 * 1024
"""A row group is written when its rows take so much memory."""
COMPRESSIONS = ("none", "gzip", "snappy")


class InputConfig(sdk.PluginConfig):
    """There is nothing to configure."""


class OutputConfig(SchemaOptions):
    format_name = "Parquet"


def _library() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise sdk.ConfigError(
            'The parquet codec needs the Python package pyarrow; install it with: pip install "penstock[parquet]"'
        ) from None
    return pyarrow, pyarrow.parquet


class ParquetInput:
    def __init__(self, ctx: sdk.Context) -> None:
        self._library = _library()
        self._clock = ctx.clock

    def decoder(self) -> sdk.Decoder:
        return _ParquetDecoder(*self._library, self._clock)


class _ParquetDecoder:
    def __init__(self, arrow: Any, parquet: Any, clock: sdk.Clock) -> None:
        self._arrow = arrow
        self._parquet = parquet
        self._clock = clock
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES_MAX)  # noqa: SIM115 (closed by `rest`)
        self._size = 0

    def feed(self, data: bytes) -> sdk.Batch:
        self._size += len(data)
        if self._size > FILE_BYTES_MAX:
            self._file.close()
            raise sdk.EventError(f"The Parquet file is larger than {FILE_BYTES_MAX} bytes", cause="too_large")
        self._file.write(data)
        return self._batch([])

    def finish(self) -> sdk.Batch:
        return sdk.concat([self._batch([]), *self.rest()])

    def rest(self) -> Iterator[sdk.Batch]:
        """What `finish` gives, in batches of at most 1024 events. Raises `EventError` where it is no Parquet."""
        with self._file as file:
            if not self._size:
                return
            file.seek(0)
            try:
                for rows in self._rows(file):
                    yield self._batch(rows)
            except (self._arrow.ArrowException, OSError, ValueError, RecursionError) as error:
                raise sdk.EventError(f"The Parquet file cannot be read: {error}", cause="parquet") from error

    def _check_size(self, told: Any) -> None:
        """Refuse a file of which few bytes stand for more than memory can hold."""
        values_max = max(UNSUSPICIOUS_VALUES, VALUES_PER_BYTE_MAX * self._size)
        bytes_max = max(UNSUSPICIOUS_BYTES, RATIO_MAX * self._size)
        for group in map(told.row_group, range(told.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if max(column.num_values, told.num_rows) > values_max or column.total_uncompressed_size > bytes_max:
                    raise sdk.EventError("The Parquet file is too large once decompressed", cause="too_large")

    def _batch(self, bodies: list[sdk.Body]) -> sdk.Batch:
        return sdk.Batch(bodies, origin=sdk.Meta("event", received_ms=self._clock.now_ms()))

    def _rows(self, file: Any) -> Iterator[list[sdk.Body]]:
        with self._parquet.ParquetFile(file) as source:
            self._check_size(source.metadata)
            schema = source.schema_arrow
            outdated = _int96_columns(source.schema)
            target = _plain_schema(self._arrow, schema, outdated, self._arrow.float64())
            texts = _plain_schema(self._arrow, schema, outdated, self._arrow.string())
            convert = [_converter(self._arrow, field.type) for field in target]
            for batch in source.iter_batches(ROWS_MAX, use_threads=False):
                table = self._arrow.Table.from_batches([batch])
                if outdated:
                    table = _iso_columns(self._arrow, table, outdated)
                if texts != target:  # the digits of single precision, not those of the double next to it
                    table = table.cast(texts)
                rows = table.cast(target).to_pylist(maps_as_pydicts="lossy")
                for field, change in zip(target, convert, strict=True):
                    if change is not None:
                        name = field.name
                        for row in rows:
                            row[name] = change(row[name])
                yield rows


def _int96_columns(schema: Any) -> set[str]:
    columns = (schema.column(place) for place in range(len(schema)))
    return {column.path for column in columns if column.physical_type == "INT96" and "." not in column.path}


def _iso_columns(arrow: Any, table: Any, names: set[str]) -> Any:
    import pyarrow.compute as compute

    for name in names:
        place = table.schema.get_field_index(name)
        stamps = table.column(place).cast(arrow.timestamp("ns", "UTC"))
        table = table.set_column(place, name, compute.strftime(stamps, "%Y-%m-%dT%H:%M:%SZ"))
    return table


def _plain_schema(arrow: Any, schema: Any, outdated: set[str], single: Any) -> Any:
    """The schema with plain numbers for dates and times, text for the outdated columns, and `single` for `float`."""
    return arrow.schema(
        [
            arrow.field(field.name, arrow.string(), field.nullable)
            if field.name in outdated
            else _plain_field(arrow, field, single)
            for field in schema
        ]
    )


def _plain_field(arrow: Any, field: Any, single: Any) -> Any:
    return arrow.field(field.name, _plain_type(arrow, field.type, single), field.nullable)


def _plain_type(arrow: Any, kind: Any, single: Any) -> Any:
    types = arrow.types
    if types.is_float32(kind):
        return single
    if types.is_timestamp(kind) or types.is_date64(kind) or types.is_time64(kind) or types.is_duration(kind):
        return arrow.int64()
    if types.is_date32(kind) or types.is_time32(kind):
        return arrow.int32()
    if types.is_dictionary(kind):
        return _plain_type(arrow, kind.value_type, single)
    if types.is_struct(kind):
        return arrow.struct([_plain_field(arrow, kind.field(place), single) for place in range(kind.num_fields)])
    if types.is_map(kind):
        return arrow.map_(kind.key_type, _plain_field(arrow, kind.item_field, single))
    if types.is_large_list(kind):
        return arrow.large_list(_plain_field(arrow, kind.value_field, single))
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        return arrow.list_(_plain_field(arrow, kind.value_field, single))
    return kind


def _converter(arrow: Any, kind: Any) -> Callable[[Any], Any] | None:
    """A function for the values of a type that holds binary values; None for the others."""
    types = arrow.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _text_of
    nested = (
        [kind.field(place).type for place in range(kind.num_fields)]
        if types.is_struct(kind)
        else [kind.item_type]
        if types.is_map(kind)
        else [kind.value_type]
        if types.is_list(kind) or types.is_large_list(kind)
        else []
    )
    return _text_inside if any(_converter(arrow, inner) for inner in nested) else None


def _text_of(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _text_inside(value: Any) -> Any:
    if type(value) is dict:
        return {name: _text_inside(item) for name, item in value.items()}
    if type(value) is list:
        return [_text_inside(item) for item in value]
    return _text_of(value) if type(value) is bytes else value


class ParquetOutput:
    extension = "parquet"
    compresses_itself = True
    """A sink passes its `compression` on to `encoder` and compresses nothing itself."""

    def __init__(self, config: OutputConfig, ctx: sdk.Context) -> None:
        self._library = _library()
        self._document = ctx.sink_options.compile_document()
        self._schema = config.schema_for(ctx.sink_options, partial(avro_to_arrow, self._library[0]))

    def encoder(self, compression: str = "none") -> sdk.Encoder:
        """A fresh encoder for one file, compressed as `none`, `gzip` or `snappy`."""
        assert compression in COMPRESSIONS, f"Parquet is not compressed by {compression}"
        return _ParquetEncoder(*self._library, self._document, self._schema, compression)


class _ParquetEncoder:
    def __init__(
        self,
        arrow: Any,
        parquet: Any,
        document: Callable[[sdk.Body, sdk.Meta], Any],
        schema: Any,
        compression: str,
    ) -> None:
        self._arrow = arrow
        self._parquet = parquet
        self._document = document
        self._compression = compression
        self._schema: Any = None
        self._fit: Callable[[Any], Any] = _as_it_is
        if schema is not None:
            self._use(schema, closed=False)
        self._sink = io.BytesIO()
        self._writer: Any = None
        self._tables: list[Any] = []
        self._rows = self._bytes = 0

    def start(self) -> bytes:
        return b"" if self._schema is None else self._open()

    def write(self, batch: sdk.Batch) -> bytes:
        if not len(batch):
            return b""
        documents = [self._document(body, batch.peek(place)) for place, body in enumerate(batch.bodies)]
        head = b""
        if self._schema is None:
            self._use(avro.schema_of(documents[0]), closed=True)
            head = self._open()
        table = self._table(documents)
        self._tables.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= GROUP_ROWS_MAX or self._bytes >= GROUP_BYTES_MAX:
            self._end_group()
        return head + self._taken()

    def finish(self) -> bytes:
        if self._writer is None:
            return b""
        self._end_group()
        self._writer.close()
        self._writer = None
        return self._taken()

    def _use(self, schema: Any, *, closed: bool) -> None:
        self._schema = avro_to_arrow(self._arrow, schema)
        self._fit = compile_fit(self._arrow, self._arrow.struct(list(self._schema)), closed=closed)

    def _open(self) -> bytes:
        compression = self._compression.upper()
        self._writer = self._parquet.ParquetWriter(self._sink, self._schema, compression=compression)
        return self._taken()

    def _table(self, documents: list[Any]) -> Any:
        try:
            return self._arrow.Table.from_pylist([self._fit(row) for row in documents], schema=self._schema)
        except (self._arrow.ArrowException, ValueError, OverflowError) as error:
            raise sdk.EventError(f"The event does not fit the schema: {error}", cause="schema") from error

    def _end_group(self) -> None:
        if self._tables:
            self._writer.write_table(self._arrow.concat_tables(self._tables))
            self._tables, self._rows, self._bytes = [], 0, 0

    def _taken(self) -> bytes:
        """The bytes that are written since last time. The file's own count of them goes on."""
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data


def _as_it_is(value: Any) -> Any:
    return value


def build_decoder(config: InputConfig, ctx: sdk.Context) -> sdk.InputCodec:
    return ParquetInput(ctx)


def build_encoder(config: OutputConfig, ctx: sdk.Context) -> sdk.OutputCodec:
    return ParquetOutput(config, ctx)


EXAMPLES = {
    "input_codec": [sdk.Example("Rows of a file", config="{}")],
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
