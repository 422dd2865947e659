"""What lies in S3 after an export: its summary and the list of its files."""

from __future__ import annotations

import base64
import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock import sdk
from penstock.plugins.sources.dynamodb.api import Missing, TableApi
from penstock.plugins.sources.dynamodb.export_items import Format

SUMMARY_BYTES_MAX = 1024 * 1024
LIST_BYTES_MAX = 256 * 1024 * 1024
"""Far more than the list of the files of any table."""
SUMMARY = "manifest-summary.json"
FILES = "manifest-files.json"


@dataclass(frozen=True, slots=True)
class DataFile:
    key: str
    items: int
    md5: str
    """Base64, of the compressed bytes; empty where the list has none."""
    etag: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One export that lies in S3."""

    arn: str
    table_arn: str
    form: Format
    incremental: bool
    at_ms: int
    """Time of the snapshot; of incremental exports the end of their span."""
    from_ms: int | None
    """Beginning of the span of an incremental export."""
    files: list[DataFile]


async def read_manifest(api: TableApi, bucket: str, summary_key: str, log: logging.Logger) -> Manifest:
    """Read both manifests. Raises `Permanent` when they are missing or not what the service writes, and `Transient`."""
    folder = summary_key.rpartition("/")[0]
    summary = _object(await _checked(api, bucket, summary_key, SUMMARY_BYTES_MAX, log), summary_key)
    text = await _checked(api, bucket, f"{folder}/{FILES}", LIST_BYTES_MAX, log)
    try:
        form = summary.get("outputFormat", "DYNAMODB_JSON")
        if form not in ("DYNAMODB_JSON", "ION"):
            raise sdk.Permanent(f"the export has the unknown format {form}")
        incremental = summary.get("exportType") == "INCREMENTAL_EXPORT"
        at = summary.get("exportToTime") if incremental else None
        since = summary.get("exportFromTime") if incremental else None
        return Manifest(
            arn=summary["exportArn"],
            table_arn=summary["tableArn"],
            form=form,
            incremental=incremental,
            at_ms=_milliseconds(at or summary["exportTime"]),
            from_ms=None if since is None else _milliseconds(since),
            files=[_file(line) for line in text.splitlines() if line.strip()],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise sdk.Permanent(f"s3://{bucket}/{summary_key} is no manifest of an export: {error!r}") from error


async def find_summary(api: TableApi, bucket: str, prefix: str) -> str:
    """The key of the summary below `prefix`: the folder of the export, or the summary itself."""
    key = prefix if prefix.endswith(SUMMARY) else f"{prefix.strip('/')}/{SUMMARY}"
    try:
        await api.text(bucket, key, SUMMARY_BYTES_MAX)
    except Missing as error:
        raise sdk.Permanent(
            f"there is no s3://{bucket}/{key}: export_prefix names the folder with {SUMMARY} of a finished export"
        ) from error
    return key


def _file(line: bytes) -> DataFile:
    entry = _object(line, FILES)
    return DataFile(
        entry["dataFileS3Key"], int(entry["itemCount"]), entry.get("md5Checksum", ""), entry.get("etag", "")
    )


def _object(text: bytes, key: str) -> dict[str, Any]:
    try:
        value = sdk.decode(text)
    except ValueError as error:
        raise sdk.Permanent(f"{key} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise sdk.Permanent(f"{key} is no JSON object")
    return value


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


async def _checked(api: TableApi, bucket: str, key: str, bytes_max: int, log: logging.Logger) -> bytes:
    data = await api.text(bucket, key, bytes_max)
    try:
        told = (
            (await api.text(bucket, key.removesuffix(".json") + ".checksum", 1024)).decode("ascii", "replace").strip()
        )
    except Missing:
        return data
    digest = hashlib.md5(data, usedforsecurity=False)
    if told and told not in (base64.b64encode(digest.digest()).decode(), digest.hexdigest()):
        # The files themselves have checksums that count; the form of this one is told nowhere.
        log.warning("The checksum of s3://%s/%s is not that of its content", bucket, key)
    return data
