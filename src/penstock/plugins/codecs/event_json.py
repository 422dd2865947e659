"""Events with their metadata as JSON, to be stored and read back without loss.

A document is `{"version": …, "events": [{"data": {…}, "metadata": {…}}, …]}`. Reading takes documents of any size piece
by piece. Documents of a version that is not compatible are left out, logged and counted in `incompatibleDocuments`.
"""

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from penstock import sdk
from penstock.lib.instants import read_instant
from penstock.lib.json_stream import first_value

VERSION = (2, 17)
"""The version of Data Prepper whose documents these are."""
WHOLE_BYTES_MAX = 16 * 1024 * 1024
"""Documents up to this size are decoded at once."""
EVENT_BYTES_MAX = 64 * 1024 * 1024
"""Largest event, and largest document whose `version` does not come first."""

_HEAD = re.compile(rb'\s*\{\s*"version"\s*:\s*"([^"\\]{1,100})"\s*,\s*"events"\s*:\s*\[')
_VERSION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\D.*)?", re.DOTALL)
_BLANKS = re.compile(rb"\s*")
_BETWEEN = re.compile(rb"[\s,]*")
_END = re.compile(rb"\]\s*\}\s*")


class InputConfig(sdk.PluginConfig):
    override_time_received: bool = False
    """Take the time at which the event was received from the document; otherwise it is received now."""


class OutputConfig(sdk.PluginConfig):
    """There is nothing to configure."""


class EventJsonInput:
    def __init__(self, config: InputConfig, ctx: sdk.Context) -> None:
        self._config = config
        self._ctx = ctx
        ctx.metrics.counter("incompatibleDocuments")

    def decoder(self) -> sdk.Decoder:
        return _EventJsonDecoder(self._config, self._ctx)


class _EventJsonDecoder:
    def __init__(self, config: InputConfig, ctx: sdk.Context) -> None:
        self._keep_time = config.override_time_received
        self._ctx = ctx
        self._pieces: list[bytes] = []
        self._size = 0
        self._streams = False
        """Whether the document is too large to be decoded at once."""
        self._in_events = False
        self._compatible = True
        self._rest = b""
        self._look_at_bytes = 0
        """Size of the rest at which an unfinished event is tried again, which keeps the work linear."""

    def feed(self, data: bytes) -> sdk.Batch:
        if not self._streams:
            self._pieces.append(data)
            self._size += len(data)
            if self._size <= WHOLE_BYTES_MAX:
                return self._batch([])
            self._streams = True
            data = b"".join(self._pieces)
            self._pieces = []
        self._rest += data
        if len(self._rest) < self._look_at_bytes:
            return self._batch([])
        found = list(self._walk())
        self._look_at_bytes = len(self._rest) * 3 // 2
        if len(self._rest) > EVENT_BYTES_MAX:
            raise sdk.EventError(f"An event is larger than {EVENT_BYTES_MAX} bytes", cause="too_large")
        return self._batch(found)

    def finish(self) -> sdk.Batch:
        if self._streams:
            found = list(self._walk())
            if self._in_events:
                raise sdk.EventError("The JSON document ends too early", cause="json")
            rest, self._rest = self._rest, b""
        else:
            found, rest = [], b"".join(self._pieces)
            self._pieces, self._size = [], 0
        for document in _documents(rest):
            found += self._events_of(document)
        return self._batch(found)

    def _walk(self) -> Iterator[Any]:
        """The events that are complete in what there is of the document."""
        data = self._rest
        view = memoryview(data)
        position = 0
        while True:
            if not self._in_events:
                head = _HEAD.match(data, position)
                if head is None:
                    break
                self._in_events, self._compatible = True, self._accepts(head[1].decode("utf-8", "replace"))
                position = head.end()
            skipped = _BETWEEN.match(data, position)
            position = skipped.end() if skipped else position
            end = _END.match(data, position)
            if end is not None:
                self._in_events = False
                position = end.end()
                continue
            if position >= len(data) or data[position : position + 1] == b"]":
                break
            value = _value(view[position:])
            if value is None:
                break
            if self._compatible:
                yield value[0]
            position += value[1]
        self._rest = data[position:]

    def _events_of(self, document: Any) -> list[Any]:
        if type(document) is not dict:
            raise sdk.EventError("This is no document of events: it is no object", cause="json")
        version, events = document.get("version"), document.get("events")
        if not self._accepts(version):
            return []
        if type(events) is not list:
            raise sdk.EventError("This is no document of events: it has no list of events", cause="json")
        return events

    def _accepts(self, version: Any) -> bool:
        if type(version) is not str:
            raise sdk.EventError("This is no document of events: it has no version", cause="json")
        found = _VERSION.fullmatch(version)
        if found is not None and (int(found[1]), int(found[2] or 0)) <= VERSION:
            return True
        self._ctx.metrics.counter("incompatibleDocuments").add()
        self._ctx.log.error("Events of version %s cannot be read, only those up to %d.%d", version[:100], *VERSION)
        return False

    def _batch(self, events: list[Any]) -> sdk.Batch:
        now_ms = self._ctx.clock.now_ms()
        bodies: list[sdk.Body] = []
        metas: list[sdk.Meta | None] = []
        for event in events:
            if type(event) is not dict:
                raise sdk.EventError("This is no document of events: an event is no object", cause="json")
            body = event.get("data")
            if body is None:
                continue
            if type(body) is not dict:
                raise sdk.EventError("This is no document of events: the data of an event is no object", cause="json")
            bodies.append(body)
            metas.append(self._meta(event.get("metadata"), now_ms))
        return sdk.Batch(bodies, metas, origin=sdk.Meta(received_ms=now_ms))

    def _meta(self, metadata: Any, now_ms: int) -> sdk.Meta | None:
        if metadata is None:
            return None
        attributes, tags = _known(metadata, "attributes", dict), _known(metadata, "tags", list)
        received = _milliseconds(metadata, "time_received") if self._keep_time else None
        return sdk.Meta(
            "LOG",
            now_ms if received is None else received,
            attributes or {},
            [str(tag) for tag in tags or ()],
            _milliseconds(metadata, "external_origination_time"),
        )


def _known(metadata: Any, name: str, kind: type) -> Any:
    value = metadata.get(name) if type(metadata) is dict else ""
    if value is not None and type(value) is not kind:
        raise sdk.EventError(f"This is no document of events: {name} of an event is wrong", cause="json")
    return value


def _milliseconds(metadata: Any, name: str) -> int | None:
    """An instant as this codec and Data Prepper write it: seconds with a fraction, or ISO 8601."""
    value = metadata.get(name)
    if value is None:
        return None
    if isinstance(value, float):
        try:
            value = Decimal(repr(value))
        except InvalidOperation:
            value = None
    elif type(value) is int:
        value = Decimal(value)
    return read_instant(value) // 1_000_000


def _value(data: memoryview) -> tuple[Any, int] | None:
    try:
        return first_value(data)
    except ValueError as error:
        raise sdk.EventError(f"This is no JSON document: {error}", cause="json") from error


def _documents(data: bytes) -> Iterator[Any]:
    """One document after the other; nothing for nothing."""
    view, position = memoryview(data), 0
    while True:
        blanks = _BLANKS.match(data, position)
        position = blanks.end() if blanks else position
        if position == len(data):
            return
        found = _value(view[position:])
        if found is None:
            raise sdk.EventError("The JSON document ends too early", cause="json")
        yield found[0]
        position += found[1]


class EventJsonOutput:
    extension = "event_json"

    def encoder(self) -> sdk.Encoder:
        return _EventJsonEncoder()


class _EventJsonEncoder:
    def __init__(self) -> None:
        self._first = True

    def start(self) -> bytes:
        self._first = True
        return b'{"version":"%d.%d","events":[' % VERSION

    def write(self, batch: sdk.Batch) -> bytes:
        if not len(batch):
            return b""
        text = b",".join(
            [
                sdk.encode({"data": body, "metadata": _metadata(batch.peek(place))})
                for place, body in enumerate(batch.bodies)
            ]
        )
        first, self._first = self._first, False
        return text if first else b"," + text

    def finish(self) -> bytes:
        return b"]}"


def _metadata(meta: sdk.Meta) -> sdk.Body:
    return {
        "event_type": meta.event_type,
        "time_received": _seconds(meta.received_ms),
        "external_origination_time": None if meta.origination_ms is None else _seconds(meta.origination_ms),
        "attributes": meta.attributes,
        "tags": sorted(meta.tags),
    }


def _seconds(milliseconds: int) -> Decimal:
    return Decimal(milliseconds * 1_000_000).scaleb(-9)


def build_decoder(config: InputConfig, ctx: sdk.Context) -> sdk.InputCodec:
    return EventJsonInput(config, ctx)


def build_encoder(config: OutputConfig, ctx: sdk.Context) -> sdk.OutputCodec:
    return EventJsonOutput()


EXAMPLES = [sdk.Example("Store events with their metadata", config="{}")]
