"""How the sink and its server prove to each other who they are."""

import asyncio
import base64
import logging
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web

from penstock.core.batch import Batch
from penstock.core.errors import Permanent, Unreachable
from penstock.core.metrics import Registry
from penstock.plugins.sinks.opensearch import build
from penstock.plugins.sinks.opensearch.client import Cluster
from penstock.sdk import Context
from penstock.testing.opensearch import FakeOpenSearch
from penstock.testing.plugins import checked


def attempt(options, **server_options):
    """Start a sink and write one document; returns the server."""

    async def run():
        async with FakeOpenSearch(**server_options) as server:
            found, config = checked("sink", "opensearch", {"hosts": [server.url], "index": "logs", **options})
            sink = found.module.build(config, Context("p", "opensearch", kind="sink"))
            try:
                await sink.start()
                assert list(await sink.send(sink.encode(Batch([{"n": 1}])).data)) == []
            finally:
                await sink.stop()
            return server

    return asyncio.run(run())


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_context(authority, *, wants_client=False):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


def test_the_server_must_be_certified(authority, ca_file, caplog):
    with (
        caplog.at_level(logging.CRITICAL, logger="asyncio"),
        pytest.raises(Unreachable, match="cannot be trusted"),
    ):
        attempt({}, tls=server_context(authority))
    assert attempt({"cert": ca_file}, tls=server_context(authority)).bulk_requests()
    assert attempt({"insecure": True}, tls=server_context(authority)).bulk_requests()


@pytest.mark.parametrize("as_text", [True, False])
def test_client_certificates_as_text_and_as_files(authority, ca_file, tmp_path, as_text):
    issued = authority.issue_cert("client@example.org")
    certificate, key = issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode()
    if not as_text:
        for name, text in (("client.pem", certificate), ("client.key", key)):
            (tmp_path / name).write_text(text)
        certificate, key = str(tmp_path / "client.pem"), str(tmp_path / "client.key")
    options = {"cert": ca_file, "authentication": {"client_certificate": certificate, "client_key": key}}
    assert attempt(options, tls=server_context(authority, wants_client=True)).bulk_requests()


def test_a_certificate_that_cannot_be_used_ends_the_pipeline(tmp_path):
    with pytest.raises(Permanent, match="cannot be read"):
        attempt({"cert": str(tmp_path / "absent.pem")})


@pytest.mark.parametrize(("serverless", "service"), [(False, "es"), (True, "aoss")])
def test_requests_are_signed(monkeypatch, serverless, service):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = attempt({"aws": {"region": "eu-west-1", "serverless": serverless}})
    for request in server.requests:
        authorization = request.headers["Authorization"]
        assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        assert f"/eu-west-1/{service}/aws4_request" in authorization
    assert server.bulk_requests()


def test_the_next_host_takes_over():
    async def run():
        async with FakeOpenSearch() as server:
            options = {"hosts": ["http://127.0.0.1:1", server.url], "index": "logs"}
            found, config = checked("sink", "opensearch", options)
            sink = found.module.build(config, Context("p", "opensearch", kind="sink"))
            await sink.start()
            for _ in range(4):
                assert list(await sink.send(sink.encode(Batch([{"n": 1}])).data)) == []
            await sink.stop()

    asyncio.run(run())


def config_of(url, **authentication):
    return checked("sink", "opensearch", {"hosts": [url], "index": "logs", "authentication": authentication})[1]


def cluster_of(url, password):
    return Cluster(config_of(url, username="u", password=password), Context("p", "opensearch", kind="sink"))


def basic_auth(username, password):
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@asynccontextmanager
async def server_with(answer):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_renewed_credentials_leave_requests_under_way_alone():
    """The first request gets its answer on the old connection while others go out with the new password."""
    arrived, answered = [], asyncio.Event()

    async def answer(request):
        await request.read()
        arrived.append(request.headers["Authorization"])
        if len(arrived) == 1:
            await answered.wait()
        return web.json_response({"errors": False, "items": [{"index": {"_index": "logs", "status": 201}}]})

    async def run():
        item = [b'{"index":{"_index":"logs"}}\n{}\n']
        async with server_with(answer) as url:
            cluster = cluster_of(url, "old")
            await cluster.start()
            first = asyncio.create_task(cluster.bulk(item))
            while not arrived:
                await asyncio.sleep(0)
            renewing = asyncio.create_task(cluster.renew(config_of(url, username="u", password="new")))
            while arrived[-1] != basic_auth("u", "new"):
                await cluster.bulk(item)
            assert not first.done() and not renewing.done()
            answered.set()
            assert (await first).status == 200
            await renewing
            await cluster.bulk(item)
            await cluster.close()
        assert set(arrived[:-2]) == {basic_auth("u", "old")}
        assert arrived[-2:] == [basic_auth("u", "new")] * 2

    asyncio.run(run())


def test_closing_ends_what_waits_on_a_connection_before_a_renewal():
    arrived, over = asyncio.Event(), asyncio.Event()

    async def answer(request):
        arrived.set()
        await over.wait()
        return web.Response()

    async def run():
        async with server_with(answer) as url:
            cluster = cluster_of(url, "old")
            await cluster.start()
            first = asyncio.create_task(cluster.call("GET", "/"))
            await arrived.wait()
            renewing = asyncio.create_task(cluster.renew(config_of(url, username="u", password="new")))
            while not cluster._left:
                await asyncio.sleep(0)
            await cluster.close()
            with pytest.raises(Unreachable, match="broke off"):
                await first
            await renewing
            with pytest.raises(Unreachable, match="not started"):
                await cluster.call("GET", "/")
            over.set()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_credentials_that_cannot_be_used_leave_those_before():
    async def run():
        async with FakeOpenSearch() as server:
            registry = Registry()
            config = config_of(server.url, username="u", password="old")
            sink = build(config, Context("p", "opensearch", kind="sink", registry=registry))
            certificate = "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----"
            bad = config_of(server.url, username="u", password="new", client_certificate=certificate, client_key="none")
            try:
                await sink.start()
                with pytest.raises(Permanent):
                    await sink.renew(bad)
                assert list(await sink.send(sink.encode(Batch([{"n": 1}])).data)) == []
                assert registry.value("p.opensearch.clientRefreshErrors") == 1
                assert registry.value("p.opensearch.credentialsChanged") == 1
                await sink.renew(config_of(server.url, api_token="token"))
                assert list(await sink.send(sink.encode(Batch([{"n": 2}])).data)) == []
                assert registry.value("p.opensearch.clientRefreshErrors") == 1
                assert registry.value("p.opensearch.credentialsChanged") == 2
                await sink.renew(config_of(server.url, api_token="other"))
                assert registry.value("p.opensearch.credentialsChanged") == 2, "of basic credentials only"
            finally:
                await sink.stop()
            sent = [request.headers["Authorization"] for request in server.bulk_requests()]
            assert sent == [basic_auth("u", "old"), "bearer token"]

    asyncio.run(run())
