"""What the `opensearch` sink makes of one event, without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from penstock.core.batch import Body
from penstock.core.clock import Clock, ManualClock
from penstock.core.errors import ConfigError, EventError
from penstock.core.json_text import decode
from penstock.sdk import Context, SinkOptions
from penstock.testing.plugins import checked
from penstock.testing.result import batch_of


def render_bulk(
    sink_config: Mapping[str, Any],
    event: Body,
    *,
    metadata: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
    now: datetime | None = None,
    received: datetime | None = None,
    data_stream: bool = False,
) -> tuple[dict[str, Any], Any]:
    """The action line and the line behind it (None for a delete) of the bulk operation for `event`.

    `sink_config` may hold `tags_target_key`, `include_keys` and `exclude_keys` beside the options of the sink; `hosts`
    may be left out. `data_stream`: the index turned out to be one. Raises `penstock.ConfigError`, and
    `penstock.EventError` where the event would become a dead letter.
    """
    options = {"hosts": ["http://localhost:9200"], **sink_config}
    filters = {name: tuple(options.pop(name, None) or ()) for name in ("include_keys", "exclude_keys")}
    for name, keys in filters.items():
        if any(key.startswith("/") for key in keys):
            raise ConfigError(f"{name} cannot contain /")
    shape = SinkOptions(options.pop("tags_target_key", None), **filters)
    found, config = checked("sink", "opensearch", options)
    clock = Clock() if now is None else ManualClock(_nanoseconds(now))
    sink = found.module.build(
        config, Context("test-pipeline", "opensearch", kind="sink", clock=clock, sink_options=shape)
    )
    received_ms = 0 if received is None else _nanoseconds(received) // 1_000_000
    batch = batch_of([event], metadata, tags, received_ms=received_ms)
    items = sink.encode(batch)
    if data_stream:
        sink.targets.streams.update(sink.targets.waiting)
        items = sink.encode(batch)
    if items.rejected:
        raise EventError(items.rejected[0].reason)
    line, _, document = items.data[0].partition(b"\n")
    return decode(line), decode(document) if document else None


def _nanoseconds(time: datetime) -> int:
    assert time.tzinfo is not None, "a point in time needs a zone"
    return round(time.timestamp() * 1000) * 1_000_000
