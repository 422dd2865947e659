"""The opensearch sink against a server in this process: set-up, answers, faults, and what becomes of each document."""

import asyncio
import base64
import json
import logging
import random

import pytest

from penstock.core.batch import Batch, Meta
from penstock.core.clock import ManualClock
from penstock.core.errors import EventError, Permanent, Transient, Unreachable
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.plugins.sinks.opensearch import indexes as indexes_module
from penstock.plugins.sinks.opensearch import lookup as lookup_module
from penstock.runtime.deliver import BulkDelivery, Surroundings
from penstock.sdk import Context, SinkOptions
from penstock.testing.fakes import MemoryDeadLetters
from penstock.testing.opensearch import FakeOpenSearch
from penstock.testing.plugins import checked

DENIAL = (
    "org.opensearch.client.opensearch._types.OpenSearchException: Request failed: [security_exception] no permissions "
    "for [cluster:monitor/state] and User [name=arn:aws:iam::123456789012:role/pipeline, "
    "backend_roles=[arn:aws:iam::123456789012:role/pipeline], requestedTenant=null]"
)


def make(options, **surroundings):
    found, config = checked("sink", "opensearch", {"hosts": ["http://127.0.0.1:1"], **options})
    ctx = Context("p", "opensearch", kind="sink", chance=random.Random(7), **surroundings)
    return found.module.build(config, ctx)


def submit(delivery, bodies, outcomes=None):
    """Hand over a load whose outcome goes to `outcomes`."""
    batch = Batch(bodies)
    handle = Handle(None if outcomes is None else outcomes.append)
    batch.promise(handle)
    handle.seal()
    delivery.submit(batch, lambda: None)


def with_server(test, **server_options):
    """Run `test(server, start)`; `start(options)` gives a started sink."""

    async def run():
        async with FakeOpenSearch(**server_options) as server:
            sinks = []

            async def start(options, **surroundings):
                sink = make({"hosts": [server.url], **options}, **surroundings)
                sinks.append(sink)
                await sink.start()
                return sink

            try:
                return await test(server, start)
            finally:
                for sink in sinks:
                    await sink.stop()
                    await sink.stop()

    return asyncio.run(run())


async def write(sink, bodies, metas=None):
    """Encode and send; failures by slot."""
    items = sink.encode(Batch([dict(body) for body in bodies], metas))
    assert not items.rejected
    return await sink.send(items.data)


def test_the_index_is_there_before_any_document():
    async def test(server, start):
        await start({"index": "table-index"})
        assert server.documents("table-index") == {} and "table-index" in server.indexes
        assert server.indexes["table-index"].settings == {}
        assert not server.templates and not server.bulk_requests()

    with_server(test)


def test_an_index_that_exists_is_used():
    async def test(server, start):
        sink = await start({"index": "logs", "document_id": "${/id}"})
        await write(sink, [{"id": "1"}])
        again = await start({"index": "logs", "document_id": "${/id}"})
        await write(again, [{"id": "2"}])
        assert sorted(server.documents("logs")) == ["1", "2"]

    with_server(test)


def test_management_disabled_sets_nothing_up():
    async def test(server, start):
        await start({"index": "logs", "index_type": "management_disabled", "number_of_shards": 3})
        assert not server.indexes and not server.templates
        assert {request.path for request in server.requests} == {"/_data_stream/logs"}

    with_server(test)


def test_a_refused_start_says_why_and_heals():
    async def test(server, start):
        server.denied = "cluster:monitor/state"
        with pytest.raises(Transient) as refused:
            await start({"index": "logs"})
        text = str(refused.value)
        assert text.startswith("Failed to initialize OpenSearch sink with a retryable exception. \n" + DENIAL)
        assert "rolesmapping" in text
        server.denied = None
        sink = await start({"index": "logs"})
        assert await write(sink, [{"n": 1}]) == []

    with_server(test)


def test_a_server_that_is_away_is_unreachable():
    async def test():
        sink = make({"index": "logs"})
        with pytest.raises(Unreachable, match="Failed to initialize OpenSearch sink, retrying: "):
            await sink.start()
        with pytest.raises(Unreachable):
            await sink.send([b'{"index":{"_index":"logs"}}\n{}\n'])
        await sink.stop()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("UPPER", "Invalid characters in the index name UPPER"),
        ("a#b", "Invalid characters in the index name a#b"),
        ("_hidden", "Invalid characters in the index name _hidden"),
        ("x" * 256, "Invalid characters in the index name " + "x" * 256),
    ],
)
def test_an_impossible_name_ends_the_pipeline(index, message):
    async def test(server, start):
        with pytest.raises(Permanent) as refused:
            await start({"index": index})
        assert str(refused.value) == (f"Failed to initialize OpenSearch sink due to a configuration error.\n{message}")

    with_server(test)


def test_an_index_in_the_place_of_the_alias_is_named(tmp_path):
    async def test(server, start):
        policy = tmp_path / "policy.json"
        policy.write_text('{"policy": {"states": []}}')
        server._create_index("logs")
        with pytest.raises(Permanent, match=r"reserved index alias name \[logs\], please delete or migrate"):
            await start({"index": "logs", "ism_policy_file": str(policy)})

    with_server(test, ism=True)


def test_what_the_server_says_of_each_item_decides():
    async def test(server, start):
        sink = await start({"index": "logs", "document_id": "${/id}"})
        statuses = {"400": 400, "401": 401, "403": 403, "404": 404, "413": 413, "429": 429, "503": 503}
        for id_, status in statuses.items():
            server.fail_items(
                lambda action, target, document, id_=id_: target["_id"] == id_, status, reason=f"r{status}"
            )
        failures = await write(sink, [{"id": "ok"}, *({"id": id_} for id_ in statuses)])
        assert {(failure.status, failure.retryable, failure.reason) for failure in failures} == {
            (400, False, "r400"),
            (401, True, "r401"),
            (403, True, "r403"),
            (404, False, "r404"),
            (413, True, "r413"),
            (429, True, "r429"),
            (503, True, "r503"),
        }
        assert list(server.documents("logs")) == ["ok"]

    with_server(test)


def test_a_document_too_large_even_alone_is_refused_for_good():
    async def test(server, start):
        sink = await start({"index": "logs"})
        server.fail_items(lambda action, target, document: document == {"n": 1}, 413, times=3)
        (alone,) = await write(sink, [{"n": 1}])
        assert not alone.retryable
        letters = MemoryDeadLetters()
        delivery = BulkDelivery(sink, Surroundings(Context("p", "opensearch", kind="sink"), letters))
        submit(delivery, [{"n": n} for n in range(5)])
        await delivery.drain()
        await delivery.close()
        assert [letter.failed_data["document"] for letter in letters.letters] == [{"n": 1}]
        assert len(server.documents("logs")) == 4
        assert len(server.bulk_requests()) == 3, "alone, with the others, and once more"

    with_server(test)


def test_a_document_too_large_beside_others_after_an_outage_is_tried_again():
    async def test(server, start):
        sink = await start({"index": "logs"})
        server.fail("/_bulk", 503)
        server.fail_items(lambda action, target, document: document == {"n": 1}, 413)
        letters = MemoryDeadLetters()
        delivery = BulkDelivery(sink, Surroundings(Context("p", "opensearch", kind="sink"), letters))
        submit(delivery, [{"n": n} for n in range(5)])
        await delivery.drain()
        await delivery.close()
        assert not letters.letters and len(server.documents("logs")) == 5

    with_server(test)


def test_what_is_so_already_is_success_with_a_counter():
    async def test(server, start):
        registry = Registry()
        external = {
            "index": "logs",
            "document_id": "${/id}",
            "action": "${/op}",
            "document_version": "${/v}",
            "document_version_type": "external",
        }
        sink = await start(external, registry=registry)
        change = {"id": "7", "op": "index", "v": 5, "text": "new"}
        assert await write(sink, [change]) == []
        assert await write(sink, [change, {**change, "v": 4, "text": "old"}]) == []
        assert await write(sink, [{"id": "none", "op": "delete", "v": 1}]) == []
        assert await write(sink, [{**change, "op": "create"}]) == []
        assert server.documents("logs") == {"7": change}
        counted = {
            name: registry.value(f"p.opensearch.{name}")
            for name in ("documentsVersionConflictErrors", "documentsAlreadyDeleted", "documentsDuplicates")
        }
        assert counted == {
            "documentsVersionConflictErrors": 2,
            "documentsAlreadyDeleted": 1,
            "documentsDuplicates": 1,
        }
        assert registry.value("p.opensearch.documentErrors") == 0
        assert registry.value("p.opensearch.documentsSuccess") == 3

    with_server(test)


def test_a_late_event_never_brings_a_deleted_document_back():
    async def test(server, start):
        sink = await start(
            {
                "index": "logs",
                "document_id": "${/id}",
                "action": '${getMetadata("opensearch_action")}',
                "document_version": '${getMetadata("document_version")}',
                "document_version_type": "external",
            }
        )

        def meta(action, version):
            return Meta(attributes={"opensearch_action": action, "document_version": version})

        await write(sink, [{"id": 7}], [meta("index", 1)])
        await write(sink, [{"id": 7}], [meta("delete", 3)])
        assert await write(sink, [{"id": 7}], [meta("index", 2)]) == []
        assert server.documents("logs") == {}
        await write(sink, [{"id": 7}], [meta("index", 4)])
        assert server.documents("logs") == {"7": {"id": 7}}

    with_server(test)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Transient) for status in (302, 401, 403, 404, 405, 408, 410, 415, 429, 500, 503)),
        *((status, Permanent) for status in (400, 409, 413)),
    ],
)
def test_a_refused_request(status, kind):
    async def test(server, start):
        sink = await start({"index": "logs"})
        server.fail("/_bulk", status, headers={"Retry-After": "3"})
        with pytest.raises(kind, match=f"injected {status}") as refused:
            await write(sink, [{"n": 1}, {"n": 2}])
        if kind is Transient:
            assert refused.value.retry_after_s == 3.0
        assert await write(sink, [{"n": 1}, {"n": 2}]) == []

    with_server(test)


def test_a_cut_connection_is_unreachable():
    async def test(server, start):
        sink = await start({"index": "logs"})
        server.cut()
        with pytest.raises(Unreachable):
            await write(sink, [{"n": 1}])
        assert await write(sink, [{"n": 1}]) == []

    with_server(test)


@pytest.mark.parametrize(
    "body",
    [
        {"took": 1, "errors": True, "items": []},
        {"took": 1, "errors": True, "items": [{"index": {"status": 201}}, {"odd": {}}]},
        {"took": 1, "errors": True},
        "a proxy's page",
    ],
)
def test_a_reply_that_is_no_answer_is_tried_again(body):
    async def test(server, start):
        sink = await start({"index": "logs"})
        server.fail("/_bulk", 200, body)
        with pytest.raises(Transient):
            await write(sink, [{"n": 1}, {"n": 2}])

    with_server(test)


def test_an_index_that_went_away_comes_back_with_its_template():
    async def test(server, start):
        template = {"mappings": {"properties": {"n": {"type": "long"}}}}
        sink = await start({"index": "logs", "template_content": json.dumps(template)})
        server.drop("logs")
        server.templates.clear()
        (missing,) = await write(sink, [{"n": 1}])
        assert missing.retryable and missing.status == 404
        assert await write(sink, [{"n": 1}]) == []
        assert server.indexes["logs"].properties == {"n": {"type": "long"}}

    with_server(test, auto_create=False)


def test_a_missing_index_that_is_not_ours_to_create_makes_dead_letters():
    async def test(server, start):
        sink = await start({"index": "logs", "index_type": "management_disabled"})
        (missing,) = await write(sink, [{"n": 1}])
        assert not missing.retryable and missing.reason == "no such index [logs]"

    with_server(test, auto_create=False)


def test_a_blocked_index_is_tried_again():
    async def test(server, start):
        sink = await start({"index": "logs"})
        server.blocked.add("logs")
        (blocked,) = await write(sink, [{"n": 1}])
        assert blocked.retryable and blocked.status == 403
        server.blocked.clear()
        assert await write(sink, [{"n": 1}]) == []

    with_server(test)


def test_dynamic_names_are_set_up_on_first_use():
    async def test(server, start):
        sink = await start({"index": "metadata-${metadataType}", "number_of_replicas": 2})
        assert not server.indexes
        assert await write(sink, [{"metadataType": "a"}, {"metadataType": "b"}, {"metadataType": "a"}]) == []
        assert {name: len(index.documents) for name, index in server.indexes.items()} == {
            "metadata-a": 2,
            "metadata-b": 1,
        }
        assert server.templates["metadata-a-index-template"] == {
            "settings": {"number_of_replicas": 2},
            "index_patterns": ["metadata-a"],
        }
        before = len(server.requests)
        assert await write(sink, [{"metadataType": "b"}]) == []
        assert len(server.requests) == before + 1

    with_server(test)


def test_one_bad_dynamic_name_does_not_stop_the_others():
    async def test(server, start):
        sink = await start({"index": "x-${/t}"})
        (refused,) = await write(sink, [{"t": "ok"}, {"t": "BAD NAME"}, {"t": "fine"}])
        assert (refused.index, refused.retryable) == (1, False)
        assert refused.reason == "Invalid characters in the index name x-BAD NAME"
        assert sorted(server.indexes) == ["x-fine", "x-ok"]

    with_server(test)


def test_a_dynamic_name_that_cannot_be_set_up_yet_waits_alone():
    async def test(server, start):
        clock = ManualClock()
        sink = await start({"index": "x-${/t}"}, clock=clock)
        server.fail("/x-slow", 503)
        (held,) = await write(sink, [{"t": "ok"}, {"t": "slow"}])
        assert (held.index, held.retryable) == (1, True)
        with pytest.raises(Transient):
            await write(sink, [{"t": "slow"}])
        clock.advance(2)
        assert await write(sink, [{"t": "slow"}]) == []
        assert sorted(server.indexes) == ["x-ok", "x-slow"]

    with_server(test)


def test_the_date_is_that_of_writing_in_utc():
    async def test(server, start):
        clock = ManualClock(1_706_227_199_000_000_000)  # 2024-01-25T23:59:59Z
        sink = await start({"index": "my-index-%{yyyy.MM.dd}"}, clock=clock)
        assert list(server.indexes) == ["my-index-2024.01.25"]
        await write(sink, [{"n": 1}])
        clock.advance(1)
        await write(sink, [{"n": 2}])
        assert [len(server.indexes[f"my-index-2024.01.{day}"].documents) for day in (25, 26)] == [1, 1]

    with_server(test)


@pytest.mark.parametrize("index", ["metrics", "${/where}"])
def test_data_streams_take_only_create(index):
    async def test(server, start):
        server.index_templates["t"] = {"index_patterns": ["metrics"], "data_stream": {}}
        sink = await start({"index": index, "routing": "${/r}"})
        event = {"where": "metrics", "r": "x"}
        assert await write(sink, [event, {**event, "@timestamp": 5}], [Meta(received_ms=1234)] * 2) == []
        assert await write(sink, [event], [Meta(received_ms=1234)]) == []
        assert server.streams == {"metrics"}
        written = list(server.documents("metrics").values())
        assert written[1]["@timestamp"] == 5
        assert written[2]["@timestamp"] == 1234
        if index == "metrics":
            assert written[0]["@timestamp"] == 1234
        assert all("routing" not in target for _, target, _ in server.bulk_requests()[-1].operations)

    with_server(test)


def test_templates_are_put_when_they_are_newer():
    async def test(server, start):
        def options(version, **more):
            return {"index": "logs-%{yyyy}", "template_content": json.dumps({"version": version, **more})}

        await start(options(2, order=1))
        assert server.templates["logs-index-template"] == {"version": 2, "order": 1, "index_patterns": ["logs-*"]}
        await start(options(2, order=9))
        await start(options(1, order=9))
        assert server.templates["logs-index-template"]["order"] == 1
        await start(options(3, order=9))
        assert server.templates["logs-index-template"]["order"] == 9

    with_server(test)


def test_composable_templates_hold_their_settings_inside():
    async def test(server, start):
        content = {"version": 1, "template": {"settings": {"index": {"number_of_shards": 7}}}}
        await start(
            {
                "index": "logs",
                "template_type": "index-template",
                "template_content": json.dumps(content),
                "number_of_shards": 3,
                "number_of_replicas": 2,
            }
        )
        assert server.index_templates["logs-index-template"] == {
            "version": 1,
            "index_patterns": ["logs"],
            "template": {"settings": {"index": {"number_of_shards": 7}, "number_of_replicas": 2}},
        }

    with_server(test)


@pytest.mark.parametrize("template_type", ["v1", "index-template"])
@pytest.mark.parametrize(
    ("index_type", "alias", "policy"),
    [
        ("trace-analytics-raw", "otel-v1-apm-span", "raw-span-policy"),
        ("trace-analytics-plain-raw", "otel-v1-apm-span", "raw-span-policy"),
        ("otel-v2-apm-service-map", "otel-v2-apm-service-map", "otel-v2-apm-service-map-policy"),
        ("log-analytics", "logs-otel-v1", "logs-policy"),
        ("log-analytics-plain", "logs-otel-v1", "logs-policy"),
        ("metric-analytics", "metrics-otel-v1", "metrics-policy"),
        ("metric-analytics-plain", "metrics-otel-v1", "metrics-policy"),
    ],
)
def test_built_in_types_write_to_an_alias_that_rolls_over(index_type, alias, policy, template_type):
    async def test(server, start):
        sink = await start({"index_type": index_type, "template_type": template_type})
        assert server.aliases == {alias: f"{alias}-000001"}
        assert list(server.policies) == [policy]
        templates = server.templates if template_type == "v1" else server.index_templates
        template = templates[f"{alias}-index-template"]
        inner = template if template_type == "v1" else template["template"]
        assert template["index_patterns"] == [f"{alias}-*"]
        assert inner["settings"] == {"opendistro.index_state_management.rollover_alias": alias}
        assert server.indexes[f"{alias}-000001"].properties
        assert await write(sink, [{"traceId": "t", "spanId": "s"}]) == []
        assert server.bulk_requests()[-1].query["require_alias"] == "true"
        server.drop(f"{alias}-000001")
        (missing,) = await write(sink, [{"traceId": "t", "spanId": "s"}])
        assert missing.retryable
        assert await write(sink, [{"traceId": "t", "spanId": "s"}]) == []
        assert len(server.documents(alias)) == 1

    with_server(test, ism=True)


def test_built_in_types_work_without_index_state_management():
    async def test(server, start):
        sink = await start({"index_type": "trace-analytics-raw"})
        assert not server.policies
        assert await write(sink, [{"traceId": "t", "spanId": "s"}]) == []
        assert list(server.documents("otel-v1-apm-span")) == ["t/s"]

    with_server(test)


def test_a_policy_of_the_user_makes_a_write_alias(tmp_path):
    async def test(server, start):
        policy = tmp_path / "policy.json"
        policy.write_text('{"policy": {"states": []}}')
        await start({"index": "logs", "ism_policy_file": str(policy), "number_of_shards": 1})
        assert server.policies == {"logs-policy": {"policy": {"states": []}}}
        assert server.aliases == {"logs": "logs-000001"}
        await start({"index": "logs", "ism_policy_file": str(policy), "number_of_shards": 1})
        assert list(server.indexes) == ["logs-000001"]
        with pytest.raises(Permanent, match="is not valid"):
            await start({"index": "other", "ism_policy_file": str(tmp_path / "absent.json")})

    with_server(test, ism=True)


def test_credentials_and_compression_on_the_wire():
    async def test(server, start):
        sink = await start({"index": "logs", "username": "u", "password": "päss"})
        await write(sink, [{"n": 1}])
        request = server.bulk_requests()[-1]
        assert base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode() == "u:päss"
        assert request.headers["Content-Encoding"] == "gzip"
        assert request.headers["Content-Type"] == "application/x-ndjson"
        assert request.query["filter_path"] == "errors,took,items.*.error,items.*.status,items.*._index"
        sink = await start(
            {"index": "logs", "authentication": {"api_token": "t0ken"}, "enable_request_compression": False}
        )
        await write(sink, [{"n": 1}])
        request = server.bulk_requests()[-1]
        assert request.headers["Authorization"] == "bearer t0ken"
        assert "Content-Encoding" not in request.headers

    with_server(test)


def test_elasticsearch_6_gets_a_document_type_and_no_compression():
    async def test(server, start):
        sink = await start({"index": "logs", "distribution_version": "es6", "number_of_shards": 1})
        await write(sink, [{"n": 1}])
        assert server.bulk_requests()[-1].path == "/logs/_doc/_bulk"
        assert "Content-Encoding" not in server.bulk_requests()[-1].headers
        put = next(
            request for request in server.requests if request.path.startswith("/_template") and request.method == "PUT"
        )
        assert put.query == {"include_type_name": "false"}

    with_server(test)


def test_the_path_prefix_stands_before_every_path():
    async def test(server, start):
        with pytest.raises(Transient):
            await start({"index": "logs", "path_prefix": "search/"})
        assert server.requests and all(request.path.startswith("/search/") for request in server.requests)

    with_server(test)


def test_the_environment_replaces_the_hosts(caplog):
    async def test(server, start):
        with caplog.at_level(logging.WARNING):
            await start(
                {"index": "logs", "hosts": ["http://127.0.0.1:1"]},
                environ={"PENSTOCK_OPENSEARCH_HOSTS": f" {server.url} ,"},
            )
        assert "logs" in server.indexes
        assert "PENSTOCK_OPENSEARCH_HOSTS is set" in caplog.text

    with_server(test)


def test_large_requests_are_compressed_all_the_same():
    async def test(server, start):
        sink = await start({"index": "logs"})
        bodies = [{"n": n, "text": "x" * 1000} for n in range(1000)]
        assert await write(sink, bodies) == []
        assert [document for _, _, document in server.bulk_requests()[-1].operations] == bodies

    with_server(test)


def test_estimating_with_compression_makes_larger_requests():
    async def test(server, start):
        sink = await start({"index": "logs", "bulk_size": 1, "estimate_bulk_size_using_compression": True})
        before = sink.limits.request_bytes_max
        await write(sink, [{"text": "x" * 1000}] * 200)
        assert before == 1024 * 1024 < sink.limits.request_bytes_max <= 20 * before

    with_server(test)


@pytest.mark.parametrize("seed", range(6))
def test_every_document_arrives_once_or_is_a_dead_letter(seed):
    """2 % of the items answer 429, 1 % 400, a third of the requests 429, 503 or nothing at all."""

    async def test(server, start):
        chance = random.Random(seed)
        bad = {str(n) for n in range(600) if chance.random() < 0.01}
        limited = {str(n) for n in range(600) if chance.random() < 0.02}
        server.fail_items(lambda action, target, document: target["_id"] in bad, 400, reason="bad", times=10**6)
        server.fail_items(lambda action, target, document: target["_id"] in limited, 429, times=len(limited))
        registry = Registry()
        sink = await start({"index": "logs", "document_id": "${/id}", "action": "create"}, registry=registry)
        for _ in range(4):
            server.fail("/_bulk", chance.choice([429, 503]), headers={"Retry-After": "0.01"})
        server.cut(chance.randrange(2))
        letters = MemoryDeadLetters()
        ctx = Context("p", "opensearch", kind="sink", chance=chance, registry=registry)
        delivery = BulkDelivery(sink, Surroundings(ctx, letters))
        outcomes = []
        for first in range(0, 600, 50):
            submit(delivery, [{"id": str(n), "n": n} for n in range(first, first + 50)], outcomes)
        await delivery.drain()
        await delivery.close()
        assert outcomes == [True] * 12
        assert set(server.documents("logs")) == {str(n) for n in range(600)} - bad
        assert all(server.version("logs", id_) == 1 for id_ in server.documents("logs"))
        assert sorted(letter.failed_data["indexId"] for letter in letters.letters) == sorted(bad)
        assert all(letter.failed_data["message"] == "bad" for letter in letters.letters)
        assert registry.value("p.opensearch.documentsSuccess") == 600 - len(bad)
        assert registry.value("p.opensearch.documentErrors") == len(bad)

    with_server(test)


@pytest.mark.parametrize(
    ("options", "event", "letter"),
    [
        ({}, {"a": 1}, {"index": "i", "indexId": None, "document": {"a": 1}, "action": "index"}),
        (
            {"document_id": "${/a}", "action": "delete", "routing": "r"},
            {"a": 1},
            {"index": "i", "indexId": "1", "document": {}, "action": "delete", "routing": "r"},
        ),
        (
            {"document_id": "${/a}", "action": "upsert"},
            {"a": 1},
            {"index": "i", "indexId": "1", "document": {"a": 1}, "action": "upsert"},
        ),
        (
            {"document_id": "${/a}", "action": "update", "script": {"source": "x"}},
            {"a": 1},
            {"index": "i", "indexId": "1", "document": {"a": 1}, "action": "update"},
        ),
        (
            {"document_id": "${/a}", "document_version": "${/v}", "document_version_type": "external_gte"},
            {"a": 2**70, "v": 9},
            {
                "index": "i",
                "indexId": str(2**70),
                "document": {"a": 2**70, "v": 9},
                "action": "index",
                "version": 9,
                "versionType": "external_gte",
            },
        ),
    ],
)
def test_a_dead_letter_says_all_that_a_replay_needs(options, event, letter):
    sink = make({"index": "i", **options})
    (item,) = sink.encode(Batch([event])).data
    assert sink.dead_letter(item) == letter


def test_limits_follow_the_options():
    def limits(**options):
        return make({"index": "i", **options}).limits

    assert (limits().request_bytes_max, limits().flush_timeout_s, limits().max_retries) == (5 * 1024 * 1024, 60.0, None)
    assert limits(bulk_size=0).request_items_max == 1
    assert limits(bulk_size=-1).request_bytes_max == 100 * 1024 * 1024
    assert limits(flush_timeout=-1).flush_timeout_s == 0
    assert limits(max_retries=16).max_retries == 16


def test_tags_and_keys_shape_the_document_but_not_the_id():
    sink = make(
        {"index": "i", "document_id": "${/id}"},
        sink_options=SinkOptions(tags_target_key="tags", include_keys=("text",)),
    )
    (item,) = sink.encode(Batch([{"id": "7", "text": "x"}], [Meta(tags=["b", "a"])])).data
    line, document, _ = item.split(b"\n")
    assert json.loads(line) == {"index": {"_index": "i", "_id": "7"}}
    assert json.loads(document) == {"text": "x", "tags": ["a", "b"]}


def test_a_wrong_path_makes_no_dead_letters():
    body = {"error": "no handler found for uri [/wrong/_bulk] and method [POST]", "status": 400}

    async def test(server, start):
        sink = await start({"index": "logs"})
        server.fail("/_bulk", 404, {}, times=2)
        server.fail("/_bulk", 400, body)
        letters = MemoryDeadLetters()
        ctx = Context("p", "opensearch", kind="sink", chance=random.Random(1))
        delivery = BulkDelivery(sink, Surroundings(ctx, letters))
        submit(delivery, [{"n": n} for n in range(10)])
        while delivery.state.status != "DEGRADED":
            await asyncio.sleep(0.001)
        assert "path_prefix" in delivery.state.last_error
        await delivery.drain()
        await delivery.close()
        assert len(server.documents("logs")) == 10 and not letters.letters
        assert len(server.bulk_requests()) == 4, "nothing was split"

    with_server(test)


def operation(action="index", document=None, version=None, type_="external", **target):
    line = {"_index": "i", "_id": "1", **target}
    if version is not None:
        line |= {"version": version, "version_type": type_}
    text = json.dumps({action: line}, separators=(",", ":")) + "\n"
    return (text + ("" if action == "delete" else json.dumps(document or {}) + "\n")).encode()


@pytest.mark.parametrize(
    ("later", "earlier", "expected"),
    [
        (operation(), operation(), True),
        (operation("delete"), operation(), True),
        (operation(), operation("delete"), True),
        (operation(), operation("update"), True),
        (operation("update"), operation(), False),
        (operation("create"), operation(), False),
        (operation(), operation("create"), False),
        (operation(routing="a"), operation(routing="b"), False),
        (operation(routing="a"), operation(routing="a"), True),
        (operation(version=2), operation(version=1), True),
        (operation("delete", version=2), operation(version=1), True),
        (operation(version=1), operation(version=2), False),
        (operation(version=2), operation(version=2), False),
        (operation(version=2, type_="external_gte"), operation(version=2, type_="external_gte"), True),
        (operation(version=1, type_="external_gte"), operation(version=2, type_="external_gte"), False),
        (operation(version=2), operation(), False),
        (operation(), operation(version=2), False),
        (operation(version=3, type_="internal"), operation(version=2, type_="internal"), False),
    ],
)
def test_what_supersedes_what(later, earlier, expected):
    assert make({"index": "i"}).supersedes(later, earlier) is expected


ACTIONS = ("index", "create", "update", "upsert", "delete")
SCRIPT = {"source": "ctx._source.n = params.doc.n", "params": {"step": 2, "of": "${/r}"}}


@pytest.mark.parametrize(
    ("action", "options"),
    [
        *((action, {}) for action in ACTIONS),
        *((action, {"routing": "${/r}"}) for action in ACTIONS),
        *((action, {"document_version": "${/v}", "document_version_type": "external"}) for action in ACTIONS),
        ("update", {"script": SCRIPT}),
        ("upsert", {"script": SCRIPT}),
    ],
)
def test_a_dead_letter_tells_the_operation_it_was(action, options):
    sink = make({"index": "i-${/t}", "document_id": "${/id}", "action": action, **options})
    (item,) = sink.encode(Batch([{"id": "1", "t": "x", "r": "s", "v": 7, "n": 1}])).data
    letter = sink.dead_letter(item)
    again = sink.replay(letter)
    assert sink.dead_letter(again) == letter
    assert [json.loads(line) for line in again.splitlines()] == [json.loads(line) for line in item.splitlines()]


def test_what_cannot_be_replayed_says_why():
    sink = make({"index": "i-${/t}"})
    assert json.loads(sink.replay({"index": "i-${/t}", "document": {"t": "x"}}).splitlines()[0]) == {
        "index": {"_index": "i-x"}
    }
    assert json.loads(sink.replay({"index": "i", "indexId": "1", "document": {"t": 1}}).splitlines()[0]) == {
        "index": {"_index": "i", "_id": "1"}
    }
    for failed, reason in (
        ({"index": "i", "document": None}, "no document"),
        ({"index": "i", "document": {}, "action": "explode"}, "unknown action"),
        ({"index": "i", "document": {}, "action": "update"}, "no id"),
    ):
        with pytest.raises(EventError, match=reason):
            sink.replay(failed)


LOOKUP = {"query_when": "/maybe == true", "query_term": "/key/id", "query_duration": "PT45S"}


def looked_up(n, **more):
    return {"key": {"id": f"k{n}"}, "n": n, **more}


def test_documents_that_are_there_already_are_not_written_again():
    clock, registry = ManualClock(0), Registry()

    async def test(server, start):
        sink = await start({"index": "logs", "query_lookup": LOOKUP}, clock=clock, registry=registry)
        assert await write(sink, [looked_up(0), looked_up(1)]) == []
        bodies = [looked_up(1, maybe=True), looked_up(2, maybe=True), looked_up(3), {"maybe": True, "n": 4}]
        items = sink.encode(Batch([dict(body) for body in bodies]))
        (held,) = await sink.send(items.data)
        assert (held.index, held.retryable, held.retry_after_s, held.counts) == (1, True, 20.0, False)
        assert sorted(document["n"] for document in server.documents("logs").values()) == [0, 1, 3, 4]
        clock.advance(20)
        assert len(await sink.send([items.data[1]])) == 1
        clock.advance(30)
        assert await sink.send([items.data[1]]) == []
        assert sorted(document["n"] for document in server.documents("logs").values()) == [0, 1, 2, 3, 4]
        counts = ("eventsAddedForQuerying", "eventsDroppedAndReleasedAfterQuery", "eventsReturnedForIndexingAfterQuery")
        assert [registry.value(f"p.opensearch.{name}") for name in counts] == [3, 1, 1]
        assert registry.value("p.opensearch.documentsBeingQueried") == 0

    with_server(test)


def test_documents_are_searched_for_in_one_pass_over_the_request():
    class InOrder(list):
        def __getitem__(self, place):
            raise AssertionError("one item of a request by its place costs as much as all of them")

    async def test(server, start):
        sink = await start({"index": "logs", "query_lookup": LOOKUP})
        items = sink.encode(Batch([looked_up(n, maybe=True) for n in range(3)]))
        assert [failure.index for failure in await sink.send(InOrder(items.data))] == [0, 1, 2]

    with_server(test)


def test_after_an_unheard_answer_documents_are_searched_for():
    clock = ManualClock(0)

    async def test(server, start):
        lookup = {**LOOKUP, "query_when": "false", "query_on_bulk_errors": True}
        sink = await start({"index": "logs", "query_lookup": lookup}, clock=clock)
        items = sink.encode(Batch([looked_up(0), looked_up(1)]))
        await write(sink, [looked_up(0)])
        server.cut()
        with pytest.raises(Unreachable):
            await sink.send(items.data)
        (held,) = await sink.send(items.data)
        assert held.index == 1 and len(server.documents("logs")) == 1
        server.fail("/logs/_search", 503)
        with pytest.raises(Transient, match="the search for duplicates failed"):
            await sink.send([items.data[1]])
        clock.advance(60)
        assert await sink.send([items.data[1]]) == []
        assert len(server.documents("logs")) == 2

    with_server(test)


def test_what_was_found_is_not_written_when_the_rest_of_its_request_has_to_come_again():
    registry = Registry()

    async def test(server, start):
        sink = await start({"index": "logs", "query_lookup": LOOKUP}, registry=registry)
        await write(sink, [looked_up(0)])
        items = sink.encode(Batch([looked_up(0, maybe=True), looked_up(1)]))
        server.fail("/_bulk", 503)
        with pytest.raises(Transient):
            await sink.send(items.data)
        assert await sink.send(items.data) == []
        assert sorted(document["n"] for document in server.documents("logs").values()) == [0, 1]
        assert registry.value("p.opensearch.eventsDroppedAndReleasedAfterQuery") == 1
        assert registry.value("p.opensearch.documentsBeingQueried") == 0

    with_server(test)


def test_a_wait_uses_up_no_retries():
    async def test(server, start):
        lookup = {**LOOKUP, "query_duration": "100ms"}
        sink = await start({"index": "logs", "max_retries": 1, "query_lookup": lookup})
        lookup_module.INTERVAL_S, before = 0.01, lookup_module.INTERVAL_S
        try:
            letters = MemoryDeadLetters()
            ctx = Context("p", "opensearch", kind="sink", chance=random.Random(1))
            delivery = BulkDelivery(sink, Surroundings(ctx, letters))
            submit(delivery, [looked_up(n, maybe=True) for n in range(5)])
            await delivery.drain()
            await delivery.close()
        finally:
            lookup_module.INTERVAL_S = before
        assert len(server.documents("logs")) == 5 and not letters.letters

    with_server(test)


def test_template_and_policy_may_be_objects_in_s3(monkeypatch):
    objects = {
        "s3://bucket/template.json": b'{"version": 2, "settings": {"x": 1}}',
        "s3://bucket/policy.json": b'{"policy": {"states": []}}',
    }
    regions = []

    async def read(address, access):
        regions.append(access.region)
        if address not in objects:
            raise Permanent(f"{address} cannot be read: NoSuchKey")
        return objects[address]

    monkeypatch.setattr(indexes_module, "read_object", read)

    async def test(server, start):
        options = {"index": "logs", "template_file": "s3://bucket/template.json"}
        await start({**options, "ism_policy_file": "s3://bucket/policy.json"})
        assert server.templates["logs-index-template"]["version"] == 2
        assert server.policies["logs-policy"]["policy"]["states"] == []
        assert regions == [None, None]
        with pytest.raises(Permanent, match="Index template is not valid"):
            await start({**options, "template_file": "s3://bucket/missing.json"})
        objects["s3://bucket/template.json"] = b"[]"
        with pytest.raises(Permanent, match="no JSON object"):
            await start(options)

    with_server(test, ism=True)


def test_requests_grow_to_the_compressed_size():
    async def test(server, start):
        sink = await start({"index": "logs", "bulk_size": 1, "estimate_bulk_size_using_compression": True})
        ctx = Context("p", "opensearch", kind="sink", chance=random.Random(1))
        delivery = BulkDelivery(sink, Surroundings(ctx, MemoryDeadLetters()))
        for _ in range(30):
            submit(delivery, [{"text": "x" * 1000, "n": n} for n in range(1000)])
        await delivery.drain()
        await delivery.close()
        sizes = [len(request.body) for request in server.bulk_requests()]
        assert max(sizes[:4]) <= 1024 * 1024 < max(sizes)
        assert sink.limits.request_bytes_max > 5 * 1024 * 1024
        assert sum(len(request.operations) for request in server.bulk_requests()) == 30_000

    with_server(test)
