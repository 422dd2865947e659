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
    """Everything that one export leaves in its bucket, by key, the summary of all last.

    Where there are several files, the last partition is empty.
    """
    parts = [entries] if files == 1 else [*(entries[number :: files - 1] for number in range(files - 1)), []]
    names = Names(arn, prefix, form, incremental)
    data = data_files(parts, names)
    told = {"tableArn": table_arn, "s3Bucket": bucket, **(summary or {})}
    content = {key: file for key, (file, _) in data.items()}
    return {f"{names.home}/_started": b"", **content, **manifests(data, names, at_ms, told)}


@dataclass(frozen=True, slots=True)
class Names:
    """Where the files of an export lie."""

    arn: str
    prefix: str | None = None
    form: str = "DYNAMODB_JSON"
    incremental: bool = False

    @property
    def root(self) -> str:
        return "/".join([*filter(None, [(self.prefix or "").strip("/")]), "AWSDynamoDB"])

    @property
    def home(self) -> str:
        return f"{self.root}/{self.arn.rpartition('/')[2]}"

    def data_file(self, number: int) -> str:
        name = base64.b32encode(hashlib.sha256(f"{self.arn}{number}".encode()).digest()[:16]).decode()
        suffix = "json.gz" if self.form == "DYNAMODB_JSON" else "ion.gz"
        folder = self.root if self.incremental else self.home
        return f"{folder}/data/{name.lower().rstrip('=')}.{suffix}"


DataFiles = dict[str, tuple[bytes, int]]
"""By key: a compressed file and how many items it holds."""


def data_files(parts: Iterable[Sequence[Item | Change]], names: Names) -> DataFiles:
    """One file for each of `parts`, which are taken one by one."""
    line = json_line if names.form == "DYNAMODB_JSON" else ion_line
    found: DataFiles = {}
    for number, part in enumerate(parts):
        text = "".join(line(entry) + "\n" for entry in part).encode()
        found[names.data_file(number)] = gzip.compress(text, 1, mtime=0), len(part)
    return found


def manifests(data: DataFiles, names: Names, at_ms: int, told: dict[str, Any]) -> dict[str, bytes]:
    """The two manifests with their checksums; `told` is what the summary says of the table and the bucket."""
    listed = []
    for key, (file, count) in data.items():
        checksum = hashlib.md5(file, usedforsecurity=False)
        listed.append(
            {
                "itemCount": count,
                "md5Checksum": base64.b64encode(checksum.digest()).decode(),
                "etag": checksum.hexdigest(),
                "dataFileS3Key": key,
            }
        )
    files_text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in listed).encode()
    summary = {
        "version": "2020-06-30",
        "exportArn": names.arn,
        "startTime": _iso(at_ms),
        "endTime": _iso(at_ms),
        "tableId": "12345a12-abcd-123a-ab12-1234abc12345",
        "exportTime": _iso(at_ms),
        "s3Prefix": names.prefix,
        "s3SseAlgorithm": "AES256",
        "s3SseKmsKeyId": None,
        "manifestFilesS3Key": f"{names.home}/manifest-files.json",
        "billedSizeBytes": sum(len(file) for file, _ in data.values()),
        "itemCount": sum(count for _, count in data.values()),
        "outputFormat": names.form,
        **told,
    }
    summary_text = json.dumps(summary, separators=(",", ":")).encode()
    found = {}
    for name, text in (("manifest-files", files_text), ("manifest-summary", summary_text)):
        found[f"{names.home}/{name}.json"] = text
        digest = hashlib.md5(text, usedforsecurity=False).digest()
        found[f"{names.home}/{name}.checksum"] = base64.b64encode(digest)
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

    def content(self, export: Export) -> dict[str, bytes]:
        """What an export that succeeds leaves in its bucket."""
        asked = export.parameters
        return export_files(
            export.entries,
            arn=export.arn,
            table_arn=self.table_arn,
            bucket=asked["S3Bucket"],
            prefix=asked.get("S3Prefix"),
            at_ms=export.at_ms,
            form=asked.get("ExportFormat", "DYNAMODB_JSON"),
            files=self.files,
        )

    def _check(self, table: str) -> None:
        if table not in (self.table_arn, self.table_arn.rpartition("/")[2]):
            raise ApiError("TableNotFoundException", f"no table {table}")

    def _proceed(self, export: Export) -> None:
        if export.status != "IN_PROGRESS" or self._clock.now_ms() < export.ready_ms:
            return
        if export.failure is not None:
            export.status = "FAILED"
            return
        for key, data in self.content(export).items():
            self._put(export.parameters["S3Bucket"], key, data)
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
