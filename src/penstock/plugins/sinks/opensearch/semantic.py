"""Indexes with semantic fields: made by the control plane of the service, which attaches its models to the fields."""

from __future__ import annotations

from penstock import sdk
from penstock.lib.aws import code_of, sessions, verdict
from penstock.plugins.sinks.opensearch.options import Aws, resource_name

_EXISTS = ("ConflictException", "ResourceAlreadyExistsException")


async def ensure_semantic_index(aws: Aws, host: str, index: str, ctx: sdk.Context) -> None:
    """Create `index` with the fields of `aws.semantic_enrichment`. One that exists is left as it is.

    Raises `Transient` for whatever the service refuses: somebody may repair it.
    """
    assert aws.semantic_enrichment is not None
    resource = resource_name(aws, host)
    properties = {
        field.name: {
            "type": "text",
            "semantic_enrichment": {"status": "ENABLED", "language_options": field.language},
        }
        for field in aws.semantic_enrichment.fields
    }
    schema = {"mappings": {"properties": properties}}
    try:
        async with sessions() as open_sessions:
            if aws.serverless:
                client = await open_sessions.client("opensearchserverless", aws)
                await client.create_index(id=resource, indexName=index, indexSchema=schema)
            else:
                client = await open_sessions.client("opensearch", aws)
                await client.create_index(DomainName=resource, IndexName=index, IndexSchema=schema)
    except Exception as error:
        if code_of(error) in _EXISTS:
            ctx.log.info("Index [%s] already exists, skipping creation", index)
            return
        known = error if isinstance(error, (sdk.Transient, sdk.Permanent)) else verdict(error)
        if known is None:
            raise
        service = "Amazon OpenSearch Serverless" if aws.serverless else "Amazon OpenSearch Service"
        raise sdk.Transient(f"Failed to create index [{index}] via {service} APIs: {known}") from error
    ctx.log.info("Index [%s] was created with semantic enrichment of %s", index, ", ".join(properties))
