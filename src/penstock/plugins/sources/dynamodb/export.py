"""One export of a table: asked for once, waited for, its files laid out to be loaded.

What is asked for stands in the lease before it is asked, and the answer before it is waited for: a restart at any point
asks for nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from penstock import sdk
from penstock.lib.lease import Lease, LeaseLost, LeaseStore, Status
from penstock.plugins.sources.dynamodb.api import TableApi
from penstock.plugins.sources.dynamodb.export_items import Format
from penstock.plugins.sources.dynamodb.manifest import Manifest, find_summary, read_manifest
from penstock.plugins.sources.dynamodb.reader import LEASE_S, RENEW_S, Surroundings

CLOSED_MAX = 36
"""How often an export is asked for anew before it is given up."""
POLLS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before the first questions whether an export is ready."""
WRITES_AT_ONCE = 16
COMPLETED, FAILED = "Completed", "Failed"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported where, or which export that exists is loaded."""

    bucket: str
    prefix: str | None = None
    kms_key_id: str | None = None
    form: Format = "DYNAMODB_JSON"
    arn: str | None = None
    """An export that was asked for elsewhere."""
    existing_prefix: str | None = None
    """The folder of a finished export."""

    @property
    def exists(self) -> bool:
        return bool(self.arn or self.existing_prefix)

    def parameters(self, table_arn: str) -> dict[str, Any]:
        """Of the call that asks for an export."""
        found: dict[str, Any] = {
            "TableArn": table_arn,
            "S3Bucket": self.bucket,
            "S3SseAlgorithm": "KMS" if self.kms_key_id else "AES256",
            "ExportFormat": self.form,
        }
        if self.prefix:
            found["S3Prefix"] = self.prefix
        if self.kms_key_id:
            found["S3SseKmsKeyId"] = self.kms_key_id
        return found


@dataclass(frozen=True, slots=True)
class Loaded:
    """How far an export is loaded."""

    files: int = 0
    files_total: int = 0
    items: int = 0
    items_total: int = 0

    @property
    def done(self) -> bool:
        return self.files >= self.files_total


async def existing_export_ms(api: TableApi, options: ExportOptions, sdk_log: Any) -> int:
    """When changes begin to count beside an export that exists: the time of its snapshot, or the begin of its span."""
    if options.existing_prefix:
        key = await find_summary(api, options.bucket, options.existing_prefix)
        manifest = await read_manifest(api, options.bucket, key, sdk_log)
        return manifest.at_ms
    assert options.arn is not None, "an existing export has an ARN or a prefix"
    told = await api.describe_export(options.arn)
    span = told.get("IncrementalExportSpecification") or {}
    return round(float(span.get("ExportToTime") or told["ExportTime"]) * 1000)


def file_leases(leases: Iterable[Lease], export_arn: str) -> list[Lease]:
    """Those of one export."""
    return [lease for lease in leases if lease.key.startswith(export_arn + "|")]


class Exporter:
    """Takes the table's export in hand when no other unit has."""

    def __init__(
        self, shared: Surroundings, options: ExportOptions, *, owner: str, export_of: str, files_of: str, global_of: str
    ) -> None:
        self._shared = shared
        self._options = options
        self._owner = owner
        self._export_of = export_of
        self._files_of = files_of
        self._global_of = global_of
        meters = shared.meters
        self._successes = meters.counter("exportJobSuccess")
        self._failures = meters.counter("exportJobFailure")
        self._files_total = meters.counter("exportS3ObjectsTotal")
        self._items_total = meters.counter("exportRecordsTotal")
        self._files_done = meters.counter("exportS3ObjectsProcessed")
        self._created = meters.counter("partitionsCreated")

    async def take(self) -> bool:
        """Work on the export if it is free, to its end. False: there is nothing to do.

        Raises `Transient`, `Permanent` and `LeaseLost`; the lease is given back.
        """
        store = self._store
        lease = await store.acquire(self._export_of, self._owner, LEASE_S, prefix=f"{self._shared.table_arn}|")
        if lease is None:
            return False
        job = _Job(lease, store)
        try:
            await self._work(job)
        except (sdk.Transient, sdk.Permanent):
            await job.give_up()
            raise
        return True

    @property
    def _store(self) -> LeaseStore:
        return self._shared.store

    async def _work(self, job: _Job) -> None:
        options, log = self._options, self._shared.log
        if options.existing_prefix:
            key = await find_summary(self._shared.api, options.bucket, options.existing_prefix)
            await self._lay_out(job, options.bucket, key)
            return
        if not job.progress.get("exportArn") and not await self._submit(job):
            return
        told = await self._wait(job)
        status = told.get("ExportStatus")
        log.info("Export %s is completed with final status %s", job.progress["exportArn"], status)
        if status != "COMPLETED":
            await self._retry_later(job, told)
            return
        arn = job.progress["exportArn"]
        home = "/".join(
            [*filter(None, [(told.get("S3Prefix") or "").strip("/")]), "AWSDynamoDB", arn.rpartition("/")[2]]
        )
        await self._lay_out(
            job, told.get("S3Bucket") or options.bucket, told.get("ExportManifest") or f"{home}/manifest-summary.json"
        )

    async def _submit(self, job: _Job) -> bool:
        """Ask for the export; the same question twice gives the same export."""
        shared = self._shared
        if self._options.arn:
            await job.save({"exportArn": self._options.arn})
            return True
        if job.progress.get("exportTime") is None:
            await job.save({"exportTime": shared.clock.now_ms() // 1000 * 1000})
        at_ms, attempt = job.progress["exportTime"], job.progress.get("attempt", 0)
        token = hashlib.sha256(f"{job.lease.source}|{job.lease.key}|{at_ms}|{attempt}".encode()).hexdigest()[:36]
        parameters = self._options.parameters(shared.table_arn)
        try:
            arn = await shared.api.export(at_ms, ClientToken=token, **parameters)
        except sdk.Transient as error:
            shared.log.error("Failed to submit an export job with error: %s", error)
            raise
        except sdk.Permanent as error:
            shared.log.error("Failed to submit an export job with error: %s", error)
            await self._retry_later(job, None)
            return False
        await job.save({"exportArn": arn})
        shared.log.info("Export %s of table %s was asked for", arn, shared.table_arn)
        return True

    async def _wait(self, job: _Job) -> dict[str, Any]:
        shared, polls = self._shared, 0
        while True:
            told = await shared.api.describe_export(job.progress["exportArn"])
            if told.get("ExportStatus") != "IN_PROGRESS":
                return told
            span = POLLS_S[polls] if polls < len(POLLS_S) else shared.pace.export_poll
            polls += 1
            while span > 0:
                await asyncio.sleep(min(span, RENEW_S))
                span -= RENEW_S
                await job.renew()

    async def _retry_later(self, job: _Job, told: dict[str, Any] | None) -> None:
        shared = self._shared
        self._failures.add()
        if told is not None:
            shared.log.error(
                "The export from DynamoDb to S3 failed, it will be retried (%s: %s)",
                told.get("FailureCode", "no code"),
                told.get("FailureMessage", "no message"),
            )
        if job.lease.closed_count >= CLOSED_MAX:
            await job.complete({"status": FAILED})
            shared.log.error(
                "The export of table %s failed %d times and is given up; a restart begins anew",
                shared.table_arn,
                CLOSED_MAX + 1,
            )
            return
        await job.save({"exportArn": None, "exportTime": None, "attempt": job.progress.get("attempt", 0) + 1})
        await job.close(shared.pace.export_closed)

    async def _lay_out(self, job: _Job, bucket: str, summary_key: str) -> None:
        """One lease a file that holds something; the export is done when all are there."""
        shared = self._shared
        manifest = await read_manifest(shared.api, bucket, summary_key, shared.log)
        if _name(manifest.table_arn) != _name(shared.table_arn):
            shared.log.warning("The export %s is of table %s", manifest.arn, manifest.table_arn)
        created = 0
        for start in range(0, len(manifest.files), WRITES_AT_ONCE):
            part = [file for file in manifest.files[start : start + WRITES_AT_ONCE] if file.items]
            created += sum(await asyncio.gather(*(self._create(manifest, bucket, file) for file in part)))
            await job.renew_if_due(shared.clock.monotonic())
        items = sum(file.items for file in manifest.files)
        empty = sum(1 for file in manifest.files if not file.items)
        state = {
            "totalFiles": len(manifest.files),
            "loadedFiles": empty,
            "totalRecords": items,
            "loadedRecords": 0,
            "emptyFiles": empty,
        }
        await self._store.put_state(self._global_of, manifest.arn, state)
        await job.complete({"status": COMPLETED, "exportArn": manifest.arn, "bucket": bucket})
        self._successes.add()
        self._created.add(created)
        self._files_total.add(len(manifest.files))
        self._files_done.add(empty)
        self._items_total.add(items)
        shared.log.info(
            "Export %s has %d items in %d files, %d of them empty", manifest.arn, items, len(manifest.files), empty
        )

    async def _create(self, manifest: Manifest, bucket: str, file: Any) -> bool:
        progress = {
            "totalRecords": file.items,
            "loadedRecords": 0,
            "exportStartTime": manifest.at_ms,
            "md5Checksum": file.md5,
            "etag": file.etag,
            "format": manifest.form,
            "incremental": manifest.incremental,
        }
        return await self._store.create(self._files_of, f"{manifest.arn}|{bucket}|{file.key}", progress)


class _Job:
    """The lease of an export and what changes it."""

    def __init__(self, lease: Lease, store: LeaseStore) -> None:
        self.lease = lease
        self._store = store
        self._renewed = 0.0

    @property
    def progress(self) -> dict[str, Any]:
        return self.lease.progress

    async def save(self, changes: dict[str, Any]) -> None:
        self.lease = await self._store.save(self.lease, {**self.progress, **changes}, LEASE_S)

    async def renew(self) -> None:
        self.lease = await self._store.renew(self.lease, LEASE_S)

    async def renew_if_due(self, now: float) -> None:
        if now - self._renewed > RENEW_S:
            self._renewed = now
            await self.renew()

    async def complete(self, changes: dict[str, Any]) -> None:
        self.lease = await self._store.complete(self.lease, {**self.progress, **changes})

    async def close(self, span_s: float) -> None:
        self.lease = await self._store.close(self.lease, span_s, CLOSED_MAX)

    async def give_up(self) -> None:
        if self.lease.status is Status.ASSIGNED:
            try:
                self.lease = await self._store.give_up(self.lease)
            except (sdk.Transient, LeaseLost):
                return  # it ends by itself


def _name(table_arn: str) -> str:
    return table_arn.rpartition("/")[2]
