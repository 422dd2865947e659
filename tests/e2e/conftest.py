"""Real servers for the whole session: fetched before the first test, started when asked for, stopped at the end."""

from __future__ import annotations

import http.client
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.config import Config

from penstock.testing.services import (
    DynamoDbLocal,
    KafkaServer,
    Ministack,
    Moto,
    OpenSearchServer,
    Osmem,
    Service,
    ServiceUnavailable,
)

sys.path.insert(0, str(Path(__file__).parent))  # lets the tests import what stands beside them

from engine import Engine
from proxy import FaultProxy

SERVICES: dict[str, type[Service]] = {
    "opensearch": OpenSearchServer,
    "dynamodb_local": DynamoDbLocal,
    "moto": Moto,
    "ministack": Ministack,
    "osmem": Osmem,
    "kafka": KafkaServer,
}
"""Fixture name → what it starts."""

_missing = pytest.StashKey[dict[str, str]]()
_engines = pytest.StashKey[list[Engine]]()
_running: dict[str, Service] = {}
_log_at_start: dict[str, int] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch what the chosen tests need now, where a download cannot run into the time limit of a test."""
    config = session.config
    config.stash[_missing] = {}
    if config.option.collectonly:
        return
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for name in SERVICES.keys() & wanted:
        service = SERVICES[name](progress=reporter.write_line if reporter else None)
        try:
            service.resolve()
        except ServiceUnavailable as reason:
            config.stash[_missing][name] = str(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, service in _running.items():
        _log_at_start[name] = service.log_path.stat().st_size if service.log_path else 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        for engine in item.stash.get(_engines, []):
            report.sections.append((f"log of the engine ({engine.log_path.name})", engine.log[-20_000:]))
        for name, service in _running.items():
            if name in getattr(item, "fixturenames", ()):
                log = service.log_tail(80, since_byte=_log_at_start.get(name, 0))
                report.sections.append((f"log of {name} ({service.log_path})", log or "(nothing during this test)"))
    return report


def _service(name: str) -> Callable[[pytest.FixtureRequest], Iterator[Service]]:
    @pytest.fixture(scope="session", name=name)
    def serve(request: pytest.FixtureRequest) -> Iterator[Service]:
        reason = request.config.stash[_missing].get(name)
        if reason and os.environ.get("CI"):
            pytest.fail(f"{name} must be tested here: {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)
        with SERVICES[name]() as service:
            _running[name] = service
            yield service
            del _running[name]

    serve.__doc__ = SERVICES[name].__doc__
    return serve


opensearch = _service("opensearch")
dynamodb_local = _service("dynamodb_local")
moto = _service("moto")
ministack = _service("ministack")
osmem = _service("osmem")
kafka = _service("kafka")


@pytest.fixture
def prefix() -> str:
    """Start of all index, table and bucket names of one test; the servers are shared by all of them."""
    return f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture
def fault_proxy() -> Iterator[Callable[..., FaultProxy]]:
    """Makes proxies before a URL; they are closed after the test."""
    with ExitStack() as stack:
        yield lambda upstream, port=0: stack.enter_context(FaultProxy(upstream, port))


@pytest.fixture
def start_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """`start_engine(yaml, environ={…})` runs pipelines in a process of their own; see `engine.py`.

    All runs of a test share one folder with its data directory, unless `folder` names another one below it.
    """
    engines = request.node.stash[_engines] = []

    def start(pipelines: Any, *, folder: str = "engine", **options: Any) -> Engine:
        engine = Engine(tmp_path / folder, pipelines, log_name=f"engine-{len(engines)}.log", **options)
        engines.append(engine)
        return engine.start()

    yield start
    for engine in engines:
        engine.kill()


@pytest.fixture
def ask() -> Callable[..., tuple[int, Any]]:
    """`ask(url, "PUT", "/index/_doc/1", {"a": 1})` → status and decoded answer."""
    return _ask


@pytest.fixture
def aws_client() -> Iterator[Callable[..., Any]]:
    """`aws_client("dynamodb", moto.url)` → a blocking botocore client of that endpoint, closed after the test."""
    clients = []

    def make(service: str, endpoint: str, *, region: str = "us-east-1", access_key: str = "123456789012") -> Any:
        client = botocore.session.get_session().create_client(
            service,
            region_name=region,
            endpoint_url=endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key="secret",
            config=Config(proxies={}, retries={"max_attempts": 2}, s3={"addressing_style": "path"}),
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def _ask(url: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
    try:
        ndjson = isinstance(body, list)
        if ndjson:
            payload = "".join(json.dumps(line) + "\n" for line in body)
        else:
            payload = None if body is None else json.dumps(body)
        kind = "application/x-ndjson" if ndjson else "application/json"
        connection.request(method, path, payload, {"Content-Type": kind})
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text.strip().startswith((b"{", b"[")) else text.decode()
    finally:
        connection.close()


@pytest.fixture
def numbers(opensearch: Any, ask: Callable[..., tuple[int, Any]]) -> Callable[[str], list[int]]:
    """Numbers of all events in an index; a list, so that repetitions show."""

    def read(index: str) -> list[int]:
        assert ask(opensearch.url, "POST", f"/{index}/_refresh")[0] == 200
        found: list[int] = []
        after: int | None = None
        while True:
            query: dict[str, Any] = {"size": 5000, "sort": [{"n": "asc"}], "_source": ["n"]}
            if after is not None:
                query["query"] = {"range": {"n": {"gt": after}}}
            hits = ask(opensearch.url, "POST", f"/{index}/_search", query)[1]["hits"]["hits"]
            if not hits:
                return found
            found += [hit["_source"]["n"] for hit in hits]
            after = found[-1]

    return read
