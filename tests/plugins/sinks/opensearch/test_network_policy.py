"""The network policy of a collection: made, extended, left alone, and what happens when that fails."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.plugins.sinks.opensearch import network_policy
from penstock.plugins.sinks.opensearch.options import Aws, ServerlessOptions
from penstock.sdk import Context

STATEMENT = {
    "Rules": [{"ResourceType": "collection", "Resource": ["collection/logs"]}],
    "AllowFromPublic": False,
    "SourceVPCEs": ["vpce-1"],
}
OTHER = {"Rules": [{"ResourceType": "dashboard", "Resource": ["collection/logs"]}], "AllowFromPublic": True}


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetSecurityPolicy")


class FakeService:
    """Sessions and client in one: holds one policy."""

    def __init__(self, policy: Any = None, error: Exception | None = None) -> None:
        self.policy, self.error = policy, error
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def __aenter__(self) -> FakeService:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def client(self, service: str, access: Aws) -> FakeService:
        assert service == "opensearchserverless" and access.region == "eu-west-1"
        return self

    async def get_security_policy(self, **call: Any) -> Any:
        assert call == {"name": "policy", "type": "network"}
        if self.error is not None:
            raise self.error
        if self.policy is None:
            raise refusal("ResourceNotFoundException", 404)
        return {"securityPolicyDetail": {"policy": self.policy, "policyVersion": "v7"}}

    async def create_security_policy(self, **call: Any) -> None:
        self.calls.append(("create", call))

    async def update_security_policy(self, **call: Any) -> None:
        self.calls.append(("update", call))


def ensure(monkeypatch: pytest.MonkeyPatch, service: FakeService, **options: str | None) -> FakeService:
    monkeypatch.setattr(network_policy, "sessions", lambda: service)
    given = {"network_policy_name": "policy", "collection_name": "logs", "vpce_id": "vpce-1", **options}
    aws = Aws(region="eu-west-1", serverless=True)
    asyncio.run(
        network_policy.ensure_network_policy(aws, ServerlessOptions(**given), Context("p", "opensearch", kind="sink"))
    )
    return service


def test_a_missing_policy_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    ((verb, call),) = ensure(monkeypatch, FakeService()).calls
    assert verb == "create" and (call["name"], call["type"]) == ("policy", "network")
    assert json.loads(call["policy"]) == [STATEMENT]


@pytest.mark.parametrize("existing", [[OTHER], json.dumps([OTHER]), [{**STATEMENT, "SourceVPCEs": ["vpce-2"]}]])
def test_a_policy_for_others_is_extended(monkeypatch: pytest.MonkeyPatch, existing: Any) -> None:
    ((verb, call),) = ensure(monkeypatch, FakeService(existing)).calls
    assert verb == "update" and call["policyVersion"] == "v7"
    before = json.loads(existing) if isinstance(existing, str) else existing
    assert json.loads(call["policy"]) == [*before, STATEMENT]


def test_a_policy_that_allows_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ensure(monkeypatch, FakeService([OTHER, STATEMENT])).calls == []
    assert ensure(monkeypatch, FakeService(), vpce_id=None).calls == [], "not all options are given"


def test_a_failure_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        ensure(monkeypatch, FakeService(error=refusal("AccessDeniedException", 403)))
    assert "Failed to create or update network policy policy" in caplog.text
    assert "AccessDeniedException" in caplog.text
