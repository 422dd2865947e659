"""Follows the change stream of one DynamoDB table.

Every change becomes an event: an inserted or modified item with its new image, a removed one with an empty body (or its
old image, `view_on_remove`). Keys, kind of change and version stand in the metadata, ready for the `opensearch` sink:
`document_id: "${getMetadata(\\"primary_key\\")}"`, `action: "${getMetadata(\\"opensearch_action\\")}"`,
`document_version: "${getMetadata(\\"document_version\\")}"`, `document_version_type: external`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from penstock import sdk
from penstock.plugins.sources.dynamodb.source import DynamodbSource

_ARN = re.compile(r"arn:[^:]+:dynamodb:[^:]*:[^:]*:table/[^/]+")


def _table_arn(value: str) -> str:
    if not value:
        raise PydanticCustomError("table_arn", "DynamoDB Table ARN cannot be null or empty")
    # A placeholder that is still to be filled in is reported as such by the plan.
    if "<<" not in value and not _ARN.fullmatch(value):
        raise PydanticCustomError(
            "table_arn",
            '"{arn}" is not the ARN of a DynamoDB table, such as arn:aws:dynamodb:us-east-1:123456789012:table/orders',
            {"arn": value},
        )
    return value


def _bucket(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("bucket", "Bucket Name is required for export")
    return value


def _discovery_interval(value: float) -> float:
    if value < 1:
        raise PydanticCustomError("duration", "shard_discovery_interval must be at least 1 second.")
    return value


class Export(sdk.PluginConfig):
    """A first full snapshot of the table through S3."""

    s3_bucket: Annotated[str, AfterValidator(_bucket)]
    """Bucket that takes the exported files."""
    s3_prefix: str | None = None
    """Key prefix in that bucket."""
    s3_region: str | None = None
    """Region of the bucket; `aws.region` where none is given."""
    s3_sse_kms_key_id: str | None = None
    """KMS key that encrypts the exported files."""


class Stream(sdk.PluginConfig):
    """The changes of the table."""

    start_position: Literal["LATEST"] = "LATEST"
    """Where the first start begins: changes made before it are skipped."""
    view_on_remove: Literal["NEW_IMAGE", "OLD_IMAGE"] = "NEW_IMAGE"
    """Body of the event for a removed item: empty (`NEW_IMAGE`; the keys are in the metadata) or the item as it was
    (`OLD_IMAGE`; the stream must carry old images)."""
    disable_checkpointing: bool = False
    """Read a shard again from its beginning after a restart."""
    shard_discovery_interval: Annotated[sdk.Duration, AfterValidator(_discovery_interval)] = 60.0
    """How often new shards are looked for; the children of a shard that was read to its end are found at once."""


class Table(sdk.PluginConfig):
    """A table and what is to be read of it."""

    table_arn: Annotated[str, AfterValidator(_table_arn)]
    """ARN of the table."""
    export: Annotated[Export | None, sdk.NotYet()] = None
    """Load the items that are there already, before the changes."""
    stream: Stream | None = None
    """Follow the changes."""

    @model_validator(mode="after")
    def _something_to_read(self) -> Self:
        if self.export is None and self.stream is None:
            raise PydanticCustomError(
                "nothing_to_read",
                "nothing is read of table {arn}: give export or stream, or both",
                {"arn": self.table_arn},
            )
        return self


def _one_table(value: list[Table]) -> list[Table]:
    if len(value) != 1:
        raise PydanticCustomError("tables", "Exactly one table must be configured for the DynamoDb source.")
    return value


class Config(sdk.PluginConfig):
    tables: Annotated[list[Table], AfterValidator(_one_table)]
    """The table, exactly one."""
    aws: sdk.AwsOptions
    """Region and role."""
    acknowledgments: bool = False
    """Give a shard up, to be read again from its checkpoint, when its events are not delivered in time. The checkpoint
    moves only behind delivered events either way."""
    shard_acknowledgment_timeout: sdk.Duration = 1800.0
    """Longest wait for the delivery of what one read brought, with `acknowledgments`."""
    s3_data_file_acknowledgment_timeout: sdk.Duration = 900.0
    """Longest wait for the delivery of an exported file, with `acknowledgments`."""


def build(config: Config, ctx: sdk.Context) -> sdk.Source:
    table = config.tables[0]
    assert table.stream is not None, "an export is refused by the options"
    return DynamodbSource(
        ctx,
        table_arn=table.table_arn,
        access=config.aws,
        view_on_remove=table.stream.view_on_remove,
        use_checkpoints=not table.stream.disable_checkpointing,
        discovery_interval_s=table.stream.shard_discovery_interval,
        acknowledgment_timeout_s=config.shard_acknowledgment_timeout if config.acknowledgments else None,
    )


EXAMPLES = [
    sdk.Example(
        "Follow the changes of a table",
        config="""
acknowledgments: true
tables:
  - table_arn: arn:aws:dynamodb:us-east-1:123456789012:table/music
    stream:
      start_position: LATEST
      view_on_remove: NEW_IMAGE
aws:
  region: us-east-1
  sts_role_arn: arn:aws:iam::123456789012:role/pipeline-role
""",
    ),
]
