"""What a table must have before it can be read: said in the words of the original, with the way to mend it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

from penstock import sdk
from penstock.lib import aws
from penstock.plugins.sources.dynamodb.api import TableApi, Throttled

VIEW_TYPES = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
_STREAM = "turn it on under Exports and streams > DynamoDB stream details, view type New image or New and old images"
_RECOVERY = "turn it on under Backups > Point-in-time recovery; it is needed for export alone"


class CheckFailed(sdk.Transient):
    """The table is not ready to be read. It heals without a restart once the table is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that keeps a table from being read, or from being read as one may expect."""

    table_arn: str
    message: str
    hint: str
    severity: str = "error"
    """`error`: it is not read. `warning`: it is."""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Checked(NamedTuple):
    """What a check found out: only errors, as far as a source needs to know."""

    table: dict[str, Any] | None
    """The description of the table, None where the call failed."""
    findings: list[Finding]


async def check_table(
    api: TableApi, table_arn: str, log: logging.Logger, *, recovery: bool, stream: bool, view_on_remove: str = ""
) -> Checked:
    """Ask the service whether the table can be read: exports need recovery, changes need a stream. Starts nothing."""
    findings: list[Finding] = []

    def find(message: str, hint: str) -> None:
        findings.append(Finding(table_arn, message, hint))

    try:
        table = await api.describe_table()
    except (sdk.Transient, sdk.Permanent) as error:
        log.error("Unable to call DescribeTableRequest to get information for table %s due to %s", table_arn, error)
        find(f"Unable to get table information for {table_arn}. Please make sure the permission is properly set", "")
        return Checked(None, findings)
    if recovery:
        try:
            if not await api.recovery_is_on():
                text = f"Point-in-time recovery (PITR) needs to be enabled for exporting data from table {table_arn}"
                find(text, _RECOVERY)
        except (sdk.Transient, sdk.Permanent) as error:
            log.error("Unable to call describeContinuousBackupsRequest for table %s due to %s", table_arn, error)
            find(
                f"Unable to check if point in time recovery is enabled or not for {table_arn}. "
                "Please make sure the permission is properly set",
                "",
            )
    if stream:
        specification = table.get("StreamSpecification") or {}
        view = specification.get("StreamViewType")
        if not specification.get("StreamEnabled"):
            find(f"Stream is not enabled for table {table_arn}", _STREAM)
        elif view not in VIEW_TYPES:
            supported = ", ".join(VIEW_TYPES)
            find(f"Stream {table_arn} is enabled with {view}. Supported types are [{supported}]", _STREAM)
        elif view_on_remove == "OLD_IMAGE" and view != "NEW_AND_OLD_IMAGES":
            log.warning(
                "Stream of table %s carries no old images: with view_on_remove OLD_IMAGE removals are empty", table_arn
            )
    return Checked(table, findings)


async def check_tables(config: Any, log: logging.Logger, clients: Any = None) -> list[Finding]:
    """The checks for all tables of the source's options, at once: nothing is started, nothing is written.

    Beside what a source checks when it starts: rights on the stream, and what is no obstacle but may surprise. Raises
    `Permanent` where there can be no client.
    """
    findings: list[Finding] = []
    async with clients or aws.sessions() as opened:
        dynamodb = await opened.client("dynamodb", config.aws, wire=True)
        streams = await opened.client("dynamodbstreams", config.aws, wire=True)
        for table in config.tables:
            api = TableApi(table.table_arn, dynamodb, streams, sdk.Context("doctor", "dynamodb").metrics)
            stream, export = table.stream, table.export
            checked = await check_table(
                api,
                table.table_arn,
                log,
                recovery=export is not None and not export.exists,
                stream=stream is not None,
                view_on_remove=stream.view_on_remove if stream is not None else "",
            )
            findings += checked.findings
            if checked.table is not None:
                findings += await _surprises(api, table, checked.table)
                if stream is not None and not checked.findings:
                    findings += await _stream_rights(api, table.table_arn, checked.table["LatestStreamArn"])
    return findings


async def _surprises(api: TableApi, table: Any, described: dict[str, Any]) -> list[Finding]:
    """What the console warns of, too."""
    found = []
    stream, view = table.stream, (described.get("StreamSpecification") or {}).get("StreamViewType")
    if stream is not None and stream.view_on_remove == "OLD_IMAGE" and view == "NEW_IMAGE":
        text = "The stream carries no old images: with view_on_remove OLD_IMAGE removals are empty"
        found.append(Finding(table.table_arn, text, "make the stream anew with New and old images", "warning"))
    if table.export is None:
        try:
            if not await api.recovery_is_on():
                text = f"Point-in-time recovery (PITR) is off for table {table.table_arn}"
                found.append(Finding(table.table_arn, text, _RECOVERY + "; changes are read without it", "warning"))
        except (sdk.Transient, sdk.Permanent) as error:
            text = f"Whether point-in-time recovery is on cannot be told: {error}"
            found.append(Finding(table.table_arn, text, "only exports need it, and the right to ask", "warning"))
    return found


async def _stream_rights(api: TableApi, table_arn: str, stream_arn: str) -> list[Finding]:
    """Try the calls that reading changes takes; nothing is read."""
    call = "DescribeStream"
    try:
        shards = await api.shards(stream_arn)
        if shards:
            call = "GetShardIterator"
            iterator = await api.iterator(stream_arn, shards[-1].id, ShardIteratorType="LATEST")
            call = "GetRecords"
            await api.records(iterator)
    except Throttled:
        return []
    except (sdk.Transient, sdk.Permanent) as error:
        text = f"Changes of table {table_arn} cannot be read: {call} failed: {error}"
        return [Finding(table_arn, text, f"allow dynamodb:{call} on {table_arn}/stream/*")]
    return []
