"""Comma-separated values: a row is an event, its columns are named by a header.

Reading: quoted values may hold delimiters, line ends and doubled quote characters; all values are text. A row with
fewer values than there are columns has no others. A row with more, or a quote that is not closed, is an error; the rows
before it are events still. Blank lines mean nothing, unless there is just one column.

Writing: a row holds the values of an event as JSON, large and small numbers with a fraction as Java writes them
(`1.0E10`), by the names of the header when the event has exactly these, else in the order of the event. Events with
another number of values are left out, logged and counted in `rowsSkipped`.
"""

import codecs
import csv
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from penstock import sdk
from penstock.lib.csv_rows import Unfinished, compile_row_reader
from penstock.lib.java_values import java_text

ROW_CHARACTERS_MAX = 64 * 1024 * 1024
"""Longest row that is read."""

COLUMNS_MAX = 100_000
"""Most values of a row with blanks behind a closing quote."""

_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)")
_UNFINISHED = "unexpected end of data"


def _not_supported(value: str) -> str:
    if value:
        raise ValueError("Header from file is not supported.")
    return value


NoFile = Annotated[str, AfterValidator(_not_supported)] | None


class InputConfig(sdk.PluginConfig):
    delimiter: str = ","
    """Character between values."""
    quote_character: str = '"'
    """Character around values that hold delimiters or line ends."""
    header: list[str] | None = None
    """Names of the columns, while `detect_header` is false. Columns beyond are named column4, column5 …"""
    detect_header: bool = True
    """Take the names of the columns from the first row; `header` is not used then."""

    @field_validator("header")
    @classmethod
    def _some(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not value:
            raise ValueError(
                "header must not be an empty list. To autogenerate columns, set detect_header: false and delete header "
                "from config."
            )
        return value

    @model_validator(mode="after")
    def _characters(self) -> Self:
        if len(self.delimiter) != 1:
            raise ValueError("delimiter must be exactly one character.")
        if len(self.quote_character) != 1:
            raise ValueError("quote_character must be exactly one character.")
        if self.delimiter == self.quote_character:
            raise ValueError("quote_character and delimiter cannot be the same character.")
        if self.delimiter in "\r\n" or self.quote_character in "\r\n":
            raise ValueError("delimiter and quote_character cannot be line ends.")
        return self


class OutputConfig(sdk.PluginConfig):
    delimiter: str = Field(default=",", min_length=1)
    """Text between values."""
    header: list[str] | None = Field(default=None, validate_default=True)
    """Names of the columns."""
    header_file_location: NoFile = None
    """Not supported."""
    region: NoFile = None
    """Not supported."""
    bucket_name: NoFile = None
    """Not supported."""
    fileKey: NoFile = None
    """Not supported."""

    @model_validator(mode="after")
    def _header_given(self) -> Self:
        if not self.header:
            raise ValueError("No header found. Can't proceed without header.")
        return self


class CsvInput:
    def __init__(self, config: InputConfig, ctx: sdk.Context) -> None:
        if config.detect_header and config.header:
            ctx.log.warning("The csv codec takes the header from the data: set detect_header to false to use `header`")
        self._config = config
        self._clock = ctx.clock

    def decoder(self) -> sdk.Decoder:
        return _CsvDecoder(self._config, self._clock)


class _CsvDecoder:
    def __init__(self, config: InputConfig, clock: sdk.Clock) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), ROW_CHARACTERS_MAX))  # a limit of the process
        self._given = None if config.detect_header else config.header or []
        self._delimiter = config.delimiter
        self._quote = config.quote_character
        self._read_exactly = compile_row_reader(config.delimiter, config.quote_character, COLUMNS_MAX)
        self._clock = clock
        self._header: list[str] | None = None
        self._text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._look_at_characters = 0
        """Size of the rest at which an unfinished row is tried again, which keeps the work linear."""
        self._rows_read = 0
        self._broken: sdk.EventError | None = None

    def feed(self, data: bytes) -> sdk.Batch:
        self._raise_if_broken()
        self._rest += self._text.decode(data)
        if len(self._rest) < self._look_at_characters:
            return self._batch([])
        text = self._rest
        end = max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1  # a last \r may be half a line end
        bodies, read = self._rows(text[:end], last=False)
        self._rest = text[read:]
        self._look_at_characters = len(self._rest) * 3 // 2 if read < end else 0
        if len(self._rest) > ROW_CHARACTERS_MAX:
            raise sdk.EventError(f"A row is longer than {ROW_CHARACTERS_MAX} characters", cause="too_large")
        return self._batch(bodies)

    def finish(self) -> sdk.Batch:
        self._raise_if_broken()
        text = self._rest + self._text.decode(b"", final=True)
        self._rest = ""
        bodies, _ = self._rows(text, last=True)
        self._raise_if_broken()
        return self._batch(bodies)

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _batch(self, bodies: list[sdk.Body]) -> sdk.Batch:
        return sdk.Batch(bodies, origin=sdk.Meta(received_ms=self._clock.now_ms()))

    def _rows(self, text: str, *, last: bool) -> tuple[list[sdk.Body], int]:
        """The rows in `text` and how far they reach; `last` when there is nothing behind it."""
        bodies: list[sdk.Body] = []
        read = 0
        try:
            while read < len(text):
                lines = _Lines(text, read)
                reader = csv.reader(lines, delimiter=self._delimiter, quotechar=self._quote, strict=True)
                try:
                    for row in reader:
                        begin, read = read, lines.read
                        if self._header is None and (not row or self._named(row, text[begin:read])):
                            continue
                        body = self._body(row)
                        if body is not None:
                            bodies.append(body)
                except csv.Error as error:
                    if str(error) == _UNFINISHED:
                        raise Unfinished from error
                    row, end = self._exact_row(text, read)
                    if self._header is not None or not self._named(row, text[read:end]):
                        bodies += filter(None, [self._body(row)])
                    read = end
        except Unfinished as error:
            if not last:
                return bodies, read
            self._broken = self._unreadable(error)
        except sdk.EventError as error:
            self._broken = error
        if self._broken is not None and not bodies:
            raise self._broken
        return bodies, read

    def _exact_row(self, text: str, read: int) -> tuple[list[str], int]:
        """A row with blanks behind a closing quote, and where it ends."""
        try:
            return self._read_exactly(text, read)
        except Unfinished:
            raise
        except sdk.EventError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> sdk.EventError:
        return sdk.EventError(f"Row {self._rows_read + 1} of the CSV cannot be read: {error}", cause="csv")

    def _named(self, row: list[str], first: str) -> bool:
        """Name the columns. Whether the row was the header."""
        if self._given is None:
            self._header = [name.strip() or f"column{place}" for place, name in enumerate(row, 1)]
            return True
        line = _LINES.match(first + "\n")
        columns = (line[0] if line else first).count(self._delimiter) + 1
        self._header = self._given[:columns]
        self._header += [f"column{place}" for place in range(len(self._header) + 1, columns + 1)]
        return False

    def _body(self, row: list[str]) -> sdk.Body | None:
        header = self._header
        assert header is not None
        self._rows_read += 1
        if not row:
            return {header[0]: ""} if len(header) == 1 else None
        if len(row) > len(header):
            raise sdk.EventError(
                f"Row {self._rows_read} of the CSV has {len(row)} values, there are {len(header)} columns", cause="csv"
            )
        return dict(zip(header, row, strict=False))


class _Lines:
    """Iterates over lines with their ends and knows how far it has come."""

    def __init__(self, text: str, start: int) -> None:
        self.read = start
        self._text = text
        self._plain = "\r" not in text

    def __iter__(self) -> Iterator[str]:
        text, start = self._text, self.read
        while start < len(text):
            if self._plain:
                end = text.find("\n", start) + 1
            else:
                found = _LINES.match(text, start)
                end = found.end() if found else 0
            end = end or len(text)
            self.read = end
            yield text[start:end]
            start = end


class CsvOutput:
    extension = "csv"

    def __init__(self, config: OutputConfig, ctx: sdk.Context) -> None:
        self._config = config
        self._ctx = ctx
        self._skipped = ctx.metrics.counter("rowsSkipped")
        self._document = ctx.sink_options.compile_document()
        header = config.header
        assert header, "the rules see to it"
        self._header = header
        self._names = frozenset(header)

    def encoder(self) -> sdk.Encoder:
        return self  # it holds no state

    def start(self) -> bytes:
        return (self._config.delimiter.join(self._header) + "\n").encode("utf-8", "replace")

    def write(self, batch: sdk.Batch) -> bytes:
        document, metas, origin = self._document, batch.metas, batch.origin
        delimiter = self._config.delimiter.encode("utf-8", "replace")
        header, names = self._header, self._names
        rows: list[bytes] = []
        for place, body in enumerate(batch.bodies):
            values = document(body, metas[place] or origin)
            if len(values) != len(header):
                self._skipped.add()
                self._ctx.log.error(
                    "CSV Row doesn't conform with the header: it has %d values for %d columns", len(values), len(header)
                )
                continue
            ordered = [values[name] for name in header] if values.keys() == names else values.values()
            rows.append(delimiter.join(map(_encoded, ordered)) + b"\n")
        return b"".join(rows)

    def finish(self) -> bytes:
        return b""


def _encoded(value: Any) -> bytes:
    if type(value) is float and math.isfinite(value):
        return java_text(value).encode()
    return sdk.encode(value)


def build_decoder(config: InputConfig, ctx: sdk.Context) -> sdk.InputCodec:
    return CsvInput(config, ctx)


def build_encoder(config: OutputConfig, ctx: sdk.Context) -> sdk.OutputCodec:
    return CsvOutput(config, ctx)


EXAMPLES = {
    "input_codec": [
        sdk.Example("The first row names the columns", config="{}"),
        sdk.Example("Tabs, no header", config=r'{delimiter: "\t", detect_header: false, header: [time, message]}'),
    ],
    "output_codec": [sdk.Example("Two columns", config="header: [name, age]")],
}
