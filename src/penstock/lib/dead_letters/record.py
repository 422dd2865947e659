"""One dead letter as it was kept, and the forms in which files hold them.

| form | written by |
| --- | --- |
| `{"dlqObjects": [record, …]}` | `dlq.s3`, Data Prepper |
| `[record, …]` | OpenSearch Ingestion in its first releases |
| a record on each line | `dlq_file` and the file in the data directory |
| `{"Document": [record], "failure": …}` on each line | `dlq_file` of Data Prepper |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from penstock.core.json_text import decode, encode


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
    """Records of a file whose lines come in `pieces`; a text in place of what is none, saying why.

    `seen` counts equal records of one volume, so that each gets an id of its own; pass the same one for all its parts.
    """
    lines = iter(pieces)
    for line in lines:
        if line.strip():
            break
    else:
        return
    if line.lstrip()[:1] in (b"{", b"[") and not _is_json(line):  # perhaps one text over several lines
        rest = list(lines)
        text = line + b"".join(rest)
        if _is_json(text):
            line, rest = text, []
        lines = iter(rest)
    for each in chain([line], lines):
        if each.strip():
            yield from _records_of(each, seen)


def _records_of(text: bytes, seen: dict[str, int]) -> Iterator[Record | str]:
    try:
        value = decode(text)
    except ValueError as error:
        yield f"no JSON: {error}"
        return
    for found in _unpacked(value):
        yield _record(found, seen)


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
