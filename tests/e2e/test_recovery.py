"""What an operator fears: the server dies in the middle of the work; a wrong mapping refuses a part of the data.

`PENSTOCK_RECOVERY_DOCUMENTS` sets how many documents are written while the server is killed, 40000 when it is not set.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client import Shippers
from engine import Engine, wait_until

from penstock.testing.services import OpenSearchServer, ServiceUnavailable, free_port

DOCUMENTS = int(os.environ.get("PENSTOCK_RECOVERY_DOCUMENTS", "40000"))
FROM_HTTP = """\
version: "2"
logs:
  source: {{http: {{port: {port}}}}}
  buffer: {{bounded_blocking: {{buffer_size: 2000}}}}
  sink:
    - opensearch:
        hosts: ["{url}"]
        index: {index}
        document_id: "${{/id}}"
        bulk_size: 1
"""
FROM_FILE = """\
version: "2"
logs:
  source:
    file:
      paths: ["{file}"]
      record_type: event
      codec: {{ndjson: {{}}}}
      acknowledgments: true
  buffer: {{bounded_blocking: {{buffer_size: 2000}}}}
  sink:
    - opensearch:
        hosts: ["{url}"]
        index: {index}
        document_id: "${{/id}}"
        bulk_size: 1
        template_content: '{template}'
"""


@pytest.fixture(scope="module")
def own_opensearch() -> Iterator[OpenSearchServer]:
    """A server that may be killed."""
    server = OpenSearchServer()
    try:
        server.resolve()
    except ServiceUnavailable as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    with server:
        yield server


def event(number: int) -> dict[str, Any]:
    return {"id": f"e{number}", "n": number, "message": f'GET /orders/{number} HTTP/1.1 200 "ü" {number * 7919}'}


def everything(ask: Callable[..., tuple[int, Any]], url: str, index: str) -> dict[str, Any]:
    """All documents of an index by id."""
    assert ask(url, "POST", f"/{index}/_refresh")[0] == 200
    found: dict[str, Any] = {}
    page = ask(url, "POST", f"/{index}/_search?scroll=1m", {"size": 10_000, "sort": ["_doc"]})[1]
    while page["hits"]["hits"]:
        for hit in page["hits"]["hits"]:
            assert hit["_id"] not in found
            found[hit["_id"]] = hit["_source"]
        page = ask(url, "POST", "/_search/scroll", {"scroll": "1m", "scroll_id": page["_scroll_id"]})[1]
    return found


def written(engine: Engine) -> float:
    return engine.meter("logs_opensearch_documentsSuccess_total")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", ["http", "file"])
def test_a_killed_server_costs_nothing(
    source: str,
    own_opensearch: OpenSearchServer,
    start_engine: Callable[..., Engine],
    ask: Callable[..., tuple[int, Any]],
    tmp_path: Path,
) -> None:
    events = [event(number) for number in range(DOCUMENTS)]
    index = f"from-{source}"
    shippers = None
    if source == "http":
        port = free_port()
        engine = start_engine(FROM_HTTP.format(port=port, url=own_opensearch.url, index=index)).wait_ready()
        shippers = Shippers(port, events, timeout_s=300).start()
    else:
        file = tmp_path / "events.ndjson"
        file.write_text("".join(json.dumps(each) + "\n" for each in events))
        engine = start_engine(FROM_FILE.format(file=file, url=own_opensearch.url, index=index, template="{}"))
    wait_until(lambda: written(engine) > DOCUMENTS * 0.2, "a part of the documents", timeout_s=300)
    own_opensearch.kill()
    before = written(engine)
    try:
        assert before < DOCUMENTS, "nothing was left to be written when the server was killed"
        wait_until(lambda: engine.status()["logs"]["sinks"][0]["status"] == "DEGRADED", "the sink to notice")
    finally:
        own_opensearch.revive()
    if shippers is not None:
        shippers.join()
    wait_until(lambda: written(engine) >= DOCUMENTS, "all documents", timeout_s=600, step_s=0.2)
    engine.stop()
    assert "answers again" in engine.log
    found = everything(ask, own_opensearch.url, index)
    expected = {each["id"]: each for each in events}
    assert found.keys() == expected.keys()
    assert found == expected
    assert engine.dead_letters("logs") == []


def dlq(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "penstock.cli", "dlq", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)


def test_poisoned_documents_wait_until_the_mapping_is_mended(
    opensearch: Any,
    start_engine: Callable[..., Engine],
    ask: Callable[..., tuple[int, Any]],
    tmp_path: Path,
    prefix: str,
) -> None:
    url, index, mended = opensearch.url, f"{prefix}orders", f"{prefix}orders-mended"
    events = [event(number) for number in range(4000)]
    poisoned = {each["id"]: each for each in events if each["n"] % 20 == 7}
    for each in poisoned.values():
        each["n"] = f"no number {each['n']}"
    file = tmp_path / "events.ndjson"
    file.write_text("".join(json.dumps(each) + "\n" for each in events))
    template = json.dumps({"version": 1, "mappings": {"properties": {"n": {"type": "long"}}}})
    pipeline = FROM_FILE.format(file=file, url=url, index=index, template=template)
    engine = start_engine(pipeline)
    wait_until(lambda: written(engine) >= len(events) - len(poisoned), "the good documents")
    wait_until(lambda: len(engine.dead_letters("logs")) >= len(poisoned), "the dead letters")
    engine.stop()
    expected = {each["id"]: each for each in events}
    good = {id_: each for id_, each in expected.items() if id_ not in poisoned}
    assert everything(ask, url, index) == good
    letters = [letter["failedData"] for letter in engine.dead_letters("logs")]
    assert {letter["indexId"]: letter["document"] for letter in letters} == poisoned and len(letters) == len(poisoned)
    for letter in letters:
        assert (letter["status"], letter["index"], letter["action"]) == (400, index, "index")
        value = re.escape(str(letter["document"]["n"]))
        assert "failed to parse field [n] of type [long]" in letter["message"]
        assert f"document with id '{letter['indexId']}'" in letter["message"]
        assert re.search(f'For input string: "{value}"', letter["message"]), "the reason is of this document"

    # As an operator mends it: a new index with the right mapping, the old documents copied, an alias in its place.
    mapping = {"mappings": {"properties": {"n": {"type": "keyword"}}}}
    assert ask(url, "PUT", f"/{mended}", mapping)[0] == 200
    copy = {"source": {"index": index}, "dest": {"index": mended}}
    assert ask(url, "POST", "/_reindex?refresh=true", copy)[1]["created"] == len(good)
    swap = {"actions": [{"remove_index": {"index": index}}, {"add": {"index": mended, "alias": index}}]}
    assert ask(url, "POST", "/_aliases", swap)[0] == 200
    definition = tmp_path / "pipeline.yaml"
    definition.write_text(pipeline)
    place = str(engine.data_dir / "dead-letters")
    dry = dlq("redrive", str(definition), "--from", place, "--dry-run")
    assert dry.returncode == 0 and f"{len(poisoned)} would go through the sink" in dry.stdout, dry
    sent = dlq("redrive", str(definition), "--from", place, "--json")
    assert sent.returncode == 0, sent
    assert json.loads(sent.stdout)["arrived"] == len(poisoned)
    assert everything(ask, url, index) == expected
    assert dlq("list", place).stdout == ""
    assert [letter["failedData"] for letter in engine.dead_letters("logs")] == letters, "what was kept stays as it was"
