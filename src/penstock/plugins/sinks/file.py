"""Writes each event as one line of JSON to a file.

The file is emptied at the start unless `append` is set. Each batch is written at once and in order; when the pipeline
ends the file is synchronised to disk. `include_keys` and `exclude_keys` are ignored; `tags_target_key` is honoured.
"""

import asyncio
import errno
import os

from penstock import sdk
from penstock.lib.json_lines import compile_lines

_NEVER_BETTER = frozenset((errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EINVAL))


class Config(sdk.PluginConfig):
    path: sdk.NonEmpty[str] = "src/resources/file-test-sample-output.txt"
    """File to write. Its folder must exist."""
    append: bool = False
    """Keep what is in the file and write behind it."""


def one_unit_only(config: Config) -> tuple[str, str] | None:
    """Why several units cannot write the file together, and what to do about it."""
    return (
        None if config.append else ("each unit empties the file when it starts.", "set append: true, or run one unit")
    )


class FileSink:
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._path = config.path
        self._append = config.append
        self._lines = compile_lines(ctx.sink_options.tags_target_key)
        self._file: int | None = None

    async def start(self) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if self._append else os.O_TRUNC)
            try:
                self._file = await asyncio.to_thread(os.open, self._path, flags, 0o644)
            except OSError as error:
                raise self._failure("opened", error) from error

    async def stop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await asyncio.to_thread(_close, file)

    async def write(self, batch: sdk.Batch) -> None:
        try:
            data = self._lines(batch)
        except sdk.EventError as error:
            raise sdk.Permanent(str(error)) from error
        file = self._file
        if file is None:
            raise sdk.Transient(f"the file {self._path} is not open")
        try:
            await asyncio.to_thread(_write_all, file, data)
        except OSError as error:
            raise self._failure("written", error) from error

    def _failure(self, act: str, error: OSError) -> sdk.Transient | sdk.Permanent:
        text = f"the file {self._path} cannot be {act}: {error.strerror}"
        return sdk.Permanent(text) if error.errno in _NEVER_BETTER else sdk.Transient(text)


def _write_all(file: int, data: bytes) -> None:
    """Write everything or nothing: what a full disk left behind is cut off again."""
    view = memoryview(data)
    written = 0
    try:
        while written < len(view):
            written += os.write(file, view[written:])
    except OSError:
        if written:
            os.ftruncate(file, os.fstat(file).st_size - written)
        raise


def _close(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # pipes and devices cannot be synchronised
            raise
    finally:
        os.close(file)


def build(config: Config, ctx: sdk.Context) -> sdk.WriteSink:
    return FileSink(config, ctx)


EXAMPLES = [
    sdk.Example("Keep adding to one file", config="path: /tmp/events.jsonl\nappend: true"),
]
