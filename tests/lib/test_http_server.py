"""The server against clients of every kind: correct, slow, greedy, broken and random."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.lib.http_server import HttpServer, Limits, Request, Response


def echo(request: Request) -> Response:
    return Response(200, request.body or request.method.encode())


async def later_echo(request: Request) -> Response:
    await asyncio.sleep(0.01)
    return echo(request)


@contextlib.asynccontextmanager
async def serving(
    handler: Any = echo, *, tls: ssl.SSLContext | None = None, **limits: Any
) -> AsyncIterator[HttpServer]:
    server = HttpServer(handler, host="127.0.0.1", port=0, tls=tls, limits=Limits(**limits))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0.5)
        assert server.connections == 0
        assert server.buffered_bytes == 0


class Client:
    """Sends raw bytes, reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, server: HttpServer, **options: Any) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, **options)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause_s)

    async def answer(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1").split("\r\n")
        assert head[0].startswith("HTTP/1.1 ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        size = 0 if bodiless else int(headers.get("content-length", 0))
        return int(head[0].split()[1]), headers, await self.reader.readexactly(size)

    async def statuses(self) -> list[int]:
        """Statuses of all answers until the server closes."""
        everything = await asyncio.wait_for(self.reader.read(), 5)
        return [int(part[:3]) for part in everything.split(b"HTTP/1.1 ")[1:]]

    async def closed(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(), 5) == b""
        except ConnectionError:
            return True


def run(scenario: Callable[[], Awaitable[None]], *, uvloop_too: bool = False) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))
    if uvloop_too:  # where the transport has a say
        uvloop.run(asyncio.wait_for(scenario(), 20))


def post(body: bytes, *headers: str, path: str = "/", version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: here", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize("handler", [echo, later_echo])
def test_keep_alive_and_pipelining_answer_in_order(handler: Any) -> None:
    async def scenario() -> None:
        async with serving(handler) as server, Client.of(server) as client:
            await client.send(post(b"first"))
            assert (await client.answer())[2] == b"first"
            bodies = [b"%d" % i for i in range(50)]
            await client.send(b"".join(post(body) for body in bodies))
            assert [(await client.answer())[2] for _ in bodies] == bodies

    run(scenario, uvloop_too=True)


def test_answers_given_at_once_do_not_overtake_one_given_later() -> None:
    async def slow_first(request: Request) -> Response:
        await asyncio.sleep(0.05)
        return echo(request)

    async def scenario() -> None:
        handler = lambda request: slow_first(request) if request.body == b"a" else echo(request)  # noqa: E731
        async with serving(handler) as server, Client.of(server) as client:
            await client.send(post(b"a") + post(b"b"), post(b"c"), pause_s=0.01)
            assert [(await client.answer())[2] for _ in range(3)] == [b"a", b"b", b"c"]

    run(scenario)


@given(
    bodies=st.lists(st.binary(max_size=3000), min_size=1, max_size=5),
    chunked=st.booleans(),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    later=st.booleans(),
)
@settings(max_examples=40)
def test_requests_arrive_whole_however_they_are_cut(
    bodies: list[bytes], chunked: bool, cuts: list[int], later: bool
) -> None:
    def chunks(body: bytes) -> bytes:
        parts = [body[at : at + 700] for at in range(0, len(body), 700)]
        coded = b"".join(b"%x;name=value\r\n%s\r\n" % (len(part), part) for part in parts)
        return b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\nX-Sum: 1\r\n\r\n"

    async def scenario() -> None:
        wire = b"".join(chunks(body) if chunked else post(body) for body in bodies)
        async with serving(later_echo if later else echo) as server, Client.of(server) as client:
            at = 0
            for cut in cuts:
                await client.send(wire[at : at + cut])
                at += cut
            await client.send(wire[at:])
            assert [(await client.answer())[2] for _ in bodies] == [body or b"POST" for body in bodies]

    run(scenario)


def test_what_a_handler_sees() -> None:
    seen: list[Request] = []

    def keep(request: Request) -> Response:
        seen.append(request)
        return Response(200, "ä", headers={"x-own": "1"})

    async def scenario() -> None:
        async with serving(keep) as server, Client.of(server) as client:
            await client.send(
                b"PUT /a%20b/c?x=1&y=%20 HTTP/1.1\r\nHOST: h\r\nX-Two: 1\r\nx-two: 2\r\nX-L: \xe4\r\n\r\n"
            )
            status, headers, body = await client.answer()
            assert (status, body.decode(), headers["x-own"]) == (200, "ä", "1")
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert "date" in headers
            assert "server" not in headers
            await client.send(b"GET http://other:1/p?q HTTP/1.1\r\n\r\n")
            await client.answer()
        first, second = seen
        assert (first.method, first.path, first.query, first.body) == ("PUT", "/a b/c", "x=1&y=%20", b"")
        assert dict(first.headers) == {"host": "h", "x-two": "1, 2", "x-l": "ä"}
        assert first.peer == "127.0.0.1"
        assert (second.path, second.query) == ("/p", "q")

    run(scenario)


def test_head_has_the_headers_of_get_and_no_body() -> None:
    async def scenario() -> None:
        async with serving(lambda _: Response(200, "12345")) as server, Client.of(server) as client:
            await client.send(b"HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            status, headers, _ = await client.answer(bodiless=True)
            assert (status, headers["content-length"]) == (200, "5")
            assert (await client.answer())[2] == b"12345"

    run(scenario)


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [("1.1", None, True), ("1.1", "close", False), ("1.0", None, False), ("1.0", "keep-alive", True)],
)
def test_who_keeps_the_connection(version: str, connection: str | None, stays: bool) -> None:
    async def scenario() -> None:
        async with serving() as server, Client.of(server) as client:
            request = post(b"x", *([f"Connection: {connection}"] if connection else []), version=version)
            await client.send(request)
            status, headers, _ = await client.answer()
            assert status == 200
            assert headers["connection"] == ("keep-alive" if stays else "close")
            if stays:
                await client.send(request)
                assert (await client.answer())[0] == 200
            else:
                assert await client.closed()

    run(scenario)


def test_expect_continue() -> None:
    async def scenario() -> None:
        async with serving(body_bytes_max=100) as server:
            async with Client.of(server) as client:
                await client.send(post(b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 5"))
                assert (await client.answer())[0] == 100
                await client.send(b"12345")
                assert (await client.answer())[2] == b"12345"
            async with Client.of(server) as client:
                await client.send(post(b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 101"))
                assert await client.statuses() == [413]
            async with Client.of(server) as client:
                await client.send(post(b"", "Expect: wonders"))
                assert await client.statuses() == [417]

    run(scenario)


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
def test_an_upgrade_is_ignored_and_its_body_read(framing: str) -> None:
    wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    body = {
        "length": "Content-Length: 18\r\n\r\nGET /in HTTP/1.1\r\n",
        "chunked": "Transfer-Encoding: chunked\r\n\r\n12\r\nGET /in HTTP/1.1\r\n\r\n0\r\n\r\n",
        "none": "\r\n",
    }[framing]

    async def scenario() -> None:
        async with serving() as server:
            for pause_at in (None, -10):
                async with Client.of(server) as client:
                    wire = f"POST / HTTP/1.1\r\n{wish}{body}".encode()
                    await client.send(wire[:pause_at], wire[pause_at or len(wire) :], pause_s=0.02)
                    assert (await client.answer())[2] == (b"POST" if framing == "none" else b"GET /in HTTP/1.1\r\n")
                    await client.send(post(b"next"))
                    assert (await client.answer())[2] == b"next"

    run(scenario)


BAD = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "both framings": (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "negative length": (b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\nabcd", 400),
    "endless length": (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n", 400),
    "length of zeros": (b"POST / HTTP/1.1\r\nContent-Length: " + b"0" * 5000 + b"\r\n\r\n", 400),
    "bad chunk": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
    "unknown coding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "nul in header": (b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 505),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "proxy": (b"CONNECT a:80 HTTP/1.1\r\n\r\n", 501),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("handler", [echo, later_echo])
def test_a_bad_request_is_answered_after_the_good_ones_and_ends_the_connection(case: str, handler: Any) -> None:
    async def scenario() -> None:
        wire, status = BAD[case]
        async with serving(handler) as server:
            async with Client.of(server) as client:
                await client.send(post(b"good") + wire + post(b"never"))
                assert await client.statuses() == [200, status]
            async with Client.of(server) as client:
                await client.send(post(b"still here"))
                assert (await client.answer())[2] == b"still here"

    run(scenario)


def test_a_body_at_and_above_the_limit() -> None:
    calls = []

    def count(request: Request) -> Response:
        calls.append(len(request.body))
        return echo(request)

    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def scenario() -> None:
        async with serving(count, body_bytes_max=1000) as server:
            async with Client.of(server) as client:
                await client.send(post(b"x" * 1000), chunked + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n")
                assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
            async with Client.of(server) as client:  # the length alone is enough
                await client.send(b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n")
                assert await client.statuses() == [413]
            async with Client.of(server) as client:
                await client.send(chunked + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx")
                assert await client.statuses() == [413]
        assert calls == [1000, 1000]

    run(scenario)


def test_the_answer_reaches_a_client_that_goes_on_sending() -> None:
    async def scenario() -> None:
        async with serving(body_bytes_max=1_000_000) as server, Client.of(server) as client:
            sender = asyncio.create_task(client.send(post(bytes(3_000_000))))
            assert (await client.answer())[0] == 413
            with contextlib.suppress(ConnectionError):
                await sender

    run(scenario, uvloop_too=True)


@pytest.mark.parametrize(
    "wire",
    [
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"a" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: a\r\n" * 500 + b"\r\n",
    ],
)
def test_headers_above_the_limit(wire: bytes) -> None:
    async def scenario() -> None:
        async with serving(header_bytes_max=2000) as server, Client.of(server) as client:
            await client.send(wire)
            assert await client.statuses() == [431]

    run(scenario)


@pytest.mark.parametrize(
    ("start", "more", "status"),
    [
        (b"GET /", b"a" * 5000, 431),
        (b"GET / HTTP/1.1\r\nA: ", b"a" * 5000, 431),
        (b"GET / HTTP/1.1\r\n", b"A" * 5000, 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"A: b\r\n" * 900, 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: ", b"a" * 5000, 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"a" * 5000, 400),
    ],
)
def test_what_never_ends_is_cut_off(start: bytes, more: bytes, status: int) -> None:
    async def scenario() -> None:
        async with serving(header_bytes_max=10_000) as server, Client.of(server) as client:
            await client.send(start)
            for _ in range(12):
                await client.send(more, pause_s=0.005)
            assert await client.statuses() == [status]

    run(scenario)


@pytest.mark.parametrize("wire", [b"P", b"POST / HTTP/1.1\r\nA: b", post(b"12345")[:-1]])
def test_half_a_request_times_out(wire: bytes) -> None:
    async def scenario() -> None:
        async with serving(read_timeout_s=0.2) as server, Client.of(server) as client:
            await client.send(post(b"good") + wire)
            assert await client.statuses() == [200, 408]

    run(scenario)


def test_drops_of_data_do_not_prolong_a_request() -> None:
    async def scenario() -> None:
        async with serving(read_timeout_s=0.3) as server, Client.of(server) as client:
            with contextlib.suppress(ConnectionError):
                for _ in range(40):
                    await client.send(b"X" if _ else b"GET / HTTP/1.1\r\n", pause_s=0.02)
            assert await client.statuses() == [408]

    run(scenario)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    async def scenario() -> None:
        async with serving(idle_timeout_s=0.1) as server:
            async with Client.of(server) as client:
                assert await client.closed()
            async with Client.of(server) as client:
                await client.send(post(b"x"))
                assert (await client.answer())[0] == 200
                assert await client.closed()

    run(scenario)


def test_a_waiting_handler_outlives_the_read_timeout() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.5)
        return echo(request)

    async def scenario() -> None:
        async with serving(slow, read_timeout_s=0.1, idle_timeout_s=0.1) as server, Client.of(server) as client:
            await client.send(post(b"x"))
            assert (await client.answer())[0] == 200

    run(scenario)


def test_a_client_that_does_not_read_is_cut_off_and_holds_little() -> None:
    calls = 0

    def large(_: Request) -> Response:
        nonlocal calls
        calls += 1
        return Response(200, bytes(1_000_000))

    async def scenario() -> None:
        nonlocal calls
        calls = 0
        async with serving(large, read_timeout_s=0.3) as server, Client.of(server, limit=1000) as client:
            await client.send(post(b"x") * 200)
            while server.connections:
                await asyncio.sleep(0.02)
        assert calls < 20

    run(scenario, uvloop_too=True)


def test_connections_above_the_limit_are_closed() -> None:
    async def scenario() -> None:
        async with serving(connections_max=2) as server:
            async with Client.of(server) as one, Client.of(server) as two, Client.of(server) as three:
                for client in (one, two):
                    await client.send(post(b"x"))
                    assert (await client.answer())[0] == 200
                assert await three.closed()
                assert (server.connections, server.rejected_connections) == (2, 1)
            while server.connections:
                await asyncio.sleep(0.01)
            async with Client.of(server) as client:
                await client.send(post(b"x"))
                assert (await client.answer())[0] == 200

    run(scenario)


def test_too_many_requests_in_work() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def wait(_: Request) -> Response:
            await gate.wait()
            return Response(200)

        async with serving(wait, requests_max=1) as server, Client.of(server) as one, Client.of(server) as two:
            await one.send(post(b"x"))
            await asyncio.sleep(0.05)
            await two.send(post(b"x"))
            assert (await two.answer())[0] == 503
            gate.set()
            assert (await one.answer())[0] == 200
            await two.send(post(b"x"))
            assert (await two.answer())[0] == 200

    run(scenario)


def test_all_bodies_together_are_bounded() -> None:
    async def scenario() -> None:
        async with serving(buffered_bytes_max=100_000) as server:
            async with Client.of(server) as one, Client.of(server) as two:
                await one.send(post(b"x" * 80_000)[:-1], pause_s=0.05)
                assert server.buffered_bytes == 79_999
                await two.send(post(b"y" * 80_000))
                assert await two.statuses() == [503]
                await one.send(b"x")
                assert (await one.answer())[0] == 200
            assert server.buffered_bytes == 0

    run(scenario)


def test_bodies_beyond_the_memory_are_left_with_their_clients_and_read_one_after_the_other() -> None:
    body = b"x" * 1_500_000
    count = 6
    most = 0

    async def scenario() -> None:
        async def keep_a_while(request: Request) -> Response:
            nonlocal most
            most = max(most, server.buffered_bytes)
            size = len(request.body)
            await asyncio.sleep(0.01)
            request.free_body()
            await asyncio.sleep(0.01)
            return Response(200, str(size))

        limits = {"reading_bytes_max": 1_000_000, "buffered_bytes_max": 100_000_000}
        async with serving(keep_a_while, **limits) as server, contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client.of(server)) for _ in range(count)]
            framed = [post(body), b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"]
            framed[1] += b"16e360\r\n" + body + b"\r\n0\r\n\r\n"
            for _ in range(2):
                sending = [asyncio.create_task(client.send(framed[n % 2])) for n, client in enumerate(clients)]
                answers = await asyncio.gather(*(client.answer() for client in clients))
                assert [answer[::2] for answer in answers] == [(200, b"1500000")] * count
                await asyncio.gather(*sending)
            assert 1_500_000 <= most < 1_000_000 + 1_500_000 + count * 300_000

    run(scenario, uvloop_too=True)


def test_clients_that_leave_or_dawdle_make_room_for_those_that_wait() -> None:
    async def scenario() -> None:
        limits = {"reading_bytes_max": 100_000, "buffered_bytes_max": 10_000_000, "read_timeout_s": 0.3}
        async with serving(**limits) as server:
            async with Client.of(server) as dawdler, Client.of(server) as leaver, Client.of(server) as patient:
                await dawdler.send(post(b"x" * 500_000)[:-1])
                await leaver.send(post(b"y" * 3_000_000)[:300_000])
                sending = asyncio.create_task(patient.send(post(b"z" * 3_000_000)))
                await asyncio.sleep(0.05)
                assert server.buffered_bytes < 2_000_000, "the third is not read to its end"
                leaver.writer.close()
                assert (await dawdler.answer())[0] == 408
                assert (await patient.answer())[0] in (200, 408)
                with contextlib.suppress(ConnectionError):
                    await sending
            async with Client.of(server) as last:
                await last.send(post(b"w" * 3_000_000))
                assert (await last.answer())[0] == 200

    run(scenario, uvloop_too=True)


def test_a_client_that_has_gone_while_it_was_not_read_from_stops_nothing() -> None:
    async def scenario() -> None:
        limits = {"reading_bytes_max": 100_000, "buffered_bytes_max": 10_000_000, "read_timeout_s": 0.3}
        async with (
            serving(**limits) as server,
            Client.of(server) as first,
            Client.of(server) as leaver,
            Client.of(server) as last,
        ):
            await first.send(post(b"x" * 200_000)[:-1])
            await leaver.send(post(b"y" * 3_000_000)[:200_000], pause_s=0.05)
            leaver.writer.transport.abort()  # what is written to it from now on is answered with a reset
            assert (await first.answer())[0] == 408
            await last.send(post(b"z" * 10)[:-1])
            assert (await last.answer())[0] == 408

    run(scenario, uvloop_too=True)


def test_a_failing_handler_answers_500_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def fail_later(request: Request) -> Response:
        raise ValueError("later")

    def fail(request: Request) -> Any:
        if request.body == b"now":
            raise ValueError("now")
        return fail_later(request) if request.body == b"later" else echo(request)

    async def scenario() -> None:
        async with serving(fail) as server, Client.of(server) as client:
            await client.send(post(b"now") + post(b"later") + post(b"fine"))
            assert [(await client.answer())[0] for _ in range(3)] == [500, 500, 200]

    run(scenario)
    assert [record.exc_info[1].args for record in caplog.records] == [("now",), ("later",)]


def test_a_client_that_stops_sending_still_gets_its_answers() -> None:
    async def scenario() -> None:
        async with serving(later_echo) as server, Client.of(server) as client:
            await client.send(post(b"x") * 3)
            client.writer.write_eof()
            assert await client.statuses() == [200, 200, 200]

    run(scenario, uvloop_too=True)


def test_stop_finishes_what_runs_refuses_what_comes_and_cuts_off_the_rest() -> None:
    async def scenario() -> None:
        gate, cancelled = asyncio.Event(), []

        async def work(request: Request) -> Response:
            try:
                if request.body == b"slow":
                    await gate.wait()
                elif request.body == b"never":
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(request.body)
                raise
            return Response(200)

        server = HttpServer(work, host="127.0.0.1", port=0)
        await server.start()
        async with contextlib.AsyncExitStack() as stack:
            idle, slow, half, never = [await stack.enter_async_context(Client.of(server)) for _ in range(4)]
            await slow.send(post(b"slow"))
            await never.send(post(b"never"))
            await half.send(post(b"half")[:-1])
            await asyncio.sleep(0.05)
            stopping = asyncio.create_task(server.stop(0.5))
            assert await idle.closed()
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", server.port)
            await half.send(b"f" + post(b"too late"))
            assert await half.statuses() == [200, 503]
            gate.set()
            status, headers, _ = await slow.answer()
            assert (status, headers["connection"]) == (200, "close")
            await stopping
            assert await never.closed()
        assert cancelled == [b"never"]
        assert server.connections == 0
        await server.stop()

    run(scenario)


@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([case[0] for case in BAD.values()])), max_size=6))
@settings(max_examples=60)
def test_random_bytes_never_hurt_the_server(pieces: list[bytes]) -> None:
    async def scenario() -> None:
        async with serving(header_bytes_max=500, body_bytes_max=500, read_timeout_s=0.05) as server:
            async with Client.of(server) as client:
                with contextlib.suppress(OSError):
                    await client.send(*pieces)
                    client.writer.write_eof()
                    await asyncio.wait_for(client.reader.read(), 5)
            async with Client.of(server) as client:
                await client.send(post(b"well"))
                assert (await client.answer())[2] == b"well"

    run(scenario)


def test_tls_and_no_tls_on_a_tls_port(tmp_path: Any) -> None:
    authority = trustme.CA()
    server_tls, client_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.configure_trust(client_tls)

    async def scenario() -> None:
        async with serving(later_echo, tls=server_tls, body_bytes_max=1_000_000) as server:
            async with Client.of(server, ssl=client_tls, server_hostname="localhost") as client:
                body = bytes(range(256)) * 3000
                await client.send(post(body) + post(b"next"))
                assert (await client.answer())[2] == body
                assert (await client.answer())[2] == b"next"
                await client.send(post(bytes(1_000_001)))
                assert (await client.answer())[0] == 413
            async with Client.of(server) as client:
                await client.send(post(b"plain"))
                assert await client.closed()

    run(scenario, uvloop_too=True)


def test_a_port_in_use_is_an_error() -> None:
    async def scenario() -> None:
        async with serving() as server:
            with pytest.raises(OSError):
                await HttpServer(echo, host="127.0.0.1", port=server.port).start()

    run(scenario)


def test_servers_that_share_a_port_answer_what_is_queued_before_they_close() -> None:
    async def scenario() -> None:
        ports: list[int] = []

        async def share(host: str, port: int) -> int:
            return ports[0] if ports else port

        both = [HttpServer(echo, host="127.0.0.1", port=0, share_port=share) for _ in range(2)]
        for one in both:
            await one.start()
            ports.append(one.port)
        assert ports[0] == ports[1]
        # The handshakes end in the kernel: the requests are there before any of the servers has had a turn.
        clients = [socket.create_connection(("127.0.0.1", ports[0])) for _ in range(20)]
        for client in clients:
            client.sendall(post(b"queued"))
        await both[0].stop(5)
        for client in clients:
            client.settimeout(10)
            answer = await asyncio.to_thread(client.recv, 65536)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            client.close()
        await both[1].stop(5)

    run(scenario, uvloop_too=True)


def test_a_response_header_cannot_break_out() -> None:
    with pytest.raises(ValueError, match="line break"):
        Response(200, headers={"x": "a\r\nset-cookie: b"})
