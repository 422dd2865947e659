"""Secrets that change while pipelines run: sinks go on with the new values, or the log says what is needed."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from penstock.config.documents import parse_pipelines
from penstock.core.errors import Permanent, Transient
from penstock.core.metrics import Registry
from penstock.plan import Plan, make_plan, resolve_references
from penstock.plugins.extensions import aws as extension
from penstock.runtime import secrets as secrets_module
from penstock.runtime.engine import EXIT_OK, Engine, Settings
from penstock.runtime.secrets import JITTER_S, Renewal
from penstock.testing.fakes import EndlessSource, MemoryBulkSink, MemoryDeadLetters
from penstock.testing.opensearch import FakeOpenSearch
from penstock.testing.virtual import LoopClock, run_virtual

HOUR = 3600.0
TEXT = """
extension:
  aws:
    secrets:
      login: {secret_id: prod/login, refresh_interval: PT2H}
      header: {secret_id: prod/header}
      fixed: {secret_id: prod/fixed, disable_refresh: true}
p:
  source: {http: }
  processor:
    - add_entries: {entries: [{key: a, value: '${{aws_secrets:header}}'}, {key: b, value: '${{aws_secrets:fixed}}'}]}
  sink:
    - opensearch:
        hosts: [HOST]
        index: '${{aws_secrets:login:index}}'
        authentication: {username: '${{aws_secrets:login:user}}', password: '${{aws_secrets:login:password}}'}
"""


class Store:
    """What the secrets hold, and which were read when."""

    def __init__(self) -> None:
        self.texts = {"prod/login": login("first-password"), "prod/header": "first-header", "prod/fixed": "for-ever"}
        self.error: Exception | None = None
        self.reads: list[tuple[str, float]] = []

    def times(self, name: str) -> list[float]:
        return [at for read, at in self.reads if read == name]


def login(password: str, index: str = "logs") -> str:
    return json.dumps({"user": "writer", "password": password, "index": index})


class Reader(extension.Secrets):
    """Reads a `Store`."""

    def __init__(self, config: extension.Config, store: Store) -> None:
        super().__init__(config)
        self._store = store

    async def _fetch(self, secret: extension.SecretConfig) -> str:
        if self._store.error is not None:
            raise self._store.error
        self._store.reads.append((secret.secret_id, asyncio.get_running_loop().time()))
        return self._store.texts[secret.secret_id]


class RenewableSink(MemoryBulkSink):
    """Keeps the options it is given, unless it is told to refuse them."""

    renewable = frozenset(("authentication",))

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[float, str]] = []
        self.error: Exception | None = None

    async def renew(self, config: Any) -> None:
        self.given.append((asyncio.get_running_loop().time(), config.authentication.password.get_secret_value()))
        if self.error is not None:
            raise self.error


async def resolved(text: str) -> tuple[Plan, Renewal]:
    documents = parse_pipelines([("p.yaml", text.encode())])
    references = await resolve_references(documents, environ={})

    def make(references: Any) -> Plan:
        return make_plan(documents, references=references)

    plan = make(references)
    assert not plan.problems, plan.problems
    return plan, Renewal(references, make)


class Run:
    """An engine in virtual time whose secrets come from a store."""

    def __init__(self) -> None:
        self.store = Store()
        self.sink = RenewableSink()
        self.registry = Registry()

    def __call__(self, work: Callable[[Run], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extension, "build", lambda config, ctx: Reader(config, self.store))

        async def main() -> None:
            plan, renewal = await resolved(TEXT.replace("HOST", "'http://localhost:9200'"))
            source = EndlessSource(10.0)
            settings = Settings(
                sources={"p": source}, sinks={("p", 0): self.sink}, dead_letters=MemoryDeadLetters(), environ={},
                seed=1, renewal=renewal,
            )  # fmt: skip
            engine = Engine(plan, settings, self.registry, LoopClock(asyncio.get_running_loop()))
            running = asyncio.create_task(engine.run())
            await work(self)
            engine.stop()
            assert await running == EXIT_OK
            assert len(self.sink.arrived) == source.count

        run_virtual(main())

    def counted(self, meter: str, name: str) -> float:
        return self.registry.scope("aws", "secrets").counter(meter, secretConfigId=name).value


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "penstock.runtime.secrets"]


def test_every_secret_is_read_again_at_its_own_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()

    async def work(run: Run) -> None:
        await asyncio.sleep(6 * HOUR + 2 * JITTER_S)

    run(work, monkeypatch)
    for name, interval in (("prod/login", 2 * HOUR), ("prod/header", HOUR)):
        first, *later = run.store.times(name)
        assert first == 0
        assert interval <= later[0] <= interval + JITTER_S
        assert [after - before for before, after in itertools.pairwise(later)] == pytest.approx(
            [interval] * (len(later) - 1)
        )
    assert len(run.store.times("prod/login")) == 4
    assert len(run.store.times("prod/header")) == 7
    assert run.store.times("prod/fixed") == [0.0]
    assert run.counted("secretsRefreshSuccess", "login") == 3
    assert run.sink.given == []


def test_a_sink_is_given_a_new_value_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    run = Run()

    async def work(run: Run) -> None:
        await asyncio.sleep(HOUR)
        run.store.texts["prod/login"] = login("second-password")
        await asyncio.sleep(6 * HOUR)

    with caplog.at_level(logging.INFO):
        run(work, monkeypatch)
    ((at, password),) = run.sink.given
    assert password == "second-password"
    assert 2 * HOUR <= at <= 2 * HOUR + JITTER_S
    assert warnings_in(caplog) == ["p > sink 1 opensearch goes on with new values of its secrets"]
    assert "-password" not in caplog.text


def test_what_a_sink_refuses_is_offered_again_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run()

    async def work(run: Run) -> None:
        run.store.texts["prod/login"] = login("second-password")
        run.sink.error = Permanent("second-password is not what first-password was")
        await asyncio.sleep(2 * HOUR + JITTER_S)
        assert warnings_in(caplog) == [
            "New values of secrets cannot be used by p > sink 1 opensearch: ****** is not what ****** was. "
            "Those before stay in use"
        ]
        run.sink.error = None
        await asyncio.sleep(4 * HOUR)

    run(work, monkeypatch)
    assert [password for _, password in run.sink.given] == ["second-password"] * 2


def test_a_secret_that_cannot_be_read_keeps_its_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run()

    async def work(run: Run) -> None:
        run.store.error = Transient("Unable to retrieve secret: prod/login")
        await asyncio.sleep(2 * HOUR + JITTER_S)
        run.store.error = None
        run.store.texts["prod/login"] = '{"user": "writer", "index": "logs"}'  # the password has gone
        await asyncio.sleep(2 * HOUR)

    run(work, monkeypatch)
    assert run.sink.given == []
    assert run.counted("secretsRefreshFailure", "login") == 2
    assert [line for line in warnings_in(caplog) if " login " in line] == [
        f"The secret login cannot be read again: {reason}. The values read before stay in use; next attempt in 7200 s"
        for reason in (
            "Unable to retrieve secret: prod/login",
            "Unable to find the value of key: password under secretId: login",
        )
    ]


def test_what_cannot_be_renewed_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    run = Run()

    async def work(run: Run) -> None:
        run.store.texts |= {"prod/header": "second-header", "prod/fixed": "not-for-ever"}
        run.store.texts["prod/login"] = login("second-password", "other-index")
        await asyncio.sleep(7 * HOUR)

    run(work, monkeypatch)
    assert warnings_in(caplog) == [
        "entries of p > processor 1 add_entries depends on ${{aws_secrets:header}}, which has a new value: a restart "
        "is needed to use it",
        "authentication, index of p > sink 1 opensearch depends on ${{aws_secrets:login:index}}, "
        "${{aws_secrets:login:password}}, which has a new value: a restart is needed to use it",
    ]
    assert run.sink.given == [], "with the index alone as it was it would write to the wrong one"


def test_options_that_are_wrong_with_the_new_value_leave_the_sink_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run()

    async def work(run: Run) -> None:
        make_plan_of = secrets_module.SecretRefresher._hand_on

        async def refuse(self: Any, references: Any) -> None:
            plan = make_plan(parse_pipelines([("p.yaml", b"p: {source: {htp: }, sink: [{noop: }]}")]))
            self._renewal = replace(self._renewal, make=lambda _: plan)
            await make_plan_of(self, references)

        monkeypatch.setattr(secrets_module.SecretRefresher, "_hand_on", refuse)
        run.store.texts["prod/login"] = login("second-password")
        await asyncio.sleep(2 * HOUR + JITTER_S)

    run(work, monkeypatch)
    assert run.sink.given == []
    (line,) = warnings_in(caplog)
    assert line.startswith("New values of secrets cannot be used by p > sink 1 opensearch: ")
    assert "htp" in line


def test_a_rotated_password_reaches_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extension and the sink as they are, against servers for Secrets Manager and OpenSearch."""
    pytest.importorskip("aiobotocore")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setattr(secrets_module, "JITTER_S", 0.0)
    store = Store()

    async def answer(request: web.Request) -> web.Response:
        name = json.loads(await request.text())["SecretId"]
        return web.json_response({"Name": name, "SecretString": store.texts[name]})

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            async with FakeOpenSearch() as server:
                await rotate(server)
        finally:
            await runner.cleanup()

    async def rotate(server: FakeOpenSearch) -> None:
        plan, renewal = await resolved(TEXT.replace("HOST", server.url))
        (aws,) = plan.extensions
        often = {
            name: secret.model_copy(update={"refresh_interval": 0.01}) for name, secret in aws.config.secrets.items()
        }
        plan = replace(plan, extensions=(replace(aws, config=aws.config.model_copy(update={"secrets": often})),))
        source, registry = EndlessSource(0.001), Registry()
        engine = Engine(plan, Settings(sources={"p": source}, environ={}, renewal=renewal), registry)
        running = asyncio.create_task(engine.run())
        while len(senders(server)) < 5:
            await asyncio.sleep(0.01)
        store.texts["prod/login"] = login("second-password")
        while NEW not in senders(server):
            await asyncio.sleep(0.01)
        engine.stop()
        assert await running == EXIT_OK
        sent = senders(server)
        assert sent == [OLD] * sent.count(OLD) + [NEW] * sent.count(NEW), "once it is new it stays new"
        numbers = [document["n"] for document in server.documents("logs").values()]
        assert sorted(numbers) == list(range(source.count)), "nothing is lost, nothing is written twice"
        assert registry.value("p.opensearch.credentialsChanged") == 1
        assert registry.value("p.opensearch.clientRefreshErrors") == 0

    asyncio.run(asyncio.wait_for(main(), 60))


OLD = "Basic d3JpdGVyOmZpcnN0LXBhc3N3b3Jk"
"""writer:first-password"""
NEW = "Basic d3JpdGVyOnNlY29uZC1wYXNzd29yZA=="
"""writer:second-password"""


def senders(server: FakeOpenSearch) -> list[str]:
    return [request.headers["Authorization"] for request in server.bulk_requests()]
