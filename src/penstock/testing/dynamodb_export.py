"""Exports of a DynamoDB table to S3 as the service makes them: its API, its files, its manifests, its failures.

`ExportApi` keeps the exports and writes their files through a function, so that it stands before any S3: `FakeS3` in
memory, or an emulator. `ExportServer` puts it before DynamoDB Local, which has no exports of its own.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from penstock.core.clock import Clock

Item = dict[str, Any]
"""Attributes in wire form: `{"id": {"N": "7"}}`."""
Put = Callable[[str, str, bytes], None]
"""Writes an object: bucket, key, data."""
SETS = ("SS", "NS", "BS")
_ION_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class ApiError(Exception):
    """An error that the service answers."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


# files


@dataclass(frozen=True, slots=True)
class Change:
    """One item of an incremental export."""

    keys: Item
    at_ms: int
    new: Item | None = None
    old: Item | None = None


def json_line(entry: Item | Change) -> str:
    """An item as a line of a file in DynamoDB JSON."""
    if isinstance(entry, Change):
        micros = {"WriteTimestampMicros": {"N": str(entry.at_ms * 1000)}}
        parts = {"Metadata": micros, "Keys": entry.keys, "OldImage": entry.old, "NewImage": entry.new}
        return json.dumps({name: part for name, part in parts.items() if part is not None}, separators=(",", ":"))
    return json.dumps({"Item": entry}, separators=(",", ":"), ensure_ascii=False)


def ion_line(entry: Item | Change) -> str:
    """An item as a line of a file in Ion text."""
    if isinstance(entry, Change):
        parts = [("Keys", entry.keys), ("OldImage", entry.old), ("NewImage", entry.new)]
        images = "".join(f",{name}:{_ion_map(image)}" for name, image in parts if image is not None)
        return f"$ion_1_0 {{Record:{{Metadata:{{WriteTimestampMicros:{entry.at_ms * 1000}.}}{images}}}}}"
    return f"$ion_1_0 {{Item:{_ion_map(entry)}}}"


def _ion_map(image: Item) -> str:
    return "{" + ",".join(f"{_ion_name(name)}:{_ion(value)}" for name, value in image.items()) + "}"


def _ion_name(name: str) -> str:
    plain = name.isascii() and name.isidentifier() and name not in ("null", "true", "false", "nan")
    return name if plain else "'" + _ion_text(name).replace("'", "\\'").replace('\\"', '"') + "'"


def _ion_text(text: str) -> str:
    escaped = (_ION_ESCAPES.get(char, char if char >= " " else f"\\x{ord(char):02x}") for char in text)
    return "".join(escaped)


def _ion(value: Item) -> str:
    ((kind, raw),) = value.items()
    match kind:
        case "S":
            return f'"{_ion_text(raw)}"'
        case "N":
            return _ion_number(raw)
        case "B":
            return f"{{{{{raw}}}}}"
        case "BOOL":
            return "true" if raw else "false"
        case "NULL":
            return "null"
        case "M":
            return _ion_map(raw)
        case "L":
            return "[" + ",".join(_ion(entry) for entry in raw) + "]"
        case _:
            assert kind in SETS, f"no attribute type {kind}"
            return f"$dynamodb_{kind}::[" + ",".join(_ion({kind[0]: entry}) for entry in raw) + "]"


def _ion_number(text: str) -> str:
    digits = text.replace("E+", "d").replace("E", "d").replace("e", "d")
    return digits if "." in digits or "d" in digits else digits + "."


def export_files(
    entries: Sequence[Item | Change],
    *,
    arn: str,
    table_arn: str,
    bucket: str,
    prefix: str | None,
    at_ms: int,
    form: str = "DYNAMODB_JSON",
    files: int = 3,
    incremental: bool = False,
    summary: dict[str, Any] | None = None,
) -> dict[str, bytes]:
    """Everything that one export leaves in its bucket, by key, the summary of all last."""
    export_id = arn.rpartition("/")[2]
    root = "/".join([*filter(None, [(prefix or "").strip("/")]), "AWSDynamoDB"])
    home = f"{root}/{export_id}"
    line = json_line if form == "DYNAMODB_JSON" else ion_line
    suffix = "json.gz" if form == "DYNAMODB_JSON" else "ion.gz"
    found: dict[str, bytes] = {f"{home}/_started": b""}
    listed = []
    for number in range(files):
        part = entries[number :: files - 1] if number < files - 1 else []  # the last partition is empty
        if files == 1:
            part = list(entries)
        text = "".join(line(entry) + "\n" for entry in part).encode()
        data = gzip.compress(text, 1, mtime=0)
        name = base64.b32encode(hashlib.sha256(f"{arn}{number}".encode()).digest()[:16]).decode().lower().rstrip("=")
        key = f"{root}/data/{name}.{suffix}" if incremental else f"{home}/data/{name}.{suffix}"
        found[key] = data
        checksum = hashlib.md5(data, usedforsecurity=False)
        listed.append(
            {
                "itemCount": len(part),
                "md5Checksum": base64.b64encode(checksum.digest()).decode(),
                "etag": checksum.hexdigest(),
                "dataFileS3Key": key,
            }
        )
    manifest = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in listed).encode()
    told = {
        "version": "2020-06-30",
        "exportArn": arn,
        "startTime": _iso(at_ms),
        "endTime": _iso(at_ms),
        "tableArn": table_arn,
        "tableId": "12345a12-abcd-123a-ab12-1234abc12345",
        "exportTime": _iso(at_ms),
        "s3Bucket": bucket,
        "s3Prefix": prefix,
        "s3SseAlgorithm": "AES256",
        "s3SseKmsKeyId": None,
        "manifestFilesS3Key": f"{home}/manifest-files.json",
        "billedSizeBytes": sum(map(len, found.values())),
        "itemCount": len(entries),
        "outputFormat": form,
        **(summary or {}),
    }
    told_text = json.dumps(told, separators=(",", ":")).encode()
    for name, data in (("manifest-files.json", manifest), ("manifest-summary.json", told_text)):
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        found[f"{home}/{name}"] = data
        found[f"{home}/{name.replace('.json', '.checksum')}"] = base64.b64encode(digest)
    return found


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# the API


@dataclass(slots=True)
class Export:
    """One export that was asked for."""

    arn: str
    parameters: dict[str, Any]
    at_ms: int
    ready_ms: int
    entries: list[Item | Change]
    status: str = "IN_PROGRESS"
    failure: tuple[str, str] | None = None


class ExportApi:
    """The three operations for one table. What they raise is `ApiError`, what they return is in wire form."""

    def __init__(self, table_arn: str, items: Callable[[], Iterable[Item]], put: Put, clock: Clock) -> None:
        self.table_arn = table_arn
        self.exports: list[Export] = []
        self.recovery = True
        """Point-in-time recovery is on."""
        self.takes_s = 60.0
        """How long an export is in progress."""
        self.files = 3
        self.fail_next: list[tuple[str, str]] = []
        """Codes and messages of exports that are to fail."""
        self._items = items
        self._put = put
        self._clock = clock
        self._numbers = itertools.count(1)
        self._by_token: dict[str, Export] = {}

    def describe_continuous_backups(self, table: str) -> dict[str, Any]:
        self._check(table)
        status = "ENABLED" if self.recovery else "DISABLED"
        described = {"ContinuousBackupsStatus": "ENABLED", "PointInTimeRecoveryDescription": {}}
        described["PointInTimeRecoveryDescription"] = {"PointInTimeRecoveryStatus": status}
        return {"ContinuousBackupsDescription": described}

    def export_table_to_point_in_time(self, **parameters: Any) -> dict[str, Any]:
        """`ExportTime` is a number of seconds; the items are those of now."""
        self._check(parameters["TableArn"])
        if not self.recovery:
            raise ApiError("PointInTimeRecoveryUnavailableException", "Point in time recovery is not enabled")
        token = parameters.get("ClientToken")
        known = self._by_token.get(token) if token else None
        if known is not None:
            if known.parameters != parameters:
                raise ApiError("ExportConflictException", "the token was used with other parameters")
            return self._described(known)
        now = self._clock.now_ms()
        at_ms = round(parameters.get("ExportTime", now / 1000) * 1000)
        if at_ms > now + 1000:
            raise ApiError("InvalidExportTimeException", "the export time lies in the future")
        arn = f"{self.table_arn}/export/{now:014d}-{next(self._numbers):08x}"
        export = Export(arn, parameters, at_ms, now + round(self.takes_s * 1000), list(self._items()))
        if self.fail_next:
            export.failure = self.fail_next.pop(0)
        self.exports.append(export)
        if token:
            self._by_token[token] = export
        return self._described(export)

    def describe_export(self, arn: str) -> dict[str, Any]:
        for export in self.exports:
            if export.arn == arn:
                self._proceed(export)
                return self._described(export)
        raise ApiError("ExportNotFoundException", f"no export {arn}")

    def _check(self, table: str) -> None:
        if table not in (self.table_arn, self.table_arn.rpartition("/")[2]):
            raise ApiError("TableNotFoundException", f"no table {table}")

    def _proceed(self, export: Export) -> None:
        if export.status != "IN_PROGRESS" or self._clock.now_ms() < export.ready_ms:
            return
        if export.failure is not None:
            export.status = "FAILED"
            return
        asked = export.parameters
        for key, data in export_files(
            export.entries,
            arn=export.arn,
            table_arn=self.table_arn,
            bucket=asked["S3Bucket"],
            prefix=asked.get("S3Prefix"),
            at_ms=export.at_ms,
            form=asked.get("ExportFormat", "DYNAMODB_JSON"),
            files=self.files,
        ).items():
            self._put(asked["S3Bucket"], key, data)
        export.status = "COMPLETED"

    def _described(self, export: Export) -> dict[str, Any]:
        asked = export.parameters
        told = {
            "ExportArn": export.arn,
            "ExportStatus": export.status,
            "TableArn": self.table_arn,
            "ExportTime": export.at_ms / 1000,
            "S3Bucket": asked["S3Bucket"],
            "S3Prefix": asked.get("S3Prefix"),
            "ExportFormat": asked.get("ExportFormat", "DYNAMODB_JSON"),
            "ExportType": "FULL_EXPORT",
        }
        if export.status == "COMPLETED":
            root = "/".join([*filter(None, [(asked.get("S3Prefix") or "").strip("/")]), "AWSDynamoDB"])
            told["ExportManifest"] = f"{root}/{export.arn.rpartition('/')[2]}/manifest-summary.json"
        if export.status == "FAILED" and export.failure is not None:
            told["FailureCode"], told["FailureMessage"] = export.failure
        return {"ExportDescription": {name: value for name, value in told.items() if value is not None}}


# S3 in memory


@dataclass(slots=True)
class FakeS3:
    """Objects in memory behind the calls that read them."""

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    """By key: codes and statuses of the next reads of it."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """By key: after how many bytes the next reads of it are cut off."""
    read_bytes_max: int = 65536

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.objects[bucket, key] = data

    def data_keys(self) -> list[str]:
        return [key for _, key in self.objects if "/data/" in key]

    async def get_object(self, Bucket: str, Key: str, Range: str | None = None) -> dict[str, Any]:
        self.calls[Key] += 1
        if self.faults.get(Key):
            code, status = self.faults[Key].pop(0)
            raise client_error(ApiError(code, "as told", status), "GetObject")
        if (Bucket, Key) not in self.objects:
            raise client_error(ApiError("NoSuchKey", "The specified key does not exist.", 404), "GetObject")
        data = self.objects[Bucket, Key]
        start = 0 if Range is None else int(Range.removeprefix("bytes=").removesuffix("-"))
        cut = self.cuts[Key].pop(0) if self.cuts.get(Key) else None
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        return {
            "ETag": etag,
            "ContentLength": len(data) - start,
            "Body": _Stream(data[start:], cut, self.read_bytes_max),
        }


class _Stream:
    def __init__(self, data: bytes, cut: int | None, read_bytes_max: int) -> None:
        self._data = data if cut is None else data[:cut]
        self._cut = cut is not None
        self._at = 0
        self._read_bytes_max = read_bytes_max

    async def read(self, amount: int | None = None) -> bytes:
        piece = self._data[self._at : self._at + min(amount or self._read_bytes_max, self._read_bytes_max)]
        self._at += len(piece)
        if not piece and self._cut:
            raise ConnectionResetError("the connection was cut")
        return piece

    def close(self) -> None:
        self._data = b""


def client_error(error: ApiError, operation: str) -> Exception:
    """The error as botocore raises it."""
    from botocore.exceptions import ClientError

    reply = {
        "Error": {"Code": error.code, "Message": str(error)},
        "ResponseMetadata": {"HTTPStatusCode": error.status},
    }
    raised: Exception = ClientError(reply, operation)
    return raised


# before a real server


class ExportServer:
    """Answers the export operations itself and passes everything else on to `upstream`, a DynamoDB without exports.

    `table(arn, items)` tells of a table that can be exported. The files go through `put`.
    """

    def __init__(self, upstream: str, put: Put, clock: Clock | None = None) -> None:
        target = urlsplit(upstream)
        self.upstream = (target.hostname or "127.0.0.1", target.port or 80)
        self.tables: dict[str, ExportApi] = {}
        self.lock = threading.Lock()
        self._put = put
        self._clock = clock or Clock()
        server = self

        class Handler(_Handler):
            exports = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, name="exports", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def table(self, arn: str, items: Callable[[], Iterable[Item]]) -> ExportApi:
        api = self.tables[arn] = ExportApi(arn, items, self._put, self._clock)
        return api

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any] | None:
        """The reply to an export operation; None where that is for the real server. Raises `ApiError`."""
        with self.lock:
            match operation:
                case "DescribeContinuousBackups":
                    return self._api(request["TableName"]).describe_continuous_backups(request["TableName"])
                case "ExportTableToPointInTime":
                    return self._api(request["TableArn"]).export_table_to_point_in_time(**request)
                case "DescribeExport":
                    arn = request["ExportArn"]
                    return self._api(arn.partition("/export/")[0]).describe_export(arn)
                case _:
                    return None

    def _api(self, table: str) -> ExportApi:
        for arn, api in self.tables.items():
            if table in (arn, arn.rpartition("/")[2]):
                return api
        raise ApiError("TableNotFoundException", f"no table {table}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    exports: ExportServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        try:
            reply = self.exports.answer(operation, json.loads(body or b"{}"))
        except ApiError as error:
            kind = f"com.amazonaws.dynamodb.v20120810#{error.code}"
            self._send(error.status, json.dumps({"__type": kind, "message": str(error)}).encode())
            return
        if reply is not None:
            self._send(200, json.dumps(reply).encode())
            return
        connection = HTTPConnection(*self.exports.upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            self._send(answer.status, answer.read())
        finally:
            connection.close()

    def _send(self, status: int, body: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_parts: object) -> None:
        """Says nothing: the log is that of the tests."""
