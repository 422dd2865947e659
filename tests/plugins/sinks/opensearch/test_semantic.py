"""Indexes with semantic fields: what the control plane is asked for, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters

from penstock.core.batch import Batch
from penstock.core.errors import Transient
from penstock.plugins.sinks.opensearch import semantic
from penstock.plugins.sinks.opensearch.options import Aws, resource_name
from penstock.sdk import Context
from penstock.testing.opensearch import FakeOpenSearch
from penstock.testing.plugins import checked

FIELDS = {"fields": [{"name": "title", "language": "English"}, {"name": "text", "language": "multilingual"}]}
SCHEMA = {
    "mappings": {
        "properties": {
            "title": {"type": "text", "semantic_enrichment": {"status": "ENABLED", "language_options": "english"}},
            "text": {"type": "text", "semantic_enrichment": {"status": "ENABLED", "language_options": "multilingual"}},
        }
    }
}


class ControlPlane:
    """Sessions and client in one. Creates indexes in the server, after having checked the call against the model."""

    def __init__(self, server: FakeOpenSearch, refusals: list[str]) -> None:
        self.server, self.refusals = server, refusals
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._service = ""

    async def __aenter__(self) -> ControlPlane:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def client(self, service: str, access: Aws) -> ControlPlane:
        assert access.region == "eu-west-1"
        self._service = service
        return self

    async def create_index(self, **call: Any) -> None:
        model = botocore.session.get_session().get_service_model(self._service).operation_model("CreateIndex")
        validate_parameters(call, model.input_shape)
        self.calls.append((self._service, call))
        if self.refusals:
            code = self.refusals.pop(0)
            raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "CreateIndex")
        name = call.get("IndexName") or call["indexName"]
        assert self.server.answer("PUT", f"/{name}", {}, b"{}")[0] == 200


def run(
    monkeypatch: pytest.MonkeyPatch, aws: dict[str, Any], *bodies: dict[str, Any], refusals: tuple[str, ...] = ()
) -> tuple[FakeOpenSearch, ControlPlane]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")

    async def write() -> tuple[FakeOpenSearch, ControlPlane]:
        async with FakeOpenSearch(auto_create=False) as server:
            plane = ControlPlane(server, list(refusals))
            monkeypatch.setattr(semantic, "sessions", lambda: plane)
            index = "texts-${/t}" if bodies else "texts"
            options = {"hosts": [server.url], "index": index, "aws": {"region": "eu-west-1", **aws}}
            found, config = checked("sink", "opensearch", options)
            sink = found.module.build(config, Context("p", "opensearch", kind="sink"))
            try:
                await sink.start()
                if bodies:
                    assert not await sink.send(sink.encode(Batch(list(bodies))).data)
            finally:
                await sink.stop()
            return server, plane

    return asyncio.run(write())


def test_a_domain_creates_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    server, plane = run(monkeypatch, {"resource_name": "my-domain", "semantic_enrichment": FIELDS})
    call = {"DomainName": "my-domain", "IndexName": "texts", "IndexSchema": SCHEMA}
    assert plane.calls == [("opensearch", call)]
    assert "texts" in server.indexes
    assert not [each for each in server.requests if each.method == "PUT"], "it is not created a second time"


def test_a_collection_creates_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = {"serverless": True, "resource_name": "abc123", "semantic_enrichment": FIELDS}
    _, plane = run(monkeypatch, aws)
    assert plane.calls == [("opensearchserverless", {"id": "abc123", "indexName": "texts", "indexSchema": SCHEMA})]


def test_an_index_that_exists_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in ("ConflictException", "ResourceAlreadyExistsException"):
        server, _ = run(monkeypatch, {"resource_name": "my-domain", "semantic_enrichment": FIELDS}, refusals=(code,))
        assert "texts" in server.indexes


def test_a_refusal_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        Transient, match=r"Failed to create index \[texts\] via Amazon OpenSearch Service APIs: .*Valid"
    ):
        run(
            monkeypatch,
            {"resource_name": "my-domain", "semantic_enrichment": FIELDS},
            refusals=("ValidationException",),
        )


def test_each_dynamic_name_is_created_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [{"t": "a"}, {"t": "b"}, {"t": "a"}]
    _, plane = run(monkeypatch, {"resource_name": "my-domain", "semantic_enrichment": FIELDS}, *bodies)
    assert [call["IndexName"] for _, call in plane.calls] == ["texts-a", "texts-b"]


@pytest.mark.parametrize(
    ("host", "serverless", "expected"),
    [
        ("https://search-my-domain-a1b2c3.eu-west-1.es.amazonaws.com", False, "my-domain"),
        ("https://vpc-logs-a1b2c3.eu-west-1.es.amazonaws.com:443", False, "logs"),
        ("https://abc123.eu-west-1.aoss.amazonaws.com", True, "abc123"),
    ],
)
def test_the_address_tells_the_resource(host: str, serverless: bool, expected: str) -> None:
    assert resource_name(Aws(serverless=serverless), host) == expected
