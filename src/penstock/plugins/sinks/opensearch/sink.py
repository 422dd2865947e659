"""The sink itself: prepares indexes, sends bulk requests and reads what became of each document."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock import sdk
from penstock.lib.http_client import Untrusted
from penstock.plugins.sinks.opensearch.client import Cluster, basic_credentials
from penstock.plugins.sinks.opensearch.documents import Documents
from penstock.plugins.sinks.opensearch.indexes import IndexSetup, SetupRefused, permission_hint
from penstock.plugins.sinks.opensearch.lookup import Lookup
from penstock.plugins.sinks.opensearch.network_policy import ensure_network_policy
from penstock.plugins.sinks.opensearch.notices import Notices
from penstock.plugins.sinks.opensearch.options import Config
from penstock.plugins.sinks.opensearch.reply import (
    Answer,
    Answers,
    BulkReplyError,
    Verdict,
    error_text,
    read_bulk_reply,
)
from penstock.plugins.sinks.opensearch.targets import Targets

MIB = 1024 * 1024
REQUEST_BYTES_MAX = 100 * MIB
"""What a server takes unless it is told otherwise (`http.max_content_length`)."""
HEALS_MAX = 3
"""How often in a row a missing index is prepared again before its documents become dead letters."""
HEAL_MEMORY_S = 60.0
SETUP_RETRY_S = 1.0
REASON_CHARACTERS_MAX = 500
"""Of a refusal in the log; dead letters hold all of it."""
COMPRESSION_RATIO_MAX = 20.0
_ABOUT_THE_CONTENT = frozenset((400, 409, 413, 422))
"""Statuses of a whole request that one bad document may have caused. All others tell of the way to the servers."""
_NO_HANDLER = "no handler found for uri"
_EXTERNAL = ("external", "external_gte")
_WHOLE_DOCUMENT = (b'{"index":', b'{"delete":')


class OpenSearchSink:
    """Writes documents by bulk requests."""

    renewable = frozenset(("username", "password", "api_token", "authentication"))

    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._ctx = ctx
        self._log = ctx.log
        self._clock = ctx.clock
        self._now = ctx.clock.monotonic
        self.targets = Targets(ctx.clock)
        self._notices = Notices(ctx.log, ctx.clock)
        self._documents = Documents(config, ctx, self.targets, self._notices)
        self._cluster = Cluster(config, ctx)
        self._indexes = IndexSetup(config, self._cluster, self.targets, ctx)
        lookup = config.query_lookup
        self._lookup = None if lookup is None else Lookup(lookup, self._cluster, ctx, _parts)
        self._meters = Meters(ctx.metrics)
        self._external = config.document_version_type in _EXTERNAL
        self._preparing = asyncio.Lock()
        self._unready: dict[str, tuple[str, float]] = {}
        """Names whose set-up failed, with the reason and when it may be tried again."""
        self._heals: dict[str, tuple[int, float]] = {}
        """How often an index was missing in a row, and when last."""
        self._bytes_max = _request_bytes_max(config)
        self._estimates = config.estimate_bulk_size_using_compression and config.compresses
        self.limits = sdk.Limits(
            request_bytes_max=self._bytes_max,
            flush_timeout_s=max(0, config.flush_timeout) / 1000,
            max_retries=config.max_retries,
            **({"request_items_max": 1} if config.bulk_size == 0 else {}),
        )
        """Read anew for each request: with compressed sizes it follows the ratio of the last requests."""
        self.dead_letter_file = None if config.dlq_file is None else Path(config.dlq_file)
        """Where dead letters go, as configured with `dlq_file`."""
        _warn(config, self._log)

    async def start(self) -> None:
        self._log.info("Initializing OpenSearch sink")
        try:
            await self._cluster.start()
            signing = self._config.signing
            if signing is not None and signing.serverless and signing.serverless_options is not None:
                await ensure_network_policy(signing, signing.serverless_options, self._ctx)
            await self._indexes.start()
        except sdk.Permanent as error:
            await self._cluster.close()
            raise sdk.Permanent(
                f"Failed to initialize OpenSearch sink due to a configuration error.\n{error}"
            ) from error
        except SetupRefused as error:
            hint = permission_hint(str(error))
            raise sdk.Transient(
                "Failed to initialize OpenSearch sink with a retryable exception. \n"
                f"org.opensearch.client.opensearch._types.OpenSearchException: {error}" + (hint and f"\n{hint}"),
                retry_after_s=error.retry_after_s,
            ) from error
        except sdk.Transient as error:
            hint = "(set cert to a file with its authority, or insecure: true)" if isinstance(error, Untrusted) else ""
            raise type(error)(
                f"Failed to initialize OpenSearch sink, retrying: {error} {hint}",
                retry_after_s=error.retry_after_s,
            ) from error
        self._log.info("Initialized OpenSearch sink")

    async def stop(self) -> None:
        await self._cluster.close()

    async def renew(self, config: Config) -> None:
        """Go on with other credentials. Where they cannot be used, raises and keeps those before."""
        if basic_credentials(config) != basic_credentials(self._config):
            self._meters.credentials_changed.add()
        try:
            await self._cluster.renew(config)
        except Exception:
            self._meters.refresh_errors.add()
            raise
        self._config = config

    def encode(self, batch: sdk.Batch) -> sdk.Items:
        items = self._documents.encode(batch)
        if self._lookup is not None:
            items = dataclasses.replace(items, data=list(items.data))  # it knows the items by their identities
            self._lookup.watch(batch, items)
        return items

    async def send(self, data: Sequence[bytes]) -> Sequence[sdk.Failure]:
        return await self._send(data, sdk.sent_before(data))

    async def _send(self, data: Sequence[bytes], again: bytes | None) -> sdk.Failures:
        """Send the items, of which those marked in `again` were sent before (`sdk.sent_before`)."""
        if self._lookup is None or self._lookup.idle:
            return await self._send_missing(data, again)
        wanted, places, held, there = await self._lookup.sort_out(data)
        groups = list(sdk.Failures.of(held).groups)
        if wanted:
            failures = await self._send_missing(wanted, _marks_at(again, places))
            groups += failures.moved(places).groups
        self._lookup.are_there(there)
        return sdk.Failures(groups)

    async def _send_missing(self, data: Sequence[bytes], again: bytes | None) -> sdk.Failures:
        """Send those whose indexes are ready."""
        targets = self.targets
        unready = await self._prepare() if targets.waiting else {}
        if not (unready or targets.refused or targets.late_streams):
            return await self._write(data, again)
        ready, places, held = self._sort_out(data, unready)
        if not ready:
            if all(failure.retryable for failure in held):
                raise sdk.Transient(held[0].reason)
            return sdk.Failures.of(held)
        failures = await self._write(ready, _marks_at(again, places))
        return sdk.Failures([*failures.moved(places).groups, *sdk.Failures.of(held).groups])

    async def _write(self, data: Sequence[bytes], again: bytes | None) -> sdk.Failures:
        return self._judge(len(data), again, await self._bulk(data))

    def dead_letter(self, data: bytes) -> dict[str, Any]:
        action, target, document = _parts(data)
        if action == "update" and isinstance(document, dict):
            action, document = _updated(document)
        letter: dict[str, Any] = {
            "index": target.get("_index"),
            "indexId": target.get("_id"),
            "document": {} if document is None else document,
            "action": action,
        }
        for name, key in (("routing", "routing"), ("version", "version"), ("version_type", "versionType")):
            if name in target:
                letter[key] = target[name]
        return letter

    def supersedes(self, later: bytes, earlier: bytes) -> bool:
        """Whether the index ends up the same when `earlier`, an operation on the same id, is not sent before `later`.

        So for a later `index` or `delete` of the same routing; with versions only where the server would take both.
        """
        if not later.startswith(_WHOLE_DOCUMENT):
            return False
        _, new = _action_line(later)
        action, old = _action_line(earlier)
        if action == "create" or new.get("routing") != old.get("routing"):
            return False
        kind = new.get("version_type")
        if kind not in _EXTERNAL:
            return "version" not in new and "version" not in old
        if action == "update" or kind != old.get("version_type") or "version" not in new or "version" not in old:
            return False
        return bool(new["version"] > old["version"] or (kind == "external_gte" and new["version"] == old["version"]))

    def replay(self, failed_data: Mapping[str, Any]) -> bytes:
        """The operation that a dead letter tells of, as it was sent. Raises `EventError` where it tells too little."""
        return self._documents.replay(failed_data)

    async def _prepare(self) -> dict[str, str]:
        """Prepare the names that wait for it. Returns those that could not be, with the reason."""
        async with self._preparing:
            for name in list(self.targets.waiting):
                if name in self._unready and self._now() < self._unready[name][1]:
                    continue
                self._unready.pop(name, None)
                try:
                    await self._indexes.prepare(name, again=name in self._heals)
                except sdk.Permanent as error:
                    self.targets.is_refused(name, str(error))
                    self._notices.error("The index %s cannot be set up: %s", name, error)
                except sdk.Unreachable:
                    raise
                except sdk.Transient as error:
                    reason = f"Failed to setup dynamic index with an exception. {error}"
                    self._unready[name] = (reason, self._now() + SETUP_RETRY_S)
                    self._notices.error("Failed to setup dynamic index with an exception. %s: %s", name, error)
                else:
                    if name in self.targets.streams:
                        self.targets.late_streams = True
            return {name: reason for name, (reason, _) in self._unready.items() if name in self.targets.waiting}

    def _sort_out(
        self, data: Sequence[bytes], unready: dict[str, str]
    ) -> tuple[list[bytes], list[int], list[sdk.Failure]]:
        """Keep back the items whose index is not ready; adapt those that turned out to be for a data stream."""
        kept: list[bytes] = []
        places: list[int] = []
        held: list[sdk.Failure] = []
        streams = self.targets.streams
        for place, item in enumerate(data):
            if not unready and not self.targets.refused and _fits_stream(item):
                kept.append(item)
                places.append(place)
                continue
            action, target, document = _parts(item)
            name = target.get("_index", "")
            if name in unready:
                held.append(sdk.Failure(place, unready[name], retryable=True))
            elif (reason := self.targets.reason(name)) is not None:
                held.append(sdk.Failure(place, reason, status=400))
                self._meters.document_errors.add()
            else:
                if name in streams and not _fits_stream(item):
                    item = _for_stream(action, target, document, self._clock.now_ms())
                kept.append(item)
                places.append(place)
        return kept, places, held

    async def _bulk(self, data: Sequence[bytes]) -> Answers:
        """Send one request. What the server said of the items that were not simply written."""
        begin = self._now()
        meters = self._meters
        reply_status = 0
        try:
            reply = await self._cluster.bulk(data, require_alias=self._indexes.require_alias)
            reply_status = reply.status
            meters.request_size.observe(reply.plain_bytes)
            if reply.status >= 300:
                self._raise_for(reply.status, reply.body, reply.retry_after_s, len(data))
            try:
                answers = read_bulk_reply(reply.body, len(data), external_version=self._external)
            except BulkReplyError as error:
                raise sdk.Transient(str(error)) from error
        except (sdk.Transient, sdk.Permanent) as error:
            meters.request_errors.add()
            if isinstance(error, sdk.Permanent):
                meters.request_failed.add()
                if len(data) == 1:
                    meters.document_errors.add()
            elif self._lookup is not None and (isinstance(error, sdk.Unreachable) or reply_status >= 500):
                self._lookup.answer_is_unknown(data)
            raise
        finally:
            meters.request_latency.observe(self._now() - begin)
        if self._estimates:
            self._learn_ratio(reply.plain_bytes, reply.sent_bytes)
        return answers

    def _raise_for(self, status: int, body: bytes, retry_after_s: float | None, items: int) -> None:
        """The request as a whole was refused."""
        self._meters.request_error(status).add()
        text = error_text(status, body)
        if status == 404 and self._indexes.require_alias:  # the write alias has gone away: set it up again
            for name in list(self.targets.ready):
                self.targets.prepare_again(name)
        if status in _ABOUT_THE_CONTENT and _NO_HANDLER not in text:
            raise sdk.Permanent(text)
        if status in (401, 403):
            text = f"{text} {permission_hint(text)}".rstrip()
        elif status < 429 and status not in (407, 408, 421, 423, 425):
            text += " (the answer to POST /_bulk: are hosts, path_prefix and proxy right?)"
        raise sdk.Transient(text, retry_after_s=retry_after_s)

    def _judge(self, count: int, again: bytes | None, answers: Answers) -> sdk.Failures:
        """Count what became of the items of a request, and say which of them are refused."""
        meters = self._meters
        first = count if again is None else again.count(0)
        written = count
        groups: list[tuple[Sequence[int], sdk.Failure]] = []
        refusal: Answer | None = None
        for places, answer in answers:
            verdict = answer.verdict
            repeated = 0 if again is None else sum([again[place] > 0 for place in places])
            if verdict is Verdict.DUPLICATE or verdict is Verdict.ALREADY_GONE:
                (meters.duplicates if verdict is Verdict.DUPLICATE else meters.already_gone).add(len(places))
                continue
            written -= len(places)
            first -= len(places) - repeated
            if verdict is Verdict.OUTDATED:
                meters.version_conflicts.add(len(places))
                continue
            refusal = refusal or answer
            tried_again: Sequence[int] = ()
            if verdict is Verdict.RETRY or (verdict is Verdict.INDEX_MISSING and self._heal(answer.index)):
                tried_again, places = places, []
            elif verdict is Verdict.TOO_LARGE and count > 1:  # alone or once refused it will never fit
                tried_again = [place for place in places if again is None or again[place] < 2]
                places = [place for place in places if again is not None and again[place] == 2]
            if tried_again:
                groups.append((tried_again, sdk.Failure(0, answer.reason, True, answer.status)))
            if places:
                meters.document_errors.add(len(places))
                meters.status(answer.status).add(len(places))
                groups.append((places, sdk.Failure(0, answer.reason, status=answer.status)))
        meters.success.add(written)
        meters.first_attempt.add(first)
        if refusal is not None:
            self._notices.error(
                "index = %s, status = %s, error = %s",
                refusal.index,
                refusal.status,
                refusal.reason[:REASON_CHARACTERS_MAX],
            )
        return sdk.Failures(groups)

    def _heal(self, name: str) -> bool:
        """The index is not there. Have it set up again; False when that did not help or is not ours to do."""
        if not self._indexes.managed:
            return False
        if name in self.targets.waiting:  # another request has found that already
            return True
        count, last = self._heals.get(name, (0, 0.0))
        if self._now() - last > HEAL_MEMORY_S:
            count = 0
        if count >= HEALS_MAX or name not in self.targets.ready:
            return False
        self._heals[name] = (count + 1, self._now())
        self.targets.prepare_again(name)
        return True

    def _learn_ratio(self, plain_bytes: int, sent_bytes: int) -> None:
        """Let the next requests be as large as compresses to `bulk_size`, moving halfway towards the last ratio."""
        ratio = min(COMPRESSION_RATIO_MAX, plain_bytes / max(1, sent_bytes))
        wanted = self._bytes_max * max(1.0, ratio)
        bytes_max = min(REQUEST_BYTES_MAX, int((self.limits.request_bytes_max + wanted) / 2))
        self.limits = dataclasses.replace(self.limits, request_bytes_max=bytes_max)


class Meters:
    """The meters of the sink under Data Prepper's names."""

    def __init__(self, scope: sdk.Scope) -> None:
        self._scope = scope
        self.success = scope.counter("documentsSuccess")
        self.first_attempt = scope.counter("documentsSuccessFirstAttempt")
        self.document_errors = scope.counter("documentErrors")
        self.version_conflicts = scope.counter("documentsVersionConflictErrors")
        self.duplicates = scope.counter("documentsDuplicates")
        self.already_gone = scope.counter("documentsAlreadyDeleted")
        self.request_errors = scope.counter("bulkRequestErrors")
        self.request_failed = scope.counter("bulkRequestFailed")
        self.request_latency = scope.timer("bulkRequestLatency")
        self.request_size = scope.summary("bulkRequestSizeBytes")
        self.credentials_changed = scope.counter("credentialsChanged")
        self.refresh_errors = scope.counter("clientRefreshErrors")
        self._bad = scope.counter("bulkBadRequestErrors")
        self._not_allowed = scope.counter("bulkRequestNotAllowedErrors")
        self._invalid = scope.counter("bulkRequestInvalidInputErrors")
        self._not_found = scope.counter("bulkRequestNotFoundErrors")
        self._timeout = scope.counter("bulkRequestTimeoutErrors")
        self._server = scope.counter("bulkRequestServerErrors")

    def status(self, status: int) -> sdk.Counter:
        """Documents refused with this status."""
        return self._scope.counter("documentStatuses", status=str(status))

    def request_error(self, status: int) -> sdk.Counter:
        """Requests refused with this kind of status."""
        if status in (401, 402, 403, 405, 407, 423, 429):
            return self._not_allowed
        if status in (409, 411, 412, 413, 414, 415, 416):
            return self._invalid
        if status in (404, 410):
            return self._not_found
        if status == 408:
            return self._timeout
        return self._server if status >= 500 else self._bad


def _marks_at(marks: bytes | None, places: Sequence[int]) -> bytes | None:
    return None if marks is None else bytes([marks[place] for place in places])


def _request_bytes_max(config: Config) -> int:
    if config.bulk_size < 0:
        return REQUEST_BYTES_MAX
    return max(1, config.bulk_size) * MIB


def _action_line(item: bytes) -> tuple[str, dict[str, Any]]:
    ((action, target),) = sdk.decode(item[: item.index(b"\n")]).items()
    return action, target


def _parts(item: bytes) -> tuple[str, dict[str, Any], Any]:
    """Action, target and document of an item; the document of a delete is None."""
    action, target = _action_line(item)
    rest = item[item.index(b"\n") + 1 :]
    return action, target, sdk.decode(rest) if rest else None


def _updated(operation: dict[str, Any]) -> tuple[str, Any]:
    """The configured action and the document of an update operation."""
    script = operation.get("script")
    document = script["params"]["doc"] if isinstance(script, dict) else operation.get("doc")
    return ("upsert" if "upsert" in operation else "update"), document


def _fits_stream(item: bytes) -> bool:
    return item.startswith(b'{"create"') and b'"@timestamp"' in item


def _for_stream(action: str, target: dict[str, Any], document: Any, now_ms: int) -> bytes:
    """The item as a data stream takes it; for items made before the name was known to be one."""
    if action == "update" and isinstance(document, dict):
        document = _updated(document)[1]
    if not isinstance(document, dict):
        document = {}
    document.setdefault("@timestamp", now_ms)
    kept = {key: target[key] for key in ("_index", "_id") if key in target}
    return sdk.encode({"create": kept}) + b"\n" + sdk.encode(document) + b"\n"


def _warn(config: Config, log: Any) -> None:
    for option, successor in (("document_id_field", "document_id"), ("routing_field", "routing")):
        if getattr(config, option) is not None:
            log.warning(
                "%s is deprecated in favor of %s, and support for %s will be removed in a future major version "
                "release.",
                option,
                successor,
                option,
            )
    if config.template_content is not None and config.template_file is not None:
        log.warning("Both template_content and template_file are configured. Only template_content will be used")
    if config.estimate_bulk_size_using_compression and not config.compresses:
        log.warning(
            "Estimating the bulk size by compression needs enable_request_compression; plain sizes are used instead"
        )
    if config.document_version is not None and config.document_version_type in (None, "internal") and not config.is_es6:
        log.warning("OpenSearch refuses document_version without an external document_version_type")
