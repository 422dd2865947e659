"""How the sink and its server prove to each other who they are."""

import asyncio
import logging
import ssl

import pytest
import trustme

from penstock.core.batch import Batch
from penstock.core.errors import Permanent, Unreachable
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
