"""Lines of export files as events: DynamoDB JSON and Ion text, full and incremental exports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from penstock import sdk
from penstock.plugins.sources.dynamodb import attributes, ion_items

OVERLAP_MS = 300_000
"""How much earlier than the export its versions are, so that each change made since then wins."""
Format = Literal["DYNAMODB_JSON", "ION"]
Keyed = tuple[bytes, sdk.Body, str, str | None]
"""The line, its body, partition key and sort key."""
Convert = Callable[[list[bytes]], Iterator[Keyed]]
"""The items of those lines that hold one; the others are reported."""


class _Line(msgspec.Struct, gc=False):
    """A line of a full export in DynamoDB JSON."""

    Item: dict[str, attributes.Value]


_decode = msgspec.json.Decoder().decode
_decode_item = msgspec.json.Decoder(_Line).decode
_FAILURES = (sdk.EventError, AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What a line that is no item raises."""


@dataclass(slots=True)
class Items:
    """The events of some lines."""

    batch: sdk.Batch
    sizes: list[int]
    """Bytes of each event's line."""
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

    def compile(self) -> Callable[[list[bytes], int], Items]:
        """The loop over lines. A line that cannot be converted is left out and counted, the others go on."""
        return self._changes() if self.incremental else self._items()

    def _items(self) -> Callable[[list[bytes], int], Items]:
        convert = self._json_items() if self.form == "DYNAMODB_JSON" else self._ion_items()
        has_sort_key = self.sort_key is not None
        alike = {
            "table_name": self.table_name,
            "dynamodb_timestamp": self.at_ms,
            "document_version": (self.at_ms - OVERLAP_MS) * 1000,
            "dynamodb_event_name": None,
            "opensearch_action": "index",
            "ttl_delete": False,
        }
        meta_of = sdk.Meta

        def items(lines: list[bytes], received_ms: int) -> Items:
            bodies: list[sdk.Body] = []
            metas: list[sdk.Meta | None] = []
            sizes: list[int] = []
            for line, body, key, sort_key in convert(lines):
                found = alike.copy()
                found["partition_key"] = found["primary_key"] = key
                if has_sort_key:
                    found["sort_key"] = sort_key
                    found["primary_key"] = f"{key}|{sort_key}"
                bodies.append(body)
                metas.append(meta_of("EXPORT", received_ms, found))
                sizes.append(len(line))
            return Items(sdk.Batch(bodies, metas), sizes, len(lines) - len(bodies))

        return items

    def _changes(self) -> Callable[[list[bytes], int], Items]:
        read = self._json_change if self.form == "DYNAMODB_JSON" else self._ion_change
        old_on_remove = self.view_on_remove == "OLD_IMAGE"

        def changes(lines: list[bytes], received_ms: int) -> Items:
            batch = sdk.Batch([])
            sizes: list[int] = []
            failed = 0
            for line in lines:
                try:
                    keys, micros, new, old = read(line)
                    found = self._metadata(keys, micros, removed=new is None)
                except _FAILURES as error:
                    failed += 1
                    self._report(error)
                    continue
                body = new if new is not None else old if old_on_remove and old is not None else {}
                batch.bodies.append(body)
                batch.metas.append(sdk.Meta("EXPORT", received_ms, found))
                batch.handles.append(None)
                sizes.append(len(line))
            return Items(batch, sizes, failed)

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

    # DynamoDB JSON

    def _json_items(self) -> Convert:
        partition_key, sort_key, report = self.partition_key, self.sort_key, self._report
        body_of, key_of = attributes.body, attributes.key_of

        def convert(lines: list[bytes]) -> Iterator[Keyed]:
            for line in lines:
                try:
                    image = _decode_item(line).Item
                    key = key_of(image[partition_key])
                    yield line, body_of(image), key, None if sort_key is None else key_of(image[sort_key])
                except _FAILURES as error:
                    report(error)

        return convert

    def _json_change(
        self, line: bytes
    ) -> tuple[tuple[str, str | None], int, dict[str, Any] | None, dict[str, Any] | None]:
        entry = _decode(line)
        keys = entry["Keys"]
        sort_key = None if self.sort_key is None else attributes.key_text(keys[self.sort_key])
        micros = int(entry["Metadata"]["WriteTimestampMicros"]["N"])
        new, old = (None if image is None else attributes.item(image) for image in _images(entry))
        return (attributes.key_text(keys[self.partition_key]), sort_key), micros, new, old

    # Ion

    def _ion_items(self) -> Convert:
        partition_key, sort_key, report = self.partition_key, self.sort_key, self._report
        read_lines, key_text = ion_items.read_lines, ion_items.number_text

        def convert(lines: list[bytes]) -> Iterator[Keyed]:
            for line, entry in zip(lines, read_lines(lines), strict=True):
                try:
                    if isinstance(entry, ValueError):
                        raise entry
                    body = entry["Item"]
                    key = key_text(body[partition_key])
                    yield line, body, key, None if sort_key is None else key_text(body[sort_key])
                except _FAILURES as error:
                    report(error)

        return convert

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
