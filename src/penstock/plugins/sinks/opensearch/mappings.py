"""Mappings of the built-in index types: the fields that OpenSearch's observability plugins expect.

The plain types take attributes as OpenTelemetry sends them, in objects; the others flatten them to names with `@`.
"""

from __future__ import annotations

from typing import Any

Mapping = dict[str, Any]

_NANOS = {"type": "date_nanos"}
_DATE = {"type": "date"}
_LONG = {"type": "long"}
_INTEGER = {"type": "integer"}
_DOUBLE = {"type": "double"}
_FLOAT = {"type": "float"}
_TEXT = {"type": "text"}
_BOOLEAN = {"type": "boolean"}


def _keyword(characters_max: int | None = None) -> Mapping:
    return {"type": "keyword"} if characters_max is None else {"type": "keyword", "ignore_above": characters_max}


def _text_and_keyword(characters_max: int) -> Mapping:
    return {"type": "text", "fields": {"keyword": _keyword(characters_max)}}


def _object(**properties: Mapping) -> Mapping:
    return {"properties": properties}


def _nested(**properties: Mapping) -> Mapping:
    return {"type": "nested", "properties": properties}


def _keywords_below(name: str, path: str) -> Mapping:
    """A dynamic template: everything below `path` is a keyword."""
    return {name: {"path_match": path, "mapping": _keyword()}}


def _typed_below(name: str, path: str, text: Mapping) -> list[Mapping]:
    """Dynamic templates: whole numbers, fractions and texts below `path` keep their types."""
    types = (("long", _LONG), ("double", _DOUBLE), ("string", text))
    return [
        {f"{kind}_{name}": {"path_match": path, "match_mapping_type": kind, "mapping": mapping}}
        for kind, mapping in types
    ]


def _template(properties: Mapping, dynamic: list[Mapping], *, version: int = 1) -> Mapping:
    return {
        "version": version,
        "mappings": {
            "date_detection": False,
            "_source": {"enabled": True},
            "dynamic_templates": dynamic,
            "properties": properties,
        },
    }


_PLAIN_ATTRIBUTES = [
    *_typed_below("resource_attributes", "resource.attributes.*", _keyword(256)),
    *_typed_below("scope_attributes", "instrumentationScope.attributes.*", _keyword(256)),
    *_typed_below("attributes", "attributes.*", _keyword(256)),
]
_PLAIN_ORIGIN: Mapping = {
    "droppedAttributesCount": _INTEGER,
    "instrumentationScope": _object(
        droppedAttributesCount=_INTEGER, schemaUrl=_keyword(256), name=_keyword(128), version=_keyword(64)
    ),
    "resource": _object(droppedAttributesCount=_INTEGER, schemaUrl=_keyword(256)),
}
_TRACE_GROUP: Mapping = {
    "traceGroup": _keyword(1024),
    "traceGroupFields": _object(endTime=_NANOS, durationInNanos=_LONG, statusCode=_INTEGER),
}

SPANS = _template(
    {
        "traceId": _keyword(256),
        "spanId": _keyword(256),
        "parentSpanId": _keyword(256),
        "name": _keyword(1024),
        **_TRACE_GROUP,
        "kind": _keyword(128),
        "startTime": _NANOS,
        "endTime": _NANOS,
        "status": _object(code=_INTEGER, message=_keyword()),
        "serviceName": _keyword(),
        "durationInNanos": _LONG,
        "events": _nested(time=_NANOS),
        "links": {"type": "nested"},
    },
    [
        _keywords_below("resource_attributes_map", "resource.attributes.*"),
        _keywords_below("span_attributes_map", "span.attributes.*"),
    ],
)

PLAIN_SPANS = _template(
    {
        **_PLAIN_ORIGIN,
        "traceId": _keyword(32),
        "spanId": _keyword(16),
        "parentSpanId": _keyword(16),
        "name": _keyword(1024),
        "traceState": _keyword(1024),
        **_TRACE_GROUP,
        "kind": _keyword(32),
        "serviceName": _keyword(256),
        "startTime": _NANOS,
        "endTime": _NANOS,
        "@timestamp": _NANOS,
        "time": _NANOS,
        "status": _object(code=_INTEGER, message=_keyword(2048)),
        "durationInNanos": _LONG,
        "events": _nested(
            name=_keyword(256), attributes={"type": "object"}, droppedAttributesCount=_INTEGER, time=_NANOS
        ),
        "droppedEventsCount": _INTEGER,
        "links": _nested(
            traceId=_keyword(32),
            spanId=_keyword(16),
            traceState=_keyword(1024),
            attributes={"type": "object"},
            droppedAttributesCount=_INTEGER,
        ),
        "droppedLinksCount": _INTEGER,
    },
    _PLAIN_ATTRIBUTES,
)

_ENDPOINT = _object(domain=_keyword(1024), resource=_keyword(1024))
SERVICE_MAP = _template(
    {
        "hashId": _keyword(1024),
        "serviceName": _keyword(1024),
        "kind": _keyword(1024),
        "destination": _ENDPOINT,
        "target": _ENDPOINT,
        "traceGroupName": _keyword(1024),
    },
    [{"strings_as_keyword": {"match_mapping_type": "string", "mapping": _keyword(1024)}}],
    version=0,
)

_FREE = {"type": "object", "dynamic": "true"}
_NODE = _object(
    type=_keyword(), keyAttributes=_object(environment=_keyword(), name=_keyword()), groupByAttributes=_FREE
)
_OPERATION = _object(name=_keyword(), attributes=_FREE)
SERVICE_MAP_V2 = _template(
    {
        "sourceNode": _NODE,
        "targetNode": _NODE,
        "sourceOperation": _OPERATION,
        "targetOperation": _OPERATION,
        "nodeConnectionHash": _keyword(),
        "operationConnectionHash": _keyword(),
        "timestamp": {"type": "date", "format": "strict_date_optional_time||epoch_millis"},
    },
    [
        *_typed_below("group_by_attributes", "*.groupByAttributes.*", _keyword()),
        *_typed_below("operation_attributes", "*.attributes.*", _keyword()),
    ],
    version=0,
)

LOGS = _template(
    {
        "severity": _object(number=_LONG, text=_keyword()),
        "body": _TEXT,
        "@timestamp": _NANOS,
        "time": _NANOS,
        "observedTimestamp": _NANOS,
        "observedTime": {"type": "alias", "path": "observedTimestamp"},
        "traceId": _keyword(256),
        "spanId": _keyword(256),
        "schemaUrl": _keyword(),
        "instrumentationScope": _object(name=_keyword(), version=_keyword()),
        "event": _object(
            kind=_keyword(),
            domain=_keyword(),
            category=_keyword(),
            type=_keyword(),
            result=_keyword(),
            exception=_object(message=_TEXT, stacktrace=_TEXT, type=_keyword()),
        ),
    },
    [
        _keywords_below("resource_attributes_map", "resource.attributes.*"),
        _keywords_below("log_attributes_map", "log.attributes.*"),
    ],
)

PLAIN_LOGS = _template(
    {
        **_PLAIN_ORIGIN,
        "severity": _object(number=_INTEGER, text=_keyword(32)),
        "body": _TEXT,
        "@timestamp": _NANOS,
        "time": _NANOS,
        "observedTime": _NANOS,
        "traceId": _keyword(32),
        "spanId": _keyword(16),
        "flags": _LONG,
    },
    _PLAIN_ATTRIBUTES,
)


def _metric_values(fraction: Mapping, whole: Mapping) -> Mapping:
    """Fields of every kind of metric; `fraction` and `whole` are the types of its numbers."""
    bucket = {"count": _LONG, "max": fraction, "min": fraction}
    return {
        "aggregationTemporality": _keyword(128),
        "monotonic": _BOOLEAN,
        "value@int": whole,
        "value@double": _DOUBLE,
        "value": _DOUBLE,
        "buckets": _nested(**bucket, sum=_DOUBLE),
        "bucketCount": _LONG,
        "bucketCountsList": _LONG,
        "explicitBoundsList": fraction,
        "explicitBoundsCount": fraction,
        "quantiles": _object(quantile=_DOUBLE, value=_DOUBLE),
        "quantileValuesCount": _LONG,
        "positiveBuckets": _nested(**bucket),
        "negativeBuckets": _nested(**bucket),
        "negativeOffset": _INTEGER,
        "positiveOffset": _INTEGER,
        "zeroCount": _LONG,
        "scale": _LONG,
        "max": fraction,
        "min": fraction,
        "sum": fraction,
        "count": _LONG,
    }


_STREAM = _object(dataset=_keyword(128), namespace=_keyword(128), type=_keyword(56))
METRICS = _template(
    {
        "name": _text_and_keyword(256),
        "attributes": {"type": "object", "properties": {"data_stream": _STREAM}},
        "description": _text_and_keyword(256),
        "unit": _keyword(128),
        "kind": _keyword(128),
        "startTime": _DATE,
        "@timestamp": _DATE,
        "time": _NANOS,
        "observedTimestamp": _NANOS,
        **_metric_values(_FLOAT, _INTEGER),
        "exemplar": _object(time=_NANOS, traceId=_keyword(256), spanId=_keyword(256)),
        "instrumentationScope": _object(
            name=_text_and_keyword(128),
            version=_text_and_keyword(256),
            droppedAttributesCount=_INTEGER,
            schemaUrl=_text_and_keyword(256),
        ),
        "schemaUrl": _text_and_keyword(256),
    },
    [
        # Without the exception the object `resource.attributes` itself would have to be a keyword.
        {"resources_map": {"path_match": "resource.*", "path_unmatch": "resource.attributes", "mapping": _keyword()}}
    ],
)

PLAIN_METRICS = _template(
    {
        **_PLAIN_ORIGIN,
        "name": _keyword(256),
        "description": _text_and_keyword(256),
        "flags": _LONG,
        "unit": _keyword(128),
        "kind": _keyword(32),
        "startTime": _NANOS,
        "@timestamp": _NANOS,
        "time": _NANOS,
        **_metric_values(_DOUBLE, _LONG),
        "aggregationTemporality": _keyword(64),
        "exemplar": _object(
            time=_NANOS,
            traceId=_keyword(256),
            spanId=_keyword(256),
            **{"value@int": _LONG, "value@double": _DOUBLE, "value": _DOUBLE},
        ),
    },
    _PLAIN_ATTRIBUTES,
)

TSDB: Mapping = {
    "version": 1,
    "mappings": {
        "properties": {
            "series_ref": {"type": "long", "doc_values": False},
            "labels": _keyword(4096),
            "value": {"type": "double", "doc_values": False},
            "timestamp": {"type": "date", "format": "epoch_millis"},
            "timestamp_range": {"type": "long_range"},
        }
    },
    # Samples are many and small: a second of them may be lost with a machine for the sake of the others.
    "settings": {
        "index.translog.durability": "async",
        "index.translog.sync_interval": "1s",
        "refresh_interval": "1s",
    },
}
