"""Documents for an index that pulls from Kafka: each arrives once, in the partition of the shard that will read it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from engine import Engine, wait_until

PIPELINE = """\
version: "2"
changes:
  source:
    file: {{paths: ["{file}"], record_type: event, codec: {{ndjson: {{}}}}, acknowledgments: true}}
  sink:
    - opensearch:
        hosts: ["{url}"]
        index: {index}
        document_id: "${{/id}}"
        document_version: "${{/v}}"
        actions: [{{type: delete, when: "/gone == true"}}]
        pull_indexing: {{engine: {{kafka: {{bootstrap_servers: ["{kafka}"]}}}}}}
"""


def messages(address: str, topic: str, count: int) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[Any] = []
    deadline = time.monotonic() + 60
    try:
        while len(found) < count and time.monotonic() < deadline:
            found += [each for each in consumer.consume(1000, timeout=1.0) if each.error() is None]
        return found + [each for each in consumer.consume(1000, timeout=2.0) if each.error() is None]
    finally:
        consumer.close()


def test_documents_are_where_the_shards_look_for_them(
    opensearch: Any,
    kafka: Any,
    start_engine: Callable[..., Engine],
    ask: Callable[..., tuple[int, Any]],
    tmp_path: Path,
    prefix: str,
) -> None:
    index, topic = f"{prefix}pulled", f"{prefix}changes"
    # The server here cannot pull (the plugin is not published as a jar), but it knows shards and keeps the setting.
    settings = {"number_of_shards": 3, "index.ingestion_source.param.topic": topic}
    assert ask(opensearch.url, "PUT", f"/{index}", {"settings": settings})[0] == 200
    events = [{"id": f"{n}-ü\U0001f600"[: 1 + n % 7] + f"#{n}", "v": n + 1, "n": n} for n in range(2000)]
    for event in events[::10]:
        event["gone"] = True
    file = tmp_path / "events.ndjson"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    engine = start_engine(PIPELINE.format(file=file, url=opensearch.url, index=index, kafka=kafka.address))
    written = "changes_opensearch_pullIngestionDocumentsSucceeded_total"
    wait_until(lambda: engine.meter(written) >= len(events), "all messages")
    engine.stop()
    assert engine.dead_letters("changes") == []
    partitions = (
        AdminClient({"bootstrap.servers": kafka.address}).list_topics(topic, timeout=20).topics[topic].partitions
    )
    assert len(partitions) == 3, "the topic was made with a partition for each shard"
    found = messages(kafka.address, topic, len(events))
    assert len(found) == len(events)
    by_id = {each.key().decode(): each for each in found}
    assert by_id.keys() == {event["id"] for event in events}
    for event in events:
        message = json.loads(by_id[event["id"]].value())
        gone = event.get("gone", False)
        assert message == {
            "_id": event["id"],
            "_version": str(event["v"]),
            "_op_type": "delete" if gone else "index",
            "_source": {} if gone else event,
        }
    for event in events[:60]:
        answer = ask(opensearch.url, "GET", f"/{index}/_search_shards?routing={quote(str(event['id']))}")[1]
        assert by_id[event["id"]].partition() == answer["shards"][0][0]["shard"], event["id"]
