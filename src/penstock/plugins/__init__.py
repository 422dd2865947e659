"""The plugins: one module each, found by name. Nobody imports them."""

DEPRECATED_NAMES: dict[str, dict[str, str]] = {
    "source": {
        "otel_logs_source": "otlp_logs",
        "otel_metrics_source": "otlp_metrics",
        "otel_trace_source": "otlp_traces",
    },
    "processor": {
        "convert_entry_type": "convert_type",
        "otel_metrics_raw_processor": "otel_metrics",
        "otel_trace_raw": "otel_traces",
        "service_map_stateful": "service_map",
    },
}
"""By kind: names that still work, with a warning, and the names to use."""

ALTERNATE_NAMES: dict[str, dict[str, str]] = {
    "source": {
        "kinesis-data-streams": "kinesis",
        "kinesis_data_streams": "kinesis",
        "mongodb": "documentdb",
    },
    "sink": {"drop": "noop"},
}
"""By kind: other names of a plugin that are just as good."""
