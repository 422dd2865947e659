"""From a table with items to an index: export and changes, by `penstock run`, on real servers.

DynamoDB Local has no exports; `ExportServer` answers for it and writes the files that the service writes into a real S3
stand-in.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bench.exports import FILES, survive
from engine import Engine, wait_until

from penstock.plugins.sources.dynamodb.data_file import CHUNK_LINES_MAX
from penstock.plugins.sources.dynamodb.source import FILES_MAX
from penstock.testing.dynamodb_export import ExportApi, ExportServer

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/"
PIPELINE = """
version: "2"
tables:
  source:
    dynamodb:
      acknowledgments: true
      tables:
        - table_arn: "{arn}"
          export: {{s3_bucket: "{bucket}", s3_prefix: "exports/", format: {form}}}
          stream: {{start_position: LATEST}}
      aws: {{region: us-east-1}}
  sink:
    - opensearch:
        hosts: ["{hosts}"]
        index: "{index}"
        index_type: custom
        document_id: "${{getMetadata(\\"primary_key\\")}}"
        action: "${{getMetadata(\\"opensearch_action\\")}}"
        document_version: "${{getMetadata(\\"document_version\\")}}"
        document_version_type: external
"""


class Table:
    """A table of DynamoDB Local with exports, and the index its items go to."""

    def __init__(self, dynamodb: Any, server: ExportServer, name: str, ask: Callable[..., Any], hosts: str) -> None:
        self.dynamodb, self.name, self._ask, self._hosts = dynamodb, name, ask, hosts
        dynamodb.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        self.exports: ExportApi = server.table(ARN + name, self.items)
        self.exports.takes_s = 2

    def items(self) -> list[dict[str, Any]]:
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.name, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def put(self, number: int, text: str) -> None:
        self.dynamodb.put_item(TableName=self.name, Item={"id": {"N": str(number)}, "text": {"S": text}})

    def seed(self, count: int) -> None:
        for start in range(0, count, 25):
            puts = [
                {"PutRequest": {"Item": {"id": {"N": str(number)}, "text": {"S": f"seeded {number}"}}}}
                for number in range(start, min(start + 25, count))
            ]
            self.dynamodb.batch_write_item(RequestItems={self.name: puts})

    def expected(self) -> dict[str, str]:
        return {item["id"]["N"]: item["text"]["S"] for item in self.items()}

    def index(self) -> dict[str, str]:
        if self._ask(self._hosts, "POST", f"/{self.name}/_refresh")[0] != 200:
            return {}
        _, reply = self._ask(self._hosts, "GET", f"/{self.name}/_search?size=10000")
        return {hit["_id"]: hit["_source"]["text"] for hit in reply["hits"]["hits"]}


@pytest.fixture
def exports(dynamodb_local: Any, ministack: Any, aws_client: Callable[..., Any]) -> Iterator[ExportServer]:
    s3 = aws_client("s3", ministack.url)
    with ExportServer(
        dynamodb_local.url, lambda bucket, key, data: s3.put_object(Bucket=bucket, Key=key, Body=data)
    ) as server:
        yield server


LEASE_TABLE = (
    "source_coordination: {{partition_prefix: blue, store: {{dynamodb: {{table_name: {}, region: us-east-1}}}}}}\n"
)


@pytest.mark.parametrize(("form", "lease_table"), [("dynamodb_json", False), ("ion", True)])
def test_S_A37_the_index_equals_the_table_by_export_and_stream(
    form: str,
    lease_table: bool,
    exports: ExportServer,
    dynamodb_local: Any,
    ministack: Any,
    osmem: Any,
    aws_client: Callable[..., Any],
    ask: Callable[..., Any],
    start_engine: Callable[..., Engine],
    prefix: str,
) -> None:
    table = Table(aws_client("dynamodb", dynamodb_local.url), exports, prefix + form.replace("_", ""), ask, osmem.url)
    bucket = prefix + "exports"
    aws_client("s3", ministack.url).create_bucket(Bucket=bucket)
    table.seed(300)
    dynamodb_local.age_stream_events(10)
    pipeline = PIPELINE.format(arn=ARN + table.name, bucket=bucket, form=form, hosts=osmem.url, index=table.name)
    environ = {
        "AWS_ENDPOINT_URL_DYNAMODB": exports.url,
        "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": dynamodb_local.url,
        "AWS_ENDPOINT_URL_S3": ministack.url,
    }
    config = "ssl: false\nserver_port: 0\n" + (LEASE_TABLE.format(prefix + "leases") if lease_table else "")
    engine = start_engine(pipeline, environ=environ, config=config)
    wait_until(lambda: table.exports.exports, "the export to be asked for")
    table.put(3, "changed while it was exported")
    table.put(1000, "added while it was exported")
    table.dynamodb.delete_item(TableName=table.name, Key={"id": {"N": "5"}})
    engine.kill()  # a restart asks for nothing twice
    engine = start_engine(pipeline, environ=environ, config=config).wait_ready()
    engine.wait_log("All Exports are done, streaming can continue")
    table.put(1001, "added afterwards")
    wait_until(lambda: table.index() == table.expected(), "the index to equal the table", step_s=0.3)
    assert len(table.expected()) == 301
    assert len(table.exports.exports) == 1
    assert (engine.data_dir / "leases.db").exists() is not lease_table
    folder = engine.data_dir.parent
    status = subprocess.run(
        [
            *(sys.executable, "-m", "penstock.cli", "dynamodb", "status", "--json"),
            *("--data-dir", str(engine.data_dir), "--config", str(folder / "data-prepper-config.yaml")),
            str(folder / "pipelines.yaml"),
        ],
        env={**os.environ, **environ, "AWS_ACCESS_KEY_ID": "123456789012", "AWS_SECRET_ACCESS_KEY": "secret"},
        capture_output=True,
        text=True,
        check=True,
    )
    (told,) = json.loads(status.stdout)
    assert (told["export"]["state"], told["export"]["items"], told["export"]["files"]) == ("LOADED", 300, 3)
    assert told["stream"]["shardsOpen"] >= 1
    engine.stop()
    assert engine.dead_letters("tables") == []


def test_killed_on_the_way_it_loads_what_is_left() -> None:
    items = 3 * FILES * CHUNK_LINES_MAX
    found = survive(items)
    assert found["killed_at"] < items
    assert found["sent_twice"] <= FILES_MAX * CHUNK_LINES_MAX, "a chunk of each file that was open"
    assert (found["missing"], found["left over"], found["stale"]) == (0, 0, 0)


def test_resync_makes_a_drifted_index_anew_while_the_pipeline_runs(
    exports: ExportServer,
    dynamodb_local: Any,
    ministack: Any,
    opensearch: Any,
    aws_client: Callable[..., Any],
    ask: Callable[..., Any],
    start_engine: Callable[..., Engine],
    prefix: str,
) -> None:
    url = opensearch.url
    table = Table(aws_client("dynamodb", dynamodb_local.url), exports, prefix + "drifted", ask, url)
    bucket = prefix + "exports"
    aws_client("s3", ministack.url).create_bucket(Bucket=bucket)
    table.seed(200)
    pipeline = PIPELINE.format(arn=ARN + table.name, bucket=bucket, form="dynamodb_json", hosts=url, index=table.name)
    environ = {
        "AWS_ENDPOINT_URL_DYNAMODB": exports.url,
        "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": dynamodb_local.url,
        "AWS_ENDPOINT_URL_S3": ministack.url,
    }
    engine = start_engine(pipeline, environ=environ).wait_ready()
    wait_until(lambda: table.index() == table.expected(), "the first load", step_s=0.3)
    assert ask(url, "PUT", f"/{table.name}/_doc/ghost", {"text": "in no table"})[0] == 201
    assert ask(url, "DELETE", f"/{table.name}/_doc/7")[0] == 200
    assert (
        ask(url, "POST", "/_aliases", {"actions": [{"add": {"index": table.name, "alias": table.name + "-r"}}]})[0]
        == 200
    )
    done = threading.Event()

    def change() -> None:
        number = 0
        while not done.wait(0.05):
            table.put(number % 250, f"changed {number}")
            if number % 9 == 0:
                table.dynamodb.delete_item(TableName=table.name, Key={"id": {"N": str(number * 3 % 250)}})
            number += 1

    changing = threading.Thread(target=change)
    changing.start()
    command = [sys.executable, "-m", "penstock.cli", "dynamodb", "resync", "--json", "--log-level", "info"]
    command += ["--data-dir", str(engine.data_dir), str(engine.data_dir.parent / "pipelines.yaml")]
    keys = {"AWS_ACCESS_KEY_ID": "123456789012", "AWS_SECRET_ACCESS_KEY": "secret"}
    try:
        run = functools.partial(
            subprocess.run, env={**os.environ, **environ, **keys}, capture_output=True, text=True, timeout=150
        )
        refused = run(command)
        assert refused.returncode == 1
        assert "With --replace" in refused.stdout
        resync = run([*command, "--replace"])
    finally:
        done.set()
        changing.join()
    assert resync.returncode == 0, resync.stdout + resync.stderr
    (entry,) = json.loads(resync.stdout)["indexes"]
    status, aliases = ask(url, "GET", f"/{entry['index']}/_alias")
    assert status == 200
    assert set(aliases[entry["index"]]["aliases"]) == {table.name, table.name + "-r"}
    wait_until(lambda: table.index() == table.expected(), "the index to equal the table", step_s=0.3)
    assert "ghost" not in table.index()
    engine.stop()
    assert engine.dead_letters("tables") == []
