"""The admin endpoints and the metrics page."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from penstock.config.documents import parse_pipelines
from penstock.core.metrics import Registry
from penstock.plan import make_plan
from penstock.runtime.admin import Admin, AdminSettings
from penstock.runtime.engine import Engine, Settings
from penstock.runtime.prometheus import MetricsPage, ant_pattern
from penstock.sdk import Batch, Output
from penstock.testing.fakes import MemoryBulkSink, MemoryDeadLetters

PIPELINE = """
log-pipeline:
  source: {http: {authentication: {http_basic: {username: u, password: hidden}}}}
  sink: [{noop: }]
"""


class Waiting:
    """A source that takes data only when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self, output: Output) -> None:
        await self.go.wait()
        output.started()
        await output.write(Batch([{"n": 1}]), 7)
        await self._stop.wait()

    async def stop(self) -> None:
        self.go.set()
        self._stop.set()


async def calls(settings: AdminSettings, use: Any) -> None:
    from penstock.cli.run import definitions

    plan = make_plan(parse_pipelines([("p.yaml", PIPELINE.encode())]))
    assert not plan.problems
    source, sink = Waiting(), MemoryBulkSink()
    engine = Engine(
        plan,
        Settings(sources={"log-pipeline": source}, sinks={("log-pipeline", 0): sink}, dead_letters=MemoryDeadLetters()),
    )
    admin = Admin(engine, settings, definitions(plan))
    await admin.start()
    running = asyncio.create_task(engine.run())
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as session:
            await use(session, source, engine)
    finally:
        engine.stop()
        await running
        await admin.stop()


def test_every_endpoint_answers_as_data_prepper_does() -> None:
    async def use(session: aiohttp.ClientSession, source: Waiting, engine: Engine) -> None:
        async def ask(method: str, path: str) -> tuple[int, str, str]:
            async with session.request(method, path) as reply:
                return reply.status, reply.headers.get("content-type", ""), await reply.text()

        await asyncio.sleep(0.05)
        assert await ask("GET", "/ready") == (
            503,
            "application/json",
            '{"ready":false,"reason":"pipelines not started: [log-pipeline]"}',
        )
        source.go.set()
        await asyncio.sleep(0.05)
        assert await ask("GET", "/ready") == (200, "application/json", '{"ready":true}')
        plain = "text/plain; charset=UTF-8"
        assert await ask("GET", "/list") == (200, plain, '{"pipelines":[{"name":"log-pipeline"}]}')
        assert (await ask("POST", "/list"))[0] == 200
        assert (await ask("DELETE", "/list"))[0] == 405
        status, kind, text = await ask("GET", "/pipelines")
        assert (status, kind) == (200, plain)
        assert '"http"' in text
        assert "hidden" not in text
        status, _, text = await ask("GET", "/metrics/prometheus")
        assert 'log_pipeline_BlockingBuffer_recordsWritten_total{serviceName="dataprepper",} 1.0' in text
        assert 'log_pipeline_noop_recordsIn_total{serviceName="dataprepper",} 1.0' in text
        assert 'log_pipeline_noop_PipelineLatency_seconds_count{serviceName="dataprepper",} ' in text
        assert (await ask("GET", "/metrics/sys"))[0] == 200
        status, _, text = await ask("GET", "/status")
        assert '"state":"RUNNING"' in text
        assert (await ask("GET", "/elsewhere"))[0] == 404
        assert (await ask("GET", "/shutdown"))[0] == 405
        assert (await ask("POST", "/shutdown?bufferReadTimeout=20s&bufferDrainTimeout=10s"))[0] == 500
        assert (await ask("POST", "/shutdown"))[:1] == (200,)
        assert engine.drained.is_set()

    asyncio.run(calls(AdminSettings(port=0), use))


def test_with_authentication_every_path_needs_credentials() -> None:
    async def use(session: aiohttp.ClientSession, source: Waiting, engine: Engine) -> None:
        for path in ("/list", "/ready", "/metrics/prometheus", "/nowhere"):
            async with session.get(path) as reply:
                assert reply.status == 401
        right = base64.b64encode(b"admin:secret").decode()
        async with session.get("/list", headers={"authorization": f"Basic {right}"}) as reply:
            assert reply.status == 200

    asyncio.run(calls(AdminSettings(port=0, username="admin", password="secret"), use))


def test_meters_are_named_as_the_original_names_them() -> None:
    registry = Registry()
    scope = registry.scope("my-pipe", "http")
    scope.counter("requestsReceived").add(3)
    scope.timer("requestProcessDuration").observe(0.5, 2)
    scope.summary("payloadSize").observe(10)
    scope.gauge("serverConnections", lambda: 4)
    scope.counter("documentStatuses", status='4"0').add()
    registry.scope("", "p").counter("numberOfEventsFailed")
    text = MetricsPage(registry, [("serviceName", "x")]).render()
    for line in (
        "# TYPE my_pipe_http_requestsReceived_total counter",
        'my_pipe_http_requestsReceived_total{serviceName="x",} 3.0',
        'my_pipe_http_requestProcessDuration_seconds_count{serviceName="x",} 2.0',
        'my_pipe_http_requestProcessDuration_seconds_sum{serviceName="x",} 1.0',
        'my_pipe_http_requestProcessDuration_seconds_max{serviceName="x",} 0.5',
        'my_pipe_http_payloadSize_sum{serviceName="x",} 10.0',
        'my_pipe_http_serverConnections{serviceName="x",} 4.0',
        'my_pipe_http_documentStatuses_total{serviceName="x",status="4\\"0",} 1.0',
        'm__p_numberOfEventsFailed_total{serviceName="x",} 0.0',
    ):
        assert line in text.splitlines(), line


def test_patterns_choose_labels_and_hide_meters() -> None:
    registry = Registry()
    registry.scope("a", "http").counter("one")
    registry.scope("a", "grok").counter("two")
    registry.scope("b", "http").counter("one")
    page = MetricsPage(registry, [("serviceName", "x")], [("a.**", [("team", "logs")])], ["*.grok.*"])
    text = page.render()
    assert 'a_http_one_total{team="logs",} 0.0' in text
    assert 'b_http_one_total{serviceName="x",} 0.0' in text
    assert "grok" not in text


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.**", "a.b.c", True),
        ("a.**", "a", True),
        ("**.c", "a.b.c", True),
        ("**.c", "c", True),
        ("a.?", "a.b", True),
        ("a.?", "a.bb", False),
        ("a.**.c", "a.x.y.c", True),
        ("a+b", "a+b", True),
    ],
)
def test_ant_patterns(pattern: str, name: str, matches: bool) -> None:
    assert bool(ant_pattern(pattern).fullmatch(name)) is matches


def test_a_used_port_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        admin = Admin(Engine(make_plan(parse_pipelines([("p.yaml", PIPELINE.encode())]))), AdminSettings(port=port), [])
        with pytest.raises(OSError):
            await admin.start()
        server.close()
        await server.wait_closed()

    asyncio.run(run())
