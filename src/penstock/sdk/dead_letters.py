"""Dead letters: what a sink or processor refused, with the reason and everything a replay needs.

A sink that has the option `dlq: sdk.DeadLetterQueue = None` gets its refused events written there by the runtime; the
sink itself does nothing for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

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
    """`index`, `indexId`, `status`, `message`, `document`, and what a replay needs beside."""

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
