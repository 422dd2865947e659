"""What the runtime asks of a plugin and gives to it. A plugin module has `Config`, `build(config, ctx)`, `EXAMPLES`.

| kind | `build` returns |
| --- | --- |
| source | `Source` |
| buffer | `Buffer` |
| processor | `BatchFn`, or a `HoldingProcessor` where events are held back |
| sink | `BulkSink` (encode, send) or `WriteSink` (write) |
| codec | `build_decoder(InputConfig, ctx) -> InputCodec`, `build_encoder(OutputConfig, ctx) -> OutputCodec` |

Several units, processes that share the work, may run a pipeline. A source whose module says `SHARES_WORK = True` runs
in all of them (they share its port, through `Context.share_port`, or its partitions, by leases), any other in the first
one alone. A module of another kind that cannot work in several units has `one_unit_only(config)`, which returns the
reason and what to do instead, or None where these options allow it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from penstock.core.batch import Batch, Body
from penstock.core.errors import Failure
from penstock.core.handle import Handle

EventFn = Callable[[Body], None]
"""Changes one body in place; raises `EventError` and leaves the body as it was when it cannot."""
BatchFn = Callable[[Batch], Batch | Awaitable[Batch]]
"""Takes a batch over and returns what goes on. What it does not return it has released, selected or holds."""


class Output(Protocol):
    """Where a source puts its events: the buffer of its pipeline."""

    acknowledgments: bool
    """Whether a sink of this pipeline or of one behind it can say no, so that asking again makes sense."""
    events_max: int
    """Largest write in events."""
    bytes_max: int
    """Largest write in bytes."""

    def started(self) -> None:
        """The source accepts data now. Called once, or again after a restart."""

    def handle(self, on_done: Callable[[bool], None] | None = None) -> Handle:
        """A new promise. `promise` the batches with it, write them, then `seal` it."""

    def write_now(self, batch: Batch, size_bytes: int, *, reserved: bool = False) -> bool:
        """Write if there is room at once. False: nothing was written, use `write`; what was reserved still is."""

    async def write(
        self, batch: Batch, size_bytes: int, timeout_s: float | None = None, *, reserved: bool = False
    ) -> None:
        """Wait for room, then write the whole batch or nothing. Ownership of the events passes on.

        `size_bytes` is about what the events take in memory, their size as they arrived or more. With `reserved` these
        bytes were reserved; that ends with this call, whatever becomes of it. Events without a handle get one that
        nobody hears. Raises `BufferFull` after `timeout_s`, `BufferTooSmall` at once. A cancelled write left nothing
        behind.
        """

    def reserve_now(self, size_bytes: int) -> bool:
        """Reserve room for events that are still to be read if there is room at once: `write` them or `give_back`."""

    async def reserve(self, size_bytes: int, timeout_s: float | None = None) -> None:
        """Wait for room and reserve it. Raises as `write` does."""

    def give_back(self, size_bytes: int) -> None:
        """What was reserved is not needed after all."""

    def set_aside(self, size_bytes: int) -> None:
        """Take that many bytes off `bytes_max`: the source holds as many of what it reads. Replaces an earlier call."""


class Source(Protocol):
    """Brings events in."""

    async def run(self, output: Output) -> None:
        """Read until `stop` or the end of the data. Call `output.started()` when data is accepted.

        `Transient` starts it again after a while; `Permanent` ends the pipeline; returning means the data is at an end.
        """

    async def stop(self) -> None:
        """Take nothing new; finish what is under way; `run` returns soon after.

        Called again once everything has ended: then the source saves how far it got.
        """


class Room(Protocol):
    """What a delivery asks the buffer that its events have room in."""

    def is_awaited(self) -> bool:
        """Whether somebody waits for room."""

    def is_read_out(self) -> bool:
        """Whether a reader waits as well: all events there are have been read."""


class Buffer(Room, Protocol):
    """Holds batches between source and processors, bounded in events and bytes."""

    events_max: int
    bytes_max: int

    def write_now(self, batch: Batch, size_bytes: int, *, reserved: bool = False) -> bool: ...

    async def write(
        self, batch: Batch, size_bytes: int, timeout_s: float | None = None, *, reserved: bool = False
    ) -> None: ...

    def reserve_now(self, size_bytes: int) -> bool: ...

    async def reserve(self, size_bytes: int, timeout_s: float | None = None) -> None: ...

    def give_back(self, size_bytes: int) -> None: ...

    def set_aside(self, size_bytes: int) -> None: ...

    async def read(self) -> Load | None:
        """The next events, as soon as there are any; None when the buffer is closed and empty."""

    def done(self, load: Load) -> None:
        """The sinks are through with these events: their room is free again."""

    def close(self) -> None:
        """No more writes; readers get what is left, then None."""

    def rest(self) -> list[Batch]:
        """Take out what nobody has read: the pipeline ends."""


@dataclass(slots=True)
class Load:
    """What one read took from a buffer: its room is held until `Buffer.done`."""

    batch: Batch
    events: int
    size_bytes: int


@runtime_checkable
class HoldingProcessor(Protocol):
    """A processor that keeps events back: it is called with an empty batch now and then, and drained at the end."""

    holds_events: bool

    def __call__(self, batch: Batch) -> Batch | Awaitable[Batch]: ...

    def drain(self) -> Batch:
        """Everything still held, whatever its age."""


@dataclass(slots=True)
class Items:
    """What a sink made of a batch: parallel sequences, one place per item."""

    data: Sequence[bytes]
    """The encoded bytes, kept for retries and dead letters: a list, or `JoinedItems` which cost less."""
    slots: Sequence[int]
    """Which event of the batch each item came from."""
    keys: list[Hashable] | None = None
    """Two items of one key are never in flight together and arrive in order; None: order does not matter."""
    rejected: list[Failure] = field(default_factory=list)
    """Events that cannot be encoded: `index` is the slot, `details` go into the dead letter."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a bulk sink wants its requests."""

    request_bytes_max: int
    """A request is sent when the next item would exceed this; a larger item goes alone."""
    flush_timeout_s: float
    """Longest wait for a fuller request."""
    max_retries: int | None = None
    """Attempts for an item before it becomes a dead letter; None: for ever."""
    lanes_max: int = 4
    """Requests in flight at once."""
    request_items_max: int = 100_000


class Sink(Protocol):
    """What every sink has.

    A sink that can go on with other credentials has two members more. `renewable`: names of the options whose secrets
    may change while it runs. `async renew(config)`: a secret in these options, and nothing else, has a new value;
    `config` is made with it. What is under way ends with the options before, what comes later uses the new ones. It may
    be called before `start` has come to its end, never after `stop`. Where it raises, the options before stay in use
    and it is called again when the secret is next read. Of other plugins, and of other options, the log says that a
    restart is needed.
    """

    async def start(self) -> None:
        """Get ready. `Transient` is logged and tried again every 5 s for ever, `Permanent` ends the pipeline."""

    async def stop(self) -> None:
        """Close what is open. Called once everything is delivered; calling it twice is fine."""


class BulkSink(Sink, Protocol):
    """A sink whose items may be joined into requests.

    It may have two methods more. `supersedes(later: bytes, earlier: bytes) -> bool`: `earlier`, an item of the same key
    that has not been sent, need not be sent before `later`. `replay(failed_data) -> bytes`: the item that a dead letter
    tells of, raises `EventError` where it cannot be made.
    """

    limits: Limits
    """Read for each request, so it may change."""

    def encode(self, batch: Batch) -> Items:
        """Items for the events of the batch; reads the bodies, never keeps or changes them."""

    async def send(self, data: Sequence[bytes]) -> Sequence[Failure]:
        """Write the items; return those that were refused (`index` into `data`). `texts_of(data)` is what to join.

        Raises for the request as a whole:

        `Unreachable` (no answer), `Transient` (429, 5xx, 401, 403 …), `Permanent` (with more than one item the
        request is split to find the bad one).
        """

    def dead_letter(self, data: bytes) -> dict[str, Any]:
        """What a dead letter says of an item beside reason and status: its target and its document, ready for JSON."""


class WriteSink(Sink, Protocol):
    """A sink that writes a batch as it is."""

    async def write(self, batch: Batch) -> None:
        """Write all events of the batch in order. Raises `Transient` or `Permanent` when nothing of it was written."""


class Decoder(Protocol):
    """Turns bytes into events, piece by piece. Raises `EventError` where the bytes are not of its form."""

    def feed(self, data: bytes) -> Batch:
        """Events that are complete now; what is left over waits for the next piece."""

    def finish(self) -> Batch:
        """Events of what was left over."""


@runtime_checkable
class PiecewiseDecoder(Decoder, Protocol):
    """A decoder that has most of its events only at the end, and more of them than should be in memory at once."""

    def rest(self) -> Iterator[Batch]:
        """What `finish` would give, in batches; called instead of it."""


class InputCodec(Protocol):
    def decoder(self) -> Decoder:
        """A fresh decoder for one object, file or request."""


class Encoder(Protocol):
    """Turns batches into the bytes of one object: start, write …, finish."""

    def start(self) -> bytes: ...

    def write(self, batch: Batch) -> bytes: ...

    def finish(self) -> bytes: ...


class OutputCodec(Protocol):
    extension: str
    """File name ending, without the dot."""

    def encoder(self) -> Encoder:
        """A fresh encoder for one object."""
