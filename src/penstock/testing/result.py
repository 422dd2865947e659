"""What came out, event by event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.core.batch import Batch, Body, Meta, copy_value


@dataclass(slots=True)
class Result:
    """One event."""

    body: Body
    tags: list[str] = field(default_factory=list)
    """Sorted."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The attributes."""
    event_type: str = "LOG"
    meta: Meta = field(default_factory=Meta, repr=False)


def results_of(batch: Batch) -> list[Result]:
    """The events of a batch."""
    results = []
    for index, body in enumerate(batch.bodies):
        meta = batch.peek(index)
        results.append(Result(body, sorted(meta.tags), dict(meta.attributes), meta.event_type, meta))
    return results


def batch_of(
    events: Sequence[Body],
    metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    tags: Sequence[str] | Sequence[Sequence[str]] | None = None,
    event_type: str | None = None,
    received_ms: int = 0,
) -> Batch:
    """A batch of copies of `events`; `metadata` and `tags` are those of every event, or one entry per event."""
    metas: list[Meta | None] = []
    for index in range(len(events)):
        attributes = metadata[index] if isinstance(metadata, Sequence) else metadata
        own = tags[index] if tags and not isinstance(tags[0], str) else tags
        metas.append(
            Meta(event_type or "LOG", received_ms, copy_value(dict(attributes or {})), [str(tag) for tag in own or ()])
        )
    return Batch([copy_value(body) for body in events], metas)
