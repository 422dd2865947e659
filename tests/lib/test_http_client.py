"""The client against our own server, against hosts that are away, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme

from penstock.core.errors import ConfigError, Permanent, Transient, Unreachable
from penstock.lib.http_client import HttpClient, Untrusted
from penstock.lib.http_server import HttpServer, Request, Response


@contextlib.asynccontextmanager
async def serving(handler: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    server = HttpServer(handler, host="127.0.0.1", port=0, tls=tls)
    await server.start()
    try:
        yield f"{'http' if tls is None else 'https'}://localhost:{server.port}"
    finally:
        await server.stop(0.2)


@contextlib.asynccontextmanager
async def client_of(*hosts: str, **options: Any) -> AsyncIterator[HttpClient]:
    client = HttpClient(hosts, **options)
    try:
        yield client
    finally:
        await client.close()
        await client.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Recorder:
    def __init__(self, response: Response | None = None) -> None:
        self.requests: list[Request] = []
        self.response = response or Response(201, b"done", headers={"X-Own": "1"})

    def __call__(self, request: Request) -> Response:
        self.requests.append(copy.copy(request))  # the server frees the body of its own
        return self.response


def test_request_and_reply() -> None:
    async def scenario() -> None:
        seen = Recorder()
        async with (
            serving(seen) as url,
            client_of(url + "/prefix/", username="ü", password="p:w", headers={"X-A": "1"}) as client,
        ):
            reply = await client.request("POST", "/a%2Fb/_bulk?x=%20y", b"body", {"Content-Type": "text/x"})
            assert (reply.status, reply.body, reply.text, reply.headers["x-own"]) == (201, b"done", "done", "1")
            assert (await client.request("GET", "/")).status == 201
        first, second = seen.requests
        assert (first.target, first.body) == (b"/prefix/a%2Fb/_bulk?x=%20y", b"body")
        assert first.headers["content-type"] == "text/x"
        assert first.headers["x-a"] == "1"
        assert first.headers["authorization"] == "Basic " + base64.b64encode("ü:p:w".encode()).decode()
        assert (second.method, second.target, second.body) == ("GET", b"/prefix/", b"")
        assert "cookie" not in second.headers

    run(scenario)


@pytest.mark.parametrize(
    "parts",
    [
        [bytes(range(256)) * 20_000],
        [b"%d\n" % number for number in range(500_000)],
        [b"", b"a" * 262_144, b"b" * 262_145, b"", b"c" * 3_000_000, b"d"],
        [b"a", b"b"],
        [b""],
        [],
    ],
)
def test_a_body_arrives_whole_however_it_is_given(parts: list[bytes]) -> None:
    async def scenario() -> None:
        seen = Recorder()
        body = b"".join(parts)
        async with serving(seen) as url, client_of(url) as client:
            assert (await client.request("POST", "/", body)).status == 201
            assert (await client.request("POST", "/", parts)).status == 201
        assert [request.body for request in seen.requests] == [body, body]
        assert [request.headers["content-length"] for request in seen.requests] == 2 * [str(len(body))]

    run(scenario)


def test_a_signature_covers_all_parts() -> None:
    async def scenario() -> None:
        seen = Recorder()
        async with serving(seen) as url, client_of(url, sign=lambda *sent: {"x-signed": sent[3].decode()}) as client:
            await client.request("POST", "/", [b"one", b"two"])
        (request,) = seen.requests
        assert (request.body, request.headers["x-signed"]) == (b"onetwo", "onetwo")

    run(scenario)


def test_no_cookies_no_redirects_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def scenario() -> None:
        seen = Recorder(Response(302, headers={"Location": "/elsewhere", "Set-Cookie": "a=b"}))
        async with serving(seen) as url, client_of(url, bearer_token="t0ken") as client:
            assert [(await client.request("GET", "/")).status for _ in range(2)] == [302, 302]
        assert [request.path for request in seen.requests] == ["/", "/"]
        assert "cookie" not in seen.requests[1].headers
        assert seen.requests[1].headers["authorization"] == "Bearer t0ken"

    run(scenario)


@pytest.mark.parametrize("size", [10, 300_000])
def test_gzip_both_ways_and_signature_over_what_is_sent(size: int) -> None:
    async def scenario() -> None:
        packed = gzip.compress(b"answer" * 100)
        seen = Recorder(Response(200, packed, headers={"Content-Encoding": "gzip"}))
        signed: list[tuple[str, str, dict[str, str], bytes]] = []

        async def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
            signed.append((method, url, dict(headers), body))
            return {"Authorization": f"signed {len(body)}"}

        async with serving(seen) as url, client_of(url, gzip_requests=True, sign=sign) as client:
            reply = await client.request("PUT", "/x", b"z" * size)
            assert reply.body == b"answer" * 100
            assert signed[0][:2] == ("PUT", url + "/x")
        (request,) = seen.requests
        assert request.headers["content-encoding"] == signed[0][2]["Content-Encoding"] == "gzip"
        assert request.body == signed[0][3]
        assert gzip.decompress(request.body) == b"z" * size
        assert request.headers["authorization"] == f"signed {len(request.body)}"

    run(scenario)


def test_hosts_in_turn_and_a_dead_one_left_out() -> None:
    async def scenario() -> None:
        one, two = Recorder(), Recorder()
        dead = f"http://127.0.0.1:{free_port()}"
        async with serving(one) as first, serving(two) as second:
            async with client_of(first, dead, second) as client:
                outcomes = []
                for _ in range(9):
                    try:
                        outcomes.append((await client.request("GET", "/")).status)
                    except Unreachable as error:
                        assert dead in str(error)
                        outcomes.append(0)
                assert outcomes == [201, 0] + [201] * 7
                assert (len(one.requests), len(two.requests)) == (4, 4)
            async with client_of(dead, host_pause_s=60) as client:  # the only one is tried all the same
                for _ in range(2):
                    with pytest.raises(Unreachable, match="cannot be reached"):
                        await client.request("GET", "/")

    run(scenario)


def test_no_answer_in_time() -> None:
    async def never(_: Request) -> Response:
        await asyncio.sleep(10)
        return Response(200)

    async def scenario() -> None:
        async with serving(never) as url, client_of(url) as client:
            with pytest.raises(Unreachable, match=r"did not answer GET /x within 0\.1 s"):
                await client.request("GET", "/x?secret=1", timeout_s=0.1)

    run(scenario)


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"\x00\x01 nonsense\r\n\r\n",
    ],
)
def test_broken_answers(wire: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(wire)
        writer.close()
        await writer.wait_closed()

    async def scenario() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, client_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
            with pytest.raises(Unreachable, match="broke off POST /x"):
                await client.request("POST", "/x", b"body")

    run(scenario)


def test_an_answer_above_the_limit() -> None:
    async def scenario() -> None:
        bomb = Response(200, gzip.compress(bytes(10_000_000)), headers={"Content-Encoding": "gzip"})
        async with serving(Recorder(bomb)) as url, client_of(url, reply_bytes_max=100_000) as client:
            with pytest.raises(Permanent, match="larger than 100000 bytes"):
                await client.request("GET", "/")

    run(scenario)


def test_tls_and_a_certificate_nobody_knows() -> None:
    authority = trustme.CA()
    server_tls, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.configure_trust(trusting)

    async def scenario() -> None:
        async with serving(Recorder(), server_tls) as url:
            async with client_of(url, tls=trusting) as client:
                assert (await client.request("POST", "/", b"x" * 100_000)).status == 201
            async with client_of(url) as client:
                with pytest.raises(Untrusted, match="cannot be trusted: "):
                    await client.request("GET", "/")

    run(scenario)


def test_proxy() -> None:
    async def scenario() -> None:
        proxy = Recorder()
        async with (
            serving(proxy) as url,
            client_of("http://far.test:9200", proxy=url.removeprefix("http://")) as client,
        ):
            assert (await client.request("GET", "/x")).status == 201
        assert proxy.requests[0].target == b"http://far.test:9200/x"

    run(scenario)


def test_a_closed_client_and_one_that_never_opened() -> None:
    async def scenario() -> None:
        async with client_of("https://user:pa%40ss@name:9200/p/") as client:
            pass
        with pytest.raises(Transient, match="closed"):
            await client.request("GET", "/")

    run(scenario)


@pytest.mark.parametrize("host", ["", "ftp://a", "http://", "http://a:99999", "http://a?b", "http://[::1"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(ConfigError, match="not a valid host"):
        HttpClient([host])
