"""Leases in a table of DynamoDB Local: the promises of those in memory and in a file, and the known item layout."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.core.clock import ManualClock
from penstock.core.errors import Transient
from penstock.lib.lease import new_owner
from penstock.lib.lease.dynamodb import DynamodbLeases, DynamodbStore

_SPEC = importlib.util.spec_from_file_location("contract", Path(__file__).parents[1] / "lib" / "test_lease.py")
assert _SPEC is not None and _SPEC.loader is not None
contract = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(contract)
PROMISES = [
    test
    for name, test in vars(contract).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["make", "clock"]
]


@pytest.fixture(autouse=True)
def local(dynamodb_local: Any, aws_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "123456789012")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local.url)
    return aws_client("dynamodb", dynamodb_local.url)


def test_there_are_promises_to_keep() -> None:
    assert len(PROMISES) >= 7


@pytest.mark.parametrize("promise", PROMISES, ids=lambda test: test.__name__.removeprefix("test_"))
def test_leases_in_a_table_keep(promise: Callable[..., None], prefix: str) -> None:
    def make(clock: ManualClock) -> DynamodbStore:
        return DynamodbStore(DynamodbLeases(f"{prefix}leases", "us-east-1"), clock)

    promise(make=make, clock=ManualClock())


def test_table_and_items_have_the_known_layout(local: Any, prefix: str) -> None:
    name = f"{prefix}layout"

    async def scenario() -> None:
        first, second = (DynamodbStore(DynamodbLeases(name, "us-east-1", ttl_s=3600)) for _ in range(2))
        made = await asyncio.gather(first.create("pipe|STREAM", "a", {"n": 1}), second.create("pipe|STREAM", "a"))
        assert sorted(made) == [False, True]
        held = await first.acquire("pipe|STREAM", new_owner(), 60)
        assert held is not None
        await first.complete(held, {"n": 2})
        await first.put_state("pipe|GLOBAL", "b", {"x": [1]})
        assert await second.find("pipe|GLOBAL") == []
        await first.shut()
        await second.shut()

    asyncio.run(scenario())
    table = local.describe_table(TableName=name)["Table"]
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["sourceIdentifier", "sourcePartitionKey"]
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "source-status"
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["sourceStatusCombinationKey", "partitionPriority"]
    assert table["ProvisionedThroughput"]["ReadCapacityUnits"] == 10
    ttl = local.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert ttl["AttributeName"] == "expirationTime"
    key = {"sourceIdentifier": {"S": "pipe|STREAM"}, "sourcePartitionKey": {"S": "a"}}
    item = local.get_item(TableName=name, Key=key)["Item"]
    assert item["sourcePartitionStatus"] == {"S": "COMPLETED"}
    assert item["sourceStatusCombinationKey"] == {"S": "pipe|STREAM|COMPLETED"}
    assert json.loads(item["partitionProgressState"]["S"]) == {"n": 2}
    assert item["version"] == {"N": "2"}
    assert int(item["expirationTime"]["N"]) > 0
    assert "partitionOwner" not in item


def test_a_table_that_is_not_to_be_made_is_waited_for(prefix: str) -> None:
    async def scenario() -> None:
        store = DynamodbStore(DynamodbLeases(f"{prefix}none", "us-east-1", skip_table_creation=True))
        with pytest.raises(Transient, match="there is no lease table"):
            await store.find("pipe|STREAM")
        await store.shut()

    asyncio.run(scenario())
