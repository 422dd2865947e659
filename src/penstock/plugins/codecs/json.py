"""JSON documents: every object in an array becomes an event; and one document with all events in a list.

Reading finds arrays at any depth: `{"Records": [{…}, {…}]}` gives two events, as does `[{…}, {…}]`. Members of arrays
that are no objects are skipped; a document that is an array without any object is an error. Documents of any size are
read piece by piece. (Data Prepper stops at the end of the first nested object and misses the arrays behind it.)
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from penstock import sdk
from penstock.lib.json_stream import first_value, without_mark

WHOLE_BYTES_MAX = 16 * 1024 * 1024
"""Documents up to this size are decoded at once, which is twice as fast."""
EVENT_BYTES_MAX = 20_000_000
DEPTH_MAX = 500

_SKIPPED = re.compile(rb"[ \t\r\n,:]*")
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^ \t\r\n,:\]}\[{\"]+(?=[ \t\r\n,\]}])")


class InputConfig(sdk.PluginConfig):
    key_name: Annotated[str | None, Field(min_length=1, max_length=2048)] = None
    """Take only arrays under this key."""
    include_keys: list[str] | None = None
    """Fields of the document that are copied into every event behind them, as text."""
    include_keys_metadata: list[str] | None = None
    """Fields of the document that are copied into the attributes of every event behind them, as text."""
    max_event_length: Annotated[int | None, Field(ge=20_000_000)] = None
    """Size of the largest event in bytes; 20000000 when left out."""


class OutputConfig(sdk.PluginConfig):
    key_name: Annotated[str, Field(min_length=1, max_length=2048)] = "events"
    """Name of the list that holds the events."""


class JsonInput:
    def __init__(self, config: InputConfig, ctx: sdk.Context) -> None:
        self._config = config
        self._clock = ctx.clock

    def decoder(self) -> sdk.Decoder:
        return _JsonDecoder(self._config, self._clock)


class _Collector:
    """Makes events of the objects found."""

    def __init__(self, config: InputConfig) -> None:
        self._key_name = config.key_name
        self._include = frozenset(config.include_keys or ())
        self._include_metadata = frozenset(config.include_keys_metadata or ())
        self._wanted = self._include | self._include_metadata
        self._fields: dict[str, str | None] = {}
        self._attributes: dict[str, str | None] = {}
        self.bodies: list[sdk.Body] = []
        self.metas: list[sdk.Meta | None] = []
        self.has_events = False
        self.has_odd_members = False
        """Whether the document is an array with members that are neither objects nor arrays."""

    def takes(self, name: str | None) -> bool:
        """Whether objects in an array under `name` are events."""
        return self._key_name is None or name == self._key_name

    def field(self, name: str, value: Any) -> None:
        """A field of the document that is neither object nor array."""
        if name in self._wanted:
            text = value if value is None or type(value) is str else sdk.encode(value).decode()
            if name in self._include:
                self._fields[name] = text
            if name in self._include_metadata:
                self._attributes[name] = text

    def event(self, body: sdk.Body) -> None:
        self.has_events = True
        self.bodies.append({**body, **self._fields} if self._fields else body)
        self.metas.append(sdk.Meta(attributes=dict(self._attributes)) if self._attributes else None)

    def take(self, received_ms: int) -> sdk.Batch:
        bodies, metas = self.bodies, self.metas
        self.bodies, self.metas = [], []
        for meta in metas:
            if meta is not None:
                meta.received_ms = received_ms
        return sdk.Batch(bodies, metas, origin=sdk.Meta(received_ms=received_ms))


class _JsonDecoder:
    def __init__(self, config: InputConfig, clock: sdk.Clock) -> None:
        self._clock = clock
        self._collector = _Collector(config)
        self._event_bytes_max = config.max_event_length or EVENT_BYTES_MAX
        self._pieces: list[bytes] = []
        self._size = 0
        self._walker: _Walker | None = None

    def feed(self, data: bytes) -> sdk.Batch:
        if self._walker is None:
            self._pieces.append(data)
            self._size += len(data)
            if self._size > WHOLE_BYTES_MAX:
                self._walker = _Walker(self._collector, self._event_bytes_max)
                data = without_mark(b"".join(self._pieces))
                self._pieces = []
        if self._walker is not None:
            self._walker.feed(data)
        return self._collector.take(self._clock.now_ms())

    def finish(self) -> sdk.Batch:
        if self._walker is None:
            data = without_mark(b"".join(self._pieces))
            self._pieces, self._size = [], 0
            self._whole(data)
        else:
            self._walker.finish()
        if self._collector.has_odd_members and not self._collector.has_events:
            raise sdk.EventError("The JSON document is an array without objects", cause="json")
        return self._collector.take(self._clock.now_ms())

    def _whole(self, data: bytes) -> None:
        if not data or data.isspace():
            return
        try:
            found = first_value(data)
            documents = [_last_resort(data) if found is None else found[0]]
            if found is not None and found[1] < len(data):  # a second document behind the first
                documents += _further_documents(data, found[1])
        except ValueError:
            try:
                documents = [sdk.decode(data)]
            except ValueError as error:
                raise sdk.EventError(f"This is no JSON document: {error}", cause="json") from error
        try:
            for document in documents:
                _visit(self._collector, document, None, 0)
        except RecursionError:
            raise sdk.EventError("The JSON document is nested too deeply", cause="json") from None


def _last_resort(data: bytes) -> Any:
    """A document that looks cut off, which half a surrogate pair does too."""
    try:
        return sdk.decode(data)
    except ValueError:
        raise sdk.EventError("The JSON document ends too early", cause="json") from None


def _further_documents(data: bytes, position: int) -> Iterator[Any]:
    view = memoryview(data)
    while position < len(data):
        found = first_value(view[position:])
        if found is None:
            if bytes(view[position:]).isspace():
                return
            raise sdk.EventError("The JSON document ends too early", cause="json")
        yield found[0]
        position += found[1]


def _visit(collector: _Collector, node: Any, name: str | None, depth: int) -> None:
    """Find the events in a decoded document."""
    if type(node) is dict:
        for key, value in node.items():
            if type(value) is dict or type(value) is list:
                _visit(collector, value, key, depth + 1)
            elif depth == 0:
                collector.field(key, value)
    elif type(node) is list:
        takes = collector.takes(name)
        for item in node:
            if type(item) is dict and takes:
                collector.event(item)
            elif type(item) is dict or type(item) is list:
                _visit(collector, item, name, depth + 1)
            elif depth == 0:
                collector.has_odd_members = True


class _Walker:
    """Finds the events in a document that is not there as a whole: walks its outer structure, decodes only events."""

    def __init__(self, collector: _Collector, event_bytes_max: int) -> None:
        self._collector = collector
        self._event_bytes_max = event_bytes_max
        self._rest = b""
        self._look_at_bytes = 0
        self._open: list[tuple[bool, str | None]] = []
        """The objects (true) and arrays around the current position, with the key each stands under."""
        self._key: str | None = None
        """Key of the member that comes next in the innermost object."""

    def feed(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) >= self._look_at_bytes:
            done = self._walk(self._rest)
            self._rest = self._rest[done:]
            self._look_at_bytes = len(self._rest) * 3 // 2
            if len(self._rest) > self._event_bytes_max:
                raise sdk.EventError(f"An event is larger than {self._event_bytes_max} bytes", cause="too_large")

    def finish(self) -> None:
        data = self._rest + b" "  # what ends a number
        if self._walk(data) < len(data) or self._open:
            raise sdk.EventError("The JSON document ends too early", cause="json")

    def _walk(self, data: bytes) -> int:
        """Read as far as there are whole tokens; returns how far that is."""
        view = memoryview(data)
        position = 0
        while True:
            found = _SKIPPED.match(data, position)
            position = found.end() if found else position
            if position >= len(data):
                return position
            byte = data[position]
            if byte in b"]}":
                self._close(byte)
                position += 1
            elif byte in b"[{" and not self._is_event(byte):
                if len(self._open) >= DEPTH_MAX:
                    raise sdk.EventError("The JSON document is nested too deeply", cause="json")
                self._open.append((byte == 0x7B, self._name()))
                self._key = None
                position += 1
            elif byte in b"[{":
                value = _first(view[position:])
                if value is None:
                    return position
                self._collector.event(value[0])
                position += value[1]
            else:
                end = self._scalar(data, position)
                if end is None:
                    return position
                position = end

    def _is_event(self, byte: int) -> bool:
        return byte == 0x7B and bool(self._open) and not self._open[-1][0] and self._collector.takes(self._open[-1][1])

    def _name(self) -> str | None:
        """The key of the member that begins here: its own in an object, that of the array in an array."""
        if not self._open:
            return None
        return self._key if self._open[-1][0] else self._open[-1][1]

    def _close(self, byte: int) -> None:
        if not self._open or self._open.pop()[0] != (byte == 0x7D):
            raise sdk.EventError("This is no JSON document: its brackets do not match", cause="json")
        self._key = None

    def _scalar(self, data: bytes, position: int) -> int | None:
        """A key, or a value that is neither object nor array. Returns where it ends, None while it is not complete."""
        found = (_TEXT if data[position] == 0x22 else _SCALAR).match(data, position)
        if found is None:
            return None
        in_object = bool(self._open) and self._open[-1][0]
        try:
            value = sdk.decode(found[0])
        except ValueError as error:
            raise sdk.EventError(f"This is no JSON document: {error}", cause="json") from error
        if in_object and self._key is None:
            if type(value) is not str:
                raise sdk.EventError("This is no JSON document: a key is no text", cause="json")
            self._key = value
        elif in_object:
            assert self._key is not None
            if len(self._open) == 1:
                self._collector.field(self._key, value)
            self._key = None
        elif len(self._open) == 1:
            self._collector.has_odd_members = True
        return found.end()


def _first(data: memoryview) -> tuple[Any, int] | None:
    try:
        return first_value(data)
    except ValueError as error:
        raise sdk.EventError(f"This is no JSON document: {error}", cause="json") from error


class JsonOutput:
    extension = "json"

    def __init__(self, config: OutputConfig, ctx: sdk.Context) -> None:
        self._head = b"{" + sdk.encode(config.key_name) + b":["
        self._document = ctx.sink_options.compile_document()

    def encoder(self) -> sdk.Encoder:
        return _JsonEncoder(self._head, self._document)


class _JsonEncoder:
    def __init__(self, head: bytes, document: Any) -> None:
        self._head = head
        self._document = document
        self._first = True

    def start(self) -> bytes:
        self._first = True
        return self._head

    def write(self, batch: sdk.Batch) -> bytes:
        if not len(batch):
            return b""
        document, metas, origin = self._document, batch.metas, batch.origin
        text = b",".join(
            [sdk.encode(document(body, metas[place] or origin)) for place, body in enumerate(batch.bodies)]
        )
        first, self._first = self._first, False
        return text if first else b"," + text

    def finish(self) -> bytes:
        return b"]}"


def build_decoder(config: InputConfig, ctx: sdk.Context) -> sdk.InputCodec:
    return JsonInput(config, ctx)


def build_encoder(config: OutputConfig, ctx: sdk.Context) -> sdk.OutputCodec:
    return JsonOutput(config, ctx)


EXAMPLES = {
    "input_codec": [
        sdk.Example("Every array of the document", config="{}"),
        sdk.Example(
            "The records of a file, each with the account the file is about",
            config="key_name: Records\ninclude_keys: [account]\ninclude_keys_metadata: [region]",
        ),
    ],
    "output_codec": [sdk.Example("A list under another name", config="key_name: records")],
}
