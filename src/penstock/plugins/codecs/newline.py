"""Lines of text: each becomes an event with the line in `message`, and the other way round."""

import codecs
import io

from pydantic import field_validator

from penstock import sdk

LINE_CHARACTERS_MAX = 64 * 1024 * 1024
"""Longest line that is read."""


class InputConfig(sdk.PluginConfig):
    skip_lines: int = 0
    """Lines to skip at the start."""
    header_destination: str | None = None
    """Key that receives the first line after the skipped ones, in every event."""

    @field_validator("skip_lines")
    @classmethod
    def _not_negative(cls, value: int) -> int:
        if value < 0:
            raise ValueError("skipLines must be non-negative.")
        return value

    @field_validator("header_destination")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value == "":
            raise ValueError(
                "header_destination must be either null or length greater than 0. It cannot be empty. To make it null "
                "delete header_destination in your configuration YAML file"
            )
        return value


class OutputConfig(sdk.PluginConfig):
    include_empty_objects: bool = False
    """Write an empty line for events without a message, instead of nothing."""


class NewlineInput:
    def __init__(self, config: InputConfig, ctx: sdk.Context) -> None:
        self._config = config
        self._clock = ctx.clock

    def decoder(self) -> sdk.Decoder:
        return _NewlineDecoder(self._config, self._clock)


class _NewlineDecoder:
    """A line ends with `\\n`, `\\r\\n` or `\\r`. Bytes that are no UTF-8 become replacement characters."""

    def __init__(self, config: InputConfig, clock: sdk.Clock) -> None:
        self._skip = config.skip_lines
        self._header_key = config.header_destination
        self._header: str | None = None
        self._clock = clock
        self._text = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
        self._rest: list[str] = []
        self._rest_characters = 0

    def feed(self, data: bytes) -> sdk.Batch:
        return self._lines(self._text.decode(data))

    def finish(self) -> sdk.Batch:
        text = self._text.decode(b"", final=True)
        batch = self._lines(text if text.endswith("\n") or not (text or self._rest) else text + "\n")
        assert not self._rest, "the last line was not ended"
        return batch

    def _lines(self, text: str) -> sdk.Batch:
        lines = text.split("\n")
        if len(lines) > 1:
            lines[0] = "".join(self._rest) + lines[0]
            self._rest, self._rest_characters = [], 0
        if lines[-1]:
            self._rest.append(lines[-1])
            self._rest_characters += len(lines[-1])
            if self._rest_characters > LINE_CHARACTERS_MAX:
                self._rest, self._rest_characters = [], 0
                raise sdk.EventError(f"A line is longer than {LINE_CHARACTERS_MAX} characters", cause="too_large")
        del lines[-1]
        if self._skip and lines:
            skipped = min(self._skip, len(lines))
            self._skip -= skipped
            del lines[:skipped]
        if self._header_key is not None and self._header is None and lines:
            self._header = lines.pop(0)
        bodies: list[sdk.Body]
        if self._header_key is None:
            bodies = [{"message": line} for line in lines]
        else:
            bodies = [{self._header_key: self._header, "message": line} for line in lines]
        return sdk.Batch(bodies, origin=sdk.Meta(received_ms=self._clock.now_ms()))


class NewlineOutput:
    extension = "txt"

    def __init__(self, config: OutputConfig) -> None:
        self._encoder = _NewlineEncoder(config.include_empty_objects)

    def encoder(self) -> sdk.Encoder:
        return self._encoder  # it holds no state


class _NewlineEncoder:
    def __init__(self, include_empty: bool) -> None:
        self._include_empty = include_empty

    def start(self) -> bytes:
        return b""

    def write(self, batch: sdk.Batch) -> bytes:
        lines: list[bytes] = []
        for body in batch.bodies:
            message = body.get("message")
            if message is None or message == "":
                if self._include_empty:
                    lines.append(b"\n")
            elif type(message) is str:
                lines.append(message.encode("utf-8", "replace") + b"\n")
            else:
                lines.append(sdk.encode(message) + b"\n")
        return b"".join(lines)

    def finish(self) -> bytes:
        return b""


def build_decoder(config: InputConfig, ctx: sdk.Context) -> sdk.InputCodec:
    return NewlineInput(config, ctx)


def build_encoder(config: OutputConfig, ctx: sdk.Context) -> sdk.OutputCodec:
    return NewlineOutput(config)


EXAMPLES = {
    "input_codec": [
        sdk.Example("Every line", config="{}"),
        sdk.Example("Leave out two lines and keep the heading", config="skip_lines: 2\nheader_destination: heading"),
    ],
    "output_codec": [sdk.Example("Only messages", config="{}")],
}
