"""What a pipeline is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from penstock.core.batch import Batch
from penstock.core.metrics import Counter, Timer
from penstock.expr import Expression
from penstock.runtime.deliver import Delivery
from penstock.runtime.forward import Forwarder, Target
from penstock.sdk import Buffer, Context, Sink, Source


@dataclass(slots=True)
class Stage:
    """A processor in its chain."""

    name: str
    run: Callable[[Batch], Batch | Awaitable[Batch]]
    records_in: Counter
    records_out: Counter
    time_elapsed: Timer
    drain: Callable[[], Batch] | None = None
    """Set where the processor holds events."""


@dataclass(slots=True)
class Branch:
    """A way out of the pipeline: a sink, or another pipeline."""

    name: str
    routes: tuple[str, ...]
    delivery: Delivery | None = None
    sink: Sink | None = None
    target: Target | None = None
    """The pipeline that takes the events over, instead of a sink."""
    forward: Target | None = None
    """The pipeline that gets the events which the sink has written."""
    forwarder: Forwarder | None = None
    """Its line of events, once there are any."""
    reads_later: bool = False
    """The sink still reads bodies after `submit` has returned."""


@dataclass(slots=True)
class Parts:
    """What a pipeline is made of."""

    name: str
    buffer: Buffer
    stages: list[Stage]
    routes: list[tuple[str, Expression]]
    branches: list[Branch]
    source: Source | None
    workers: int = 1
    contexts: dict[str, Context] = field(default_factory=dict)
