"""The opensearch sink against OpenSearch itself."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import pytest

from penstock.core.batch import Batch, Meta
from penstock.core.errors import Permanent, Transient
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.runtime.deliver import BulkDelivery, Surroundings
from penstock.sdk import Context
from penstock.testing.fakes import MemoryDeadLetters
from penstock.testing.plugins import checked


def call(server: Any, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read() or b"{}")


def documents(server: Any, index: str) -> dict[str, Any]:
    call(server, "POST", f"/{index}/_refresh")
    hits = call(server, "GET", f"/{index}/_search?size=1000&version=true")["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def run(server: Any, options: dict[str, Any], *batches: tuple[list[dict[str, Any]], list[Meta | None] | None]) -> Any:
    """Write the batches one after the other; returns the failures of each, and the meters."""
    found, config = checked("sink", "opensearch", {"hosts": [server.url], **options})
    registry = Registry()
    sink = found.module.build(config, Context("p", "opensearch", kind="sink", registry=registry))

    async def write() -> list[Any]:
        await sink.start()
        try:
            failures = []
            for bodies, metas in batches:
                items = sink.encode(Batch(bodies, metas))
                assert not items.rejected
                failures.append(list(await sink.send(items.data)))
            return failures
        finally:
            await sink.stop()

    return asyncio.run(write()), registry


def test_the_index_is_created_before_any_document(opensearch: Any, prefix: str) -> None:
    run(opensearch, {"index": prefix + "table-index"})
    assert documents(opensearch, prefix + "table-index") == {}


def test_numbers_and_texts_arrive_as_they_are(opensearch: Any, prefix: str) -> None:
    item = {"id": 7, "Awards": "1", "big": 9223372036854775807, "text": 'ü "quoted"\n'}
    failures, _ = run(opensearch, {"index": prefix + "a", "document_id": "${/id}"}, ([item, {"id": 0}], None))
    assert failures == [[]]
    assert documents(opensearch, prefix + "a") == {"7": item, "0": {"id": 0}}


def test_creating_twice_makes_one_document(opensearch: Any, prefix: str) -> None:
    options = {"index": prefix + "a", "document_id": "${/id}", "action": "create"}
    failures, registry = run(opensearch, options, ([{"id": "1"}], None), ([{"id": "1"}, {"id": "2"}], None))
    assert failures == [[], []]
    assert registry.value("p.opensearch.documentsDuplicates") == 1
    assert sorted(documents(opensearch, prefix + "a")) == ["1", "2"]
    assert call(opensearch, "GET", f"/{prefix}a/_doc/1")["_version"] == 1


def test_external_versions_keep_the_newest(opensearch: Any, prefix: str) -> None:
    def meta(action: str, version: int) -> Meta:
        return Meta(attributes={"action": action, "version": version})

    options = {
        "index": prefix + "a",
        "document_id": "${/id}",
        "action": '${getMetadata("action")}',
        "document_version": '${getMetadata("version")}',
        "document_version_type": "external",
    }
    item = {"id": "1", "n": 1}
    failures, registry = run(
        opensearch,
        options,
        ([item], [meta("index", 5)]),
        ([{**item, "n": 0}], [meta("index", 4)]),
        ([item], [meta("index", 5)]),
        ([{"id": "gone"}], [meta("delete", 3)]),
        ([item], [meta("delete", 7)]),
        ([item], [meta("index", 6)]),
        ([{**item, "n": 9}], [meta("index", 8)]),
    )
    assert failures == [[]] * 7
    assert registry.value("p.opensearch.documentsVersionConflictErrors") == 3
    assert registry.value("p.opensearch.documentsAlreadyDeleted") == 1
    assert documents(opensearch, prefix + "a") == {"1": {"id": "1", "n": 9}}


def test_a_bad_document_does_not_stop_the_others(opensearch: Any, prefix: str) -> None:
    template = {"mappings": {"properties": {"n": {"type": "long"}}}}
    options = {"index": prefix + "a", "document_id": "${/id}", "template_content": json.dumps(template)}
    ((failure,),), _ = run(opensearch, options, ([{"id": "1", "n": 1}, {"id": "2", "n": "x"}, {"id": "3"}], None))
    assert (failure.index, failure.status, failure.retryable) == (1, 400, False)
    assert "failed to parse field [n] of type [long]" in failure.reason
    assert sorted(documents(opensearch, prefix + "a")) == ["1", "3"]


def test_updates_upserts_scripts_and_routing(opensearch: Any, prefix: str) -> None:
    base = {"index": prefix + "a", "document_id": "${/id}"}
    ((missing,),), _ = run(opensearch, {**base, "action": "update"}, ([{"id": "1", "a": 1}], None))
    assert (missing.status, missing.retryable) == (404, False)
    run(opensearch, {**base, "action": "upsert"}, ([{"id": "1", "a": 1}], None), ([{"id": "1", "b": 2}], None))
    assert documents(opensearch, prefix + "a") == {"1": {"id": "1", "a": 1, "b": 2}}
    script = {
        "source": "ctx._source.n = (ctx._source.n == null ? 0 : ctx._source.n) + params.step;",
        "params": {"step": 2},
    }
    options = {**base, "action": "upsert", "script": script}
    run(opensearch, options, ([{"id": "1"}], None), ([{"id": "1"}], None))
    assert documents(opensearch, prefix + "a")["1"]["n"] == 4
    run(opensearch, {**base, "routing": "${/r}"}, ([{"id": "9", "r": "abcd"}], None))
    assert call(opensearch, "GET", f"/{prefix}a/_doc/9?routing=abcd")["_routing"] == "abcd"


def test_dynamic_names_with_composable_templates(opensearch: Any, prefix: str) -> None:
    content = {"version": 3, "template": {"mappings": {"properties": {"n": {"type": "keyword"}}}}}
    options = {
        "index": prefix + "${/t}",
        "template_type": "index-template",
        "template_content": json.dumps(content),
        "number_of_shards": 2,
    }
    ((refused,),), _ = run(opensearch, options, ([{"t": "x", "n": 1}, {"t": "y", "n": 2}, {"t": "BAD"}], None))
    assert refused.reason == f"Invalid characters in the index name {prefix}BAD"
    settings = call(opensearch, "GET", f"/{prefix}x/_settings")[prefix + "x"]["settings"]["index"]
    assert settings["number_of_shards"] == "2"
    mapping = call(opensearch, "GET", f"/{prefix}y/_mapping")[prefix + "y"]["mappings"]["properties"]["n"]
    assert mapping["type"] == "keyword"
    call(opensearch, "DELETE", f"/_index_template/{prefix}x-index-template")
    call(opensearch, "DELETE", f"/_index_template/{prefix}y-index-template")


@pytest.mark.parametrize("dynamic", [False, True])
def test_data_streams(opensearch: Any, prefix: str, dynamic: bool) -> None:
    stream = prefix + "stream"
    call(opensearch, "PUT", f"/_index_template/{stream}", {"index_patterns": [stream], "data_stream": {}})
    index = prefix + "${/t}" if dynamic else stream
    failures, _ = run(
        opensearch,
        {"index": index, "action": "index"},
        ([{"t": "stream"}], [Meta(received_ms=1_700_000_000_000)]),
        ([{"t": "stream", "@timestamp": 5}], [Meta(received_ms=1_700_000_000_000)]),
    )
    assert failures == [[], []]
    times = [document["@timestamp"] for document in documents(opensearch, stream).values()]
    assert len(times) == 2 and 5 in times
    assert dynamic or 1_700_000_000_000 in times
    call(opensearch, "DELETE", f"/_data_stream/{stream}")
    call(opensearch, "DELETE", f"/_index_template/{stream}")


SPANS = ("otel-v1-apm-span", True, 1)
LOGS = ("logs-otel-v1", True, 1)
METRICS = ("metrics-otel-v1", True, 1)
SPAN_FIELDS = {
    "traceId": "keyword",
    "parentSpanId": "keyword",
    "startTime": "date_nanos",
    "endTime": "date_nanos",
    "durationInNanos": "long",
    "events": "nested",
    "links": "nested",
    "resource.attributes.host@name": "keyword",
}
LOG_FIELDS = {"body": "text", "@timestamp": "date_nanos", "time": "date_nanos", "traceId": "keyword"}
METRIC_FIELDS = {
    "resource.attributes.host@name": "keyword",
    "unit": "keyword",
    "buckets": "nested",
    "zeroCount": "long",
    "value": "double",
    "monotonic": "boolean",
}
PLAIN = {
    "resource.attributes.count": "long",
    "resource.attributes.ratio": "double",
    "resource.attributes.host@name": "keyword",
}
BUILT_IN: dict[str, tuple[tuple[str, bool, int], dict[str, str]]] = {
    # alias, whether it rolls over, version of the template; types of fields
    "trace-analytics-raw": (SPANS, SPAN_FIELDS),
    "trace-analytics-plain-raw": (SPANS, {**SPAN_FIELDS, **PLAIN}),
    "trace-analytics-service-map": (
        ("otel-v1-apm-service-map", False, 0),
        {"hashId": "keyword", "serviceName": "keyword", "destination.domain": "keyword", "other": "keyword"},
    ),
    "otel-v2-apm-service-map": (
        ("otel-v2-apm-service-map", True, 0),
        {"sourceNode.type": "keyword", "timestamp": "date", "nodeConnectionHash": "keyword"},
    ),
    "log-analytics": (LOGS, {**LOG_FIELDS, "observedTime": "alias", "observedTimestamp": "date_nanos"}),
    "log-analytics-plain": (LOGS, {**LOG_FIELDS, **PLAIN, "observedTime": "date_nanos"}),
    "metric-analytics": (METRICS, {**METRIC_FIELDS, "resource.attributes.count": "keyword"}),
    "metric-analytics-plain": (METRICS, {**METRIC_FIELDS, **PLAIN}),
}
TELEMETRY = {
    "traceId": "t",
    "spanId": "s",
    "hashId": "h",
    "other": "text",
    "time": "2024-01-01T00:00:00.123456789Z",
    "resource": {"attributes": {"host@name": "h", "count": 1, "ratio": 0.5}},
}


def field_types(mapping: dict[str, Any], prefix: str = "") -> dict[str, str]:
    types = {}
    for name, field in mapping.get("properties", {}).items():
        path = f"{prefix}{name}"
        if "type" in field:
            types[path] = field["type"]
        types |= field_types(field, f"{path}.")
    return types


@pytest.mark.parametrize("index_type", BUILT_IN)
@pytest.mark.parametrize("template_type", ["v1", "index-template"])
def test_built_in_types_set_up_their_index_with_its_template(
    opensearch: Any, index_type: str, template_type: str
) -> None:
    (alias, rolls_over, version), fields = BUILT_IN[index_type]
    kind = "_template" if template_type == "v1" else "_index_template"
    name = f"{alias}-index-template"
    first = f"{alias}-000001" if rolls_over else alias
    try:
        failures, _ = run(opensearch, {"index_type": index_type, "template_type": template_type}, ([TELEMETRY], None))
        assert failures == [[]]
        template = call(opensearch, "GET", f"/{kind}/{name}")
        template = template[name] if kind == "_template" else template["index_templates"][0]["index_template"]
        assert template.get("version", 0) == version
        assert template["index_patterns"] == [f"{alias}-*" if rolls_over else alias]
        ((index, described),) = call(opensearch, "GET", f"/{alias}/_mapping").items()
        assert index == first
        if rolls_over:
            aliases = call(opensearch, "GET", f"/{first}/_alias")
            assert aliases == {first: {"aliases": {alias: {"is_write_index": True}}}}
        assert described["mappings"]["date_detection"] is False
        types = field_types(described["mappings"])
        assert {path: types.get(path) for path in fields} == fields
        documents_there = documents(opensearch, alias)
        assert list(documents_there.values()) == [TELEMETRY]
        if index_type.startswith("trace") and index_type.endswith("raw"):
            assert list(documents_there) == ["t/s"]
        elif index_type == "trace-analytics-service-map":
            assert list(documents_there) == ["h"]
    finally:
        for path in (f"/{alias}*?expand_wildcards=all", f"/{kind}/{name}"):
            call(opensearch, "DELETE", path)


@pytest.mark.parametrize("template_type", ["v1", "index-template"])
def test_metrics_become_samples_of_time_series(opensearch: Any, template_type: str) -> None:
    kind = "_template" if template_type == "v1" else "_index_template"
    alias = "metrics-tsdb-v1"
    metric = {"kind": "GAUGE", "name": "up", "time": "2024-01-01T00:00:00.5Z", "value": 1, "attributes": {"job": "api"}}
    histogram = {"kind": "HISTOGRAM", "name": "size", "time": "2024-01-01T00:00:01Z", "count": 3, "sum": 0.5}
    buckets = {"bucketCountsList": [1, 2], "explicitBoundsList": [10.5]}
    try:
        options = {"index_type": "tsdb", "template_type": template_type}
        failures, registry = run(opensearch, options, ([metric, {**histogram, **buckets}], None))
        assert failures == [[]] and registry.value("p.opensearch.documentsSuccess") == 5
        described = call(opensearch, "GET", f"/{alias}")[alias]
        settings = described["settings"]["index"]
        assert (settings["translog"]["durability"], settings["refresh_interval"]) == ("async", "1s")
        types = {"series_ref": "long", "labels": "keyword", "value": "double", "timestamp": "date"}
        assert field_types(described["mappings"]) == {**types, "timestamp_range": "long_range"}
        found = {(each["labels"], each["timestamp"]): each["value"] for each in documents(opensearch, alias).values()}
        assert found == {
            ("__name__ up job api", 1_704_067_200_500): 1.0,
            ("__name__ size_bucket le 10.5", 1_704_067_201_000): 1.0,
            ("__name__ size_bucket le +Inf", 1_704_067_201_000): 3.0,
            ("__name__ size_count", 1_704_067_201_000): 3.0,
            ("__name__ size_sum", 1_704_067_201_000): 0.5,
        }
    finally:
        for path in (f"/{alias}", f"/{kind}/{alias}-index-template"):
            call(opensearch, "DELETE", path)


def test_a_name_the_server_refuses_is_a_configuration_error(opensearch: Any, prefix: str) -> None:
    with pytest.raises(Permanent, match=f"Invalid characters in the index name {prefix}UPPER"):
        run(opensearch, {"index": prefix + "UPPER"})


def test_an_index_deleted_meanwhile_comes_back(opensearch: Any, prefix: str) -> None:
    call(opensearch, "PUT", "/_cluster/settings", {"transient": {"action.auto_create_index": "false"}})
    try:
        found, config = checked("sink", "opensearch", {"hosts": [opensearch.url], "index": prefix + "a"})
        sink = found.module.build(config, Context("p", "opensearch", kind="sink"))

        async def write() -> None:
            await sink.start()
            try:
                await asyncio.to_thread(call, opensearch, "DELETE", f"/{prefix}a")
                items = sink.encode(Batch([{"n": 1}]))
                (missing,) = await sink.send(items.data)
                assert missing.retryable
                assert list(await sink.send(items.data)) == []
            finally:
                await sink.stop()

        asyncio.run(write())
        assert len(documents(opensearch, prefix + "a")) == 1
    finally:
        call(opensearch, "PUT", "/_cluster/settings", {"transient": {"action.auto_create_index": None}})


def test_a_blocked_index_is_tried_again(opensearch: Any, prefix: str) -> None:
    run(opensearch, {"index": prefix + "a"})
    call(opensearch, "PUT", f"/{prefix}a/_settings", {"index.blocks.write": True})
    ((blocked,),), _ = run(opensearch, {"index": prefix + "a"}, ([{"n": 1}], None))
    assert (blocked.status, blocked.retryable) == (403, True)


def operation(action: str, id_: str, document: Any = None, **target: Any) -> tuple[str, str, Any, dict[str, Any]]:
    return action, id_, document, target


EXTERNAL = {"version_type": "external"}
GTE = {"version_type": "external_gte"}
ITEMS: list[tuple[str, Any, int, str, str]] = [
    # what is sent, to a server that holds the documents 1 and 5 (external version 5); status, meter, reason
    ("create an id that exists", operation("create", "1", {"n": 2}), 0, "documentsDuplicates", ""),
    ("create an id that does not", operation("create", "2", {"n": 2}), 0, "documentsSuccess", ""),
    ("index over an id", operation("index", "1", {"n": 2}), 0, "documentsSuccess", ""),
    ("update what is missing", operation("update", "9", {"doc": {"n": 1}}), 404, "documentErrors", "document missing"),
    ("upsert", operation("update", "9", {"doc": {"n": 1}, "upsert": {"n": 1}}), 0, "documentsSuccess", ""),
    ("doc_as_upsert", operation("update", "9", {"doc": {"n": 1}, "doc_as_upsert": True}), 0, "documentsSuccess", ""),
    ("delete", operation("delete", "1"), 0, "documentsSuccess", ""),
    ("delete what is missing", operation("delete", "9"), 0, "documentsAlreadyDeleted", ""),
    ("an older version", operation("index", "5", {}, version=4, **EXTERNAL), 0, "documentsVersionConflictErrors", ""),
    ("the same version", operation("index", "5", {}, version=5, **EXTERNAL), 0, "documentsVersionConflictErrors", ""),
    ("a newer version", operation("index", "5", {}, version=6, **EXTERNAL), 0, "documentsSuccess", ""),
    ("delete, older", operation("delete", "5", version=4, **EXTERNAL), 0, "documentsVersionConflictErrors", ""),
    ("delete, newer", operation("delete", "5", version=6, **EXTERNAL), 0, "documentsSuccess", ""),
    ("gte, the same version", operation("index", "5", {}, version=5, **GTE), 0, "documentsSuccess", ""),
    ("gte, an older version", operation("index", "5", {}, version=4, **GTE), 0, "documentsVersionConflictErrors", ""),
    ("a wrong type", operation("index", "3", {"n": "x"}), 400, "documentErrors", "failed to parse field [n]"),
    ("broken JSON", operation("index", "3", b'{"n": '), 400, "documentErrors", ""),
    ("a sequence number", operation("index", "9", {}, if_seq_no=3, if_primary_term=1), 409, "documentErrors", ""),
    ("an unknown pipeline", operation("index", "3", {}, pipeline="none"), 400, "documentErrors", "none"),
    ("not an alias", operation("index", "3", {}, require_alias=True), 404, "documentErrors", "no such index"),
    ("a bad name", operation("index", "3", {}, _index="BAD NAME"), 400, "documentErrors", "Invalid index name"),
]


@pytest.mark.parametrize(
    ("sent", "status", "meter", "reason"), [row[1:] for row in ITEMS], ids=[row[0] for row in ITEMS]
)
def test_what_each_answer_to_an_item_means(
    opensearch: Any, prefix: str, sent: Any, status: int, meter: str, reason: str
) -> None:
    index = prefix + "a"
    call(opensearch, "PUT", f"/{index}", {"mappings": {"properties": {"n": {"type": "long"}}}})
    call(opensearch, "PUT", f"/{index}/_doc/1", {"n": 1})
    call(opensearch, "PUT", f"/{index}/_doc/5?version=5&version_type=external", {"n": 1})
    action, id_, document, target = sent
    line = json.dumps({action: {"_index": index, "_id": id_, **target}}).encode() + b"\n"
    if document is not None:
        line += (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n"
    other = json.dumps({"index": {"_index": index, "_id": "other"}}).encode() + b'\n{"n": 7}\n'
    options = {"index": index, "index_type": "management_disabled"}
    if "version_type" in target:
        options |= {"document_version": "${/v}", "document_version_type": target["version_type"]}
    found, config = checked("sink", "opensearch", {"hosts": [opensearch.url], **options})
    registry = Registry()
    sink = found.module.build(config, Context("p", "opensearch", kind="sink", registry=registry))

    async def send() -> list[Any]:
        await sink.start()
        try:
            return list(await sink.send([line, other]))
        finally:
            await sink.stop()

    failures = asyncio.run(send())
    assert [(failure.index, failure.status, failure.retryable) for failure in failures] == (
        [(0, status, False)] if status else []
    )
    if failures:
        assert reason.lower() in failures[0].reason.lower()
    if meter == "documentsSuccess":
        assert registry.value(f"p.opensearch.{meter}") == 2
    else:
        assert registry.value(f"p.opensearch.{meter}") == 1
    assert "other" in documents(opensearch, index), "what stands beside it is written"


@pytest.mark.parametrize("versions", [False, True])
def test_ten_thousand_changes_of_one_id_are_a_few_requests(opensearch: Any, prefix: str, versions: bool) -> None:
    options = {"index": prefix + "a", "document_id": "${/id}"}
    if versions:
        options |= {"document_version": "${/n}", "document_version_type": "external"}
    found, config = checked("sink", "opensearch", {"hosts": [opensearch.url], **options})
    registry = Registry()
    ctx = Context("p", "opensearch", kind="sink", registry=registry)
    sink = found.module.build(config, ctx)
    letters = MemoryDeadLetters()

    async def write() -> None:
        await sink.start()
        delivery = BulkDelivery(sink, Surroundings(ctx, letters))
        for start in range(1, 10_001, 100):
            batch = Batch([{"id": "hot", "n": n} for n in range(start, start + 100)])
            handle = Handle()
            batch.promise(handle)
            handle.seal()
            delivery.submit(batch, lambda: None)
        await delivery.drain()
        await delivery.close()
        await sink.stop()

    asyncio.run(write())
    assert documents(opensearch, prefix + "a") == {"hot": {"id": "hot", "n": 10_000}}
    assert not letters.letters
    assert registry.value("p.opensearch.bulkRequestSizeBytes") < 10


def test_possible_duplicates_are_found(opensearch: Any, prefix: str) -> None:
    template = {"mappings": {"properties": {"key": {"properties": {"id": {"type": "keyword"}}}}}}
    lookup = {"query_when": "/maybe == true", "query_term": "key/id", "query_duration": "PT0S"}
    options = {"index": prefix + "a", "template_content": json.dumps(template), "query_lookup": lookup}
    first = [{"key": {"id": f"{n}"}} for n in range(5)]
    run(opensearch, options, (first, None))
    documents(opensearch, prefix + "a")  # makes them visible to searches
    again = [{"key": {"id": f"{n}"}, "maybe": True} for n in range(8)]
    failures, registry = run(opensearch, options, (again, None))
    assert failures == [[]]
    assert len(documents(opensearch, prefix + "a")) == 8
    assert registry.value("p.opensearch.eventsDroppedAndReleasedAfterQuery") == 5
    assert registry.value("p.opensearch.eventsReturnedForIndexingAfterQuery") == 3


def test_a_wrong_path_prefix_is_no_fault_of_the_documents(opensearch: Any, prefix: str) -> None:
    options = {"index": prefix + "a", "index_type": "management_disabled", "path_prefix": "wrong/way"}
    with pytest.raises(Transient, match="path_prefix"):
        run(opensearch, options, ([{"n": n} for n in range(50)], None))


def test_the_network_policy_of_a_collection_is_made_and_extended(
    moto: Any, aws_client: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("AWS_ENDPOINT_URL", moto.url),
        ("AWS_ACCESS_KEY_ID", "123456789012"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ):
        monkeypatch.setenv(name, value)
    name = prefix + "policy"
    client = aws_client("opensearchserverless", moto.url)

    def policy() -> list[Any]:
        detail = client.get_security_policy(name=name, type="network")["securityPolicyDetail"]
        statements: list[Any] = detail["policy"]
        return statements

    for endpoints in (["vpce-1"], ["vpce-1"], ["vpce-1", "vpce-2"]):
        options = {"network_policy_name": name, "collection_name": "logs", "vpce_id": endpoints[-1]}
        aws = {"region": "us-east-1", "serverless": True, "serverless_options": options}
        found, config = checked("sink", "opensearch", {"hosts": ["http://127.0.0.1:1"], "index": "logs", "aws": aws})
        sink = found.module.build(config, Context("p", "opensearch", kind="sink"))

        async def start(sink: Any = sink) -> None:
            await sink.start()
            await sink.stop()

        asyncio.run(start())
        assert [statement["SourceVPCEs"] for statement in policy()] == [[endpoint] for endpoint in endpoints]
        assert all(statement["Rules"][0]["Resource"] == ["collection/logs"] for statement in policy())
