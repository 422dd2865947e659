"""The play of `penstock demo`: stand-ins, a table, the pipeline in a process of its own, and traffic.

Two servers from the package index stand in for the cloud. The pipeline is the blueprint for DynamoDB as OpenSearch
Ingestion offers it, not a word changed; the environment tells it where the servers are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from penstock.cli.demo_traffic import Index, Table, Traffic, differences, open_index, open_table, percentile
from penstock.cli.demo_view import Snapshot, View, milliseconds
from penstock.core.errors import PenstockError
from penstock.testing.services import Ministack, OpenSearchServer, Osmem, Service, ServiceUnavailable, free_port

ACCOUNT = "123456789012"
REGION = "us-east-1"
TABLE = "penstock-demo"
INDEX = "table-index"
BLUEPRINT = "dynamodb.yaml"

ONCE_PUTS, ONCE_CHANGES, ONCE_DELETES = 60, 25, 15
_WRITERS = 4
_PROBE_INTERVAL_S = 0.3
_PIPELINE_READY_S = 60.0
_SETTLE_S = 60.0
_DRAIN_S = 20.0
_THROUGHPUT_WINDOW_S = 5.0
_DIFFERENCES_SHOWN = 10
_LOG_LINE_CHARACTERS = 500
EXIT_INTERRUPTED = 130

_T = TypeVar("_T")


class DemoError(PenstockError):
    """The demonstration cannot go on; the message says why."""


async def perform(*, once: bool = False, seconds: float | None = None, rate: float = 20.0) -> int:
    """Play until the end or a signal; the exit code is 0 when the index equals the table, 1 when not.

    The first signal ends the play in order: the pipeline drains, the servers stop, the folders go. A second one stops
    the pipeline at once.
    """
    with View() as view:
        playing = asyncio.create_task(_play(view, once=once, seconds=seconds, rate=rate))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, playing.cancel)
        try:
            return 0 if await playing else 1
        except asyncio.CancelledError:
            view.close()
            view.note("stopped")
            return EXIT_INTERRUPTED if once else 0
        except PenstockError as error:
            view.close()
            view.note(f"penstock demo: {error}")
            return 1


async def _play(view: View, *, once: bool, seconds: float | None, rate: float) -> bool:
    started_s = time.monotonic()
    async with (
        _stand_ins(view) as (dynamodb, opensearch),
        open_table(dynamodb.url, TABLE, region=REGION, access_key=ACCOUNT) as table,
        open_index(opensearch.url, INDEX) as index,
    ):
        await table.create()
        with tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder:
            async with _Pipeline(Path(folder), dynamodb.url, opensearch.url) as pipeline:
                view.note(f"running the blueprint for DynamoDB: penstock run {BLUEPRINT}")
                await _while_all_is_well(_first_document(pipeline, table, index), pipeline.ended())
                view.note(f"ready after {time.monotonic() - started_s:.1f} s: the first item is a document")
                traffic = Traffic(table, index)
                play = _once(traffic) if once else _go_on(traffic, view, pipeline, seconds, rate)
                return await _while_all_is_well(_then_compare(play, traffic, view), traffic.watch(), pipeline.ended())


async def _then_compare(play: Coroutine[Any, Any, None], traffic: Traffic, view: View) -> bool:
    await play
    view.close()
    return await _equal(traffic, view)


@asynccontextmanager
async def _stand_ins(view: View) -> AsyncIterator[tuple[Service, Service]]:
    """DynamoDB and OpenSearch, or what plays them."""
    dynamodb = Ministack(progress=view.note)
    fetching = asyncio.create_task(dynamodb.resolve_aside())
    try:
        opensearch = await _search_engine(view)
        await fetching
    finally:
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
    async with dynamodb, opensearch:
        yield dynamodb, opensearch


async def _search_engine(view: View) -> Service:
    """The look-alike from the package index; OpenSearch itself where that has no wheel for this platform."""
    look_alike, real = Osmem(progress=view.note), OpenSearchServer(progress=view.note)
    try:
        await look_alike.resolve_aside()
    except ServiceUnavailable as no_look_alike:
        view.note("the light stand-in for OpenSearch does not run here; trying OpenSearch itself")
        try:
            await real.resolve_aside()
        except ServiceUnavailable as not_real:
            raise DemoError(
                "there is no OpenSearch to write to\n"
                f"  light stand-in: {no_look_alike}\n  OpenSearch itself: {not_real}"
            ) from not_real
        return real
    return look_alike


class _Pipeline:
    """`penstock run` of the blueprint in a process of its own."""

    def __init__(self, folder: Path, dynamodb_url: str, opensearch_url: str) -> None:
        definition = folder / BLUEPRINT
        definition.write_text(blueprint())
        self.admin_url = f"http://127.0.0.1:{(admin_port := free_port())}"
        settings = folder / "data-prepper-config.yaml"
        settings.write_text(f"ssl: false\nserver_port: {admin_port}\n")
        self._argv = run_command(definition, settings)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ENDPOINT_URL_DYNAMODB": dynamodb_url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": dynamodb_url,
            "AWS_ENDPOINT_URL_STS": dynamodb_url,
            "AWS_ACCESS_KEY_ID": ACCOUNT,  # a key of twelve digits chooses the account of the stand-in
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PENSTOCK_OPENSEARCH_HOSTS": opensearch_url,
            "PENSTOCK_DATA_DIR": str(folder / "data"),
            "PENSTOCK_BIND_HOST": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        self._log = folder / "pipeline.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C comes to the demonstration alone, which then drains the pipeline
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _DRAIN_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        except asyncio.CancelledError:
            self._process.kill()
            raise

    async def ended(self) -> NoReturn:
        """Raise `DemoError` with the end of the pipeline's log as soon as the pipeline ends."""
        assert self._process is not None
        code = await self._process.wait()
        raise DemoError(f"the pipeline ended with code {code}; its last lines:\n{self.log_tail()}")

    def log_tail(self, lines: int = 25) -> str:
        """The last lines of the pipeline's log."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join("  " + each[:_LOG_LINE_CHARACTERS] for each in text.splitlines()[-lines:])


def blueprint() -> str:
    """The pipeline definition: streams only, as the blueprint stands once its placeholders are filled in."""
    return (resources.files("penstock.cli") / "blueprints" / BLUEPRINT).read_text(encoding="utf-8")


def run_command(definition: Path, settings: Path) -> list[str]:
    """How a pipeline is run in a process of its own."""
    return [sys.executable, "-m", "penstock.cli", "run", str(definition), "--config", str(settings)]


async def _first_document(pipeline: _Pipeline, table: Table, index: Index) -> None:
    """Wait for the index, then write one item until it is a document: from there on every write counts."""
    try:
        async with asyncio.timeout(_PIPELINE_READY_S):
            while not await index.serves():
                await asyncio.sleep(0.05)
            probe = 0
            while True:
                probe += 1
                await table.put({"id": {"N": "0"}, "revision": {"N": "0"}, "probe": {"N": str(probe)}})
                until_s = time.monotonic() + _PROBE_INTERVAL_S
                while time.monotonic() < until_s:
                    if (await index.look(["0"]))["0"] is not None:
                        return
                    await asyncio.sleep(0.02)
    except TimeoutError:
        raise DemoError(
            f"no document after {_PIPELINE_READY_S:g} s; the pipeline's last lines:\n{pipeline.log_tail()}"
        ) from None


async def _once(traffic: Traffic) -> None:
    """Put the items; change and delete some of those that arrived in time. `_equal` finds what is missing."""
    try:
        async with asyncio.timeout(_SETTLE_S):
            for _ in range(ONCE_PUTS):
                await traffic.put()
            await traffic.settle()
            for act, times in ((traffic.change, ONCE_CHANGES), (traffic.delete, ONCE_DELETES)):
                for _ in range(times):
                    await act()
    except TimeoutError:
        return


async def _go_on(traffic: Traffic, view: View, pipeline: _Pipeline, seconds: float | None, rate: float) -> None:
    """Write at that rate and show it, for so many seconds or for ever."""
    index = f"{traffic.index.url}/{traffic.index.name}"
    metrics = f"{pipeline.admin_url}/metrics/prometheus"
    view.start([("documents", f"curl '{index}/_search?pretty'"), ("metrics", f"curl '{metrics}'")])
    writers = [_write_evenly(traffic, rate / _WRITERS) for _ in range(_WRITERS)]
    await _while_all_is_well(_wait(seconds), *writers, _show(traffic, view))


async def _wait(seconds: float | None) -> None:
    if seconds is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(seconds)


async def _write_evenly(traffic: Traffic, rate: float) -> NoReturn:
    next_s = time.monotonic()
    while True:
        await traffic.any()
        next_s = max(next_s + 1 / rate, time.monotonic() - 1)  # at most a second is made up for
        await asyncio.sleep(max(0.0, next_s - time.monotonic()))


async def _show(traffic: Traffic, view: View) -> NoReturn:
    started_s = time.monotonic()
    past: deque[tuple[float, int]] = deque([(started_s, traffic.arrived)])
    while True:
        now_s = time.monotonic()
        past.append((now_s, traffic.arrived))
        while now_s - past[0][0] > _THROUGHPUT_WINDOW_S:
            past.popleft()
        span_s = now_s - past[0][0]
        view.show(
            Snapshot(
                elapsed_s=now_s - started_s,
                puts=traffic.puts,
                changes=traffic.changes,
                deletes=traffic.deletes,
                pending=len(traffic.pending),
                documents=await traffic.index.count(),
                arrived_per_s=(traffic.arrived - past[0][1]) / span_s if span_s else 0.0,
                p50_s=percentile(traffic.latencies_s, 50),
                p99_s=percentile(traffic.latencies_s, 99),
            )
        )
        await asyncio.sleep(0.5)


async def _equal(traffic: Traffic, view: View) -> bool:
    """Whether the index becomes equal to the table in time; says so, with the differences if not."""
    found: list[str] = []
    documents = 0
    try:
        async with asyncio.timeout(_SETTLE_S):
            while True:
                items = await traffic.table.documents()
                found, documents = differences(items, await traffic.index.documents()), len(items)
                if not found and not traffic.pending:
                    break
                await asyncio.sleep(0.2)
    except TimeoutError:
        found = found or [f"{len(traffic.pending)} writes were not seen in the index"]
    p50, p99 = (milliseconds(percentile(traffic.latencies_s, percent)) for percent in (50, 99))
    writes = f"{traffic.puts} puts, {traffic.changes} changes, {traffic.deletes} deletes"
    view.note(f"{writes}; write → readable: p50 {p50}, p99 {p99}")
    if found:
        view.note("\n  ".join(["the index differs from the table:", *found[:_DIFFERENCES_SHOWN]]))
        return False
    view.note(f"the index equals the table: {documents} documents")
    return True


async def _while_all_is_well(work: Coroutine[Any, Any, _T], *watchers: Coroutine[Any, Any, NoReturn]) -> _T:
    """The result of `work`, or the error of a watcher if that comes first; the others are cancelled."""
    working = asyncio.create_task(work)
    watching = [asyncio.create_task(watcher) for watcher in watchers]
    try:
        done, _ = await asyncio.wait([working, *watching], return_when=asyncio.FIRST_COMPLETED)
        for task in watching:
            if task in done:
                await task
        return await working
    finally:
        working.cancel()
        for task in watching:
            task.cancel()
        await asyncio.gather(working, *watching, return_exceptions=True)
