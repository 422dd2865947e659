"""Reads one exported file: download, gunzip, lines, events, with a checkpoint by line."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from penstock import sdk
from penstock.lib.compression import Corrupt, decompressor
from penstock.lib.lease import Lease, LeaseLost, MemoryStore, SqliteStore
from penstock.plugins.sources.dynamodb import lines
from penstock.plugins.sources.dynamodb.api import Missing, read_piece
from penstock.plugins.sources.dynamodb.export_items import ItemReader
from penstock.plugins.sources.dynamodb.reader import LeasedReader, Read, Surroundings

CHUNK_LINES_MAX = 2000
"""Lines of a file that are on their way, or delivered and not part of the saved checkpoint: at most so many of a file
come again after a kill."""
LINES_MAX = 250
"""Lines in one delivery: a chunk is several, so that one is converted while others are sent."""
DELIVERY_BYTES_MAX = 128 * 1024
"""Bytes of these lines: what is made of them is still in the cache when it is sent on."""
LINE_BYTES_MAX = 16 * 1024 * 1024
"""An item has 400 KB, as text a few times of it; a longer line is left out."""
READ_BYTES = 256 * 1024
READ_BYTES_MIN = 64 * 1024
"""Less is not worth to be looked at: more is waited for."""
_TOO_LONG = b"a line that is too long"
"""Stands for it, and is refused as no item."""


class _Bad(Exception):
    """The file is not what the manifest says, or cannot be read at all."""


class FileReader(LeasedReader):
    """One file under one lease; a file that cannot be read is put aside, and the others go on."""

    kind = "file"
    place = "line"
    refused = "Negative acknowledgment received for data file {key}, retrying"
    overdue = "Acknowledgment timed out for data file {key} at line {label}, retrying"

    def __init__(self, lease: Lease, items: ItemReader, shared: Surroundings) -> None:
        super().__init__(
            lease, shared, shared.file_acknowledgment_timeout_s, shared.items_processed, shared.item_errors
        )
        self._convert = items.compile()
        _, self._bucket, self.key = lease.key.split("|", 2)
        self._loaded: int = self._progress.get("loadedRecords", 0)
        """Lines that were delivered before."""
        self._failure = ""
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._saves_at_once = isinstance(shared.store, SqliteStore | MemoryStore)
        """A checkpoint costs next to nothing: each delivery that ends is written down, else they are once a second."""
        self._saving_now: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> int:
        """Lines that were delivered by now."""
        loaded: int = self._progress.get("loadedRecords", 0)
        return loaded

    async def _read_on(self) -> bool:
        try:
            at = await self._load()
            if at is None:
                return False
            self._verify(at)
        except _Bad as error:
            self._failure = str(error)
            return False
        return True

    async def _load(self) -> int | None:
        """Deliver all lines behind the checkpoint; returns their number, None when there was a reason to stop."""
        at = 0
        async for text in self._texts():
            if self._halted.is_set():
                return None
            for part, count in lines.parts(text, LINES_MAX, DELIVERY_BYTES_MAX):
                at += count
                left = at - self._loaded
                if left <= 0:
                    continue
                await self._wait_for_chunk(at)
                if self._halted.is_set():
                    return None
                if left < count:
                    part, count = lines.behind(part, count - left), left
                await self._deliver_lines(part, count, at)
                await asyncio.sleep(0)  # changes of the stream are not to wait for a whole file
        return None if self._halted.is_set() else at

    async def _deliver_lines(self, text: bytes, count: int, at: int) -> None:
        items = self._convert(text, count, self._shared.clock.now_ms())
        if items.failed:
            self._shared.item_errors.add(items.failed)
        await self._deliver(items.batch, items.sizes, str(at), {"loadedRecords": at})

    async def _wait_for_chunk(self, at: int) -> None:
        """Until the lines from the checkpoint up to `at` are no more than a chunk.

        Lines that are on their way for long are not waited for: a processor may hold them until others have come.
        """
        clock, span_s = self._shared.clock, self._shared.pace.held
        while at - self._kept > CHUNK_LINES_MAX and not self._halted.is_set():
            left_s = span_s - (clock.monotonic() - self._window[0].at) if self._window else span_s
            if left_s <= 0:
                break
            await self._wait_for_delivery(left_s)
        await self._wait_for_room()

    @property
    def _kept(self) -> int:
        """Lines of the last checkpoint that was saved; where each save has its price, of the next one."""
        kept: int = (self.lease.progress if self._saves_at_once else self._progress).get("loadedRecords", 0)
        return kept

    def _verify(self, found_lines: int) -> None:
        told = self._progress.get("md5Checksum")
        found = base64.b64encode(self._md5.digest()).decode()
        if told and told != found:
            raise _Bad(f"its MD5 checksum is {found}, the manifest says {told}")
        total = self._progress.get("totalRecords", 0)
        if found_lines < total:
            raise _Bad(f"it has {found_lines} items, the manifest says {total}")

    def _settled(self, read: Read, *, ok: bool) -> None:
        super()._settled(read, ok=ok)
        if self._dirty and self._saves_at_once and (self._saving_now is None or self._saving_now.done()):
            self._saving_now = asyncio.get_running_loop().create_task(self._save_all())

    async def _save_all(self) -> None:
        """Save what is delivered, and what is delivered meanwhile."""
        while self._dirty and not self._lost:
            before = self.lease
            await self.tick()
            if self.lease is before:
                return  # the store is away: the next tick tries again

    async def _save(self) -> None:
        await super()._save()
        self._moved.set()  # for the next chunk there may be room

    # reading

    async def _texts(self) -> AsyncIterator[bytes]:
        """The content in texts of whole lines."""
        rest = b""
        too_long = False
        async for piece in self._pieces():
            end = piece.rfind(b"\n")
            if end < 0:
                rest += piece
            else:
                yield _TOO_LONG + piece[piece.find(b"\n") : end] if too_long else rest + piece[:end]
                rest, too_long = piece[end + 1 :], False
            if len(rest) > LINE_BYTES_MAX:
                rest, too_long = b"", True
        if rest or too_long:
            yield _TOO_LONG if too_long else rest

    async def _pieces(self) -> AsyncIterator[bytes]:
        """The decompressed content, a megabyte at most at a time."""
        plain = not self.key.endswith(".gz")
        stream = decompressor("none" if plain else "gzip", None)
        try:
            async for data in self._downloaded():
                self._md5.update(data)
                for piece in stream.feed(data):  # a millisecond each: the way to a thread and back takes longer
                    yield piece
                    await asyncio.sleep(0)
            if self._halted.is_set():
                return
            for piece in stream.finish():
                yield piece
        except Corrupt as error:
            raise _Bad(str(error)) from error

    async def _downloaded(self) -> AsyncIterator[bytes]:
        """The bytes of the object; after an error the download goes on where it ended."""
        shared = self._shared
        at, failures, etag, body = 0, 0, "", None
        try:
            while not self._halted.is_set():
                try:
                    if body is None:
                        body, now = await shared.api.object(self._bucket, self.key, start=at)
                        if etag and now != etag:
                            raise _Bad("it was replaced while it was read")
                        etag = now
                    piece = await _collected(body)
                except Missing as error:
                    raise _Bad(str(error)) from error
                except (sdk.Transient, sdk.Permanent) as error:
                    shared.log.warning("s3://%s/%s cannot be read now: %s", self._bucket, self.key, error)
                    _close(body)
                    body = None
                    await self._back_off(failures)
                    failures += 1
                    continue
                if not piece:
                    return
                failures = 0
                at += len(piece)
                yield piece
        finally:
            _close(body)

    # the lease

    async def _leave(self) -> None:
        if not self._failure or self._lost or self._stopping.is_set():
            await super()._leave()
            return
        shared = self._shared
        shared.log.error(
            "File s3://%s/%s cannot be loaded and is tried again in %.0f s: %s",
            self._bucket,
            self.key,
            shared.pace.file_closed,
            self._failure,
        )
        # What was delivered of a file that is not as the manifest says is delivered again: versions sort it out.
        progress = {**self._checkpoint(), "loadedRecords": 0}
        try:
            async with self._saving:
                self.lease = await shared.store.save(self.lease, progress, shared.pace.file_closed)
                self.lease = await shared.store.close(self.lease, shared.pace.file_closed, 2**31)
        except (LeaseLost, sdk.Transient) as error:
            shared.log.warning("File %s could not be put aside: %s", self.lease.key, error)
        self._lost = True


async def _collected(body: Any) -> bytes:
    """The next bytes of a download, a good many at once."""
    first = await read_piece(body, READ_BYTES)
    if not first or len(first) >= READ_BYTES_MIN:
        return first
    pieces, size = [first], len(first)
    while size < READ_BYTES_MIN:
        piece = await read_piece(body, READ_BYTES)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _close(body: Any) -> None:
    if body is not None:
        body.close()
