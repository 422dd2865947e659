"""Dead letters: what a sink or processor refused, with the reason and everything a replay needs.

A sink that has the option `dlq: sdk.DeadLetterQueue = None` gets its refused events written there by the runtime; the
sink itself does nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

from penstock.core.batch import Meta, copy_value
from penstock.core.errors import EventError
from penstock.core.json_text import encode
from penstock.lib.instants import instant_text, read_instant
from penstock.sdk.options import Nested, PluginUse

DeadLetterQueue = Annotated[PluginUse | None, Nested("dlq")]
"""An option that says where dead letters of a sink go: `dlq: {s3: {bucket: …}}`."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that could not be delivered."""

    plugin_id: str
    plugin_name: str
    pipeline_name: str
    time_ns: int
    failed_data: dict[str, Any] = field(default_factory=dict)
    """`index`, `indexId`, `status`, `message`, `document`, and what a replay needs beside: the action, the routing, the
    version, `eventMetadata`."""

    def __post_init__(self) -> None:
        if not (self.plugin_id and self.plugin_name and self.pipeline_name and self.failed_data):
            raise ValueError("a dead letter names its plugin and pipeline and says what failed")

    def to_object(self) -> dict[str, Any]:
        """The record in the form of Data Prepper's dead-letter objects. Source: S-B20."""
        seconds, rest = divmod(self.time_ns, 1_000_000_000)
        time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest // 1_000_000:03d}Z"
        return {
            "pluginId": self.plugin_id,
            "pluginName": self.plugin_name,
            "pipelineName": self.pipeline_name,
            "failedData": self.failed_data,
            "timestamp": time,
        }


class DeadLetterWriter(Protocol):
    """Keeps dead letters where somebody can find them. `build` of a plugin of the kind `dlq` returns one."""

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them durably. Raises `OSError`, `Transient` or `Permanent` when that fails: then the events count as
        undelivered."""

    async def close(self) -> None:
        """Everything is written. Calling it twice is fine."""


def metadata_told(meta: Meta) -> dict[str, Any]:
    """`eventMetadata` of failed data: nothing for an event without attributes and tags of its own."""
    if not meta.attributes and not meta.tags and meta.event_type == _PLAIN.event_type:
        return {}
    told: dict[str, Any] = {"eventType": meta.event_type, "attributes": _writable(meta.attributes)}
    if meta.tags:
        told["tags"] = sorted(meta.tags)
    for name, time_ms in (("timeReceived", meta.received_ms or None), ("externalOriginationTime", meta.origination_ms)):
        if time_ms is not None:
            told[name] = instant_text(time_ms * 1_000_000)
    return {"eventMetadata": told}


def read_metadata(failed_data: Mapping[str, Any]) -> Meta | None:
    """The metadata that failed data tells of; None where it tells of none."""
    told = failed_data.get("eventMetadata")
    if not isinstance(told, dict):
        return None
    attributes, tags = told.get("attributes"), told.get("tags")
    return Meta(
        str(told.get("eventType") or _PLAIN.event_type),
        _milliseconds(told.get("timeReceived")) or 0,
        copy_value(attributes) if isinstance(attributes, dict) else None,
        [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else (),
        _milliseconds(told.get("externalOriginationTime")),
    )


_PLAIN = Meta()


def _writable(attributes: dict[str, Any]) -> dict[str, Any]:
    try:
        encode(attributes)
    except EventError:
        return {str(name): _writable_value(value) for name, value in attributes.items()}
    return attributes


def _writable_value(value: Any) -> Any:
    try:
        encode(value)
    except EventError:
        return repr(value)[:1000]
    return value


def _milliseconds(time: Any) -> int | None:
    try:
        return read_instant(time) // 1_000_000 if isinstance(time, str) else None
    except EventError:
        return None
