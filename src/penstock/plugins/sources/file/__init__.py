"""Reads files: once to their end, or following them as they grow (`tail`).

A line becomes an event with the line in `message`; `format: json` makes the object on a line the event, and a line that
is none stays in `message`. With `tail`, `paths`, `exclude_paths` or a codec several files are read at once, and events
without a codec say where they come from in `file.path`, `file.name` and `offset`, the place of their line in the file.

The position in a file moves on behind delivered events. What a sink refuses is read and sent again, at most
`max_acknowledgment_retries` times. Following a file survives its rotation: a renamed file is read to its end, a
truncated one from its start. A line that is not ended yet waits for its end.

With a codec and `tail`, each piece of whole lines is decoded by itself: use codecs that work line by line.
`record_type: string` makes the same events as `event`; Data Prepper has strings there that processors cannot read.
"""

import codecs as text_codecs
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from penstock import sdk
from penstock.lib import compression
from penstock.plugins.sources.file.source import FileSource


class Config(sdk.PluginConfig):
    path: str | None = None
    """A file to read."""
    paths: list[str] = Field(default_factory=list)
    """Files to read; `*`, `?`, `[…]` and `**` (any folders) stand for parts of names."""
    exclude_paths: list[str] = Field(default_factory=list)
    """Patterns of files to leave out."""
    tail: bool = False
    """Follow the files instead of ending with them."""
    format: Literal["plain", "json"] = "plain"
    """What stands on a line, where no codec is set."""
    record_type: Literal["string", "event"] = "string"
    """Must be `event` with a codec; makes no other difference."""
    codec: Annotated[sdk.PluginUse | None, sdk.Nested("input_codec")] = None
    """Reads the events from a file."""
    compression: Literal["none", "gzip", "snappy", "zstd", "automatic"] = "none"
    """Compression of the files. Not used with `tail`."""
    start_position: Literal["beginning", "end"] = "beginning"
    """Where to begin in files that are there when following starts, and of which nothing was read before."""
    poll_interval: sdk.Duration = 1.0
    """Pause between looks at the files with `tail`."""
    encoding: str = "UTF-8"
    """Character set of the files. Bytes that do not fit become replacement characters."""
    read_buffer_size: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)] = 65536
    """Bytes that are read at once."""
    max_active_files: Annotated[int, Field(ge=1)] = 1000
    """Files that are held open."""
    reader_threads: Annotated[int | None, Field(ge=1)] = None
    """Files that are read at the same time: 4 with `tail`, else 1 unless set."""
    max_read_time_per_file: sdk.Duration = 5.0
    """Longest turn of one file before others are read."""
    rotate_wait: sdk.Duration = 5.0
    """How long a renamed file is watched for more data after its end was reached."""
    rotation_drain_timeout: sdk.Duration = 30.0
    """Longest time a renamed file is watched; it is read to its end in any case."""
    checkpoint_file: str | None = None
    """File that keeps the positions over restarts. With `tail` it has a place in the data directory where there is
    one."""
    checkpoint_interval: sdk.Duration = 5.0
    """Time between two savings of the positions."""
    checkpoint_cleanup_after: sdk.Duration = 7 * 86400.0
    """Positions of files that were not seen for this long are forgotten."""
    fingerprint_bytes: Annotated[int, Field(ge=1, le=1024 * 1024)] = 1024
    """Bytes at the start of a file that tell whether it is still the same."""
    close_inactive: sdk.Duration = 1800.0
    """Files without new data for this long are closed; they are opened again when they grow."""
    close_removed: bool = True
    """Close files that were deleted, once they are read to their end."""
    batch_size: Annotated[int, Field(ge=1)] = 100
    """Events in one write to the buffer."""
    batch_timeout: sdk.Duration = 5.0
    """Accepted; events never wait for a batch to fill."""
    acknowledgments: bool = False
    """Count events that are not delivered within `acknowledgment_timeout` as refused."""
    acknowledgment_timeout: sdk.Duration = 60.0
    """Longest wait for the delivery of a batch with `acknowledgments`."""
    max_acknowledgment_retries: Annotated[int, Field(ge=0)] = 3
    """How often refused events are read again."""
    include_file_metadata: bool = True
    """Say in the events which file and where in it they come from."""
    max_line_length: Annotated[int, Field(ge=1)] = 1_048_576
    """Longest line in characters; what is longer is cut off."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            text_codecs.lookup(value)
        except LookupError:
            raise ValueError(f"unknown encoding: {value}") from None
        return value

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.codec is not None and self.record_type != "event":
            raise ValueError("The file source requires recordType to be event when using a codec.")
        if not self.path and not self.paths:
            raise ValueError("At least one of path or paths is required")
        if not self.tail and self.start_position == "end":
            raise ValueError("start_position: end is only valid when tail is true")
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.Source:
    if config.compression != "none" and not config.tail:
        compression.check(config.compression)
    return FileSource(config, ctx)


EXAMPLES = [
    sdk.Example("Read one file once", config="path: /var/log/app.log\nrecord_type: event"),
    sdk.Example(
        "Follow all logs below a folder over restarts",
        config="""
paths: ["/var/log/**/*.log"]
exclude_paths: ["/var/log/**/debug*.log"]
tail: true
start_position: end
checkpoint_file: /var/lib/penstock/files.json
""",
    ),
    sdk.Example(
        "Read compressed exports, one JSON object a line",
        config="""
paths: ["/data/export-*.json.gz"]
record_type: event
codec: {ndjson: {}}
compression: gzip
acknowledgments: true
""",
    ),
]
