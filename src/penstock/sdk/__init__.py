"""Everything a plugin may see. A plugin is one module with `Config`, `build(config, ctx)` and `EXAMPLES`.

`build` does no I/O and decides everything that configuration can decide; sources and sinks reach out only in `run` and
`start`. Failures: raise `EventError` for a bad event, `Transient` to be tried again, `Permanent` where that is no use.
"""

from penstock.core.batch import Batch, Body, Meta, concat, copy_value
from penstock.core.clock import Clock
from penstock.core.errors import (
    BufferFull,
    BufferTooSmall,
    ConfigError,
    EventError,
    ExpressionError,
    Failure,
    Permanent,
    Transient,
    Unreachable,
)
from penstock.core.event import compile_document
from penstock.core.handle import Handle, JoinedHandle
from penstock.core.inline import Inline
from penstock.core.json_text import INLINE_ENCODE, decode, encode, encode_line
from penstock.core.key import MISSING
from penstock.core.metrics import Counter, Gauge, Scope, Summary, Timer
from penstock.expr import Expression, valid_format
from penstock.sdk.aws_options import AwsOptions
from penstock.sdk.context import Context, SinkOptions
from penstock.sdk.dead_letters import DeadLetter, DeadLetterQueue, DeadLetterWriter, metadata_told, read_metadata
from penstock.sdk.example import Example
from penstock.sdk.failures import Failures
from penstock.sdk.joined_items import Joined, JoinedItems, select, sent_before, texts_of
from penstock.sdk.notes import Around, Note, SinkUse, SourceUse
from penstock.sdk.options import (
    ALWAYS,
    ByteSize,
    DeleteKey,
    Duration,
    Key,
    Nested,
    NonEmpty,
    NotYet,
    PluginConfig,
    PluginUse,
    ReadKey,
    Secret,
    Template,
    ValueExpression,
    When,
)
from penstock.sdk.protocols import (
    BatchFn,
    Buffer,
    BulkSink,
    Decoder,
    Encoder,
    EventFn,
    HoldingProcessor,
    InputCodec,
    Items,
    Limits,
    Load,
    Output,
    OutputCodec,
    PiecewiseDecoder,
    Room,
    Sink,
    Source,
    WriteSink,
)

__all__ = [
    "ALWAYS",
    "INLINE_ENCODE",
    "MISSING",
    "Around",
    "AwsOptions",
    "Batch",
    "BatchFn",
    "Body",
    "Buffer",
    "BufferFull",
    "BufferTooSmall",
    "BulkSink",
    "ByteSize",
    "Clock",
    "ConfigError",
    "Context",
    "Counter",
    "DeadLetter",
    "DeadLetterQueue",
    "DeadLetterWriter",
    "Decoder",
    "DeleteKey",
    "Duration",
    "Encoder",
    "EventError",
    "EventFn",
    "Example",
    "Expression",
    "ExpressionError",
    "Failure",
    "Failures",
    "Gauge",
    "Handle",
    "HoldingProcessor",
    "Inline",
    "InputCodec",
    "Items",
    "Joined",
    "JoinedHandle",
    "JoinedItems",
    "Key",
    "Limits",
    "Load",
    "Meta",
    "Nested",
    "NonEmpty",
    "NotYet",
    "Note",
    "Output",
    "OutputCodec",
    "Permanent",
    "PiecewiseDecoder",
    "PluginConfig",
    "PluginUse",
    "ReadKey",
    "Room",
    "Scope",
    "Secret",
    "Sink",
    "SinkOptions",
    "SinkUse",
    "Source",
    "SourceUse",
    "Summary",
    "Template",
    "Timer",
    "Transient",
    "Unreachable",
    "ValueExpression",
    "When",
    "WriteSink",
    "compile_document",
    "concat",
    "copy_value",
    "decode",
    "encode",
    "encode_line",
    "metadata_told",
    "read_metadata",
    "select",
    "sent_before",
    "texts_of",
    "valid_format",
]
