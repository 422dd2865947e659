"""The reading of all files: discovery, turns, writing to the buffer, refusals, and the positions that follow."""

from __future__ import annotations

import asyncio
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock import sdk
from penstock.lib.compression import Corrupt, Kind, TooLarge, decompressor
from penstock.plugins.sources.file.checkpoints import Checkpoints, Position
from penstock.plugins.sources.file.paths import Paths
from penstock.plugins.sources.file.tracked import LineCutter, Piece, TrackedFile, key_of, same_head

if TYPE_CHECKING:
    from penstock.plugins.sources.file import Config

_CHARACTER_BYTES_MAX = 4
_WIDE = {"utf-16": (b"\xff\xfe", "utf-16-le", "utf-16-be"), "utf-32": (b"\xff\xfe\x00\x00", "utf-32-le", "utf-32-be")}


class FileSource:
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._log = ctx.log
        self._clock = ctx.clock
        self._now = ctx.clock.monotonic
        self._paths = Paths([*config.paths, *([config.path] if config.path else [])], config.exclude_paths)
        self._codec: sdk.InputCodec | None = ctx.build(config.codec) if config.codec is not None else None
        several = bool(config.tail or config.paths or config.exclude_paths)
        self._meters = Meters(ctx.metrics, self)
        self._events = LineEvents(config, ctx, with_place=several and config.include_file_metadata)
        self._whole = not config.tail and (self._codec is not None or config.compression != "none")
        self._encoding = config.encoding.lower().replace("_", "-")
        self._line_bytes_max = config.max_line_length * _CHARACTER_BYTES_MAX
        self._checkpoints = Checkpoints(
            self._checkpoint_path(ctx),
            cleanup_after_s=config.checkpoint_cleanup_after,
            clock=ctx.clock,
            log=ctx.log,
            errors=self._meters.checkpoint_errors,
        )
        self._files: dict[str, TrackedFile] = {}
        self._threads = asyncio.Semaphore(config.reader_threads or (4 if config.tail else 1))
        self._wake = asyncio.Event()
        self._stopped = False
        self._ended = False
        self.lag_bytes = 0
        """Bytes that were in a file and not yet read at the last look."""
        self._output: sdk.Output | None = None

    @property
    def open_files(self) -> int:
        return sum(file.descriptor is not None for file in self._files.values())

    def _checkpoint_path(self, ctx: sdk.Context) -> Path | None:
        if self._config.checkpoint_file is not None:
            return Path(self._config.checkpoint_file)
        if self._config.tail and ctx.data_dir is not None:
            return ctx.data_dir / f"file-{ctx.pipeline}.json"
        if self._config.tail or self._config.paths:
            self._log.warning("No checkpoint_file configured. Checkpoint state will not be persisted across restarts.")
        return None

    async def run(self, output: sdk.Output) -> None:
        self._output = output
        await asyncio.to_thread(self._checkpoints.load)
        if self._config.tail and self._config.compression != "none":
            self._log.warning("compression is not used with tail: files are read as they are")
        output.started()
        try:
            await (self._follow() if self._config.tail else self._read_once())
        finally:
            self._ended = True
            for file in self._files.values():
                file.close()
            await asyncio.to_thread(self._checkpoints.save)

    async def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    # going through the files

    async def _read_once(self) -> None:
        missing = await asyncio.to_thread(self._paths.missing)
        if missing:
            raise sdk.Permanent(f"Error processing the input file {missing[0]}: there is no such file")
        await self._discover(first=True)
        if not self._files:
            self._log.warning("No file matches %s", self._config.paths)
        save_at = self._now()
        while not self._stopped:
            files = [file for file in self._files.values() if not file.ended or file.refused]
            if not files and not any(file.on_its_way for file in self._files.values()):
                return
            self._wake.clear()
            await asyncio.gather(*(self._turn(file) for file in files))
            save_at = await self._save(save_at)
            if all(file.ended and not file.refused for file in self._files.values()):
                await self._pause(self._config.poll_interval)

    async def _follow(self) -> None:
        first = True
        save_at = self._now()
        while not self._stopped:
            self._wake.clear()
            await self._discover(first=first)
            first = False
            # Longest not read first: a file that found all places taken by others is ahead of them the next time.
            files = sorted(self._files.values(), key=lambda file: file.turned_at)
            read = await asyncio.gather(*(self._turn(file) for file in files))
            self._retire()
            save_at = await self._save(save_at)
            if not any(read):
                await self._pause(self._config.poll_interval)

    async def _pause(self, seconds: float) -> None:
        """Wait for a refusal, the end, or until the time is over."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    async def _save(self, due: float) -> float:
        now = self._now()
        if now < due:
            return due
        await asyncio.to_thread(self._checkpoints.save)
        self._meters.checkpoint_flushes.add()
        return now + self._config.checkpoint_interval

    async def _discover(self, *, first: bool) -> None:
        """Take up files that are new, notice those whose name leads elsewhere now."""
        found = await asyncio.to_thread(self._look_around)
        now = self._now()
        for key, (path, size, head) in found.items():
            file = self._files.get(key)
            if file is None:
                self._files[key] = file = self._track(key, path, size, head, first=first)
                file.active_at = now
            file.path, file.hidden_since = path, None
            file.position.path = str(path)
            file.position.seen_ms = self._clock.now_ms()
        for key, file in self._files.items():
            if key not in found and file.hidden_since is None:
                file.hidden_since = now
                self._meters.rotated.add()
                self._log.info("%s was renamed or deleted; reading the rest of it", file.path)

    def _look_around(self) -> dict[str, tuple[Path, int, bytes]]:
        """Path, size and head of each file by its key. Heads only of files not known."""
        found: dict[str, tuple[Path, int, bytes]] = {}
        for path in self._paths.find():
            try:
                stat = path.stat()
                key = key_of(stat)
                head = b""
                if key not in self._files:
                    with path.open("rb") as file:
                        head = file.read(self._config.fingerprint_bytes)
            except OSError as error:
                self._meters.read_errors.add()
                self._log.warning("%s cannot be read: %s", path, error.strerror)
                continue
            found.setdefault(key, (path, stat.st_size, head))
        return found

    def _track(self, key: str, path: Path, size: int, head: bytes, *, first: bool) -> TrackedFile:
        position = self._checkpoints.get(key)
        if position is None or not same_head(head, position) or size < position.committed:
            start = size if first and self._config.start_position == "end" and position is None else 0
            position = Position(str(path), start, len(head), zlib.crc32(head))
        self._checkpoints.put(key, position)
        return TrackedFile(key, path, position)

    def _retire(self) -> None:
        """Let go of files that are gone and read to their end, and close those where nothing happens."""
        now, config = self._now(), self._config
        for key, file in list(self._files.items()):
            if file.on_its_way or file.refused or file.busy:
                continue
            hidden = file.hidden_since
            if hidden is None:
                if file.descriptor is not None and now - file.active_at >= config.close_inactive:
                    self._close(file)
                continue
            if file.descriptor is None or file.ended:
                self._close(file)
                del self._files[key]

    def _close(self, file: TrackedFile) -> None:
        if file.descriptor is not None:
            file.close()
            self._meters.closed.add()

    # reading one file

    async def _turn(self, file: TrackedFile) -> bool:
        """Read from one file until its time is over or there is nothing more. True when there was something."""
        async with self._threads:
            if self._stopped:
                return False
            file.busy = True
            try:
                if self._whole:
                    await self._read_whole(file)
                    return True
                return await self._read_lines(file)
            except OSError as error:
                self._meters.read_errors.add()
                self._log.warning("Error reading file %s: %s", file.path, error.strerror)
                if not self._config.tail:
                    file.ended = True
                return False
            finally:
                file.busy = False

    async def _read_lines(self, file: TrackedFile) -> bool:
        if not await self._opened(file):
            return False
        file.turned_at = self._now()
        size, emptied = await asyncio.to_thread(file.look, self._config.fingerprint_bytes)
        if emptied:
            self._log.info("%s was truncated; reading it from its start", file.path)
            self._meters.rotated.add()
            self._meters.truncations.add()
            file.start_over()
        self.lag_bytes = max(0, size - file.read_to)
        while file.refused and not self._stopped:
            await self._send_again(file, file.refused.popleft())
        until = self._now() + self._config.max_read_time_per_file
        cutter = LineCutter(self._encoding_of(file))
        read = False
        while not self._stopped and self._now() < until:
            data = await asyncio.to_thread(file.read, file.read_to, self._config.read_buffer_size)
            if data:
                read = True
                file.active_at = self._now()
                self._meters.bytes_read.add(len(data))
                await self._take(file, cutter, data)
            if len(data) < self._config.read_buffer_size:
                await self._at_end(file)
                break
        return read

    async def _opened(self, file: TrackedFile) -> bool:
        if file.descriptor is not None:
            return True
        if file.hidden_since is not None:
            return False
        if self.open_files >= self._config.max_active_files and not self._close_idle():
            return False
        if not await asyncio.to_thread(file.open):
            return False
        self._meters.opened.add()
        return True

    def _close_idle(self) -> bool:
        """Make room for another open file. False when each one is needed."""
        idle = [
            file
            for file in self._files.values()
            if file.descriptor is not None and not (file.busy or file.refused or file.hidden_since is not None)
        ]
        if not idle:
            return False
        self._close(min(idle, key=lambda file: file.active_at))
        return True

    async def _at_end(self, file: TrackedFile) -> None:
        """There is no more data at the moment. Where none will come, the unfinished line is the last one."""
        hidden = file.hidden_since
        if self._config.tail:
            if hidden is None:
                return
            now, config = self._now(), self._config
            assert file.descriptor is not None
            deleted = os.fstat(file.descriptor).st_nlink == 0
            if deleted and not config.close_removed:
                return
            quiet_s = now - max(file.active_at, hidden)
            if not deleted and quiet_s < config.rotate_wait and now - hidden < config.rotation_drain_timeout:
                return
        if file.partial:
            start, line = file.line_start, file.partial
            file.partial = b""
            await self._send(file, Piece(start, len(line), file.read_to, file.generation), [line])
        file.ended = True

    async def _take(self, file: TrackedFile, cutter: LineCutter, data: bytes) -> None:
        """Send the whole lines that `data` completes."""
        start = file.line_start
        file.read_to += len(data)
        if file.skipping:
            dropped, _ = cutter.cut(data)
            if not dropped:
                file.partial = b""
                return
            file.skipping = False
            start += len(dropped[0])
            data = data[len(dropped[0]) :]
            file.partial = b""
        lines, file.partial = cutter.cut(file.partial + data if file.partial else data)
        for group in self._groups(lines):
            length = sum(map(len, group))
            await self._send(file, Piece(start, length, start + length, file.generation), group)
            start += length
        if len(file.partial) > self._line_bytes_max:
            line = file.partial[: self._line_bytes_max]
            file.partial, file.skipping = b"", True
            await self._send(file, Piece(start, len(line), file.read_to, file.generation), [line])

    def _groups(self, lines: list[bytes]) -> Iterator[list[bytes]]:
        """Lines that go on together."""
        if self._codec is not None:
            if lines:
                yield lines
            return
        for first in range(0, len(lines), self._config.batch_size):
            yield lines[first : first + self._config.batch_size]

    def _encoding_of(self, file: TrackedFile) -> str:
        """The encoding with its byte order, which the first bytes of the file may tell."""
        wide = _WIDE.get(self._encoding)
        if wide is None:
            return self._encoding
        mark, little, big = wide
        return little if file.read(0, len(mark)) == mark else big

    # writing

    async def _send(self, file: TrackedFile, piece: Piece, lines: list[bytes]) -> None:
        file.on_its_way.append(piece)
        await self._deliver(file, piece, lines)

    async def _send_again(self, file: TrackedFile, piece: Piece) -> None:
        if piece.generation != file.generation:
            return
        data = await asyncio.to_thread(file.read, piece.start, piece.length)
        lines, rest = LineCutter(self._encoding_of(file)).cut(data)
        await self._deliver(file, piece, [*lines, rest] if rest else lines)

    async def _deliver(self, file: TrackedFile, piece: Piece, lines: list[bytes]) -> None:
        """Write the events of a piece under a promise of their own."""
        assert self._output is not None
        batch = self._batch(file, piece, lines)
        self._meters.lines_read.add(len(lines))

        def ended(ok: bool) -> None:
            if timer is not None:
                timer.cancel()
            self._ended_piece(file, piece, ok)

        handle = self._output.handle(ended)
        timer: asyncio.TimerHandle | None = None
        if self._config.acknowledgments:
            timer = asyncio.get_running_loop().call_later(self._config.acknowledgment_timeout, handle.expire)
        try:
            await self._write(batch, handle, piece.length)
        finally:
            handle.seal()

    async def _write(self, batch: sdk.Batch, handle: sdk.Handle, size_bytes: int) -> None:
        """Write with the promise, however long it takes; what is too large for the buffer is lost and counted."""
        assert self._output is not None
        output, events = self._output, max(1, len(batch))
        for part in batch.chunks(min(self._config.batch_size, output.events_max)):
            size = min(output.bytes_max, max(1, size_bytes * len(part) // events))
            part.promise(handle)
            if output.write_now(part, size):
                self._meters.emitted.add(len(part))
                continue
            begin = time.monotonic()
            try:
                await output.write(part, size)
            except BaseException:
                part.release_all(ok=False)
                raise
            self._meters.backpressure.observe(time.monotonic() - begin)
            self._meters.emitted.add(len(part))

    def _ended_piece(self, file: TrackedFile, piece: Piece, ok: bool) -> None:
        if piece.generation != file.generation:
            return
        if not ok:
            self._meters.acknowledgment_failures.add()
            piece.attempts += 1
            tries = self._config.max_acknowledgment_retries
            place = (file.path, piece.start, piece.end)
            if piece.attempts <= tries:
                self._log.warning(
                    "Negative acknowledgement for file %s offset range [%d, %d]. Retry %d/%d.",
                    *place,
                    piece.attempts,
                    tries,
                )
                file.refused.append(piece)
                self._wake.set()
                return
            self._log.error(
                "Exceeded max acknowledgment retries (%d) for file %s offset range [%d, %d]. Advancing offset to avoid "
                "infinite retry.",
                tries,
                *place,
            )
        if file.delivered(piece):
            self._checkpoints.changed()
            if self._ended and not any(other.on_its_way for other in self._files.values()):
                self._checkpoints.save()  # nobody comes by any more who could do it
        self._wake.set()

    def _batch(self, file: TrackedFile, piece: Piece, lines: list[bytes]) -> sdk.Batch:
        if self._codec is None:
            encoding = self._encoding_of(file) if self._encoding in _WIDE else self._encoding
            return self._events.batch(file.path, piece.start, lines, encoding)
        try:
            return _decoded(self._codec, b"".join(lines))
        except sdk.EventError as error:
            self._meters.read_errors.add()
            self._log.warning("Codec parse error for file %s: %s; reading it line by line", file.path, error.logged)
        batches: list[sdk.Batch] = []
        for line in lines:
            try:
                batches.append(_decoded(self._codec, line))
            except sdk.EventError:
                self._meters.data_loss.add()
        return sdk.concat(batches) if batches else sdk.Batch([])

    # files that are read as a whole

    async def _read_whole(self, file: TrackedFile) -> None:
        """Read a compressed file, or one with a codec, and wait for its delivery; again when it was refused."""
        assert self._output is not None
        if file.position.committed and file.position.committed == file.path.stat().st_size:
            file.ended = True
            return
        size = 0
        for attempt in range(1, self._config.max_acknowledgment_retries + 2):
            outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            handle = self._output.handle(_resolving(outcome))
            try:
                size = await self._pour(file, handle)
            finally:
                handle.seal()
            if self._stopped:
                return
            timer = None
            if self._config.acknowledgments:
                loop = asyncio.get_running_loop()
                timer = loop.call_later(self._config.acknowledgment_timeout, handle.expire)
            delivered = await self._outcome(outcome)
            if timer is not None:
                timer.cancel()
            if delivered is None:
                return
            if delivered:
                break
            self._meters.acknowledgment_failures.add()
            self._log.warning("Negative acknowledgement for file %s, attempt %d", file.path, attempt)
        file.position.committed = size
        self._checkpoints.changed()
        file.ended = True

    async def _outcome(self, outcome: asyncio.Future[bool]) -> bool | None:
        """How the file ended; None when the source is stopped before."""
        while not outcome.done():
            if self._stopped:
                return None
            self._wake.clear()
            waiter: asyncio.Future[Any] = asyncio.ensure_future(self._wake.wait())
            either: list[asyncio.Future[Any]] = [outcome, waiter]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
        return outcome.result()

    async def _pour(self, file: TrackedFile, handle: sdk.Handle) -> int:
        """Send all events of the file; returns its size."""
        kind: Kind = self._config.compression
        stream = decompressor(kind, None)
        decoder = self._codec.decoder() if self._codec is not None else _LineDecoder(self, file)
        read_to = 0
        source = await asyncio.to_thread(file.path.open, "rb")
        self._meters.opened.add()
        try:
            while not self._stopped:
                data = await asyncio.to_thread(source.read, self._config.read_buffer_size)
                if not data:
                    break
                read_to += len(data)
                self._meters.bytes_read.add(len(data))
                for piece in stream.feed(data):
                    await self._write(decoder.feed(piece), handle, len(piece))
            if not self._stopped:
                for piece in stream.finish():
                    await self._write(decoder.feed(piece), handle, len(piece))
                await self._write(decoder.finish(), handle, 0)
        except (sdk.EventError, Corrupt, TooLarge) as error:
            self._meters.read_errors.add()
            self._log.error("Error reading file with codec: %s: %s", file.path, error)
        finally:
            await asyncio.to_thread(source.close)
            self._meters.closed.add()
        return read_to


class _LineDecoder:
    """Lines of a decompressed file, as a codec would give them."""

    def __init__(self, source: FileSource, file: TrackedFile) -> None:
        encoding = source._encoding
        self._encoding = _WIDE[encoding][2] if encoding in _WIDE else encoding
        self._cutter = LineCutter(self._encoding)
        self._events = source._events
        self._path = file.path
        self._bytes_max = source._line_bytes_max
        self._rest = b""
        self._offset = 0
        self._skipping = False

    def feed(self, data: bytes) -> sdk.Batch:
        lines, self._rest = self._cutter.cut(self._rest + data)
        if self._skipping and lines:
            self._offset += len(lines.pop(0))
            self._skipping = False
        if len(self._rest) > self._bytes_max:
            if not self._skipping:
                lines.append(self._rest)
            self._skipping = True
            self._rest = b""
        return self._batch(lines)

    def finish(self) -> sdk.Batch:
        rest, self._rest = self._rest, b""
        return self._batch([rest] if rest and not self._skipping else [])

    def _batch(self, lines: list[bytes]) -> sdk.Batch:
        batch = self._events.batch(self._path, self._offset, lines, self._encoding)
        self._offset += sum(map(len, lines))
        return batch


class LineEvents:
    """Makes events of lines."""

    def __init__(self, config: Config, ctx: sdk.Context, *, with_place: bool) -> None:
        self._json = config.format == "json"
        self._characters_max = config.max_line_length
        self._with_place = with_place
        self._clock = ctx.clock
        self._log = ctx.log
        self._truncated = ctx.metrics.counter("linesTruncated")

    def batch(self, path: Path, offset: int, lines: list[bytes], encoding: str) -> sdk.Batch:
        """The events of `lines`, the first of which begins at `offset` of the file."""
        texts = [line.decode(encoding, "replace").rstrip("\n").removesuffix("\r") for line in lines]
        if offset == 0 and texts:
            texts[0] = texts[0].removeprefix("\ufeff")
        for place, text in enumerate(texts):
            if len(text) > self._characters_max:
                texts[place] = text[: self._characters_max]
                self._truncated.add()
        bodies: list[sdk.Body] = (
            [self._parsed(text) for text in texts] if self._json else [{"message": t} for t in texts]
        )
        if self._with_place:
            absolute = str(path.absolute())
            for body, line in zip(bodies, lines, strict=True):
                body["file"] = {"path": absolute, "name": path.name}
                body["offset"] = offset
                offset += len(line)
        return sdk.Batch(bodies, origin=sdk.Meta("event", self._clock.now_ms()))

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            value = sdk.decode(text)
        except ValueError as error:
            self._log.debug("A line is no JSON, assuming plain text: %s", error)
            return {"message": text}
        return value if type(value) is dict else {"message": text}


class Meters:
    """The meters of the source under Data Prepper's names."""

    def __init__(self, scope: sdk.Scope, source: FileSource) -> None:
        self.acknowledgment_failures = scope.counter("acknowledgmentFailures")
        self.backpressure = scope.timer("backpressureTime")
        self.bytes_read = scope.counter("bytesRead")
        self.checkpoint_errors = scope.counter("checkpointErrors")
        self.checkpoint_flushes = scope.counter("checkpointFlushes")
        self.data_loss = scope.counter("dataLossEvents")
        self.emitted = scope.counter("eventsEmitted")
        self.closed = scope.counter("filesClosed")
        self.opened = scope.counter("filesOpened")
        self.rotated = scope.counter("filesRotated")
        self.lines_read = scope.counter("linesRead")
        self.read_errors = scope.counter("readErrors")
        self.truncations = scope.counter("truncationEvents")
        scope.gauge("activeFiles", lambda: source.open_files)
        scope.gauge("fileLagBytes", lambda: source.lag_bytes)


def _decoded(codec: sdk.InputCodec, data: bytes) -> sdk.Batch:
    decoder = codec.decoder()
    first = decoder.feed(data)
    return sdk.concat([first, decoder.finish()])


def _resolving(outcome: asyncio.Future[bool]) -> Callable[[bool], None]:
    def resolve(ok: bool) -> None:
        if not outcome.done():
            outcome.set_result(ok)

    return resolve
