"""An index made anew while its pipeline runs: nothing is missing, nothing is older than it should be."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.config.documents import read_pipelines
from penstock.core.clock import Clock
from penstock.core.errors import Permanent
from penstock.lib import aws
from penstock.lib.lease import Lease, SqliteStore, Status
from penstock.plan import Plan, make_plan
from penstock.plugins.sources.dynamodb import source as dynamodb_source
from penstock.plugins.sources.dynamodb.reader import Pace
from penstock.runtime.engine import Engine, Settings
from penstock.runtime.resync import NotSwitched, Progress, Refused, Request, Resync, behind, copy_of
from penstock.testing.dynamodb import FakeDynamodb
from penstock.testing.opensearch import FakeOpenSearch

SINK = """
    - opensearch:
        hosts: ["{url}"]
        index: "orders"
        document_id: '${{getMetadata("primary_key")}}'
        action: '${{getMetadata("opensearch_action")}}'
        document_version: '${{getMetadata("document_version")}}'
        document_version_type: external
"""
PIPELINE = (
    """
version: "2"
shop:
  delay: 10
  source:
    dynamodb:
      tables:
        - table_arn: "arn:aws:dynamodb:us-east-1:123456789012:table/orders"
          export: {{s3_bucket: exports}}
          stream: {{start_position: LATEST}}
      aws: {{region: us-east-1}}
  sink:"""
    + SINK
)
FAST = Pace(
    stop=1.0, idle=0.02, closed_idle=0.01, quiet=0.2, save=0.05, discover_min=0.02, acquire=0.02, acquire_max=0.1,
    export_poll=0.1, reread=0.05, back_off=0.02,
)  # fmt: skip


class World:
    """A table, an index, and a pipeline between them."""

    def __init__(self, folder: Path, search: FakeOpenSearch) -> None:
        self.db = FakeDynamodb(Clock())
        self.db.exports.takes_s = 0
        self.search = search
        self.folder = folder
        self.yaml = PIPELINE.format(url=search.url)

    def plan(self) -> Plan:
        file = self.folder / "pipelines.yaml"
        file.write_text(self.yaml)
        plan = make_plan(read_pipelines(file))
        assert not plan.problems, plan.problems
        return plan

    def resync(self, **request: Any) -> Resync:
        leases = self.folder / "data" / "leases.db"
        running = SqliteStore(leases) if leases.exists() else None
        return Resync(self.plan(), Request(**request), self.folder / "data", look_s=0.05, lag_ms=1000, running=running)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """The pipeline at work."""
        engine = Engine(self.plan(), Settings(data_dir=self.folder / "data"))
        task = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            engine.stop()
            assert await task == 0

    def items(self) -> dict[str, Any]:
        return {item["id"]["N"]: item["text"]["S"] for item in self.db.items.values()}

    def documents(self, name: str = "orders") -> dict[str, Any]:
        return {id_: source["text"] for id_, source in self.search.documents(name).items()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a test with a world, whose table stands where AWS is."""

    def run(test: Callable[[World], Any]) -> None:
        async def inside() -> None:
            async with FakeOpenSearch() as search, asyncio.timeout(60):
                found = World(tmp_path, search)
                monkeypatch.setattr(aws, "sessions", lambda: found.db)
                monkeypatch.setattr(dynamodb_source, "Pace", lambda: FAST)
                await test(found)

        asyncio.run(inside())

    return run


def in_world(test: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(world: Callable[..., Any]) -> None:
        world(test)

    del run.__wrapped__  # pytest is to see this signature
    return run


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


@in_world
async def test_a_drifted_index_is_made_anew_while_changes_go_on(world: World) -> None:
    db, search = world.db, world.search
    for number in range(200):
        db.put(id=number, text=f"old {number}")
    async with world.running():
        await until(lambda: world.documents() == world.items())
        drifted = search.indexes["orders"].documents
        drifted["5"].source["text"] = "wrong"
        drifted["ghost"] = drifted.pop("7")
        seen: list[Progress] = []
        busy = True

        async def change() -> None:
            number = 0
            while busy:
                db.put(id=number % 220, text=f"new {number}")
                if number % 7 == 0:
                    db.delete(id=(number * 3) % 220)
                number += 1
                await asyncio.sleep(0.002)

        changing = asyncio.create_task(change())
        work = world.resync(replace_index=True)
        done = await work.run(seen.append)
        await asyncio.sleep(0.3)
        busy = False
        await changing
        await until(lambda: world.documents() == world.items())
    (entry,) = done["indexes"]
    assert search.aliases == {"orders": entry["index"]}
    assert "orders" not in search.indexes
    assert (entry["replaced"], done["deadLetters"], done["lost"]) == (["orders"], 0, [])
    assert [name for name in search.templates if entry["index"] in name] == []
    assert not work.home.exists()
    assert {found.phase for found in seen} >= {"switched"}
    changed = [request for request in search.requests if request.path == "/_aliases"]
    assert len(changed) == 1


@in_world
async def test_an_alias_moves_and_the_old_index_stays(world: World) -> None:
    world.search.answer("PUT", "/orders-1", {}, b'{"aliases": {"orders": {}}}')
    world.db.put(id=1, text="a")
    async with world.running():
        await until(lambda: world.documents() == {"1": "a"})
        done = await world.resync().run()
        world.db.put(id=2, text="b")
        await until(lambda: world.documents() == {"1": "a", "2": "b"})
    assert world.documents("orders-1") == {"1": "a"}
    assert done["indexes"][0]["replaced"] == ["orders-1"]
    assert done["indexes"][0]["documentsBefore"] == 1


@in_world
async def test_an_index_is_only_replaced_when_told_to(world: World) -> None:
    world.search.answer("PUT", "/orders", {}, b"{}")
    with pytest.raises(Refused, match=r"is an index, not an alias\. With --replace"):
        await world.resync().run()
    assert list(world.search.indexes) == ["orders"]
    work = world.resync(replace_index=True)
    (actions,) = (await work.survey()).values()
    new = work.state.indexes["orders"]
    assert actions == [{"remove_index": {"index": "orders"}}, {"add": {"index": new, "alias": "orders"}}]
    assert not work.home.exists()  # a survey leaves nothing behind


@in_world
async def test_what_was_interrupted_goes_on_with_the_same_export_and_index(world: World) -> None:
    world.db.put(id=1, text="a")
    world.db.exports.takes_s = 0.5
    first = world.resync()
    running = asyncio.create_task(first.run())
    await until(lambda: world.db.calls["export_table_to_point_in_time"] == 1)
    first.stop()
    with pytest.raises(InterruptedError):
        await running
    await asyncio.sleep(1.1)  # another second, another name
    second = world.resync()
    assert second.resumes
    assert second.state.indexes == first.state.indexes
    await second.run()
    assert world.db.calls["export_table_to_point_in_time"] == 1
    assert world.documents() == {"1": "a"}


@in_world
async def test_after_a_crash_between_switch_and_note_the_switch_is_not_made_again(world: World) -> None:
    world.db.put(id=1, text="a")
    work = world.resync()
    save = work._save

    def die() -> None:
        if work.state.switched_ms is not None:
            raise KeyError("killed")
        save()

    work._save = die  # type: ignore[method-assign]
    with pytest.raises(KeyError, match="killed"):
        await work.run()
    assert "orders" in world.search.aliases
    await world.resync().run()
    assert len([request for request in world.search.requests if request.path == "/_aliases"]) == 1


def test_shards_in_which_the_pipeline_is_further() -> None:
    def lease(shard: str, position: str | None, status: Status = Status.ASSIGNED, second: int = 100) -> Lease:
        progress = {"sequenceNumber": position, "second": second, "startTime": 50_000}
        return Lease("shop|STREAM", shard, status, progress=progress)

    own = [lease("a", "99"), lease("b", None), lease("c", "5", Status.COMPLETED), lease("d", None), lease("e", "100")]
    theirs = [lease("a", "100"), lease("b", "1"), lease("c", "9"), lease("d", "7", second=49), lease("e", "100")]
    theirs += [lease("f", "3"), lease("b", None)]
    assert behind(own, theirs) == ["a", "b"]


@in_world
async def test_two_runs_at_once_do_not_mix(world: World) -> None:
    world.db.put(id=1, text="a")
    world.db.exports.takes_s = 1.0
    first = world.resync()
    running = asyncio.create_task(first.run())
    await until(lambda: world.db.calls["export_table_to_point_in_time"] == 1)
    with pytest.raises(Permanent, match="in use by process"):
        await world.resync().run()
    await running
    assert world.documents() == {"1": "a"}


@in_world
async def test_what_is_begun_anew_may_be_another_index(world: World) -> None:
    world.db.put(id=1, text="a")
    world.db.exports.takes_s = 0.5
    first = world.resync()
    running = asyncio.create_task(first.run())
    await until(lambda: first.state.indexes["orders"] in world.search.indexes)
    first.stop()
    with pytest.raises(InterruptedError):
        await running
    world.yaml = world.yaml.replace('"orders"', '"songs"')
    with pytest.raises(Refused, match="--restart forgets it"):
        world.resync()
    await Resync(world.plan(), Request(), world.folder / "data", forgets=True).forget()
    assert first.state.indexes["orders"] not in world.search.indexes
    await world.resync().run()
    assert world.documents("songs") == {"1": "a"}


@in_world
async def test_refused_documents_keep_the_old_index_in_use(world: World) -> None:
    for number in range(3):
        world.db.put(id=number, text=f"t{number}")
    world.search.fail_items(
        lambda _action, target, _document: target["_id"] == "1", 400, "mapper_parsing_exception", "no", times=100
    )
    work = world.resync()
    with pytest.raises(NotSwitched, match="refused documents 2 times"):
        await work.run()
    assert "orders" not in world.search.aliases
    with pytest.raises(NotSwitched, match="refused documents 2 times"):
        await world.resync().run()  # that of the first run counts
    done = await world.resync(dead_letters_max=2).run()
    assert done["deadLetters"] == 2
    assert set(world.documents()) == {"0", "2"}
    assert list((work.home / "dead-letters").glob("*.jsonl"))


@in_world
async def test_changes_lost_on_the_way_keep_the_old_index_in_use(world: World) -> None:
    world.db.put(id=0, text="x")
    world.db.exports.takes_s = 1.5
    work = world.resync()
    running = asyncio.create_task(work.run())
    await until(lambda: world.db.calls["export_table_to_point_in_time"] == 1)
    world.db.put(id=1, text="a")
    world.db.put(id=2, text="b")
    await asyncio.sleep(0.5)
    world.db.trim(world.db.open_shards()[0], keep=1)
    with pytest.raises(NotSwitched, match=r"lost while the new index was made.*--restart"):
        await running
    again = world.resync()
    await again.forget()
    assert [name for name in world.search.indexes if name.startswith("orders-")] == []
    await world.resync().run()
    assert world.documents() == world.items()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("document_version_type: external", "document_version_type: internal"), "the older change must not win"),
        (("document_id: ", "routing: "), "document_id is missing"),
        (('index: "orders"', 'index: "orders-%{{yyyy}}"'), "depends on the event or the day"),
        (("export: {{s3_bucket: exports}}", ""), "--s3-bucket"),
        (("opensearch:", "opensearch:\n        index_type: trace-analytics-raw"), "of type trace-analytics-raw"),
    ],
)
def test_what_cannot_be_made_anew_is_said_beforehand(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        copy_of(planned(tmp_path, PIPELINE.replace(*change)), Request(), "1")


def planned(folder: Path, yaml: str) -> Plan:
    file = folder / "pipelines.yaml"
    file.write_text(yaml.format(url="http://127.0.0.1:9200"))
    plan = make_plan(read_pipelines(file))
    assert plan.pipelines, plan.problems
    return plan


def test_the_copy_writes_to_new_indexes_and_nowhere_else(tmp_path: Path) -> None:
    yaml = (
        PIPELINE
        + "    - stdout:\n    - pipeline: {{name: behind}}\nbehind:\n  source: {{pipeline: {{name: shop}}}}\n  sink:"
        + SINK.replace('"orders"', '"more"')
    )
    copy = copy_of(planned(tmp_path, yaml), Request(), "7")
    assert {target.name: target.index for target in copy.targets} == {"orders": "orders-7", "more": "more-7"}
    written = {part.name: [sink.plugin.name for sink in part.sinks] for part in copy.plan.pipelines}
    assert written == {"shop": ["opensearch", "pipeline"], "behind": ["opensearch"]}
    assert [sink.plugin.config.index for part in copy.plan.pipelines for sink in part.sinks if not sink.target] == [
        "orders-7",
        "more-7",
    ]
    assert copy.left_out == ("sink 2 stdout of pipeline shop",)
    (one,) = copy_of(planned(tmp_path, yaml), Request(index="orders"), "7").plan.pipelines
    assert (one.name, len(one.sinks)) == ("shop", 1)


def test_an_index_with_documents_from_elsewhere_is_left_alone(tmp_path: Path) -> None:
    other = "other:\n  source: {{random: }}\n  sink:" + SINK
    with pytest.raises(Refused, match="pipeline other writes to orders too"):
        copy_of(planned(tmp_path, PIPELINE + other), Request(), "1")


def test_a_table_of_several_needs_an_index_of_its_own(tmp_path: Path) -> None:
    second = PIPELINE.replace(
        "      aws:",
        '        - {{table_arn: "arn:aws:dynamodb:us-east-1:123456789012:table/two", stream: {{}}}}\n      aws:',
    )
    with pytest.raises(Refused, match="holds the items of the other tables too"):
        copy_of(planned(tmp_path, second), Request(table="orders"), "1")
    named = second.replace('"orders"', "'${{getMetadata(\"table_name\")}}'")
    (target,) = copy_of(planned(tmp_path, named), Request(table="orders"), "1").targets
    assert (target.name, target.index) == ("orders", "orders-1")
    with pytest.raises(Refused, match="choose one of orders, two with --table"):
        copy_of(planned(tmp_path, named), Request(export={"s3_bucket": "b"}), "1")
