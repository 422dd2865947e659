"""Newline-delimited JSON: one object a line. Reading also takes objects without line ends between them and arrays of
objects.
"""

from typing import Any, Literal

from penstock import sdk
from penstock.lib.json_stream import JsonValues

VALUE_BYTES_MAX = 64 * 1024 * 1024
"""Largest object or array that is read."""


class InputConfig(sdk.PluginConfig):
    include_empty_objects: bool = False
    """Make events of empty objects too."""
    extension: str = "jsonl"
    """Accepted; reading does not go by file names."""


class OutputConfig(sdk.PluginConfig):
    extension: Literal["ndjson", "jsonl"] = "ndjson"
    """Ending of the names of files."""


class NdjsonInput:
    def __init__(self, config: InputConfig, ctx: sdk.Context) -> None:
        self._include_empty = config.include_empty_objects
        self._clock = ctx.clock

    def decoder(self) -> sdk.Decoder:
        return _NdjsonDecoder(self._include_empty, self._clock)


class _NdjsonDecoder:
    def __init__(self, include_empty: bool, clock: sdk.Clock) -> None:
        self._include_empty = include_empty
        self._clock = clock
        self._values = JsonValues(VALUE_BYTES_MAX)

    def feed(self, data: bytes) -> sdk.Batch:
        return self._batch(self._values.feed(data))

    def finish(self) -> sdk.Batch:
        return self._batch(self._values.finish())

    def _batch(self, values: list[Any]) -> sdk.Batch:
        bodies: list[sdk.Body] = []
        for value in values:
            for body in value if type(value) is list else (value,):
                if type(body) is not dict:
                    raise sdk.EventError("newline-delimited JSON holds a value that is no object", cause="json")
                if body or self._include_empty:
                    bodies.append(body)
        return sdk.Batch(bodies, origin=sdk.Meta(received_ms=self._clock.now_ms()))


class NdjsonOutput:
    def __init__(self, config: OutputConfig, ctx: sdk.Context) -> None:
        self.extension: str = config.extension
        self._encoder = _NdjsonEncoder(ctx.sink_options)

    def encoder(self) -> sdk.Encoder:
        return self._encoder  # it holds no state


class _NdjsonEncoder:
    def __init__(self, options: sdk.SinkOptions) -> None:
        self._document = options.compile_document()

    def start(self) -> bytes:
        return b""

    def write(self, batch: sdk.Batch) -> bytes:
        document, metas, origin = self._document, batch.metas, batch.origin
        return b"".join(
            [sdk.encode(document(body, metas[place] or origin)) + b"\n" for place, body in enumerate(batch.bodies)]
        )

    def finish(self) -> bytes:
        return b""


def build_decoder(config: InputConfig, ctx: sdk.Context) -> sdk.InputCodec:
    return NdjsonInput(config, ctx)


def build_encoder(config: OutputConfig, ctx: sdk.Context) -> sdk.OutputCodec:
    return NdjsonOutput(config, ctx)


EXAMPLES = {
    "input_codec": [
        sdk.Example("One object a line", config="{}"),
        sdk.Example("Keep empty objects too", config="include_empty_objects: true"),
    ],
    "output_codec": [sdk.Example("Files that end in .jsonl", config="extension: jsonl")],
}
