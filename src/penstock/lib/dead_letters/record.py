"""One dead letter as it was kept, and the forms in which files hold them.

| form | written by |
| --- | --- |
| `{"dlqObjects": [record, …]}` | `dlq.s3`, Data Prepper |
| `[record, …]` | OpenSearch Ingestion in its first releases |
| a record on each line | the file in the data directory |
| `{"Document": [record], "failure": …}` on each line | `dlq_file` |
| `{"Document": [index {[…][…], source[…]}], "failure": …}` on each line, no JSON | `dlq_file` of Data Prepper |

The last one tells neither pipeline, time and status nor the action: `index` is assumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from penstock.core.json_text import decode, encode

_UNQUOTED = re.compile(
    rb'\{"Document": \[index \{\[(?P<index>[^\]]*)\]\[(?P<id>.*?)\], source\[(?P<document>\{.*\})\]\}\], '
    rb'"failure": (?P<failure>.*)\}\s*',
    re.DOTALL,
)
TEXT_BYTES_MAX = 64 * 1024 * 1024
"""Largest JSON text that may go over several lines."""


@dataclass(frozen=True, slots=True)
class Record:
    """A dead letter."""

    id: str
    """Made from its content: the same in every run, different from all others of its volume."""
    plugin_id: str
    pipeline: str
    time: datetime | None
    """When it was refused; None where the record does not say it."""
    failed_data: dict[str, Any]
    raw: dict[str, Any]

    @property
    def index(self) -> str:
        return _text(self.failed_data.get("index"))

    @property
    def index_id(self) -> str:
        return _text(self.failed_data.get("indexId"))

    @property
    def status(self) -> int:
        status = self.failed_data.get("status")
        return status if isinstance(status, int) else 0

    @property
    def message(self) -> str:
        return _text(self.failed_data.get("message"))

    @property
    def document(self) -> Any:
        return self.failed_data.get("document")


def read_records(pieces: Iterable[bytes], seen: dict[str, int]) -> Iterator[Record | str]:
    """Records of a file whose lines come in `pieces`; a text in place of what is none, saying where and why.

    `seen` counts equal records of one volume, so that each gets an id of its own; pass the same one for all its parts.
    """
    lines = ((number, line) for number, line in enumerate(pieces, 1) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    ahead = [first]
    if first[1].lstrip()[:1] in (b"{", b"[") and not _is_json(first[1]) and _UNQUOTED.fullmatch(first[1]) is None:
        ahead = _text_over_lines(first, lines)
    for number, text in chain(ahead, lines):
        yield from _records_of(text, number, seen)


def _text_over_lines(first: tuple[int, bytes], lines: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """All lines as one, where they are one JSON text together; else those that were read to find that out.

    A first line that was cut short is no reason to hold a file of many records in memory.
    """
    ahead = [first]
    size = len(first[1])
    opens = first[1].rstrip()[-1:] in (b"{", b"[", b",", b":")
    for number, line in lines:
        ahead.append((number, line))
        size += len(line)
        if size > TEXT_BYTES_MAX or (not opens and len(ahead) == 2 and _is_json(line)):
            return ahead
    text = b"".join(line for _, line in ahead)
    return [(first[0], text)] if _is_json(text) else ahead


def _records_of(text: bytes, number: int, seen: dict[str, int]) -> Iterator[Record | str]:
    try:
        value = decode(text)
    except ValueError as error:
        value = _unquoted(text)
        if value is None:
            yield f"line {number}: no JSON: {error}"
            return
    for found in _unpacked(value):
        record = _record(found, seen)
        yield f"line {number}: {record}" if isinstance(record, str) else record


def _unquoted(text: bytes) -> dict[str, Any] | None:
    """The record in a line of Data Prepper's `dlq_file`."""
    found = _UNQUOTED.fullmatch(text)
    if found is None:
        return None
    try:
        document = decode(found["document"])
    except ValueError:
        return None
    index, id_, message = (found[name].decode("utf-8", "replace") for name in ("index", "id", "failure"))
    failed_data = {
        "index": None if index == "null" else index,
        "indexId": None if id_ == "null" else id_,
        "status": 0,
        "message": "" if message == "null" else message,
        "document": document,
    }
    return {"pluginId": "opensearch", "pluginName": "opensearch", "failedData": failed_data}


def _is_json(text: bytes) -> bool:
    try:
        decode(text)
    except ValueError:
        return False
    return True


def _unpacked(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        for name in ("dlqObjects", "Document"):
            inner = value.get(name)
            if isinstance(inner, list):
                return inner
            if isinstance(inner, dict) and name == "Document":
                return [inner]
    return [value]


def _record(value: Any, seen: dict[str, int]) -> Record | str:
    failed_data = value.get("failedData") if isinstance(value, dict) else None
    if not isinstance(failed_data, dict):
        return "no dead letter: it has no failedData"
    digest = hashlib.sha256(encode(dict(sorted(value.items())))).hexdigest()[:16]
    number = seen[digest] = seen.get(digest, 0) + 1
    return Record(
        digest if number == 1 else f"{digest}-{number}",
        _text(value.get("pluginId")) or _text(value.get("pluginName")),
        _text(value.get("pipelineName")),
        _time(value.get("timestamp")),
        failed_data,
        value,
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo is not None else None
