"""The parts of the demonstration that need no server. `tests/e2e/test_demo.py` runs it whole."""

import asyncio
import io
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from penstock.cli.demo_play import blueprint
from penstock.cli.demo_traffic import ITEMS_MAX, Traffic, TrafficError, differences, percentile, plain
from penstock.cli.demo_view import Snapshot, View


def test_the_blueprint_is_the_one_of_the_service_without_export():
    role = "arn:aws:iam::123456789012:role/Example-Role"
    aws = {"sts_role_arn": role, "region": "us-east-1"}
    table = "arn:aws:dynamodb:us-east-1:123456789012:table/penstock-demo"
    host = "https://search-mydomain-1a2a3a4a5a6a7a8a9a0a9a8a7a.us-east-1.es.amazonaws.com"
    assert yaml.safe_load(blueprint()) == {
        "version": "2",
        "dynamodb-pipeline": {
            "source": {
                "dynamodb": {
                    "acknowledgments": True,
                    "tables": [{"table_arn": table, "stream": {"start_position": "LATEST"}}],
                    "aws": aws,
                }
            },
            "sink": [
                {
                    "opensearch": {
                        "hosts": [host],
                        "index": "table-index",
                        "index_type": "custom",
                        "document_id": '${getMetadata("primary_key")}',
                        "action": '${getMetadata("opensearch_action")}',
                        "document_version": '${getMetadata("document_version")}',
                        "document_version_type": "external",
                        "aws": aws,
                    }
                }
            ],
        },
    }


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ({"N": "1.50"}, Decimal("1.5")),
        ({"S": "1"}, "1"),
        ({"BOOL": False}, False),
        ({"NULL": True}, None),
        ({"NS": ["10", "9"]}, [9, 10]),
        ({"SS": ["b", "a"]}, ["a", "b"]),
        ({"M": {"a": {"L": [{"N": "1"}, {"NULL": True}]}}}, {"a": [1, None]}),
    ],
)
def test_attributes_become_plain_values(attribute, value):
    assert plain(attribute) == value


def test_differences_name_each_document():
    table = {"1": {"a": 1}, "2": {"a": 1}, "3": {"tags": ["x", "y"], "n": Decimal("1.5")}}
    index = {"2": {"a": "1"}, "3": {"tags": ["y", "x"], "n": Decimal("1.50")}, "4": {}}
    assert differences(table, index) == [
        "document 1 is missing",
        "document 4 has no item",
        "document 2 is {'a': '1'}, its item {'a': 1}",
    ]
    assert differences(table, table) == []


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_covers_enough(values, percent):
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


class FakeTable:
    def __init__(self):
        self.items = {}

    async def put(self, item):
        self.items[item["id"]["N"]] = item

    async def delete(self, number):
        del self.items[number]


class FakeIndex:
    """Shows what was copied from the table."""

    def __init__(self):
        self.revisions = {}
        self.broken = False

    def copy(self, table):
        self.revisions = {number: int(item["revision"]["N"]) for number, item in table.items.items()}

    async def look(self, ids):
        if self.broken:
            raise TrafficError("gone")
        return {number: self.revisions.get(number) for number in ids}


async def settle(traffic):
    watching = asyncio.create_task(traffic.watch())
    await asyncio.wait([watching, settling := asyncio.create_task(traffic.settle())], return_when="FIRST_COMPLETED")
    watching.cancel()
    settling.cancel()
    done, _ = await asyncio.wait([watching])
    for task in done:
        if not task.cancelled():
            task.result()


def test_writes_count_as_arrived_only_when_the_index_shows_them():
    async def scenario():
        table, index = FakeTable(), FakeIndex()
        traffic = Traffic(table, index)
        for _ in range(3):
            await traffic.put()
        await traffic._look()
        assert (traffic.arrived, len(traffic.pending)) == (0, 3)
        index.copy(table)
        await settle(traffic)
        assert (traffic.arrived, len(traffic.latencies_s)) == (3, 3)

        await traffic.change()
        await traffic.delete()
        await traffic._look()
        assert len(traffic.pending) == 2, "the old document shows neither the change nor the delete"
        index.copy(table)
        await settle(traffic)
        assert traffic.arrived == 5
        assert (traffic.puts, traffic.changes, traffic.deletes) == (3, 1, 1)
        assert len(table.items) == 2

    asyncio.run(scenario())


def test_an_index_that_fails_ends_the_watch():
    async def scenario():
        traffic = Traffic(FakeTable(), index := FakeIndex())
        index.broken = True
        await traffic.put()
        with pytest.raises(TrafficError, match="gone"):
            await settle(traffic)

    asyncio.run(scenario())


def test_random_traffic_keeps_the_table_bounded():
    async def scenario():
        table, index = FakeTable(), FakeIndex()
        traffic = Traffic(table, index)
        for _ in range(4000):
            await traffic.any()
            index.copy(table)
            await traffic._look()
        assert len(table.items) <= ITEMS_MAX
        assert traffic.written == traffic.arrived == 4000
        assert min(traffic.puts, traffic.changes, traffic.deletes) > 0

    asyncio.run(scenario())


def test_a_pipe_gets_lines_and_a_terminal_a_table():
    snapshot = Snapshot(
        elapsed_s=3,
        puts=10,
        changes=2,
        deletes=1,
        pending=4,
        documents=9,
        arrived_per_s=20,
        p50_s=0.187,
        p99_s=None,
    )
    for terminal in (False, True):
        out = io.StringIO()
        with View(Console(file=out, force_terminal=terminal, width=120)) as view:
            view.start([("documents", "curl 'http://127.0.0.1:1/table-index/_search?pretty'")])
            view.show(snapshot)
        text = out.getvalue()
        assert "10 puts" in text
        assert "p50 187 ms" in text
        assert "curl 'http://127.0.0.1:1/table-index/_search?pretty'" in text
        assert ("\x1b[" in text) is terminal
