"""The store of leases that the server configuration names."""

from __future__ import annotations

import pytest

from penstock.config.server import ServerConfig, parse_server_config
from penstock.core.clock import Clock
from penstock.lib.lease.dynamodb import DynamodbStore
from penstock.runtime.leases import lease_opener


def messages(text: str) -> str:
    return " ".join(problem.message for problem in parse_server_config(text.encode(), "config.yaml").problems)


def test_leases_stay_in_the_data_directory_unless_a_table_is_named() -> None:
    for text in ("{}", "source_coordination: {store: {in_memory: }}"):
        document = parse_server_config(text.encode(), "config.yaml")
        assert document.problems == ()
        assert lease_opener(document.config.source_coordination, Clock()) is None


def test_a_table_is_opened_when_it_is_named() -> None:
    text = (
        "source_coordination: {partition_prefix: a, store: {dynamodb: {table_name: t, region: us-east-1, ttl: PT72H}}}"
    )
    config: ServerConfig = parse_server_config(text.encode(), "config.yaml").config
    opener = lease_opener(config.source_coordination, Clock())
    assert opener is not None
    store = opener()
    assert isinstance(store, DynamodbStore)
    assert (store._options.table_name, store._options.ttl_s, store._options.read_capacity_units) == ("t", 259_200, 10)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("{mongodb: {}}", "source_coordination store mongodb is not known"),
        ("{dynamodb: {region: us-east-1}}", "table_name is required for dynamo store settings"),
        ("{dynamodb: {table_name: t}}", "region is required for dynamo store settings"),
        ("{dynamodb: {table_name: t, region: r, colour: red}}", "colour"),
    ],
)
def test_what_is_wrong_with_a_store_is_told(store: str, message: str) -> None:
    assert message in messages(f"source_coordination: {{store: {store}}}")
