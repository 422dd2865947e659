"""Reads DynamoDB tables: the items that are there, through an export to S3, and every change from then on.

Every item of an export becomes an event with the item as its body. Every change becomes an event: an inserted or
modified item with its new image, a removed one with an empty body (or its old image, `view_on_remove`).
Keys, kind of change and version stand in the metadata, ready for the `opensearch` sink:
`document_id: "${getMetadata(\\"primary_key\\")}"`, `action: "${getMetadata(\\"opensearch_action\\")}"`,
`document_version: "${getMetadata(\\"document_version\\")}"`, `document_version_type: external`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from penstock import sdk
from penstock.plugins.sources.dynamodb.checks import Finding, check_tables
from penstock.plugins.sources.dynamodb.export import ExportOptions
from penstock.plugins.sources.dynamodb.notes import pipeline_notes
from penstock.plugins.sources.dynamodb.source import DynamodbSource
from penstock.plugins.sources.dynamodb.tables import Tables

__all__ = ["EXAMPLES", "SHARES_WORK", "Config", "Finding", "build", "check_tables", "pipeline_notes"]

SHARES_WORK = True
"""Units divide exported files and shards among themselves by leases."""

_KMS_KEY = re.compile(r"arn:[^:]+:kms:[^:]+:[0-9]*:(?:key|alias)/.+|[0-9a-fA-F-]{36}|mrk-[0-9a-f]+|alias/.+")
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


def _kms_key(value: str) -> str:
    if "<<" not in value and not _KMS_KEY.fullmatch(value):
        raise PydanticCustomError("kms_key", "KMS Key ID must be a valid one.")
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
    s3_sse_kms_key_id: Annotated[str, AfterValidator(_kms_key)] | None = None
    """KMS key that encrypts the exported files; without one S3 encrypts them with its own (AES256)."""
    format: Literal["dynamodb_json", "ion"] = "dynamodb_json"
    """Format of the exported files. Both give the same events; DynamoDB JSON is loaded with less CPU."""
    export_arn: str | None = None
    """An export that was made before, full or incremental: it is loaded, and no new one is asked for."""
    export_prefix: str | None = None
    """Folder in the bucket with the `manifest-summary.json` of an export that was made before: it is loaded instead."""

    @model_validator(mode="after")
    def _one_export(self) -> Self:
        if self.export_arn and self.export_prefix:
            raise PydanticCustomError("export", "give export_arn or export_prefix, not both")
        return self

    @property
    def exists(self) -> bool:
        """Whether the export was made before."""
        return bool(self.export_arn or self.export_prefix)


class Stream(sdk.PluginConfig):
    """The changes of the table."""

    start_position: Literal["LATEST"] = "LATEST"
    """Where the first start begins: changes made before it are skipped."""
    view_on_remove: Literal["NEW_IMAGE", "OLD_IMAGE"] = "NEW_IMAGE"
    """Body of the event for a removed item: empty (`NEW_IMAGE`; the keys are in the metadata) or the item as it was
    (`OLD_IMAGE`; the stream must carry old images)."""
    disable_checkpointing: bool = False
    """Read a shard again from its beginning after a restart."""
    during_export: bool = False
    """Deliver changes while the export is loaded, so that none can grow older than the 24 hours a stream keeps. Needs
    `document_version` in the sink. Removals are sent again once the export is loaded."""
    shard_discovery_interval: Annotated[sdk.Duration, AfterValidator(_discovery_interval)] = 60.0
    """How often new shards are looked for; the children of a shard that was read to its end are found at once."""


class Table(sdk.PluginConfig):
    """A table and what is to be read of it."""

    table_arn: Annotated[str, AfterValidator(_table_arn)]
    """ARN of the table."""
    export: Export | None = None
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


def _tables(value: list[Table]) -> list[Table]:
    arns = [table.table_arn for table in value]
    if not arns or len(set(arns)) != len(arns):
        raise PydanticCustomError("tables", "Exactly one table must be configured for the DynamoDb source.")
    return value


class Config(sdk.PluginConfig):
    tables: Annotated[list[Table], AfterValidator(_tables)]
    """The table. Several different ones are an extension; `getMetadata("table_name")` tells their events apart."""
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
    sources = [_source(config, table, ctx) for table in config.tables]
    return sources[0] if len(sources) == 1 else Tables(sources)


def _source(config: Config, table: Table, ctx: sdk.Context) -> DynamodbSource:
    stream, export = table.stream or Stream(), table.export
    acknowledged = config.acknowledgments
    options = access = None
    if export is not None:
        options = ExportOptions(
            bucket=export.s3_bucket,
            prefix=export.s3_prefix,
            kms_key_id=export.s3_sse_kms_key_id,
            form="ION" if export.format == "ion" else "DYNAMODB_JSON",
            arn=export.export_arn,
            existing_prefix=export.export_prefix,
        )
        access = config.aws.model_copy(update={"region": export.s3_region or config.aws.region})
    return DynamodbSource(
        ctx,
        table_arn=table.table_arn,
        access=config.aws,
        view_on_remove=stream.view_on_remove,
        use_checkpoints=not stream.disable_checkpointing,
        discovery_interval_s=stream.shard_discovery_interval,
        acknowledgment_timeout_s=config.shard_acknowledgment_timeout if acknowledged else None,
        file_acknowledgment_timeout_s=config.s3_data_file_acknowledgment_timeout if acknowledged else None,
        stream=table.stream is not None,
        export=options,
        export_access=access,
        during_export=stream.during_export,
        leader_key="GLOBAL" if len(config.tables) == 1 else table.table_arn,
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
    sdk.Example(
        "Load the items of a table, then follow its changes",
        config="""
acknowledgments: true
tables:
  - table_arn: arn:aws:dynamodb:us-east-1:123456789012:table/music
    export:
      s3_bucket: music-exports
      s3_prefix: ddb-to-opensearch-export/
      s3_region: us-east-1
    stream:
      start_position: LATEST
aws:
  region: us-east-1
  sts_role_arn: arn:aws:iam::123456789012:role/pipeline-role
""",
    ),
]
