"""Refused documents in a bucket: written, looked at, mended and sent again with the commands a user types."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, wait_until

TEMPLATE = json.dumps({"mappings": {"properties": {"n": {"type": "long"}}}})
PIPELINE = """
version: "2"
my-pipe:
  source:
    file:
      paths: ["{file}"]
      record_type: event
      codec: {{ndjson: {{}}}}
      acknowledgments: true
      max_acknowledgment_retries: {retries}
      acknowledgment_timeout: 30s
  sink:
    - opensearch:
        hosts: ["{url}"]
        index: "{prefix}one"
        document_id: "${{/id}}"
        routing: "${{/r}}"
        template_content: '{template}'
        dlq: {{s3: {{bucket: "{prefix}bucket", key_path_prefix: "one/%{{yyyy}}/%{{MM}}"}}}}
    - opensearch:
        hosts: ["{url}"]
        index: "{prefix}two"
        document_id: "${{/id}}"
        max_retries: 20
        dlq:
          s3:
            bucket: "s3://{prefix}bucket"
            key_path_prefix: two/
            sts_role_arn: "arn:aws:iam::123456789012:role/dlq-role"
            force_path_style: true
            legacy_md5_checksum: true
"""
KEY = re.compile(r"one/\d{4}/\d\d/dlq-v2-my-pipe-opensearch-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z-[0-9a-f-]{36}\.json")


class Setting:
    """A file of events, the servers, and the command line."""

    def __init__(self, tmp_path: Path, opensearch: Any, store: Any, prefix: str) -> None:
        self.events = tmp_path / "events.ndjson"
        self.opensearch, self.store, self.prefix, self.folder = opensearch, store, prefix, tmp_path
        self.environ = {
            "AWS_ENDPOINT_URL": store.url,
            "AWS_ACCESS_KEY_ID": "123456789012",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    @property
    def bucket(self) -> str:
        return f"{self.prefix}bucket"

    def pipeline(self, retries: int = 3) -> str:
        return PIPELINE.format(
            file=self.events, url=self.opensearch.url, prefix=self.prefix, template=TEMPLATE, retries=retries
        )

    def dlq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "penstock.cli", "dlq", *arguments],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def setting(tmp_path: Path, opensearch: Any, ministack: Any, prefix: str) -> Setting:
    return Setting(tmp_path, opensearch, ministack, prefix)


def test_refused_documents_go_to_the_bucket_and_come_back(
    setting: Setting, start_engine: Callable[..., Engine], ask: Callable[..., tuple[int, Any]], aws_client: Any
) -> None:
    s3 = aws_client("s3", setting.store.url)
    s3.create_bucket(Bucket=setting.bucket)
    events = [{"id": f"{n}", "r": f"r{n % 3}", "n": "odd" if n % 10 == 7 else n} for n in range(100)]
    setting.events.write_text("".join(json.dumps(event) + "\n" for event in events))
    engine = start_engine(setting.pipeline(), environ=setting.environ)

    def objects() -> list[str]:
        return [entry["Key"] for entry in s3.list_objects_v2(Bucket=setting.bucket).get("Contents", ())]

    def letters() -> list[dict[str, Any]]:
        bodies = [s3.get_object(Bucket=setting.bucket, Key=key)["Body"].read() for key in objects()]
        return [letter for body in bodies for letter in json.loads(body)["dlqObjects"]]

    wait_until(lambda: len(letters()) == 20, "the dead letters of both sinks")
    engine.stop()
    first = [key for key in objects() if key.startswith("one/")]
    assert len(first) == 1 and KEY.fullmatch(first[0]), "what one flush refused shares an object"
    by_index: dict[str, list[dict[str, Any]]] = {}
    for letter in letters():
        by_index.setdefault(letter["failedData"]["index"], []).append(letter)
    ones = by_index[f"{setting.prefix}one"]
    assert len(ones) == 10
    letter = next(each for each in ones if each["failedData"]["indexId"] == "7")
    failed = letter["failedData"]
    assert letter["pluginId"] == letter["pluginName"] == "opensearch" and letter["pipelineName"] == "my-pipe"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", letter["timestamp"])
    assert "failed to parse field [n] of type [long]" in failed["message"]
    expected = {"status": 400, "action": "index", "routing": "r1", "document": events[7]}
    assert {key: failed[key] for key in expected} == expected

    place = f"s3://{setting.bucket}/one"
    counted = setting.dlq("count", place)
    assert "10  mapper_parsing_exception on field n (long)" in counted.stdout, counted.stderr
    pipelines = setting.folder / "p.yaml"
    pipelines.write_text(setting.pipeline())
    again = setting.dlq("redrive", str(pipelines), "--from", place, "--sink", "1")
    assert again.returncode == 3 and "10 were refused again" in again.stdout, again
    index = f"/{setting.prefix}one"
    assert ask(setting.opensearch.url, "DELETE", index)[0] == 200
    assert ask(setting.opensearch.url, "DELETE", f"/_template/{setting.prefix}one-index-template")[0] == 200
    pipelines.write_text(setting.pipeline().replace("long", "keyword"))
    sent = setting.dlq("redrive", str(pipelines), "--from", place, "--sink", "1")
    assert sent.returncode == 0 and "10 arrived" in sent.stdout, sent
    ask(setting.opensearch.url, "POST", f"{index}/_refresh")
    assert ask(setting.opensearch.url, "GET", f"{index}/_count")[1]["count"] == 10
    found = ask(setting.opensearch.url, "GET", f"{index}/_doc/7?routing=r1")[1]
    assert found["_source"] == events[7] and found["_routing"] == "r1"
    third = setting.dlq("redrive", str(pipelines), "--from", place, "--sink", "1")
    assert third.returncode == 0 and "10 were sent again before" in third.stdout, third
    assert len(letters_left(setting, f"s3://{setting.bucket}/")) == 10, "those of the other sink still wait"


def letters_left(setting: Setting, place: str) -> list[str]:
    return setting.dlq("list", place).stdout.splitlines()


def test_without_the_bucket_nothing_counts_as_delivered(
    setting: Setting, start_engine: Callable[..., Engine], ask: Callable[..., tuple[int, Any]], aws_client: Any
) -> None:
    setting.events.write_text(json.dumps({"id": "1", "n": "odd"}) + "\n" + json.dumps({"id": "2", "n": 2}) + "\n")
    engine = start_engine(setting.pipeline(retries=1000), environ=setting.environ)
    engine.wait_log(r"Failed to write a document to the DLQ: .*NoSuchBucket", count=2)
    s3 = aws_client("s3", setting.store.url)
    s3.create_bucket(Bucket=setting.bucket)
    wait_until(lambda: s3.list_objects_v2(Bucket=setting.bucket).get("Contents"), "the dead letter")
    assert engine.meter("my_pipe_opensearch_s3_dlqS3RecordsFailed_total") >= 2
    engine.stop()
