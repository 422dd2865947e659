"""Every vector of dead letters: keys, options, records and what the opensearch sink says of a document."""

import asyncio
import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from penstock.core.clock import ManualClock
from penstock.core.errors import ConfigError, Failure
from penstock.lib.dated_path import compile_dated_path
from penstock.runtime.deliver import Surroundings
from penstock.sdk import Batch, Context, DeadLetter
from penstock.testing.fakes import MemoryDeadLetters
from penstock.testing.plugins import checked

VECTORS = [json.loads(line) for line in (Path(__file__).parent / "dlq.jsonl").read_text().splitlines()]
NOW_NS = 1_680_708_379_152_938_000


def writer(config, pipeline="my-pipe", plugin="opensearch"):
    # The vectors call the bucket `b`, which is shorter than a bucket may be called.
    found, checked_config = checked("dlq", "s3", {**config, "bucket": "bucket"})
    return found.module.build(checked_config, Context(pipeline, plugin, kind="sink", clock=ManualClock(NOW_NS)))


def s3_key(vector):
    key = writer(vector["config"], vector["pipeline"], vector["plugin_id"]).key()
    assert re.match(vector["expect_key_regex"], key)
    assert key.startswith(vector["expect_key_starts_with"])
    assert key.endswith(vector["expect_key_ends_with"])


def key_path(vector):
    if vector.get("expect_error"):
        with pytest.raises(ValueError):
            compile_dated_path(vector["prefix"])
        return
    now = datetime.fromisoformat(vector["now"])
    assert compile_dated_path(vector["prefix"])(int(now.timestamp()) * 10**9) == vector["expect"]


def config(vector):
    if vector.get("expect_config_error"):
        with pytest.raises(ConfigError):
            writer(vector["config"])
    else:
        writer(vector["config"])


def defaults(vector):
    _, made = checked("dlq", "s3", {"bucket": "bucket"})
    assert {name: getattr(made, name) for name in vector["expect"]} == vector["expect"]


def write(vector):
    queue = writer({})

    async def nothing():
        await queue.write([])
        await queue.close()

    asyncio.run(nothing())  # would fail if it spoke to S3: there are no credentials and no server
    assert vector["expect_objects_written"] == 0


def a_record(vector):
    given = vector["object"]
    parts = (given["pluginId"], given["pluginName"], given["pipelineName"], NOW_NS, given["failedData"])
    if vector.get("expect_error"):
        with pytest.raises(ValueError):
            DeadLetter(*parts)
        return
    record = DeadLetter(*parts).to_object()
    assert sorted(record) == sorted(vector["expect_fields"])
    assert re.match(vector["expect_timestamp_regex"], record["timestamp"])


def opensearch_failed_data(vector):
    item = vector["response_item"]
    if item is None:
        with pytest.raises(TypeError):
            Failure(0)  # type: ignore[call-arg]  # without a reason nothing can be a dead letter
        return
    options = {"hosts": ["http://localhost:9200"], "index": vector["index"], "document_id": vector["document_id"]}
    found, made = checked("sink", "opensearch", {**options, "action": vector["action"]})
    ctx = Context("p", "opensearch", kind="sink")
    sink = found.module.build(made, ctx)
    (data,) = sink.encode(Batch([vector["document"]])).data
    failure = Failure(0, item["error"]["reason"], status=item["status"])
    target = sink.dead_letter(data)
    letter = Surroundings(ctx, MemoryDeadLetters()).letter(
        {**target, "status": failure.status, "message": failure.reason}
    )
    assert letter.failed_data == {**vector["expect"], "action": vector["action"]}


def opensearch_event_failed_data(vector):
    ctx = Context("p", "opensearch", kind="sink")
    letter = Surroundings(ctx, MemoryDeadLetters()).letter({"index": vector["index"], "message": vector["message"]})
    assert letter.failed_data == vector["expect"]


CHECKS = {
    "s3_key": s3_key,
    "key_path": key_path,
    "config": config,
    "defaults": defaults,
    "write": write,
    "object": a_record,
    "opensearch_failed_data": opensearch_failed_data,
    "opensearch_event_failed_data": opensearch_event_failed_data,
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_vector(vector):
    CHECKS[vector["kind"]](vector)
