"""Where dead letters are kept: files and directories, or a bucket. Nothing that was kept is ever changed or deleted.

What was replayed is noted beside it: for `main.jsonl` and its older parts in `main.jsonl.redriven`, for an object
`a/b.json` in the object `a/redriven/b.json`. Deleting the note makes everything wait again.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from penstock.core.errors import PenstockError, Permanent, Transient, Unreachable
from penstock.core.json_text import decode, encode
from penstock.lib.aws import THROTTLED, AwsSessions, S3Style, code_of, sessions, status_of, verdict
from penstock.lib.dead_letters.record import Record, read_records

OBJECT_BYTES_MAX = 256 * 1024 * 1024
ATTEMPTS_MAX = 4
"""Of a call to S3 that fails in a way which may pass."""
RETRY_DELAY_S = 0.25
LINE_BYTES_MAX = 128 * 1024 * 1024
DATA_DIR_PART = "dead-letters"
"""Directory of dead letters in a data directory."""
_NOTE = ".redriven"
_OLDER_PART = re.compile(r"(?P<base>.+)\.(?P<number>[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Location:
    """How S3 is reached; without anything the environment decides."""

    region: str | None = None
    sts_role_arn: str | None = None
    sts_external_id: str | None = None
    sts_header_overrides: Mapping[str, str] | None = None
    path_style: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """What is read and noted together: a file with its older parts, or an object."""

    name: str
    parts: tuple[tuple[str, int], ...]
    """Names and sizes in bytes, oldest first. What is added later is not read."""


@dataclass(slots=True)
class Unreadable:
    """Pieces that are no dead letters."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, place: str, reason: str) -> None:
        self.count += 1
        if len(self.first) < 20:
            self.first.append(f"{place}: {reason}")


class Store(Protocol):
    """Dead letters in one place. Enter it before use. Methods raise `Transient` or `Permanent`."""

    unreadable: Unreadable

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_error: object) -> None: ...

    async def volumes(self) -> list[Volume]:
        """What is there now, in order of names."""

    def read(self, volume: Volume) -> AsyncIterator[Record]:
        """The records of a volume, oldest first."""

    async def replayed(self, volume: Volume) -> set[str]:
        """Ids of the records that were replayed."""

    async def note(self, volume: Volume, ids: set[str], new: set[str]) -> None:
        """Note that the records `new` were replayed; `ids` are these and all that were noted before."""


def open_store(place: str, location: Location | None = None) -> Store:
    """The store at a path or an address `s3://bucket/prefix`. Raises `Permanent` where there is nothing."""
    if place.startswith("s3://"):
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        if not bucket:
            raise Permanent(f"{place} names no bucket")
        return BucketStore(bucket, prefix, location or Location())
    path = Path(place)
    if not path.exists():
        raise Permanent(f"there is no file or directory {place}")
    return FileStore(path)


class FileStore:
    """A file with its older parts, or all files below a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.unreadable = Unreadable()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Nothing is held open."""

    async def volumes(self) -> list[Volume]:
        try:
            return self._volumes()
        except OSError as error:
            raise Permanent(f"{self._path} cannot be read: {error}") from error

    def _volumes(self) -> list[Volume]:
        if self._path.is_dir():
            inside = self._path / DATA_DIR_PART
            is_data_dir = inside.is_dir() or (self._path / "lock").is_file()  # which holds leases and checkpoints, too
            root = inside if is_data_dir else self._path
            files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
        else:
            files = [self._path]
            if _OLDER_PART.fullmatch(self._path.name) is None:
                files += [path for path in self._path.parent.glob(f"{self._path.name}.*") if path.is_file()]
        grouped: dict[Path, list[tuple[int, Path]]] = {}
        for path in files:
            if path.name.endswith(_NOTE):
                continue
            older = _OLDER_PART.fullmatch(path.name)
            base = path if older is None else path.with_name(older["base"])
            grouped.setdefault(base, []).append((0 if older is None else int(older["number"]), path))
        return [
            Volume(str(base), tuple((str(path), path.stat().st_size) for _, path in sorted(parts, reverse=True)))
            for base, parts in sorted(grouped.items())
        ]

    async def read(self, volume: Volume) -> AsyncIterator[Record]:
        seen: dict[str, int] = {}
        for name, size in volume.parts:
            try:
                for found in read_records(_lines(Path(name), size), seen):
                    if isinstance(found, str):
                        self.unreadable.add(name, found)
                    else:
                        yield found
            except OSError as error:
                raise Permanent(f"{name} cannot be read: {error}") from error

    async def replayed(self, volume: Volume) -> set[str]:
        try:
            return set(Path(volume.name + _NOTE).read_text().split())
        except FileNotFoundError:
            return set()
        except (OSError, UnicodeDecodeError) as error:
            raise Permanent(f"{volume.name}{_NOTE} cannot be read: {error}") from error

    async def note(self, volume: Volume, ids: set[str], new: set[str]) -> None:
        path = Path(volume.name + _NOTE)
        try:
            with path.open("a+b") as file:
                size = file.seek(0, os.SEEK_END)
                torn = bool(size) and os.pread(file.fileno(), 1, size - 1) != b"\n"
                lines = "".join(f"{id_}\n" for id_ in sorted(new))
                file.write(b"\n" * torn + lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Permanent(f"{path} cannot be written: {error}") from error


def _lines(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as file:
        while left > 0:
            line = file.readline(min(left, LINE_BYTES_MAX))
            if not line:
                return
            left -= len(line)
            yield line


class BucketStore:
    """The objects of a bucket below a prefix."""

    def __init__(self, bucket: str, prefix: str, location: Location) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._location = location
        self._sessions: AwsSessions | None = None
        self._client: Any = None
        self._notes: set[str] = set()
        self.unreadable = Unreadable()

    async def __aenter__(self) -> Self:
        self._sessions = await sessions().__aenter__()
        try:
            style = S3Style(path_style=self._location.path_style)
            self._client = await self._sessions.client("s3", self._location, s3_style=style)
        except BaseException as error:
            await self._sessions.__aexit__()
            raise self._told(error) from error
        return self

    async def __aexit__(self, *_error: object) -> None:
        held, self._sessions = self._sessions, None
        if held is not None:
            await held.__aexit__()

    async def volumes(self) -> list[Volume]:
        found: list[Volume] = []
        call = {"Bucket": self._bucket, "Prefix": self._prefix}
        while True:
            page = await self._call(self._client.list_objects_v2, **call)
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if _is_note(key):
                    self._notes.add(key)
                elif not key.endswith("/"):
                    found.append(Volume(key, ((key, entry["Size"]),)))
            if not page.get("IsTruncated"):
                return found
            call["ContinuationToken"] = page["NextContinuationToken"]

    async def read(self, volume: Volume) -> AsyncIterator[Record]:
        ((key, size),) = volume.parts
        if size > OBJECT_BYTES_MAX:
            self.unreadable.add(key, f"larger than {OBJECT_BYTES_MAX} bytes")
            return
        for found in read_records((await self._get(key)).splitlines(keepends=True), {}):
            if isinstance(found, str):
                self.unreadable.add(key, found)
            else:
                yield found

    async def replayed(self, volume: Volume) -> set[str]:
        key = _note_of(volume.name)
        if key not in self._notes:
            return set()
        try:
            return set(decode(await self._get(key))["redriven"])
        except (ValueError, KeyError, TypeError) as error:
            raise Permanent(f"s3://{self._bucket}/{key} is no note of what was replayed: {error}") from error

    async def note(self, volume: Volume, ids: set[str], new: set[str]) -> None:
        key = _note_of(volume.name)
        body = encode({"redriven": sorted(ids)})
        await self._call(
            self._client.put_object, Bucket=self._bucket, Key=key, Body=body, ContentType="application/json"
        )
        self._notes.add(key)

    async def _get(self, key: str) -> bytes:
        body: bytes = await self._call(self._read, Bucket=self._bucket, Key=key)
        return body

    async def _read(self, **call: Any) -> bytes:
        reply = await self._client.get_object(**call)
        async with reply["Body"] as stream:
            body: bytes = await stream.read()
        return body

    async def _call(self, operation: Callable[..., Awaitable[Any]], **call: Any) -> Any:
        """Call it, again when the service is busy or cannot be reached for a moment."""
        attempt = 1
        while True:
            try:
                return await operation(**call)
            except Exception as error:
                if attempt == ATTEMPTS_MAX or not _passes(error):
                    raise self._told(error) from error
            await asyncio.sleep(RETRY_DELAY_S * 2.0 ** (attempt - 1))
            attempt += 1

    def _told(self, error: BaseException) -> BaseException:
        """The error in the words of this place."""
        known = error if isinstance(error, PenstockError) else verdict(error)
        if known is None:
            return error
        reason = "there is no such bucket" if code_of(error) == "NoSuchBucket" else str(known)
        return type(known)(f"s3://{self._bucket}/{self._prefix}: {reason}")


def _passes(error: Exception) -> bool:
    known = verdict(error)
    return isinstance(known, Unreachable) or (
        isinstance(known, Transient) and (status_of(error) in (429, 500, 502, 503, 504) or code_of(error) in THROTTLED)
    )


def _note_of(key: str) -> str:
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}redriven/{name}"


def _is_note(key: str) -> bool:
    return f"/{key}".rpartition("/")[0].endswith("/redriven")
