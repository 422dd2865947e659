"""Documents for indexes that pull: their messages, where these go, and what becomes of those that are refused."""

import asyncio
import json
import random

import pytest

from penstock.core.batch import Batch
from penstock.core.errors import Failure, Permanent, Transient, Unreachable
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.plugins.sinks.opensearch.client import Cluster, Reply
from penstock.plugins.sinks.opensearch.pull import PullSink, Topic, message_of, murmur3, read_topic
from penstock.runtime.deliver import BulkDelivery, Surroundings
from penstock.sdk import Context
from penstock.testing.fakes import MemoryDeadLetters
from penstock.testing.plugins import checked

OPTIONS = {
    "hosts": ["http://127.0.0.1:1"],
    "index": "logs",
    "document_id": "${/id}",
    "document_version": "${/v}",
    "pull_indexing": {"engine": {"kafka": {"bootstrap_servers": ["127.0.0.1:1"]}}},
}
ONE = Topic("t", 1, 1)


def make(**options):
    found, config = checked("sink", "opensearch", {**OPTIONS, **options})
    registry = Registry()
    ctx = Context("p", "opensearch", kind="sink", registry=registry, chance=random.Random(1))
    sink = found.module.build(config, ctx)
    assert type(sink) is PullSink
    sink._topic = ONE
    return sink, registry, ctx


@pytest.mark.parametrize(
    ("options", "event", "expected"),
    [
        ({}, {"id": 'a"b', "v": 7}, ("index", 'a"b', {"id": 'a"b', "v": 7})),
        ({"action": "create"}, {"id": "x", "v": 7}, ("create", "x", {"id": "x", "v": 7})),
        ({"action": "delete"}, {"id": "x", "v": 7}, ("delete", "x", {})),
        ({"document_root_key": "d"}, {"id": "x", "v": 7, "d": {"n": "ü\n"}}, ("index", "x", {"n": "ü\n"})),
    ],
)
def test_a_message_holds_the_operation(options, event, expected):
    sink, _, _ = make(**options)
    (item,) = sink.encode(Batch([event])).data
    message = message_of(item, ONE)
    action, id_, source = expected
    assert json.loads(message.value) == {"_id": id_, "_version": "7", "_op_type": action, "_source": source}
    assert message.key == id_


@pytest.mark.parametrize(
    ("options", "event", "reason"),
    [
        ({}, {"v": 1}, "document_id is required for pull-based ingestion"),
        ({}, {"id": "x", "v": "one"}, "must be a valid Long type"),
        ({"action": "${/op}"}, {"id": "x", "v": 1, "op": "upsert"}, "does not support the action upsert"),
    ],
)
def test_what_makes_no_message_is_refused(options, event, reason):
    (failure,) = make(**options)[0].encode(Batch([event])).rejected
    assert reason in failure.reason


def test_the_hash_is_that_of_the_servers():
    # Known values of OpenSearch's own tests of its hash function.
    assert [murmur3(text) for text in ("hell", "hello", "hello w", "hello wo")] == [
        0x5A0CB7C3,
        0xD7C31989 - (1 << 32),
        0x22AB2984,
        0xDF0CA123 - (1 << 32),
    ]


def test_routing_decides_before_the_id():
    sink, _, _ = make(routing="${/r}")
    items = sink.encode(Batch([{"id": str(n), "v": 1, "r": "same"} for n in range(50)])).data
    topic = Topic("t", 5, 640)
    assert len({message_of(item, topic).partition for item in items}) == 1
    sink, _, _ = make()
    items = sink.encode(Batch([{"id": str(n), "v": 1} for n in range(50)])).data
    assert {message_of(item, topic).partition for item in items} == set(range(5))


class FakeKafka:
    """Keeps messages; `answers` are the failures of the next writes."""

    def __init__(self, *answers):
        self.answers, self.messages = list(answers), []

    def open(self, topic):
        pass

    def close(self):
        pass

    def write(self, topic, messages):
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        refused = {failure.index for failure in answer}
        self.messages += [message for place, message in enumerate(messages) if place not in refused]
        return answer


def deliver(kafka, count=3):
    async def run():
        sink, registry, ctx = make()
        sink._kafka = kafka
        letters, outcomes = MemoryDeadLetters(), []
        delivery = BulkDelivery(sink, Surroundings(ctx, letters))
        batch = Batch([{"id": str(n), "v": n} for n in range(count)])
        handle = Handle(outcomes.append)
        batch.promise(handle)
        handle.seal()
        delivery.submit(batch, lambda: None)
        await delivery.drain()
        await delivery.close()
        assert outcomes == [True]
        return registry, letters.letters

    return asyncio.run(run())


def test_only_refused_messages_are_written_again_and_too_large_ones_are_dead_letters():
    busy, large = Failure(0, "busy", retryable=True), Failure(2, "Message size too large")
    kafka = FakeKafka([busy, large])
    registry, letters = deliver(kafka)
    assert sorted(message.key for message in kafka.messages) == ["0", "1"]
    assert [letter.failed_data["indexId"] for letter in letters] == ["2"]
    assert letters[0].failed_data["version"] == 2
    assert registry.value("p.opensearch.pullIngestionDocumentsSucceeded") == 2
    assert registry.value("p.opensearch.pullIngestionDocumentsFailed") == 2


def test_while_no_broker_answers_nothing_is_lost():
    down = [Failure(place, "timed out", retryable=True) for place in range(3)]
    kafka = FakeKafka(down, Unreachable("away"), down)
    _, letters = deliver(kafka)
    assert sorted(message.key for message in kafka.messages) == ["0", "1", "2"] and not letters


class ScriptedCluster(Cluster):
    def __init__(self, status, body):
        self._reply = Reply(status, json.dumps(body).encode())

    async def call(self, method, path, params=None, *, body=None):
        assert (method, path) == ("GET", "/_cluster/state/metadata/logs")
        return self._reply


def state(routing_num_shards=768, **index):
    settings = {"number_of_shards": "3", "ingestion_source": {"param": {"topic": "t"}}, **index}
    metadata = {"settings": {"index": settings}, "routing_num_shards": routing_num_shards}
    return {"metadata": {"indices": {"logs": metadata}}}


def test_the_index_tells_its_topic():
    assert asyncio.run(read_topic(ScriptedCluster(200, state()), "logs")) == Topic("t", 3, 768)


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (403, {"error": {"type": "security_exception", "reason": "no permissions"}}, Transient, "no permissions"),
        (200, {"metadata": {"indices": {}}}, Transient, "No metadata found for index: logs"),
        (200, state(ingestion_source={}), Transient, "ingestion_source.param.topic not found"),
        (200, state(routing_partition_size="2"), Permanent, "routing-partitioned"),
        (200, state(routing_num_shards=2), Permanent, "must be >= number_of_shards"),
    ],
)
def test_an_index_that_pulls_nothing_is_told(status, body, kind, reason):
    with pytest.raises(kind, match=reason):
        asyncio.run(read_topic(ScriptedCluster(status, body), "logs"))
