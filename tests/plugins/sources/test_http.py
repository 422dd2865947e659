"""The source over real connections, with a real buffer that is read when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cramjam
import pytest
import trustme
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock import sdk
from penstock.lib import tls
from penstock.lib.http_client import HttpClient, Reply
from penstock.plan.catalog import find
from penstock.plugins.buffers import bounded_blocking
from penstock.plugins.sources import http
from penstock.runtime.output import PipelineOutput

NO_ARRAY = "Bad request data format. Needs to be json array."
FULL = "Timeout waiting for request to be served. This is usually due to the buffer being full."


def resolve(kind: str, value: Any) -> sdk.PluginUse:
    if isinstance(value, sdk.PluginUse):
        return value
    ((name, options),) = value.items()
    found = find(kind, name)
    config = found.config.model_validate(options or {}, context={"resolve": resolve})
    assert isinstance(config, sdk.PluginConfig)
    return sdk.PluginUse(kind, name, found.module, config)


def config_of(**options: Any) -> http.Config:
    return http.Config.model_validate({"port": 0, **options}, context={"resolve": resolve})


class Output(PipelineOutput):
    """That of a pipeline which keeps what arrives and reads only when told to."""

    def __init__(self, ctx: sdk.Context, buffer_size: int) -> None:
        self.buffer = bounded_blocking.BoundedBlockingBuffer(bounded_blocking.Config(buffer_size=buffer_size), ctx)
        self.ready = asyncio.Event()
        super().__init__(self.buffer, self.ready.set)

    async def read(self, *, ok: bool = True) -> sdk.Batch:
        load = await asyncio.wait_for(self.buffer.read(), 5)
        assert load is not None
        batch = load.batch.share()
        self.buffer.done(load)
        if any(batch.handles):
            load.batch.release_all(ok=ok)
            batch.release_all(ok=ok)
        return batch


class Running:
    def __init__(self, source: http.HttpSource, output: Output, ctx: sdk.Context, client: HttpClient) -> None:
        self.source, self.output, self.ctx, self.client = source, output, ctx, client

    async def post(self, body: Any = b"", path: str = "/log/ingest", **options: Any) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.request("POST", path, data, options.pop("headers", None), **options)

    async def status(self, body: Any, **options: Any) -> tuple[int, str]:
        reply = await self.post(body, **options)
        return reply.status, reply.text

    def count(self, name: str) -> float:
        return self.ctx.registry.value(f"logs.http.{name}")


@contextlib.asynccontextmanager
async def running(
    buffer_size: int = 12800, client_tls: Any = None, buffer_bytes_max: int = 64 * 1024 * 1024, **options: Any
) -> AsyncIterator[Running]:
    ctx = sdk.Context("logs", "http", kind="source", buffer_bytes_max=buffer_bytes_max)
    output = Output(ctx, buffer_size)
    config = config_of(**options)
    source = http.build(config, ctx)
    assert isinstance(source, http.HttpSource)
    task = asyncio.create_task(source.run(output))
    await asyncio.wait_for(output.ready.wait(), 5)
    client = HttpClient([f"{'https' if config.ssl else 'http'}://localhost:{source.port}"], tls=client_tls)
    try:
        yield Running(source, output, ctx, client)
    finally:
        await client.close()
        await source.stop()
        await source.stop()
        await asyncio.wait_for(task, 5)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_events_arrive_with_their_metadata() -> None:
    async def scenario() -> None:
        async with running() as http_source:
            assert await http_source.status([{"a": 1}, {"b": {"c": [None, "ü"]}}]) == (200, "200 OK")
            batch = await http_source.output.read()
            assert batch.bodies == [{"a": 1}, {"b": {"c": [None, "ü"]}}]
            assert batch.peek(0).event_type == "LOG"
            assert batch.peek(0).attributes == {}
            assert abs(batch.peek(0).received_ms - sdk.Clock().now_ms()) < 60_000
            assert await http_source.status([]) == (200, "200 OK")
            for name, value in {
                "requestsReceived": 2,
                "successRequests": 2,
                "payloadSize": 2,
                "badRequests": 0,
            }.items():
                assert http_source.count(name) == value, name
            assert http_source.count("requestProcessDuration") == 2
            assert http_source.count("serverConnections") == 1

    run(scenario)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"a": 1}',
        b'"text"',
        b"null",
        b"1",
        b"[1]",
        b"[null]",
        b'[{"a": 1}, 2]',
        b"[[]]",
        b'[{"a": 1}',
        b'[{"a": 1}] [{"b": 2}]',
        b'[{"a": NaN}]',
        b'[{"a": 01}]',
        b'[{1: "a"}]',
        b'[{"a": "\xff"}]',
        b"[" * 100_000,
        b'[{"a":' * 5_000 + b"1" + b"}]" * 5_000,
    ],
)
def test_what_is_no_array_of_objects(body: bytes) -> None:
    async def scenario() -> None:
        async with running() as http_source:
            assert await http_source.status(body) == (400, NO_ARRAY)
            assert http_source.count("badRequests") == 1
            assert http_source.count("recordsWritten") == 0

    run(scenario)


def test_numbers_and_texts_survive() -> None:
    body = b'\xef\xbb\xbf[{"big": 123456789012345678901234567890, "dup": 1, "dup": 2, "half": "\\ud800", "f": 1.5e300}]'

    async def scenario() -> None:
        async with running() as http_source:
            assert (await http_source.status(body))[0] == 200
            (event,) = (await http_source.output.read()).bodies
            assert event == {"big": 123456789012345678901234567890, "dup": 2, "half": "\ufffd", "f": 1.5e300}

    run(scenario)


@given(st.binary(max_size=200), st.sampled_from(["none", "gzip", "automatic"]))
@settings(max_examples=50)
def test_random_bodies_get_an_answer(body: bytes, kind: str) -> None:
    async def scenario() -> None:
        async with running(compression=kind) as http_source:
            assert (await http_source.post(body)).status in (200, 400)
            assert await http_source.status([{"a": 1}]) == (200, "200 OK")

    run(scenario)


def test_path_methods_and_placeholder() -> None:
    async def scenario() -> None:
        async with running(path="/${pipelineName}/in put") as http_source:
            assert (await http_source.post([{}], path="/logs/in%20put")).status == 200
            assert (await http_source.post([{}], path="/logs/in%20put?x=1")).status == 200
            assert await http_source.status([{}], path="/log/ingest") == (404, "404 Not Found")
            assert (await http_source.post([{}], path="/logs/in%20put/")).status == 404
            reply = await http_source.client.request("GET", "/logs/in%20put")
            assert (reply.status, reply.headers["allow"]) == (405, "POST")
            assert (await http_source.client.request("GET", "/health")).status == 404

    run(scenario)


@pytest.mark.parametrize("open_health", [False, True])
def test_authentication_and_health(open_health: bool) -> None:
    basic = {"authorization": "Basic bWU6c2VjcmV0"}

    async def scenario() -> None:
        async with running(
            authentication={"http_basic": {"username": "me", "password": "secret"}},
            health_check_service=True,
            unauthenticated_health_check=open_health,
        ) as http_source:
            reply = await http_source.post([{"a": 1}])
            assert (reply.status, reply.headers["www-authenticate"].split()[0]) == (401, "Basic")
            assert (await http_source.post([{}], headers={"authorization": "Basic bWU6d3Jvbmc="})).status == 401
            assert (await http_source.post([{}], path="/elsewhere")).status == 401
            assert http_source.count("requestsReceived") == 0
            assert (await http_source.post([{"a": 1}], headers=basic)).status == 200
            assert (await http_source.client.request("GET", "/health")).status == (200 if open_health else 401)
            assert (await http_source.client.request("GET", "/health", headers=basic)).text == '{"healthy":true}'
            assert (await http_source.client.request("HEAD", "/health", headers=basic)).status == 200
            assert (await http_source.client.request("DELETE", "/health", headers=basic)).status == 405

    run(scenario)


def test_unauthenticated_by_name() -> None:
    async def scenario() -> None:
        async with running(authentication={"unauthenticated": None}) as http_source:
            assert (await http_source.post([{}])).status == 200

    run(scenario)


PACK = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "snappy": lambda data: bytes(cramjam.snappy.compress(data)),
}


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("configured", ["same", "automatic"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("thread_bytes", [100, 100_000])
def test_compression(
    monkeypatch: pytest.MonkeyPatch, encoding: str, configured: str, named: bool, thread_bytes: int
) -> None:
    monkeypatch.setattr(http, "_THREAD_BYTES", thread_bytes)
    sent = [{"n": n, "text": f"line {n * 7919 % 65521}"} for n in range(1000)]

    async def scenario() -> None:
        option = encoding if configured == "same" else configured
        async with running(compression=option) as http_source:
            packed = PACK[encoding](json.dumps(sent).encode())
            assert 100 < len(packed) < 100_000
            headers = {"content-encoding": encoding} if named else {}
            assert await http_source.status(packed, headers=headers) == (200, "200 OK")
            assert (await http_source.output.read()).bodies == sent
            assert await http_source.status([{"plain": 1}]) == (200, "200 OK")

    run(scenario)


def test_bad_compression() -> None:
    async def scenario() -> None:
        async with running(compression="gzip") as http_source:
            body = json.dumps([{"a": 1}]).encode()
            assert (await http_source.post(gzip.compress(body)[:-9])).status == 400
            assert (await http_source.post(body, headers={"content-encoding": "gzip"})).status == 400
            status, text = await http_source.status(body, headers={"content-encoding": "br"})
            assert (status, text) == (400, "Content-Encoding br is not supported")
            assert http_source.count("badRequests") == 3
        async with running() as http_source:  # no header switches it on
            assert await http_source.status(gzip.compress(body), headers={"content-encoding": "gzip"}) == (
                400,
                NO_ARRAY,
            )

    run(scenario)


def test_too_large_as_sent_and_decompressed() -> None:
    async def scenario() -> None:
        async with running(max_request_length="1000b", compression="gzip") as http_source:
            exact = b'[{"a": "' + b"x" * 989 + b'"}]'
            assert len(exact) == 1000
            assert (await http_source.post(exact)).status == 200
            assert (await http_source.post(gzip.compress(exact))).status == 200
            assert (await http_source.post(exact + b" ")).status == 413
            assert (await http_source.post(gzip.compress(exact + b" "))).status == 413
            assert (await http_source.post(gzip.compress(bytes(1_000_000)))).status in (413,)
            assert http_source.count("requestsTooLarge") == 3

    run(scenario)


def test_ten_megabytes_unless_set() -> None:
    async def scenario() -> None:
        async with running(compression="gzip") as http_source:
            largest = b'[{"a":"' + b"x" * (10 * 1024 * 1024 - 10) + b'"}]'
            assert (await http_source.post(largest)).status == 200
            assert (await http_source.post(largest + b" ")).status == 413
            assert (await http_source.post(gzip.compress(largest + b" ", 1))).status == 413

    run(scenario)


def test_above_the_capacity_of_the_buffer() -> None:
    async def scenario() -> None:
        async with running(buffer_size=2) as http_source:
            assert await http_source.status([{}] * 3) == (413, "Buffer capacity too small for the number of records: 3")
            assert (await http_source.post([{}] * 2)).status == 200

    run(scenario)


@pytest.mark.parametrize("kind", ["none", "gzip"])
@pytest.mark.parametrize("acknowledgments", [False, True])
def test_bodies_wait_for_room_in_bytes_as_they_came(kind: str, acknowledgments: bool) -> None:
    events = [{"n": n, "text": "x" * 1000} for n in range(400)]
    plain = json.dumps(events).encode()
    body = gzip.compress(plain) if kind == "gzip" else plain

    async def scenario() -> None:
        options = {"buffer_bytes_max": 1_200_000, "compression": kind, "acknowledgments": acknowledgments}
        async with running(**options) as http_source:
            buffer = http_source.output.buffer
            waiting = [asyncio.create_task(http_source.post(body)) for _ in range(4)]
            await asyncio.sleep(0.3)
            assert [task.done() for task in waiting].count(True) == (0 if acknowledgments else 1)
            assert buffer._queued == 400
            assert http_source.source._server is not None
            assert http_source.source._server.buffered_bytes == 3 * len(body), "three wait, not decoded"
            for _ in range(4):
                assert len(await http_source.output.read()) == 400
            assert [(await task).status for task in waiting] == [200] * 4
            assert buffer._bytes == 0
            assert (await http_source.post(gzip.compress(b"[1") if kind == "gzip" else b"[1")).status == 400
            too_much = json.dumps([{"text": "x" * 1_200_001}]).encode()
            assert (await http_source.post(gzip.compress(too_much) if kind == "gzip" else too_much)).status == 413
            assert buffer._bytes == 0

    run(scenario)


def test_what_waits_for_room_in_bytes_is_refused_in_time() -> None:
    body = json.dumps([{"text": "x" * 1000}] * 400).encode()

    async def scenario() -> None:
        async with running(buffer_bytes_max=1_200_000, request_timeout=400) as http_source:
            assert (await http_source.post(body)).status == 200
            assert (await http_source.post(body)).status == 408
            assert (await http_source.post(body[:-1])).status == 408, "nobody looks at it before there is room"
            await http_source.output.read()
            assert (await http_source.post(body[:-1])).status == 400
            assert (await http_source.post(body)).status == 200
            await http_source.output.read()
            assert http_source.output.buffer._bytes == 0

    run(scenario)


def test_buffer_full_then_room_again() -> None:
    async def scenario() -> None:
        async with running(buffer_size=2, request_timeout=400) as http_source:
            assert (await http_source.post([{"n": 1}, {"n": 2}])).status == 200
            assert await http_source.status([{"n": 3}]) == (408, FULL)
            assert http_source.count("requestTimeouts") == 1
            waiting = asyncio.create_task(http_source.post([{"n": 4}]))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert (await http_source.output.read()).bodies == [{"n": 1}, {"n": 2}]
            assert (await waiting).status == 200
            assert (await http_source.output.read()).bodies == [{"n": 4}]  # nothing of the refused one was left

    run(scenario)


def test_too_many_pending() -> None:
    async def scenario() -> None:
        async with running(buffer_size=1, request_timeout=1500, thread_count=1, max_pending_requests=1) as http_source:
            assert (await http_source.post([{"n": 0}])).status == 200
            waiting = [asyncio.create_task(http_source.post([{"n": n}])) for n in (1, 2)]
            await asyncio.sleep(0.1)
            assert await http_source.status([{"n": 3}]) == (
                429,
                "The number of pending requests in the work queue reaches max_pending_requests:1. Please retry later",
            )
            assert http_source.count("requestsRejected") == 1
            for n in (0, 1, 2):
                assert (await http_source.output.read()).bodies == [{"n": n}]
            assert [(await task).status for task in waiting] == [200, 200]
            assert (await http_source.post([{"n": 4}])).status == 200

    run(scenario)


def test_metadata_headers() -> None:
    async def scenario() -> None:
        async with running(metadata_headers=["X-Tenant-Id", "x-region"]) as http_source:
            await http_source.post([{}, {}], headers={"X-TENANT-ID": "a", "X-Other": "b"})
            batch = await http_source.output.read()
            assert [batch.peek(i).attributes for i in range(2)] == [{"headers": {"x-tenant-id": "a"}}] * 2
            await http_source.post([{}])
            assert (await http_source.output.read()).peek(0).attributes == {}

    run(scenario)


def codec_of(decode: Callable[[bytes], sdk.Batch]) -> sdk.PluginUse:
    class Decoder:
        def __init__(self) -> None:
            self._data = b""

        def feed(self, data: bytes) -> sdk.Batch:
            self._data += data
            return sdk.Batch([])

        def finish(self) -> sdk.Batch:
            return decode(self._data)

    class Codec:
        decoder = Decoder

    module = ModuleType("codec")
    module.build_decoder = lambda config, ctx: Codec()  # type: ignore[attr-defined]
    return sdk.PluginUse("input_codec", "test", module, sdk.PluginConfig())


def test_codec() -> None:
    def decode(data: bytes) -> sdk.Batch:
        if data == b"bad":
            raise sdk.EventError("line 1 is no number")
        shared = sdk.Meta("METRIC")
        own: list[sdk.Meta | None] = [sdk.Meta(attributes={"first": True})]
        bodies: list[sdk.Body] = [{"n": int(part)} for part in data.split()]
        return sdk.Batch(bodies, own + [None] * (len(bodies) - 1) if bodies else None, origin=shared)

    async def scenario() -> None:
        async with running(codec=codec_of(decode), metadata_headers=["x"]) as http_source:
            assert (await http_source.post(b"1 2", headers={"x": "y"})).status == 200
            batch = await http_source.output.read()
            assert batch.bodies == [{"n": 1}, {"n": 2}]
            assert batch.peek(0).attributes == {"first": True, "headers": {"x": "y"}}
            assert (batch.peek(1).event_type, batch.peek(1).attributes) == ("METRIC", {"headers": {"x": "y"}})
            assert await http_source.status(b"bad") == (400, "line 1 is no number")
            assert (await http_source.post(b"")).status == 200

    run(scenario)


def test_a_codec_that_breaks_answers_500() -> None:
    def decode(data: bytes) -> sdk.Batch:
        raise KeyError("a bug")

    async def scenario() -> None:
        async with running(codec=codec_of(decode)) as http_source:
            assert (await http_source.post(b"x")).status == 500
            assert http_source.count("internalServerError") == 1

    run(scenario)


@pytest.mark.parametrize(("ok", "status"), [(True, 200), (False, 503)])
def test_acknowledgments_answer_after_delivery(ok: bool, status: int) -> None:
    async def scenario() -> None:
        async with running(acknowledgments=True) as http_source:
            posting = asyncio.create_task(http_source.post([{"a": 1}, {"a": 2}]))
            await asyncio.sleep(0.05)
            assert not posting.done()
            await http_source.output.read(ok=ok)
            assert (await posting).status == status
            assert (await http_source.post([])).status == 200

    run(scenario)


def test_acknowledgments_that_take_too_long() -> None:
    async def scenario() -> None:
        async with running(acknowledgments=True, request_timeout=200) as http_source:
            assert (await http_source.status([{"a": 1}]))[0] == 408
            load = await http_source.output.buffer.read()
            assert load is not None
            (handle,) = load.batch.handles
            assert handle is not None
            assert handle.done
            load.batch.release_all(ok=True)  # too late, and no harm
            assert handle.late == 1

    run(scenario)


def test_stop_finishes_waiting_requests_and_takes_no_more() -> None:
    async def scenario() -> None:
        async with running(buffer_size=1, request_timeout=2000) as http_source:
            await http_source.post([{"n": 1}])
            waiting = asyncio.create_task(http_source.post([{"n": 2}]))
            await asyncio.sleep(0.05)
            await http_source.source.stop()
            await asyncio.sleep(0.05)
            with pytest.raises(sdk.Unreachable):
                await http_source.post([{"n": 3}])
            await http_source.output.read()
            assert (await waiting).status == 200
            assert (await http_source.output.read()).bodies == [{"n": 2}]

    run(scenario)


def test_a_port_in_use_ends_the_pipeline() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", 0))
            taken.listen()
            ctx = sdk.Context("logs", "http", kind="source")
            source = http.build(config_of(port=taken.getsockname()[1]), ctx)
            with pytest.raises(sdk.Permanent, match=r"cannot be listened on: .*in use"):
                await source.run(Output(ctx, 10))

    run(scenario)


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key, ca = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)

    async def scenario() -> None:
        options = {"ssl": True, "ssl_certificate_file": cert, "ssl_key_file": key}
        async with running(client_tls=tls.client_context(ca_file=ca), **options) as http_source:
            assert (await http_source.post([{"a": "x" * 100_000}])).status == 200
        ctx = sdk.Context("logs", "http", kind="source")
        source = http.build(config_of(**{**options, "ssl_key_file": "/nowhere"}), ctx)
        with pytest.raises(sdk.Permanent, match="key file /nowhere cannot be read"):
            await source.run(Output(ctx, 10))

    run(scenario)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "no-slash"}, "path should start with /"),
        ({"path": ""}, "path length should be at least 1"),
        ({"ssl": True}, "ssl_certificate_file cannot be a empty or null when ssl is enabled"),
        ({"ssl": True, "ssl_certificate_file": "a"}, "ssl_key_file cannot be a empty or null when ssl is enabled"),
        (
            {"ssl": True, "ssl_certificate_file": "s3://b/c", "ssl_key_file": "k"},
            "certificates from Amazon S3 are not supported yet",
        ),
        ({"use_acm_certificate_for_ssl": True}, "not supported yet"),
        ({"port": 65536}, "65535"),
        ({"request_timeout": 1}, "2"),
        ({"compression": "lz4"}, "'none', 'gzip', 'snappy', 'zstd' or 'automatic'"),
        ({"prot": 1}, "prot"),
        ({"max_request_length": "10"}, "max_request_length"),
    ],
)
def test_configuration_that_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config_of(**options)
