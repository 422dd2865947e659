"""Parses a line of separated values into one field per column; values stay text.

Column names come from the field `column_names_source_key` where the event has it, else from `column_names`, else they
are `column1`, `column2` and so on; columns beyond the known names are named that way too. Names are event keys: `a/b`
is `b` inside `a`. Only the first line of the text counts, except that values in quotes may span lines.

With `multiline` the first line of the text holds the names and each further line becomes an event of its own, a copy
of the one it came from. A text without further lines holds no rows: its event ends there, counted as
`csvEventsWithoutRows`. Events for which the condition is false or that have no text go on as they are.

An event that cannot be parsed goes on as it was and counts as `csvInvalidEvents`.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from penstock import sdk
from penstock.lib.csv_rows import compile_row_reader
from penstock.lib.event_keys import Key, event_key, replace_invalid_characters
from penstock.lib.java_values import java_text

COLUMNS_MAX = 10_000
"""Columns of one line."""
ROWS_MAX = 10_000
"""Lines of one text, with `multiline`."""
_HEADERS_CACHED = 64
_HEADER_CACHED_CHARACTERS_MAX = 65_536
_LINE_END = re.compile(r"[\r\n]")
_LINE_ENDS = re.compile(r"[\r\n]+")
_COLUMN_NAMES = [f"column{number}" for number in range(1, 257)]
_COLUMN_NAME = re.compile("column([1-9][0-9]{0,5})", re.ASCII)


def _not_blank(key: Key) -> Key:
    if not key.text.strip():
        raise ValueError("source must not be blank")
    return key


class Config(sdk.PluginConfig):
    source: Annotated[sdk.Key, AfterValidator(_not_blank)] = Field(default="message", validate_default=True)
    """Field to parse. Events without it are left alone."""
    delimiter: str = ","
    """Character between the values."""
    delete_header: bool = True
    """Remove the field that holds the column names."""
    normalize_keys: bool = False
    """Replace characters of column names that no event key can hold by `_`."""
    multiline: bool = False
    """The text holds a line of names and any number of rows, which become events."""
    quote_character: str = '"'
    """Character around values that hold delimiters or line ends; written twice it stands for itself."""
    column_names_source_key: sdk.Key | None = None
    """Field that holds the column names of its event, separated and quoted as the values are."""
    column_names: list[str] | None = None
    """Names of the columns."""
    delete_source: bool = False
    """Remove the source after it was parsed. A column of that name stays."""
    csv_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are parsed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        problems = []
        if len(self.delimiter) != 1:
            problems.append("delimiter must be exactly one character.")
        if len(self.quote_character) != 1:
            problems.append("quote_character must be exactly one character.")
        if self.delimiter == self.quote_character:
            problems.append("quote_character and delimiter cannot be the same character")
        if problems:
            raise ValueError(" ".join(problems))
        return self


_Row = Callable[[str], list[str]]


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    ctx.metrics.counter("csvInvalidEvents")
    row_of = compile_row(config.delimiter, config.quote_character)
    if config.multiline:
        return _multiline(config, ctx, row_of)
    return ctx.each(_change(config, row_of), when=config.csv_when, failures="csvInvalidEvents")


def _change(config: Config, row_of: _Row) -> sdk.EventFn:
    source, get, header_key = config.source, config.source.get, config.column_names_source_key
    named = _Header(config.column_names or [], normalize=config.normalize_keys)
    write_named = named.write
    if header_key is None and not config.delete_source:

        def change(body: sdk.Body) -> None:
            text = get(body)
            if type(text) is not str:
                text = _text(text, source)
            if text:
                write_named(body, row_of(text))

        return change

    header_of = _header_reader(row_of, normalize=config.normalize_keys)
    delete_source, delete_header = config.delete_source, config.delete_header
    deep = any(len(key.parts) > 1 for key in (source, header_key) if key is not None)

    def change_and_delete(body: sdk.Body) -> None:
        text = get(body)
        if type(text) is not str:
            text = _text(text, source)
            if text is None:
                return
        names = sdk.MISSING if header_key is None else header_key.get(body)
        header = named if names is sdk.MISSING else header_of(_text(names, header_key) or "")
        row = row_of(text) if text else []
        before = sdk.copy_value(body) if deep else body  # what is deep may be in a list, which loses no elements
        try:
            header.write(body, row)
            if header is not named and header_key is not None and delete_header and not header.has(header_key, row):
                header_key.take(body)
            if delete_source and not header.has(source, row):
                source.take(body)
        except sdk.EventError:
            if before is not body:
                body.clear()
                body.update(before)
            raise

    return change_and_delete


def _text(value: Any, key: Key | None) -> str | None:
    """The text under a key, None for nothing. Raises `EventError` for an object or a list."""
    if type(value) is str:
        return value
    if value is None or value is sdk.MISSING:
        return None
    if isinstance(value, dict | list):
        raise sdk.EventError(f"{key} is no text", cause="type")
    return java_text(value)


class _Header:
    """Column names, made for writing rows."""

    def __init__(self, names: Sequence[str], *, normalize: bool) -> None:
        self.names = [replace_invalid_characters(name) or "" for name in names] if normalize else list(names)
        self._keys: list[Key | sdk.EventError] = [_key(name) for name in self.names]
        self._places = {key.parts: place for place, key in enumerate(self._keys) if isinstance(key, Key)}
        tops = [key.parts[0] for key in itertools.takewhile(_is_at_top, self._keys) if isinstance(key, Key)]
        self._tops = [*tops, *_COLUMN_NAMES[len(tops) :]] if len(tops) == len(self.names) else tops
        """Names at the top of the event, as far as there are no others."""

    def write(self, body: sdk.Body, row: list[str]) -> None:
        """Put a row into an event. Raises `EventError`, and then the event is as it was."""
        if len(row) <= len(self._tops):
            body.update(zip(self._tops, row, strict=False))
            return
        trial = sdk.copy_value(body)
        for place, value in enumerate(row):
            key = self._keys[place] if place < len(self._keys) else event_key(f"column{place + 1}")
            if isinstance(key, sdk.EventError):
                raise key
            key.put(trial, value)
        body.clear()
        body.update(trial)

    def has(self, key: Key, row: list[str]) -> bool:
        """Whether one of the columns of a row was written under this key."""
        place = self._places.get(key.parts)
        name = key.parts[0]
        if place is None and name[:6] == "column" and len(key.parts) == 1 and (found := _COLUMN_NAME.fullmatch(name)):
            place = int(found[1]) - 1
            if place < len(self.names):
                return False
        return place is not None and place < len(row)


def _is_at_top(key: Key | sdk.EventError) -> bool:
    return isinstance(key, Key) and len(key.parts) == 1 and not key.parts[0].isdecimal()


def _key(name: str) -> Key | sdk.EventError:
    try:
        return event_key(name)
    except sdk.EventError as error:
        return error


def _header_reader(row_of: _Row, *, normalize: bool) -> Callable[[str], _Header]:
    """A function that reads column names. A line that cannot be read names no columns."""

    def read(line: str) -> _Header:
        try:
            names = row_of(line) if line else []
        except sdk.EventError:
            names = []
        return _Header(names, normalize=normalize)

    cached = lru_cache(_HEADERS_CACHED)(read)
    return lambda line: cached(line) if len(line) <= _HEADER_CACHED_CHARACTERS_MAX else read(line)


def _multiline(config: Config, ctx: sdk.Context, row_of: _Row) -> sdk.BatchFn:
    when, rows_of = config.csv_when, _rows_reader(config, row_of)
    fail = ctx.failure(failures="csvInvalidEvents")
    without_rows = ctx.metrics.counter("csvEventsWithoutRows")

    def parse(batch: sdk.Batch) -> sdk.Batch:
        places: list[int] = []
        bodies: list[sdk.Body] = []
        for index, body in enumerate(batch.bodies):
            rows: list[sdk.Body] | None = None
            try:
                if when is None or when.test(body, batch.peek(index)):
                    rows = rows_of(body)
            except sdk.EventError as error:
                fail(batch, index, error)
            if rows is None:
                rows = [body]
            elif not rows:
                without_rows.add()
            places += [index] * len(rows)
            bodies += rows
        parsed = batch.share(places)
        parsed.bodies = bodies
        parsed.metas = [None if meta is None else meta.copy() for meta in parsed.metas]
        batch.release_all(ok=True)
        return parsed

    return parse


def _rows_reader(config: Config, row_of: _Row) -> Callable[[sdk.Body], list[sdk.Body] | None]:
    """A function that makes the events of one text; None for an event without text. It raises `EventError`."""

    def rows_of(body: sdk.Body) -> list[sdk.Body] | None:
        text = _text(config.source.get(body), config.source)
        if text is None:
            return None
        lines = _without_empty_end(_LINE_ENDS.split(text.lstrip("\r\n"), ROWS_MAX + 1))
        if len(lines) > ROWS_MAX + 1:
            raise sdk.EventError(f"more than {ROWS_MAX} lines of separated values", cause="too_large")
        if len(lines) < 2:
            return []
        names = _without_empty_end(lines[0].split(config.delimiter))
        header = _Header(names, normalize=config.normalize_keys)
        made = []
        for line in lines[1:]:
            row, copied = row_of(line), sdk.copy_value(body)
            if config.delete_source:
                config.source.take(copied)
            header.write(copied, row)
            made.append(copied)
        return made

    return rows_of


def _without_empty_end(texts: list[str]) -> list[str]:
    while texts and not texts[-1]:
        texts.pop()
    return texts


def compile_row(delimiter: str, quote: str) -> _Row:
    """A function that splits the first line of a text. Raises `EventError` for a quote that is not closed, for text
    behind a closing quote, and for more than `COLUMNS_MAX` columns."""
    dialect = _dialect(delimiter, quote)
    read_row = compile_row_reader(delimiter, quote, COLUMNS_MAX)

    def read_exactly(text: str) -> list[str]:
        return read_row(text, 0)[0]

    def row(text: str) -> list[str]:
        if quote not in text:
            if "\n" in text or "\r" in text:
                text = _LINE_END.split(text, 1)[0]
            values = text.split(delimiter, COLUMNS_MAX)
        else:
            try:
                values = next(csv.reader((text,), dialect))
            except csv.Error:  # blanks behind a closing quote, further lines, huge values, or indeed a mistake
                values = read_exactly(text)
        if len(values) > COLUMNS_MAX:
            raise sdk.EventError(f"more than {COLUMNS_MAX} separated values", cause="too_large")
        return values

    return row if dialect is not None else read_exactly


def _dialect(delimiter: str, quote: str) -> Any:
    """The form for Python's reader; None for signs it does not take."""
    try:
        return csv.reader((), delimiter=delimiter, quotechar=quote, strict=True).dialect
    except (TypeError, ValueError, csv.Error):
        return None


EXAMPLES = [
    sdk.Example(
        "Name the columns of a line",
        config="""
            column_names: [time, level, text]
            delete_source: true
        """,
        before=[{"message": '10:30,warn,"disk full, again"'}, {"message": "10:31,info,done,extra"}],
        after=[
            {"time": "10:30", "level": "warn", "text": "disk full, again"},
            {"time": "10:31", "level": "info", "text": "done", "column4": "extra"},
        ],
    ),
    sdk.Example(
        "Names that travel with the event",
        config="{column_names_source_key: header, delete_source: true}",
        before=[{"header": "a,b", "message": "1,2"}, {"message": "1,2"}],
        after=[{"a": "1", "b": "2"}, {"column1": "1", "column2": "2"}],
    ),
    sdk.Example(
        "A whole table in one event",
        config='{source: table, multiline: true, delimiter: ";", delete_source: true}',
        before=[{"table": "id;name\n1;Ada\n2;Grace\n", "host": "h1"}],
        after=[{"host": "h1", "id": "1", "name": "Ada"}, {"host": "h1", "id": "2", "name": "Grace"}],
    ),
]
