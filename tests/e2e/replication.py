"""A table that changes at random, `penstock run` processes that are killed and refused, and an index to end equal.

`make replicate SEEDS=20 CHANGES=10000 START=n` runs seeds nobody has seen yet; each seed draws its variant, its keys
and its faults. `simulate(scenario, …)` is one of them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine import Engine
from proxy import FaultProxy
from workload import KEY_TYPES, Table, Workload

from penstock.testing.services import DynamoDbLocal, OpenSearchServer

PIPELINE = """\
version: "2"
dynamodb-pipeline:
  source:
    dynamodb:
      acknowledgments: ACKNOWLEDGMENTS
      tables:
        - table_arn: "arn:aws:dynamodb:us-east-1:123456789012:table/NAME"
          stream:
            start_position: "LATEST"
            view_on_remove: "VIEW"
      aws:
        region: "us-east-1"
  sink:
    - opensearch:
        hosts: ["HOSTS"]
        index: "NAME"
        index_type: custom
        document_id: "${getMetadata(\\"primary_key\\")}"
        action: "${getMetadata(\\"opensearch_action\\")}"
        document_version: "${getMetadata(\\"document_version\\")}"
        document_version_type: "external"
"""
SHARED_LEASES = """\
ssl: false
server_port: 0
source_coordination:
  store:
    dynamodb:
      table_name: NAME-leases
      region: us-east-1
"""
VARIANTS = ("kills", "units", "machines", "refusals", "repeats")
"""What goes wrong: the process is killed; one of two units is; one of two processes that share a lease table is; the
sink refuses; what was delivered is delivered again, because the process died before it knew."""
LOOSE = {"properties": {"any": {"type": "object", "enabled": False}}}
"""Attributes below `any` need not fit any mapping."""
CATCH_UP_S = 300.0
QUIET_S = 30.0
"""Nothing happens any more when the index stays the same for so long."""
QUIET_ELSEWHERE_S = 75.0
"""The same where the leases of a process on another machine may have to run out."""
FRESH_MAX = 10**6


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one seed draws."""

    seed: int
    variant: str
    changes: int
    keys: int
    old_items: int
    """Items that are there before the pipeline."""
    key_types: tuple[str, ...]
    acknowledgments: bool
    view_on_remove: str
    seconds: float
    """How long the changes take."""
    rollovers: int
    faults: int
    other_host: bool
    """Of two processes the second says that it is on another machine."""


def draw(seed: int, *, changes: int = 10_000, keys: int = 2000, rate: float = 500.0) -> Scenario:
    """The scenario of a seed; five seeds in a row have all variants."""
    chance = random.Random(seed)
    seconds = changes / rate
    return Scenario(
        seed=seed,
        variant=VARIANTS[seed % len(VARIANTS)],
        changes=changes,
        keys=keys,
        old_items=chance.randrange(keys // 2),
        key_types=chance.choice(KEY_TYPES),
        acknowledgments=chance.random() < 0.75,
        view_on_remove=chance.choice(("NEW_IMAGE", "OLD_IMAGE")),
        seconds=seconds,
        rollovers=max(2, changes // 1000),
        faults=min(20, max(2, changes // 1500)),
        other_host=chance.random() < 0.5,
    )


@dataclass(slots=True)
class Report:
    scenario: Scenario
    kills: int = 0
    refusals: int = 0
    seconds: float = 0.0
    written_s: float = 0.0
    """What the changes took."""
    catch_up_s: float = 0.0
    """From the last change to an index that equals the table."""
    conflicts: int = 0
    """Documents that were delivered more than once, as the sinks that ended in order counted them."""
    failure: str = ""
    folder: Path | None = None
    """Where the logs are."""
    engines: list[Engine] = field(default_factory=list)

    def line(self) -> str:
        drawn = self.scenario
        keys = "+".join(drawn.key_types) + (" acks" if drawn.acknowledgments else "")
        host = " other host" if drawn.variant == "machines" and drawn.other_host else ""
        return (
            f"seed {drawn.seed:<7} {drawn.variant + host:<19} {keys:<9} "
            f"{drawn.changes} changes in {self.written_s:.0f} s, {drawn.rollovers} rollovers, "
            f"{self.kills} kills, {self.refusals} refusals, "
            f"caught up after {self.catch_up_s:.1f} s, {self.seconds:.0f} s  "
            f"{'FAILED' if self.failure else 'ok'}"
        )


class Index:
    """The index as a reader sees it."""

    def __init__(self, url: str, name: str) -> None:
        self._address = urlsplit(url)
        self.name = name

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=60)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        assert reply.status in (200, 201), f"{method} {path} was answered {reply.status}: {text[:500]!r}"
        return json.loads(text, parse_float=Decimal, parse_int=Decimal) if text else None

    def make(self) -> None:
        settings = {"number_of_shards": 1, "number_of_replicas": 0}
        self.ask("PUT", f"/{self.name}", {"settings": settings, "mappings": LOOSE})

    def documents(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Version and source of all documents, by id."""
        self.ask("POST", f"/{self.name}/_refresh")
        query = {"size": 10_000, "version": True, "sort": ["_doc"]}
        hits = self.ask("POST", f"/{self.name}/_search", query)["hits"]["hits"]
        assert len(hits) < 10_000, "more documents than one search shows"
        return {hit["_id"]: (int(hit["_version"]), hit["_source"]) for hit in hits}


class Run:
    """The processes of one scenario and what happens to them."""

    def __init__(
        self, scenario: Scenario, dynamodb: DynamoDbLocal, proxy: FaultProxy, name: str, folder: Path, report: Report
    ) -> None:
        self._scenario = scenario
        self._dynamodb = dynamodb
        self._proxy = proxy
        self._name = name
        self._folder = folder
        self._report = report
        self._chance = random.Random(scenario.seed + 1)
        self._engines: dict[int, Engine] = {}
        self.stopping = threading.Event()
        yaml = PIPELINE.replace("NAME", name).replace("HOSTS", proxy.url).replace("VIEW", scenario.view_on_remove)
        self._yaml = yaml.replace("ACKNOWLEDGMENTS", str(scenario.acknowledgments).lower())
        endpoints = ("DYNAMODB", "DYNAMODB_STREAMS")
        self._environ = {f"AWS_ENDPOINT_URL_{service}": dynamodb.url for service in endpoints}

    def start(self) -> None:
        for number in range(2 if self._scenario.variant == "machines" else 1):
            self._start(number)
        for engine in self._engines.values():
            engine.wait_ready()

    def _start(self, number: int) -> None:
        drawn, report = self._scenario, self._report
        options: dict[str, Any] = {}
        if drawn.variant == "machines":
            options["config"] = SHARED_LEASES.replace("NAME", self._name)
            if number == 1 and drawn.other_host:
                options["host"] = "elsewhere"
        if drawn.variant == "units":
            options["arguments"] = ("--units", "2")
        log_name = f"engine-{len(report.engines)}.log"
        folder = self._folder / f"process-{number}"
        engine = Engine(folder, self._yaml, environ=self._environ, log_name=log_name, **options)
        report.engines.append(engine)
        self._engines[number] = engine.start()

    def trouble(self) -> None:
        """Everything that goes wrong and every rollover, over the time of the changes."""
        drawn, chance = self._scenario, self._chance
        acts: dict[str, Callable[[], None]] = {
            "kills": self._kill,
            "units": self._kill_unit,
            "machines": self._kill,
            "refusals": self._refuse,
            "repeats": self._repeat,
        }
        act = acts[drawn.variant]
        plan = [(chance.uniform(0.02, 1.0), self._dynamodb.roll_shards_over) for _ in range(drawn.rollovers)]
        plan += [(chance.uniform(0.05, 1.0), act) for _ in range(drawn.faults)]
        began = time.monotonic()
        for fraction, due in sorted(plan, key=lambda planned: planned[0]):
            if self.stopping.wait(max(0.0, began + fraction * drawn.seconds - time.monotonic())):
                return
            due()

    def _kill(self) -> None:
        number = self._kill_one()
        if self._chance.random() < 0.5:  # else the next one comes while it starts
            self._engines[number].wait_ready()

    def _kill_one(self) -> int:
        number = self._chance.choice(list(self._engines))
        self._engines[number].kill()
        self._report.kills += 1
        if self._chance.random() < 0.3:
            self.stopping.wait(self._chance.uniform(0.1, 3.0))
        self._start(number)
        return number

    def _kill_unit(self) -> None:
        """One of the units, or now and then all of them at once."""
        engine = self._engines[0]
        if self._chance.random() < 0.15:
            self._kill()
            return
        units = json.loads(engine.ask("GET", "/status")[1]).get("units", [])
        living = [unit["process"] for unit in units if unit["state"] == "RUNNING" and unit["process"]]
        if living:
            os.kill(self._chance.choice(living), signal.SIGKILL)
            self._report.kills += 1

    def _refuse(self) -> None:
        """The sink refuses for a while, each time in another way."""
        proxy, chance = self._proxy, self._chance
        faults: list[Callable[[], None]] = [
            lambda: proxy.answer(429, '{"error": "rejected"}', path="/_bulk"),
            lambda: proxy.answer(503, "{}"),
            lambda: proxy.answer(429, "{}", path="/_bulk", times=2),
            lambda: proxy.cut_before_forwarding(path="/_bulk"),
            lambda: proxy.cut_after_forwarding(path="/_bulk", times=3),
            lambda: proxy.delay(1.5, path="/_bulk", times=4),
        ]
        for fault in chance.sample(faults, chance.choice((1, 1, 2))):
            fault()
        self._report.refusals += 1
        self.stopping.wait(chance.uniform(0.3, 3.0))
        if chance.random() < 0.5:
            proxy.cut_all()
        if chance.random() < 0.2:
            self._kill_one()
        proxy.heal()

    def _repeat(self) -> None:
        """The sink has the documents, the process never hears of it, and is killed or sends them again."""
        before = sum(1 for seen in self._proxy.requests if not seen.status and seen.forwarded)
        self._proxy.cut_after_forwarding(path="/_bulk", times=self._chance.randint(1, 3))
        deadline = time.monotonic() + 5
        while sum(1 for seen in self._proxy.requests if not seen.status and seen.forwarded) == before:
            if time.monotonic() > deadline or self.stopping.wait(0.002):
                break
        self._report.refusals += 1
        if self._chance.random() < 0.75:
            self._kill_one()
        self._proxy.heal()

    def stop(self) -> None:
        """All processes end in order; no log tells of a bug."""
        name = "dynamodb_pipeline_opensearch_documentsVersionConflictErrors_total"
        for engine in self._engines.values():
            engine.wait_ready()  # it may have been started a moment ago
            self._report.conflicts += round(engine.meter(name))
        for engine in self._engines.values():
            engine.stop()
        for engine in self._report.engines:
            engine.check_log()
            assert engine.dead_letters("dynamodb-pipeline") == [], "there are dead letters"

    def kill(self) -> None:
        for engine in self._report.engines:
            engine.kill()


def simulate(scenario: Scenario, dynamodb: DynamoDbLocal, opensearch: OpenSearchServer, folder: Path) -> Report:
    """Run one scenario. What went wrong stands in the report, with the logs in `folder`."""
    report = Report(scenario, folder=folder)
    began = time.monotonic()
    name = f"replicate-{scenario.seed}-{time.time_ns() % 10**9}"
    table, index = Table(dynamodb.url, name, scenario.key_types), Index(opensearch.url, name)
    with ExitStack() as stack:
        stack.callback(table.close)
        proxy = stack.enter_context(FaultProxy(opensearch.url))
        run = Run(scenario, dynamodb, proxy, name, folder, report)
        stack.callback(run.kill)
        try:
            table.make()
            stack.callback(table.remove)
            index.make()
            stack.callback(index.ask, "DELETE", f"/{name}")
            _replicate(scenario, table, index, dynamodb, run, proxy, report)
        except Exception:
            report.failure = report.failure or traceback.format_exc()
    report.seconds = time.monotonic() - began
    return report


def _replicate(
    scenario: Scenario,
    table: Table,
    index: Index,
    dynamodb: DynamoDbLocal,
    run: Run,
    proxy: FaultProxy,
    report: Report,
) -> None:
    workload = Workload(table, seed=scenario.seed, keys=scenario.keys)
    workload.begin_with(scenario.old_items)
    dynamodb.age_stream_events(1)
    run.start()
    troubles: list[BaseException] = []

    def trouble() -> None:
        try:
            run.trouble()
        except BaseException as error:
            troubles.append(error)
            workload.stop()

    chaos = threading.Thread(target=trouble, daemon=True, name="trouble")
    chaos.start()
    began = time.monotonic()
    try:
        workload.run(scenario.changes, seconds=scenario.seconds)
    except BaseException:
        run.stopping.set()
        raise
    finally:
        chaos.join()
    if troubles:
        raise troubles[0]
    proxy.heal()
    report.written_s = time.monotonic() - began
    ended = time.monotonic()
    quiet_s = QUIET_ELSEWHERE_S if scenario.other_host else QUIET_S
    difference: str | None = ""
    changed = ended
    try:
        while (found := workload.difference(index.documents())) is not None:
            now = time.monotonic()
            if found != difference:
                difference, changed = found, now
            assert now - changed < quiet_s, f"the index has not changed for {quiet_s:g} s"
            assert now - ended < CATCH_UP_S, f"the index has not caught up within {CATCH_UP_S:g} s"
            time.sleep(0.3)
        report.catch_up_s = time.monotonic() - ended
        run.stop()
        difference = workload.difference(index.documents())
        assert difference is None, "what was on its way when it stopped made the index differ again"
    except AssertionError as error:
        report.failure = "\n".join([str(error), difference or "", *_warnings(report)])


def _warnings(report: Report, count: int = 30) -> list[str]:
    """The last lines of the logs that are worth reading."""
    lines = [f"{engine.log_path.name}: {line}" for engine in report.engines for line in engine.log.splitlines()]
    return [line[:300] for line in lines if " WARN " in line or " ERROR " in line][-count:]


def fail_text(report: Report) -> str:
    """What went wrong, for whoever has to find out why."""
    return f"{report.line()}\n{report.scenario}\nlogs: {report.folder}\n{report.failure}"


def main() -> int:
    """Exit code 1 when an index did not end as its table."""
    parser = argparse.ArgumentParser(prog="replicate", description="Tables that change, kills, refusals, rollovers.")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds")
    parser.add_argument("--start", type=int, default=None, help="the first seed; without it nobody knows")
    parser.add_argument("--changes", type=int, default=10_000, help="changes of each seed")
    parser.add_argument("--keys", type=int, default=2000, help="keys of each table")
    parser.add_argument("--rate", type=float, default=500.0, help="changes a second")
    options = parser.parse_args()
    logging.getLogger("aiohttp.server").disabled = True  # connections are cut on purpose
    start = random.SystemRandom().randrange(FRESH_MAX) if options.start is None else options.start
    _tell(f"seeds {start} to {start + options.seeds - 1}")
    failed: list[int] = []
    base = Path(tempfile.mkdtemp(prefix="replicate-"))
    with OpenSearchServer() as opensearch:
        for seed in range(start, start + options.seeds):
            scenario = draw(seed, changes=options.changes, keys=options.keys, rate=options.rate)
            with DynamoDbLocal() as dynamodb:  # a new one each time: it slows down with the streams it has seen
                report = simulate(scenario, dynamodb, opensearch, base / str(seed))
            if report.failure:
                failed.append(seed)
                _tell(fail_text(report))
                _tell(f"  again: make replicate START={seed} SEEDS=1 CHANGES={options.changes}")
            else:
                _tell(report.line())
                shutil.rmtree(base / str(seed), ignore_errors=True)
    _tell(f"{options.seeds} seeds, {len(failed)} failed{': ' if failed else ''}{', '.join(map(str, failed))}")
    if not failed:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failed else 0


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
