"""`pull_indexing`: documents go to the Kafka topic that the index reads from, each to the partition of its shard.

The index must exist and name its topic (`index.ingestion_source.param.topic`). A message is `{"_id", "_version",
"_op_type", "_source"}`; its key is the id. The cluster keeps the highest version of an id, so a message that is written
twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from penstock import sdk
from penstock.plugins.sinks.opensearch.client import Cluster
from penstock.plugins.sinks.opensearch.options import Config
from penstock.plugins.sinks.opensearch.reply import error_text
from penstock.plugins.sinks.opensearch.sink import OpenSearchSink

MESSAGE_TIMEOUT_S = 30.0
"""How long the client tries to deliver a message before it is reported and tried again from here."""
ADMIN_TIMEOUT_S = 30.0
MESSAGE_BYTES_MAX = 100 * 1024 * 1024
"""Brokers have limits of their own, and say so."""


class Topic(NamedTuple):
    """Where an index reads from."""

    name: str
    shards: int
    routing_shards: int

    def partition(self, routing: str) -> int:
        """The shard of a document, which is the partition that it reads."""
        return murmur3(routing) % self.routing_shards // (self.routing_shards // self.shards)


class Message(NamedTuple):
    partition: int
    key: str
    value: bytes


class PullSink(OpenSearchSink):
    """Writes documents to Kafka; the cluster is only asked for the settings of the index."""

    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        super().__init__(config, ctx)
        assert config.alias is not None and config.pull_indexing is not None
        self._kafka = Kafka(config.pull_indexing.engine.kafka.bootstrap_servers, ctx.log)
        self._index = config.alias
        self._topic: Topic | None = None
        metrics = ctx.metrics
        self._written = metrics.counter("pullIngestionDocumentsSucceeded")
        self._failed = metrics.counter("pullIngestionDocumentsFailed")
        self._bytes = metrics.summary("pullIngestionBytes")
        self._latency = metrics.timer("pullIngestionLatency")

    async def start(self) -> None:
        self._log.info("Initializing OpenSearch sink")
        try:
            await self._cluster.start()
            self._topic = await read_topic(self._cluster, self._index)
            await asyncio.to_thread(self._kafka.open, self._topic)
        except sdk.Permanent as error:
            await self._cluster.close()
            raise sdk.Permanent(
                f"Failed to initialize OpenSearch sink due to a configuration error.\n{error}"
            ) from error
        except sdk.Transient as error:
            raise type(error)(
                f"Failed to initialize OpenSearch sink, retrying: {error} ", retry_after_s=error.retry_after_s
            ) from error
        self._log.info("Initialized OpenSearch sink: index %s reads from the topic %s", self._index, self._topic.name)

    async def stop(self) -> None:
        await asyncio.to_thread(self._kafka.close)
        await super().stop()

    async def send(self, data: Sequence[bytes]) -> Sequence[sdk.Failure]:
        if self._topic is None:
            raise sdk.Unreachable("the sink is not started")
        messages = [message_of(item, self._topic) for item in data]
        begin = self._now()
        failures = await asyncio.to_thread(self._kafka.write, self._topic.name, messages)
        self._latency.observe(self._now() - begin)
        for message in messages:
            self._bytes.observe(len(message.value))
        self._written.add(len(messages) - len(failures))
        self._failed.add(len(failures))
        if failures and len(failures) == len(messages) and all(failure.retryable for failure in failures):
            raise sdk.Unreachable(f"Kafka: {failures[0].reason}")
        return failures


def message_of(item: bytes, topic: Topic) -> Message:
    """The message of a bulk operation."""
    line, _, document = item.partition(b"\n")
    ((action, target),) = sdk.decode(line).items()
    envelope = b'{"_id":%b,"_version":"%d","_op_type":"%b","_source":%b}' % (
        sdk.encode(target["_id"]),
        target["version"],
        action.encode(),
        document.rstrip(b"\n") or b"{}",
    )
    return Message(topic.partition(target.get("routing") or target["_id"]), target["_id"], envelope)


async def read_topic(cluster: Cluster, index: str) -> Topic:
    """What the index reads from. Raises `Transient` where it reads from no topic: somebody may create it anew."""
    reply = await cluster.call("GET", f"/_cluster/state/metadata/{quote(index, safe='')}")
    if reply.status >= 300:
        raise sdk.Transient(error_text(reply.status, reply.body))
    found = reply.json().get("metadata", {}).get("indices", {}).get(index)
    if not isinstance(found, dict):
        raise sdk.Transient(f"No metadata found for index: {index}")
    settings = found.get("settings", {}).get("index", {})
    name = settings.get("ingestion_source", {}).get("param", {}).get("topic")
    if not name:
        raise sdk.Transient(f"ingestion_source.param.topic not found in settings for index: {index}")
    shards = int(settings.get("number_of_shards", 1))
    routing_shards = int(found.get("routing_num_shards", shards))
    partition_size = int(settings.get("routing_partition_size", 1))
    if partition_size > 1:
        raise sdk.Permanent(
            f"routing-partitioned indices (routing_partition_size={partition_size}) are not supported by pull-based "
            f"ingestion: {index}"
        )
    if routing_shards < shards:
        raise sdk.Permanent(
            f"number_of_routing_shards ({routing_shards}) must be >= number_of_shards ({shards}) for index '{index}'"
        )
    return Topic(str(name), shards, routing_shards)


class Kafka:
    """A producer. Its methods block: they are called in threads, several at a time."""

    def __init__(self, servers: Sequence[str], log: logging.Logger) -> None:
        self._servers = ",".join(servers)
        self._log = log
        self._producer: Any = None

    def open(self, topic: Topic) -> None:
        """Connect, and make the topic with a partition for each shard. Raises `Transient` or `Permanent`."""
        try:
            import confluent_kafka
            from confluent_kafka.admin import AdminClient
        except ImportError:
            raise sdk.Permanent("pull_indexing needs a further package: pip install 'penstock[kafka]'") from None
        servers: dict[str, str | int | float | bool] = {"bootstrap.servers": self._servers}
        try:
            _ensure_partitions(AdminClient(servers, logger=self._log), topic)
        except confluent_kafka.KafkaException as error:
            raise sdk.Transient(f"Kafka at {self._servers}: {error.args[0].str()}") from error
        if self._producer is None:
            self._producer = confluent_kafka.Producer(
                {
                    **servers,
                    "acks": "all",
                    "enable.idempotence": True,  # keeps the order of a partition when something is sent again
                    "message.timeout.ms": int(MESSAGE_TIMEOUT_S * 1000),
                    "message.max.bytes": MESSAGE_BYTES_MAX,
                    "linger.ms": 5,
                },
                logger=self._log,
            )

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(MESSAGE_TIMEOUT_S)

    def write(self, topic: str, messages: Sequence[Message]) -> list[sdk.Failure]:
        """Write the messages and wait for the brokers to have them; return those that were refused."""
        from confluent_kafka import KafkaError, KafkaException

        producer = self._producer
        if producer is None:
            raise sdk.Unreachable("the Kafka producer is closed")
        failures: list[sdk.Failure] = []
        done: list[int] = []

        def told(place: int, error: Any) -> None:
            if error is not None:
                too_large = error.code() == KafkaError.MSG_SIZE_TOO_LARGE
                failures.append(sdk.Failure(place, error.str(), retryable=not too_large))
            done.append(place)

        for place, message in enumerate(messages):
            while True:
                try:
                    producer.produce(
                        topic,
                        message.value,
                        message.key,
                        message.partition,
                        on_delivery=lambda error, _message, place=place: told(place, error),
                    )
                except BufferError:  # the client holds as much as it may
                    producer.poll(0.1)
                except KafkaException as error:
                    told(place, error.args[0])
                    break
                else:
                    break
        deadline = time.monotonic() + 2 * MESSAGE_TIMEOUT_S
        while len(done) < len(messages):  # each message is told of once its time is over, if not before
            producer.poll(0.1)
            if time.monotonic() > deadline:
                raise sdk.Unreachable("the Kafka client does not tell what became of its messages")
        return failures


def _ensure_partitions(admin: Any, topic: Topic) -> None:
    """Make the topic, or add the partitions that it lacks."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.cimpl import NewPartitions, NewTopic

    found = admin.list_topics(topic.name, timeout=ADMIN_TIMEOUT_S).topics.get(topic.name)
    count = len(found.partitions) if found is not None and found.error is None else 0
    if count == 0:
        made = admin.create_topics([NewTopic(topic.name, topic.shards, 1)], operation_timeout=ADMIN_TIMEOUT_S)
    elif count < topic.shards:
        made = admin.create_partitions([NewPartitions(topic.name, topic.shards)], operation_timeout=ADMIN_TIMEOUT_S)
    else:
        return
    try:
        made[topic.name].result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() not in (KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.INVALID_PARTITIONS):
            raise


def murmur3(routing: str) -> int:
    """The hash by which OpenSearch chooses a shard: Murmur3 of 32 bits over the UTF-16 of the text."""
    data = routing.encode("utf-16-le", "surrogatepass")
    words = len(data) // 4
    value = 0
    for place in range(words):
        value ^= _mixed(int.from_bytes(data[4 * place : 4 * place + 4], "little"))
        value = (value << 13 | value >> 19) & 0xFFFFFFFF
        value = (value * 5 + 0xE6546B64) & 0xFFFFFFFF
    rest = data[4 * words :]
    if rest:
        value ^= _mixed(int.from_bytes(rest, "little"))
    value ^= len(data)
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    value ^= value >> 16
    return value - (1 << 32) if value & 0x80000000 else value


def _mixed(word: int) -> int:
    word = word * 0xCC9E2D51 & 0xFFFFFFFF
    word = (word << 15 | word >> 17) & 0xFFFFFFFF
    return word * 0x1B873593 & 0xFFFFFFFF
