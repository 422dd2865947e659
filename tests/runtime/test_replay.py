"""Dead letters sent again: as they were to the sink, through the pipeline, once only, and what is refused again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.config.documents import parse_pipelines
from penstock.core.batch import Batch, Meta
from penstock.core.handle import Handle
from penstock.lib.dead_letters import Filter, open_store
from penstock.plan import Plan, make_plan
from penstock.plugins.sinks.opensearch.sink import OpenSearchSink
from penstock.runtime.deliver import BulkDelivery, Surroundings
from penstock.runtime.engine import Settings
from penstock.runtime.replay import Outcome, Replay, Survey, Ways, survey
from penstock.sdk import Context, read_metadata
from penstock.testing.fakes import MemoryDeadLetters
from penstock.testing.opensearch import FakeOpenSearch
from penstock.testing.plugins import checked

PIPELINES = """
main:
  source: {{http: }}
  processor:
    - add_entries: {{entries: [{{key: seen, value: true}}]}}
  sink:
    - opensearch: {{hosts: ["{url}"], index: logs, document_id: "${{/id}}", routing: "${{/r}}"}}
    - pipeline: {{name: second}}
second:
  source: {{pipeline: {{name: main}}}}
  sink: [{{opensearch: {{hosts: ["{url}"], index: second}}}}, {{opensearch: {{hosts: ["{url}"], index: third}}}}]
changes:
  source: {{http: }}
  processor: [{{add_entries: {{entries: [{{key: late, value: true, add_when: 'hasTags("old")'}}]}}}}]
  sink: [{{opensearch: {{hosts: ["{url}"], {changes}}}}}]
"""
CHANGES = """
index: 'table-${getMetadata("table")}'
document_id: '${getMetadata("key")}'
action: '${getMetadata("action")}'
document_version: '${getMetadata("version")}'
document_version_type: external
"""
KNOWN_ACTIONS = "[create, upsert, update, delete, index]"


def letter(n: int, *, pipeline: str = "main", plugin: str = "opensearch", **failed: Any) -> dict[str, Any]:
    data = {
        "index": "logs",
        "indexId": f"id-{n}",
        "status": 400,
        "message": "bad",
        "document": {"id": f"id-{n}", "n": n},
    }
    return {
        "pluginId": plugin,
        "pluginName": plugin,
        "pipelineName": pipeline,
        "failedData": {**data, **failed},
        "timestamp": "2024-05-01T12:00:00.000Z",
    }


def keep(path: Path, *letters: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in letters)


def plan_of(url: str) -> Plan:
    plan = make_plan(
        parse_pipelines([("p.yaml", PIPELINES.format(url=url, changes=", ".join(CHANGES.split("\n")[1:-1])).encode())])
    )
    assert not plan.problems, plan.problems
    return plan


async def replay(
    server: FakeOpenSearch, place: Path, wanted: Filter | None = None, **options: Any
) -> tuple[Survey, Outcome | None]:
    wanted, plan = wanted or Filter(), plan_of(server.url)
    ways = Ways(plan, **{"through": "sink", **options})
    async with open_store(str(place)) as store:
        found = await survey(store, wanted, ways)
        if not found.total:
            return found, None
        settings = Settings(environ={}, seed=1)
        return found, await Replay(plan, store, wanted, ways, list(found.ways), settings=settings).run()


def with_server(test: Any) -> None:
    async def run() -> None:
        async with FakeOpenSearch() as server:
            await test(server)

    asyncio.run(run())


def test_the_sink_gets_what_it_had_refused_once(tmp_path: Path) -> None:
    file = tmp_path / "main.jsonl"
    keep(
        file,
        letter(0),
        letter(1, routing="r", action="create"),
        letter(2, version=7, versionType="external"),
        letter(3, action="delete", document={}),
        letter(4, index="elsewhere"),
        *(letter(n) for n in range(5, 500)),
    )

    async def test(server: FakeOpenSearch) -> None:
        found, outcome = await replay(server, file)
        assert found.total == 500 and outcome is not None
        assert (outcome.replayed, outcome.refused, outcome.exit_code) == (500, Counter(), 0)
        assert len(server.documents("logs")) == 498
        assert server.routing("logs", "id-1") == "r"
        assert server.version("logs", "id-2") == 7
        assert server.documents("elsewhere") == {"id-4": {"id": "id-4", "n": 4}}
        assert "seen" not in server.documents("logs")["id-0"], "processors were passed by"
        assert not server.documents("second")
        requests = len(server.requests)
        found, outcome = await replay(server, file)
        assert (found.total, found.done_before, outcome) == (0, 500, None)
        keep(file, letter(1000))
        found, outcome = await replay(server, file)
        assert found.total == 1 and "id-1000" in server.documents("logs")
        assert len(server.requests) - requests < 20

    with_server(test)


def test_what_is_refused_again_stays_and_makes_no_second_letter(tmp_path: Path) -> None:
    file = tmp_path / "main.jsonl"
    keep(file, *(letter(n) for n in range(10)))
    before = file.read_bytes()

    async def test(server: FakeOpenSearch) -> None:
        odd = lambda action, target, document: document["n"] % 2  # noqa: E731
        server.fail_items(odd, 400, "mapper_parsing_exception", "failed to parse field [n] of type [long]", times=5)
        _, outcome = await replay(server, file)
        assert outcome is not None and outcome.replayed == 5
        assert outcome.refused == {"mapper_parsing_exception on field n (long)": 5}
        assert file.read_bytes() == before
        found, outcome = await replay(server, file)
        assert found.total == 5 and outcome is not None and outcome.replayed == 5
        assert len(server.documents("logs")) == 10

    with_server(test)


def test_a_server_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "main.jsonl"
    keep(file, *(letter(n) for n in range(10)))

    async def test(server: FakeOpenSearch) -> None:
        server.fail("/_bulk", 429, times=2)
        _, outcome = await replay(server, file)
        assert outcome is not None and outcome.replayed == 10 and not outcome.refused

    with_server(test)


def test_through_the_pipeline_processors_and_pipelines_behind_it_see_the_events(tmp_path: Path) -> None:
    file = tmp_path / "main.jsonl"
    keep(file, *(letter(n, plugin="PipelineRunner") for n in range(5)))

    async def test(server: FakeOpenSearch) -> None:
        found, _ = await replay(server, file)
        assert found.skipped == {"pipeline main has no sink PipelineRunner: send the event through the pipeline": 5}
        _, outcome = await replay(server, file, through="pipeline")
        assert outcome is not None and outcome.replayed == 5
        assert server.documents("logs")["id-3"] == {"id": "id-3", "n": 3, "seen": True}
        assert len(server.documents("second")) == len(server.documents("third")) == 5

    with_server(test)


def test_events_come_back_with_their_metadata(tmp_path: Path) -> None:
    file = tmp_path / "changes.jsonl"
    times = {"received_ms": 1_700_000_000_000, "origination_ms": 1_600_000_000_001}

    def change(n: int, action: str, table: str, tags: tuple[str, ...] = ()) -> tuple[dict[str, Any], Meta]:
        told = {"key": f"k{n}", "action": action, "version": n, "table": table, "primary": {"n": [n]}}
        return {"n": n}, Meta("DOCUMENT", attributes=told, tags=tags, **times)

    events = [change(1, "index", "a"), change(2, "delete", "a"), change(3, "index", "b", ("old",)), change(4, "?", "a")]

    async def test(server: FakeOpenSearch) -> None:
        server.fail_items(lambda action, target, document: True, 400, reason="no", times=3)
        _, config = checked("sink", "opensearch", {"hosts": [server.url], **yaml.safe_load(CHANGES)})
        ctx = Context("changes", "opensearch", kind="sink")
        sink = OpenSearchSink(config, ctx)
        await sink.start()
        letters = MemoryDeadLetters()
        delivery = BulkDelivery(sink, Surroundings(ctx, letters))
        batch = Batch([body for body, _ in events], [meta for _, meta in events])
        handle = Handle()
        batch.promise(handle)
        handle.seal()
        delivery.submit(batch, lambda: None)
        await delivery.drain()
        await delivery.close()
        await sink.stop()
        keep(file, *(each.to_object() for each in letters.letters))
        by_key = {each.failed_data["eventMetadata"]["attributes"]["key"]: each for each in letters.letters}
        told = by_key["k3"].failed_data["eventMetadata"]
        assert told == {
            "eventType": "DOCUMENT",
            "attributes": events[2][1].attributes,
            "tags": ["old"],
            "timeReceived": "2023-11-14T22:13:20Z",
            "externalOriginationTime": "2020-09-13T12:26:40.001Z",
        }
        found = read_metadata(by_key["k3"].failed_data)
        assert found is not None and repr(found) == repr(events[2][1])
        assert (found.received_ms, found.origination_ms) == (times["received_ms"], times["origination_ms"])
        _, outcome = await replay(server, file, through="pipeline")
        assert outcome is not None and outcome.replayed == 3
        assert outcome.refused == {'action "…" is invalid. action must be one of the following: ' + KNOWN_ACTIONS: 1}
        assert server.documents("table-a") == {"k1": {"n": 1}}
        assert server.documents("table-b") == {"k3": {"n": 3, "late": True}}
        assert server.version("table-a", "k1") == 1
        assert server.indexes["table-a"].deleted == {"k2": 2}

    with_server(test)


def test_what_never_was_an_operation_becomes_one_with_its_metadata(tmp_path: Path) -> None:
    """The version was no number then; the options, or the record, were mended since."""
    file = tmp_path / "changes.jsonl"
    metadata = {"eventType": "DOCUMENT", "attributes": {"key": "k", "action": "index", "version": 9, "table": "a"}}
    keep(
        file,
        letter(1, pipeline="changes", index='table-${getMetadata("table")}', indexId=None, eventMetadata=metadata),
        letter(2, pipeline="changes", index=None, indexId=None, eventMetadata="broken"),
    )

    async def test(server: FakeOpenSearch) -> None:
        _, outcome = await replay(server, file)
        assert outcome is not None and outcome.replayed == 1 and outcome.refused.total() == 1
        assert server.version("table-a", "k") == 9

    with_server(test)


def test_filters_and_other_ways(tmp_path: Path) -> None:
    file = tmp_path / "main.jsonl"
    keep(
        file,
        letter(0, pipeline="second", index="third"),
        letter(1, pipeline="gone"),
        letter(2, document=None),
        letter(3, status=404),
    )

    async def test(server: FakeOpenSearch) -> None:
        found, _ = await replay(server, file, Filter(statuses=[404]))
        assert found.total == 1 and list(server.documents("logs")) == ["id-3"]
        found, _ = await replay(server, file)
        assert found.skipped == {
            "pipeline second has several sinks opensearch: choose one by its number": 1,
            "there is no pipeline gone": 1,
            "the dead letter holds no document": 1,
        }
        _, outcome = await replay(server, file, Filter(pipelines=["second"]), sink=2)
        assert outcome is not None and outcome.replayed == 1 and list(server.documents("third")) == ["id-0"]
        _, outcome = await replay(server, file, Filter(pipelines=["gone"]), into="main")
        assert outcome is not None and outcome.replayed == 1 and "id-1" in server.documents("logs")

    with_server(test)


@pytest.mark.parametrize("through", ["sink", "pipeline"])
def test_when_it_is_stopped_nothing_is_noted_that_did_not_arrive(tmp_path: Path, through: str) -> None:
    file = tmp_path / "main.jsonl"
    keep(file, *(letter(n) for n in range(3000)))

    async def test(server: FakeOpenSearch) -> None:
        plan = plan_of(server.url)
        ways = Ways(plan, through=through)
        async with open_store(str(file)) as store:
            found = await survey(store, Filter(), ways)
            server.fail("/_bulk", 503, times=1000)
            settings = Settings(environ={}, drain_timeout_s=0.2)
            run = Replay(plan, store, Filter(), ways, list(found.ways), settings=settings)
            running = asyncio.create_task(run.run())
            await asyncio.sleep(0.3)
            run.stop()
            outcome = await running
            assert outcome.replayed == 0 and not (tmp_path / "main.jsonl.redriven").exists()
        server._faults.clear()
        _, second = await replay(server, file, through=through)
        assert second is not None and second.replayed == 3000
        assert len(server.documents("logs")) == 3000

    with_server(test)
