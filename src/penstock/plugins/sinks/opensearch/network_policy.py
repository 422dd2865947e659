"""The network policy of a serverless collection: made or extended, so that the pipeline's VPC endpoint may reach it."""

from __future__ import annotations

import json
import uuid
from typing import Any

from penstock import sdk
from penstock.lib.aws import code_of, sessions, verdict
from penstock.plugins.sinks.opensearch.options import Aws, ServerlessOptions

_MESSAGE = "Failed to create or update network policy"


async def ensure_network_policy(aws: Aws, options: ServerlessOptions, ctx: sdk.Context) -> None:
    """Allow the endpoint of the options to reach the collection. A failure is logged and stops nothing."""
    if not (options.network_policy_name and options.collection_name and options.vpce_id):
        return
    try:
        async with sessions() as open_sessions:
            client = await open_sessions.client("opensearchserverless", aws)
            await _ensure(client, options.network_policy_name, options.collection_name, options.vpce_id, ctx)
    except Exception as error:
        known = error if isinstance(error, (sdk.Transient, sdk.Permanent)) else verdict(error)
        if known is None:
            raise
        ctx.log.error("%s %s: %s", _MESSAGE, options.network_policy_name, known)


async def _ensure(client: Any, name: str, collection: str, endpoint: str, ctx: sdk.Context) -> None:
    wanted = {
        "Rules": [{"ResourceType": "collection", "Resource": [f"collection/{collection}"]}],
        "AllowFromPublic": False,
        "SourceVPCEs": [endpoint],
    }
    try:
        found = (await client.get_security_policy(name=name, type="network"))["securityPolicyDetail"]
    except Exception as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        policy = json.dumps([wanted])
        await client.create_security_policy(name=name, type="network", policy=policy, clientToken=_token(ctx))
        ctx.log.info("Network policy %s was created", name)
        return
    statements = found.get("policy") or []
    if isinstance(statements, str):
        statements = json.loads(statements)
    if any(_allows(statement, collection, endpoint) for statement in statements):
        return
    await client.update_security_policy(
        name=name,
        type="network",
        policyVersion=found["policyVersion"],
        policy=json.dumps([*statements, wanted]),
        clientToken=_token(ctx),
    )
    ctx.log.info("Network policy %s was extended", name)


def _allows(statement: dict[str, Any], collection: str, endpoint: str) -> bool:
    if endpoint not in statement.get("SourceVPCEs", ()):
        return False
    return any(
        rule.get("ResourceType") == "collection" and f"collection/{collection}" in rule.get("Resource", ())
        for rule in statement.get("Rules", ())
    )


def _token(ctx: sdk.Context) -> str:
    return str(uuid.UUID(int=ctx.random.getrandbits(128), version=4))
