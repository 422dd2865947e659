"""Prints each event as one line of JSON on standard output.

`include_keys` and `exclude_keys` are ignored; `tags_target_key` is honoured.
"""

import asyncio
import errno
import os

from penstock import sdk
from penstock.lib.json_lines import compile_lines

_STDOUT = 1


class Config(sdk.PluginConfig):
    pass


def one_unit_only(config: Config) -> tuple[str, str] | None:
    """Why several units cannot print together, and what to do about it."""
    return "lines of several processes would run into each other.", "run one unit, or write to a file with append: true"


class StdoutSink:
    """Writes below Python's own buffers, so that nothing is held back when the process ends."""

    def __init__(self, ctx: sdk.Context) -> None:
        self._lines = compile_lines(ctx.sink_options.tags_target_key)
        self._rest = b""
        """What is left of a batch whose writing was interrupted."""

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def write(self, batch: sdk.Batch) -> None:
        try:
            data = self._rest or self._lines(batch)
        except sdk.EventError as error:
            raise sdk.Permanent(str(error)) from error
        await asyncio.to_thread(self._write_all, data)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(_STDOUT, view) :]
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise sdk.Permanent("standard output was closed by its reader") from error
            self._rest = bytes(view)
            raise sdk.Transient(f"standard output cannot be written: {error.strerror}") from error
        self._rest = b""


def build(config: Config, ctx: sdk.Context) -> sdk.WriteSink:
    return StdoutSink(ctx)


EXAMPLES = [sdk.Example("See what a pipeline makes", config="{}")]
