"""The index types: which alias they write to, what the sink sets up for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.plugins.sinks.opensearch import mappings


@dataclass(frozen=True, slots=True)
class IndexType:
    """What stands behind one value of `index_type`."""

    alias: str | None = None
    """The alias or index written to; None: as configured."""
    document_id: str | None = None
    """Template of the document id, where the type decides it."""
    template: dict[str, Any] | None = None
    """Settings and mappings in the form of a v1 template."""
    policy: str | None = None
    """Name of the rollover policy; None: a plain index without one."""
    rollover_size: str = "50gb"
    managed: bool = True
    """Whether the sink sets anything up at all."""

    def policy_document(self) -> dict[str, Any]:
        """The rollover policy, with the pattern of the indexes it is for."""
        rollover = {"min_size": self.rollover_size, "min_index_age": "24h"}
        return {
            "policy": {
                "description": f"Rolls the indexes of {self.alias} over",
                "default_state": "current_write_index",
                "states": [{"name": "current_write_index", "actions": [{"rollover": rollover}]}],
                "ism_template": {"index_patterns": [f"{self.alias}-*"]},
            }
        }


_SPAN = "otel-v1-apm-span"
_SPAN_ID = "${traceId}/${spanId}"

INDEX_TYPES: dict[str, IndexType] = {
    "trace-analytics-raw": IndexType(_SPAN, _SPAN_ID, mappings.SPANS, "raw-span-policy"),
    "trace-analytics-plain-raw": IndexType(_SPAN, _SPAN_ID, mappings.PLAIN_SPANS, "raw-span-policy"),
    "trace-analytics-service-map": IndexType("otel-v1-apm-service-map", "${hashId}", mappings.SERVICE_MAP),
    "otel-v2-apm-service-map": IndexType(
        "otel-v2-apm-service-map",
        template=mappings.SERVICE_MAP_V2,
        policy="otel-v2-apm-service-map-policy",
        rollover_size="10gb",
    ),
    "log-analytics": IndexType("logs-otel-v1", template=mappings.LOGS, policy="logs-policy"),
    "log-analytics-plain": IndexType("logs-otel-v1", template=mappings.PLAIN_LOGS, policy="logs-policy"),
    "metric-analytics": IndexType("metrics-otel-v1", template=mappings.METRICS, policy="metrics-policy"),
    "metric-analytics-plain": IndexType("metrics-otel-v1", template=mappings.PLAIN_METRICS, policy="metrics-policy"),
    "tsdb": IndexType("metrics-tsdb-v1", template=mappings.TSDB),
    "custom": IndexType(),
    "management_disabled": IndexType(managed=False),
}
"""By the value of the option, in the order in which Data Prepper lists them."""
