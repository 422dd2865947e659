"""What a seed stands for: pipelines, events, settings and faults. The same seed always gives the same scenario."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field
from typing import Any

STAGES = ("drop", "split", "wait", "wait", "hold", "hold", "throw", "tag", "copy")
NO_ROUTE = "_default"
FAILURES = "failures"
"""Index that the failure pipeline writes to."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A processor; what it does to an event depends on its name and the event alone."""

    kind: str
    name: str
    percent: int
    """Share of the events that are dropped, split or thrown at."""
    seconds: float
    """Longest time that events wait or are held."""


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """A way out of a pipeline."""

    kind: str
    """`opensearch`, `write` or `pipeline`."""
    name: str
    """The index, or the name of the pipeline."""
    routes: tuple[str, ...] = ()
    forward: str | None = None
    max_retries: int | None = None


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    name: str
    root: int
    """Number of the source whose events come here."""
    source: str | None
    """`requests`, `queue` or `log` where the pipeline has a source of its own."""
    parent: str | None
    stages: tuple[StageSpec, ...]
    routes: dict[str, tuple[int, int]]
    """Route names with the range of `n` they are for."""
    sinks: tuple[SinkSpec, ...]
    workers: int
    buffer_size: int
    batch_size: int
    buffer_bytes: int


@dataclass(frozen=True, slots=True)
class Event:
    """What a source brings, whenever it is asked."""

    number: int
    n: int
    """What routes look at: 0 to 99."""
    id: str
    op: str
    pad: int

    def body(self, round_: int) -> dict[str, Any]:
        """The event as it is brought for the `round_`-th time."""
        return {
            "tokens": [str(self.number)],
            "round": round_,
            "n": self.n,
            "id": self.id,
            "version": self.number + 1,
            "op": self.op,
            "pad": "x" * self.pad,
        }


@dataclass(slots=True)
class Faults:
    """How often things go wrong until the world heals: shares of requests, items or events."""

    whole: float = 0.0
    """A request is answered with 429, 5xx or 403."""
    cut: float = 0.0
    """The connection breaks before or after the request was carried out, or in the middle of the answer."""
    hang: float = 0.0
    """No answer before the client gives up."""
    slow: float = 0.0
    item_busy: float = 0.0
    """An item is answered with 429 or 503."""
    poison: int = 0
    """Percent of the events that the server refuses for ever, one by one."""
    venom: int = 0
    """Percent of the events for which the server refuses the request they are in."""
    request_bytes_max: int = 10**9
    """Larger requests are answered with 413."""
    index_deleted: float = 0.0
    """Chance per request that the index goes away before it."""
    letters: float = 0.0
    """A dead letter cannot be written."""
    letters_away: tuple[float, float] = (0.0, 0.0)
    """From when to when none can be written."""
    server_away: tuple[float, float] = (0.0, 0.0)
    expire: float = 0.0
    """Mean seconds between promises that are taken back; 0: never."""
    clock_jumps: bool = False
    crashes: int = 0
    """Times that the process is killed."""
    stops: int = 0
    """Times that the process is told to stop and started again."""


@dataclass(slots=True)
class Scenario:
    """Everything that is decided before the first step."""

    seed: int
    profile: str
    """`calm` (no faults), `busy` (items are refused for now) or `rough` (anything)."""
    ids: str
    """`none`, `unique` (create), `keys` (external versions) or `plain` (ids without versions)."""
    pipelines: list[PipelineSpec]
    events: list[list[Event]]
    """By source, in order."""
    faults: Faults
    heal_s: float
    """When the faults end."""
    acknowledgments: bool
    """Whether a request is answered after delivery; else once it is in the buffer."""
    request_bytes: int
    lanes: int
    latency_s: float
    setup: dict[str, float] = field(default_factory=dict)

    @property
    def ordered(self) -> bool:
        """Whether the sink's operations on an id have an order that can be told from outside."""
        return self.ids in ("keys", "plain")

    def pipeline(self, name: str) -> PipelineSpec:
        return next(spec for spec in self.pipelines if spec.name == name)

    def yaml(self) -> str:
        """The pipelines as a user would write them; simulated processors stand where it says `no-op`."""
        lines: list[str] = []
        for spec in self.pipelines:
            lines += [f"{spec.name}:", f"  workers: {spec.workers}", f"  buffer_bytes_max: {spec.buffer_bytes}b"]
            if spec.source is not None:
                lines.append("  source: {http: }")
            elif spec.parent is not None:
                lines.append(f"  source: {{pipeline: {{name: {spec.parent}}}}}")
            size = f"{{buffer_size: {spec.buffer_size}, batch_size: {spec.batch_size}}}"
            lines.append(f"  buffer: {{bounded_blocking: {size}}}")
            if spec.stages:
                lines.append(f"  processor: [{', '.join(['{no-op: }'] * len(spec.stages))}]")
            if spec.routes:
                lines.append("  routes:")
                lines += [f"    - {name}: '/n >= {low} and /n < {high}'" for name, (low, high) in spec.routes.items()]
            lines.append("  sink:")
            lines += [f"    - {self._sink_yaml(sink)}" for sink in spec.sinks]
        return "\n".join(lines) + "\n"

    def _sink_yaml(self, sink: SinkSpec) -> str:
        routes = f"routes: [{', '.join(sink.routes)}]" if sink.routes else ""
        if sink.kind == "pipeline":
            return f"pipeline: {{{', '.join(filter(None, (f'name: {sink.name}', routes)))}}}"
        forward = "" if sink.forward is None else f"forward_to: {{pipelines: [{sink.forward}]}}"
        if sink.kind == "write":
            return f"noop: {{{', '.join(filter(None, (routes, forward)))}}}"
        options = ['hosts: ["http://model:9200"]', f"index: {sink.name}", "enable_request_compression: false"]
        if sink.max_retries is not None:
            options.append(f"max_retries: {sink.max_retries}")
        if sink.name == FAILURES:
            pass  # whatever is refused is kept, not only the last of an id
        elif self.ids == "unique":
            options += ["action: create", 'document_id: "${/id}"']
        elif self.ids == "plain":
            options.append('document_id: "${/id}"')
        elif self.ids == "keys":
            options += ['action: "${/op}"', 'document_id: "${/id}"', 'document_version: "${/version}"']
            options.append("document_version_type: external")
        return f"opensearch: {{{', '.join(filter(None, (*options, routes, forward)))}}}"


def percent_of(*words: object) -> int:
    """A number from 0 to 99 that depends on `words` alone."""
    return zlib.crc32("|".join(map(str, words)).encode()) * 2654435761 % 2**32 * 100 >> 32


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    chance = random.Random(seed)  # noqa: S311 (a simulation)
    profile = chance.choices(("calm", "busy", "rough"), (15, 20, 65))[0]
    ids = "none" if profile == "busy" else chance.choice(("none", "unique", "keys", "keys", "plain"))
    roots = chance.choices((1, 2), (75, 25))[0]
    kinds = ["log" if ids == "plain" else chance.choice(("requests", "queue", "log")) for _ in range(roots)]
    pipelines = _Pipelines(chance, ids).grow(kinds)
    events = _events(chance, kinds, ids)
    rough = profile == "rough"
    return Scenario(
        seed=seed,
        profile=profile,
        ids=ids,
        pipelines=pipelines,
        events=events,
        faults=_faults(chance, ids) if rough else Faults(item_busy=0.1 if profile == "busy" else 0.0),
        heal_s=chance.choice((5.0, 40.0, 200.0)) if rough else 40.0,
        acknowledgments=profile == "busy" or chance.random() < 0.7,
        request_bytes=chance.choice((300, 2000, 1_000_000)),
        lanes=chance.choice((1, 2, 4, 8)),
        latency_s=chance.choice((0.001, 0.02, 0.5)),
    )


class _Pipelines:
    """Grows a tree of pipelines for each source."""

    def __init__(self, chance: random.Random, ids: str) -> None:
        self._chance = chance
        self._ids = ids
        self._made: list[PipelineSpec] = []
        self._names = 0

    def grow(self, kinds: list[str]) -> list[PipelineSpec]:
        for root, kind in enumerate(kinds):
            self._pipeline(root, kind, None, 0)
        if self._chance.random() < 0.25:
            sink = SinkSpec("opensearch", FAILURES, (), None, None)
            self._made.append(self._spec("dlq_pipeline", -1, None, None, (), {}, (sink,)))
        return self._made

    def _pipeline(self, root: int, source: str | None, parent: str | None, depth: int) -> str:
        chance = self._chance
        name = f"p{self._names}"
        self._names += 1
        stages = tuple(self._stage(f"{name}s{place}") for place in range(chance.choice((0, 0, 1, 2, 2, 3))))
        routes: dict[str, tuple[int, int]] = {}
        if chance.random() < 0.35:
            routes = {"low": (0, chance.randrange(20, 60)), "high": (chance.randrange(30, 90), 100)}
        sinks: list[SinkSpec] = []
        for place in range(chance.choice((1, 1, 1, 2, 3))):
            chosen = tuple(route for route in (*routes, NO_ROUTE) if chance.random() < 0.5) if routes else ()
            sinks.append(self._sink(root, name, place, chosen, depth))
        leaf = all(sink.kind != "pipeline" and sink.forward is None for sink in sinks)
        if self._ids == "none" and leaf and not routes and chance.random() < 0.3:
            stages = (*stages, StageSpec("merge", f"{name}m", 100, chance.choice((0.3, 3.0))))
        self._made.append(self._spec(name, root, source, parent, stages, routes, tuple(sinks)))
        return name

    def _spec(
        self,
        name: str,
        root: int,
        source: str | None,
        parent: str | None,
        stages: tuple[StageSpec, ...],
        routes: dict[str, tuple[int, int]],
        sinks: tuple[SinkSpec, ...],
    ) -> PipelineSpec:
        chance = self._chance
        return PipelineSpec(
            name,
            root,
            source,
            parent,
            stages,
            routes,
            sinks,
            workers=chance.choice((1, 2, 5)),
            buffer_size=chance.choice((20, 20, 60, 12800)),
            batch_size=chance.choice((1, 10, 200)),
            buffer_bytes=chance.choice((4_000, 64_000, 64_000_000)),
        )

    def _stage(self, name: str) -> StageSpec:
        chance = self._chance
        return StageSpec(chance.choice(STAGES), name, chance.choice((2, 10, 30)), chance.choice((0.01, 0.3, 3.0)))

    def _sink(self, root: int, name: str, place: int, routes: tuple[str, ...], depth: int) -> SinkSpec:
        chance = self._chance
        if depth < 2 and chance.random() < 0.35:
            return SinkSpec("pipeline", self._pipeline(root, None, name, depth + 1), routes)
        forward = self._pipeline(root, None, None, depth + 1) if depth < 2 and chance.random() < 0.3 else None
        if chance.random() < 0.2:
            return SinkSpec("write", f"{name}-{place}", routes, forward)
        retries = chance.choice((None, None, 1, 3, 16))
        return SinkSpec("opensearch", f"{name}-{place}", routes, forward, retries)


def _events(chance: random.Random, kinds: list[str], ids: str) -> list[list[Event]]:
    number = 0
    events: list[list[Event]] = []
    for _ in kinds:
        names = chance.choice((1, 5, 40))
        pad = chance.choice((0, 50, 300))
        made: list[Event] = []
        for _ in range(chance.choice((1, 10, 60, 200))):
            id_ = f"e{number}" if ids in ("none", "unique") else f"k{chance.randrange(names)}"
            op = "delete" if ids == "keys" and chance.random() < 0.2 else "index"
            made.append(Event(number, chance.randrange(100), id_, op, chance.randrange(pad + 1)))
            number += 1
        events.append(made)
    return events


def _faults(chance: random.Random, ids: str) -> Faults:
    def often(share: float, *levels: float) -> float:
        return chance.choice(levels) if chance.random() < share else 0.0

    def window(share: float) -> tuple[float, float]:
        if chance.random() >= share:
            return 0.0, 0.0
        start = chance.uniform(0, 60)
        return start, start + chance.choice((1.0, 15.0, 100.0))

    return Faults(
        whole=often(0.4, 0.02, 0.2, 0.6),
        cut=often(0.4, 0.02, 0.2),
        hang=often(0.2, 0.01, 0.1),
        slow=often(0.4, 0.05, 0.5),
        item_busy=often(0.5, 0.02, 0.2, 0.7),
        poison=int(often(0.4, 1, 5, 30)),
        venom=int(often(0.2, 1, 5)),
        request_bytes_max=chance.choice((600, 3000)) if chance.random() < 0.15 else 10**9,
        index_deleted=often(0.1, 0.05) if ids != "plain" else 0.0,
        letters=often(0.3, 0.1, 0.5),
        letters_away=window(0.3),
        server_away=window(0.3),
        expire=often(0.3, 0.5, 5.0),
        clock_jumps=chance.random() < 0.3,
        crashes=chance.choice((0, 0, 1, 2)),
        stops=chance.choice((0, 0, 1, 2)),
    )
