"""Reads lines from standard input; each becomes an event with the line in `message`.

The line `exit`, in any case, ends the source, as does the end of the input.
"""

import asyncio
import codecs
import io
import os
import select
from typing import Annotated

from pydantic import Field

from penstock import sdk

LINE_CHARACTERS_MAX = 16 * 1024 * 1024
"""A longer line is cut into several events."""
_READ_BYTES = 64 * 1024
_LOOK_S = 0.2
_STDIN = 0


class Config(sdk.PluginConfig):
    write_timeout: Annotated[int, Field(ge=0)] = 5000
    """Milliseconds after which a full buffer is worth a warning; the source waits on."""


class StdinSource:
    def __init__(self, config: Config, ctx: sdk.Context, file: int = _STDIN) -> None:
        self._file = file
        self._timeout_s = config.write_timeout / 1000
        self._clock = ctx.clock
        self._log = ctx.log
        self._pipeline = ctx.pipeline
        self._stopped = False

    async def run(self, output: sdk.Output) -> None:
        output.started()
        text = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
        rest = ""
        while not self._stopped:
            data = await asyncio.to_thread(_read, self._file)
            if data is None:
                continue
            lines = (rest + text.decode(data, final=not data)).split("\n")
            rest = lines.pop()
            if rest and (not data or len(rest) > LINE_CHARACTERS_MAX):
                lines.append(rest)
                rest = ""
            end = next((place for place, line in enumerate(lines) if line.lower() == "exit"), None)
            await self._write(output, lines[:end], len(data))
            if not data or end is not None:
                return

    async def stop(self) -> None:
        self._stopped = True

    async def _write(self, output: sdk.Output, lines: list[str], size_bytes: int) -> None:
        if not lines:
            return
        origin = sdk.Meta("event", self._clock.now_ms())
        share = size_bytes // len(lines)
        for part in sdk.Batch([{"message": line} for line in lines], origin=origin).chunks(output.events_max):
            size = min(share * len(part), output.bytes_max)
            while True:
                try:
                    await output.write(part, size, self._timeout_s)
                    break
                except sdk.BufferTooSmall:
                    raise
                except sdk.BufferFull:
                    self._log.warning("Pipeline [%s] - Timed out writing to buffer; trying again", self._pipeline)


def _read(file: int) -> bytes | None:
    """What there is to read; empty at the end of the input, None when nothing came for a moment."""
    try:
        if not select.select([file], [], [], _LOOK_S)[0]:
            return None
        return os.read(file, _READ_BYTES)
    except OSError as error:
        raise sdk.Permanent(f"standard input cannot be read: {error.strerror}") from error


def build(config: Config, ctx: sdk.Context) -> sdk.Source:
    return StdinSource(config, ctx)


EXAMPLES = [sdk.Example("Type events", config="{}")]
