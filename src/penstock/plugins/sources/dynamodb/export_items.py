"""Lines of export files as events: DynamoDB JSON and Ion text, full and incremental exports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import msgspec

from penstock import sdk
from penstock.plugins.sources.dynamodb import attributes, ion_items, lines
from penstock.plugins.sources.dynamodb.shapes import Rows, Shapes

OVERLAP_MS = 300_000
"""How much earlier than the export its versions are, so that each change made since then wins."""
Format = Literal["DYNAMODB_JSON", "ION"]


class _Line(TypedDict):
    """A line of a full export in DynamoDB JSON."""

    Item: dict[str, attributes.Value]


_decode = msgspec.json.Decoder().decode
_lines = msgspec.json.Decoder(_Line)
_FAILURES = (sdk.EventError, AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What a line that is no item raises."""


@dataclass(slots=True)
class Items:
    """The events of some lines."""

    batch: sdk.Batch
    sizes: list[int]
    """Bytes of each event's line, on average."""
    failed: int = 0
    """Lines that could not be converted."""


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Makes events from the lines of one file."""

    table_name: str
    partition_key: str
    sort_key: str | None
    form: Format
    incremental: bool
    at_ms: int
    """Time of the export."""
    view_on_remove: str
    log: logging.Logger

    def compile(self) -> Callable[[bytes, int, int], Items]:
        """The loop over the lines of a text. One that cannot be converted is left out and counted, the others go on."""
        return self._changes() if self.incremental else self._items()

    def _items(self) -> Callable[[bytes, int, int], Items]:
        read = self._json_rows() if self.form == "DYNAMODB_JSON" else self._ion_rows()
        has_sort_key = self.sort_key is not None
        alike: dict[str, Any] = {
            "table_name": self.table_name,
            "dynamodb_timestamp": self.at_ms,
            "document_version": (self.at_ms - OVERLAP_MS) * 1000,
            "dynamodb_event_name": None,
            "opensearch_action": "index",
            "ttl_delete": False,
        }
        meta_of = sdk.Meta

        def items(text: bytes, count: int, received_ms: int) -> Items:
            rows = read(text, count)
            metas: list[sdk.Meta | None] = []
            for place, key in enumerate(rows.keys):
                found = alike.copy()
                found["partition_key"] = found["primary_key"] = key
                if has_sort_key:
                    found["sort_key"] = sort_key = rows.sort_keys[place]
                    found["primary_key"] = f"{key}|{sort_key}"
                metas.append(meta_of("EXPORT", received_ms, found))
            return Items(sdk.Batch(rows.bodies, metas), [len(text) // count] * len(metas), rows.failed)

        return items

    def _json_rows(self) -> Callable[[bytes, int], Rows]:
        shapes = Shapes(self.partition_key, self.sort_key)

        def read(text: bytes, count: int) -> Rows:
            rows = shapes.read(text, count)
            if rows is not None:
                return rows
            entries = lines.read(text, count, _lines.decode_lines, _json_line)
            shapes.learn([entry["Item"] for entry in entries if type(entry) is dict])
            return self._rows(entries, attributes.key_of, attributes.body)

        return read

    def _ion_rows(self) -> Callable[[bytes, int], Rows]:
        def read(text: bytes, count: int) -> Rows:
            return self._rows(ion_items.read_lines(text, count), ion_items.number_text, _same)

        return read

    def _rows(self, entries: list[Any], key_of: Callable[[Any], str], body_of: Callable[[Any], sdk.Body]) -> Rows:
        """The items of decoded lines; what is none is reported."""
        partition_key, sort_key = self.partition_key, self.sort_key
        bodies: list[sdk.Body] = []
        keys: list[str] = []
        sort_keys: list[str] = []
        for entry in entries:
            try:
                image = entry["Item"]
                key = key_of(image[partition_key])
                second = None if sort_key is None else key_of(image[sort_key])
                bodies.append(body_of(image))
            except _FAILURES as error:
                self._report(entry if isinstance(entry, ValueError) else error)
                continue
            keys.append(key)
            if second is not None:
                sort_keys.append(second)
        return Rows(bodies, keys, sort_keys, len(entries) - len(bodies))

    def _changes(self) -> Callable[[bytes, int, int], Items]:
        read = self._json_change if self.form == "DYNAMODB_JSON" else self._ion_change
        old_on_remove = self.view_on_remove == "OLD_IMAGE"

        def changes(text: bytes, count: int, received_ms: int) -> Items:
            bodies: list[sdk.Body] = []
            metas: list[sdk.Meta | None] = []
            failed = 0
            for line in lines.filled(text):
                try:
                    keys, micros, new, old = read(line)
                    found = self._metadata(keys, micros, removed=new is None)
                except _FAILURES as error:
                    failed += 1
                    self._report(error)
                    continue
                bodies.append(new if new is not None else old if old_on_remove and old is not None else {})
                metas.append(sdk.Meta("EXPORT", received_ms, found))
            return Items(sdk.Batch(bodies, metas), [len(text) // count] * len(metas), failed)

        return changes

    def _metadata(self, keys: tuple[str, str | None], micros: int, *, removed: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            "table_name": self.table_name,
            "partition_key": keys[0],
            "primary_key": keys[0],
            "dynamodb_timestamp": micros // 1000,
            "document_version": micros - OVERLAP_MS * 1000,
            "dynamodb_event_name": None,
            "opensearch_action": "delete" if removed else "index",
            "ttl_delete": False,
        }
        if self.sort_key is not None:
            found["sort_key"] = keys[1]
            found["primary_key"] = f"{keys[0]}|{keys[1]}"
        return found

    def _report(self, error: Exception) -> None:
        reason = error if isinstance(error, sdk.EventError | ValueError) else f"{type(error).__name__}: {error}"
        self.log.error("Failed to parse and convert data from export due to %s", reason)

    # changes

    def _json_change(
        self, line: bytes
    ) -> tuple[tuple[str, str | None], int, dict[str, Any] | None, dict[str, Any] | None]:
        entry = _decode(line)
        keys = entry["Keys"]
        sort_key = None if self.sort_key is None else attributes.key_text(keys[self.sort_key])
        micros = int(entry["Metadata"]["WriteTimestampMicros"]["N"])
        new, old = (None if image is None else attributes.item(image) for image in _images(entry))
        return (attributes.key_text(keys[self.partition_key]), sort_key), micros, new, old

    def _ion_change(
        self, line: bytes
    ) -> tuple[tuple[str, str | None], int, dict[str, Any] | None, dict[str, Any] | None]:
        entry = ion_items.read_item(line.decode())
        entry = entry.get("Record", entry)
        keys = entry["Keys"]
        sort_key = None if self.sort_key is None else ion_items.number_text(keys[self.sort_key])
        micros = int(entry["Metadata"]["WriteTimestampMicros"])
        new, old = _images(entry)
        return (ion_items.number_text(keys[self.partition_key]), sort_key), micros, new, old


def _images(entry: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The new and the old image; an empty one is none."""
    return entry.get("NewImage") or None, entry.get("OldImage") or None


def _json_line(line: bytes) -> Any:
    try:
        return _lines.decode(line)
    except RecursionError:
        return ValueError("JSON is nested too deeply")
    except ValueError as error:
        return error


def _same(image: sdk.Body) -> sdk.Body:
    return image
