"""Takes events by HTTP: each POST holds a JSON array of objects, or what the configured codec reads.

An answer of 200 says that the events are in the buffer, or, with `acknowledgments`, that they were delivered. Every
other answer says that nothing of the request was taken and, by its status, whether to send it again: 408, 429 and 503
later, 400 and 413 never.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, Self

import msgspec
from pydantic import Field, model_validator

from penstock import sdk
from penstock.lib import compression, tls
from penstock.lib.footprint import decoded_bytes
from penstock.lib.http_server import HttpServer, Limits, Request, Response

SHARES_WORK = True
"""Units listen on one port together."""
_REQUEST_BYTES_MAX = 10 * 1024 * 1024
_READING_BYTES = 4 * 1024 * 1024
_BUFFERED_BYTES_MIN = 32 * 1024 * 1024
_INFLATIONS_MAX = 2
_THREAD_BYTES = 256 * 1024
_BUFFER_SHARE = 0.8
"""Part of the request timeout that a request may wait for room; the rest is for its answer to arrive."""

_NOT_AN_ARRAY = "Bad request data format. Needs to be json array."
_BUFFER_FULL = "Timeout waiting for request to be served. This is usually due to the buffer being full."


class Config(sdk.PluginConfig):
    port: Annotated[int, Field(ge=0, le=65535)] = 2021
    """Port to listen on."""
    path: str = "/log/ingest"
    """Path of the endpoint. `${pipelineName}` stands for the name of the pipeline."""
    request_timeout: Annotated[int, Field(ge=2)] = 10_000
    """Longest time a request may take, milliseconds. 80 % of it may be spent waiting for room in the buffer."""
    thread_count: Annotated[int, Field(ge=0)] = 200
    """Requests that may wait for the buffer at once; further ones are pending. No threads are made."""
    max_connection_count: Annotated[int, Field(ge=0)] = 500
    """Open connections; further ones are closed at once."""
    max_pending_requests: Annotated[int, Field(ge=0)] = 1024
    """Requests that may be pending; further ones are answered with 429."""
    ssl: bool = False
    """Serve TLS."""
    ssl_certificate_file: str | None = None
    """Certificate chain in PEM form."""
    ssl_key_file: str | None = None
    """Private key in PEM form."""
    use_acm_certificate_for_ssl: Annotated[bool, sdk.NotYet(False)] = False
    """Take the certificate from AWS Certificate Manager."""
    acm_certificate_arn: str | None = None
    """ARN of that certificate."""
    acm_private_key_password: sdk.Secret | None = None
    """Password for the exported private key."""
    acm_certificate_timeout_millis: Annotated[int, Field(ge=0)] = 120_000
    """Longest wait for the certificate."""
    aws_region: str | None = None
    """Region of certificates in AWS."""
    health_check_service: bool = False
    """Answer `GET /health`."""
    unauthenticated_health_check: bool = False
    """Leave `/health` open where authentication is on."""
    max_request_length: sdk.ByteSize | None = None
    """Largest body, as sent and decompressed; 10mb unless set."""
    authentication: Annotated[sdk.PluginUse | None, sdk.Nested("http_authentication")] = None
    """Who may send."""
    compression: Literal["none", "gzip", "snappy", "zstd", "automatic"] = "none"
    """Compression of the bodies. A `Content-Encoding` header goes first; a body that is plain is taken as it is."""
    codec: Annotated[sdk.PluginUse | None, sdk.Nested("input_codec")] = None
    """Reads the events from a body, instead of the JSON array."""
    metadata_headers: list[str] = Field(default_factory=list)
    """Names of request headers that are kept in the attribute `headers` of the events, in lower case."""
    acknowledgments: bool = False
    """Answer 200 only when every event has been delivered. An addition to the options of Data Prepper."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not self.path:
            raise ValueError("path length should be at least 1")
        if not self.path.startswith("/"):
            raise ValueError("path should start with /")
        if self.ssl:
            if not self.ssl_certificate_file:
                raise ValueError("ssl_certificate_file cannot be a empty or null when ssl is enabled")
            if not self.ssl_key_file:
                raise ValueError("ssl_key_file cannot be a empty or null when ssl is enabled")
            for name in ("ssl_certificate_file", "ssl_key_file"):
                try:
                    tls.check_local(getattr(self, name), name)
                except sdk.ConfigError as error:
                    raise ValueError(str(error)) from None
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.Source:
    if config.compression != "none":
        compression.check(config.compression)
    return HttpSource(config, ctx)


EXAMPLES = [
    sdk.Example("All defaults: JSON arrays to port 2021, path /log/ingest", config="{}"),
    sdk.Example(
        "One path per pipeline, with a password and compressed bodies",
        config="""\
port: 2022
path: /${pipelineName}/logs
compression: gzip
authentication:
  http_basic: {username: ingest, password: secret}
""",
    ),
    sdk.Example(
        "Keep the tenant's header as metadata and answer after delivery",
        config="metadata_headers: [X-Tenant-Id]\nacknowledgments: true",
    ),
]


class HttpSource:
    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._clock = ctx.clock
        self._log = ctx.log
        self._pipeline = ctx.pipeline
        self._target = config.path.replace("${pipelineName}", ctx.pipeline)
        self._target_sent = self._target.encode()
        self._host = ctx.environ.get("PENSTOCK_BIND_HOST", "0.0.0.0")  # noqa: S104 (it is there to be reached)
        self._share_port = ctx.share_port
        self._timeout_s = config.request_timeout / 1000
        self._bytes_max = _REQUEST_BYTES_MAX if config.max_request_length is None else config.max_request_length
        self._allows: Callable[[bytes], bool] | None = (
            ctx.build(config.authentication) if config.authentication else None
        )
        codec: sdk.InputCodec | None = ctx.build(config.codec) if config.codec else None
        self._read = _json_array if codec is None else _reader(codec)
        self._headers = [(name.lower(), name.lower().encode("latin-1")) for name in config.metadata_headers]
        self._inflating = asyncio.Semaphore(_INFLATIONS_MAX)
        self._slots = _Slots(max(1, config.thread_count), config.max_pending_requests)
        self._meters = _Meters(ctx.metrics, lambda: self._server.connections if self._server else 0)
        self._output: sdk.Output | None = None
        self._capacity = 0
        self._server: HttpServer | None = None
        self._stop = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._server.port if self._server is not None else self._config.port

    async def run(self, output: sdk.Output) -> None:
        """Half of the buffer's bytes is for events; bodies that arrive and requests that leave need the other half."""
        self._output = output
        self._capacity = self._capacity or output.bytes_max
        output.set_aside(self._capacity // 2)
        server = self._server = HttpServer(
            self._handle,
            host=self._host,
            port=self._config.port,
            tls=self._tls(),
            share_port=self._share_port,
            limits=Limits(
                body_bytes_max=self._bytes_max,
                connections_max=self._config.max_connection_count,
                requests_max=self._config.max_connection_count + 1,  # the slots decide
                reading_bytes_max=_READING_BYTES,
                buffered_bytes_max=max(_BUFFERED_BYTES_MIN, 2 * self._bytes_max),
                read_timeout_s=self._timeout_s,
            ),
            on_refused=self._meters.refused,
        )
        try:
            await server.start()
        except OSError as error:
            raise sdk.Permanent(f"port {self._config.port} cannot be listened on: {error.strerror}") from error
        if self._allows is None:
            self._log.warning(
                "The http source of pipeline %s takes events from everybody who reaches port %s: "
                "no authentication is configured",
                self._pipeline,
                server.port,
            )
        try:
            output.started()
            await self._stop.wait()
            await server.stop(self._timeout_s)
        finally:
            await server.stop(0)

    async def stop(self) -> None:
        self._stop.set()

    def _tls(self) -> ssl.SSLContext | None:
        config = self._config
        if not config.ssl:
            return None
        assert config.ssl_certificate_file is not None
        assert config.ssl_key_file is not None
        try:
            return tls.server_context(config.ssl_certificate_file, config.ssl_key_file)
        except sdk.ConfigError as error:
            raise sdk.Permanent(str(error)) from error

    def _handle(self, request: Request) -> Response | Awaitable[Response]:
        is_ours = request.target == self._target_sent or request.path == self._target
        is_health = not is_ours and request.path == "/health" and self._config.health_check_service
        allows = None if is_health and self._config.unauthenticated_health_check else self._allows
        if allows is not None and not allows(request.raw_headers.get(b"authorization", b"")):
            return _UNAUTHORIZED
        if is_ours:
            return self._post(request) if request.method == "POST" else _POST_ONLY
        if not is_health:
            return _NOT_FOUND
        return _HEALTHY if request.method in ("GET", "HEAD") else _GET_ONLY

    def _post(self, request: Request) -> Response | Awaitable[Response]:
        """Answer at once where nothing has to be waited for; that is the usual case and makes no task."""
        meters = self._meters
        begin = self._clock.monotonic()
        meters.received.add()
        meters.payload_size.observe(len(request.body))
        if self._slots.full:
            meters.rejected.add()
            return Response(
                429,
                "The number of pending requests in the work queue reaches max_pending_requests:"
                f"{self._config.max_pending_requests}. Please retry later",
                headers={"retry-after": "1"},
            )
        try:
            kind = self._compression(request)
            if kind != "none" and len(request.body) > _THREAD_BYTES:
                return self._wait(request, begin, kind)
            body = request.body
            if kind != "none":
                body = compression.decompress(body, kind, self._bytes_max)
            size = self._memory(body)
            output = self._output
            assert output is not None
            if self._config.acknowledgments or not output.reserve_now(size):
                return self._wait(request, begin, kind)
            batch = self._reserved_batch(request, body, size)
            if output.write_now(batch, size, reserved=True):
                return meters.answered(_OK, begin, self._clock)
            request.free_body()  # while it waits for room its events alone take memory
            return self._wait(request, begin, kind, (batch, size))
        except _REFUSALS as error:
            return meters.answered(self._refusal(error), begin, self._clock)

    async def _wait(
        self, request: Request, begin: float, kind: compression.Kind, ready: tuple[sdk.Batch, int] | None = None
    ) -> Response:
        """The slow way: wait for a slot, for room and for delivery. `ready` are events whose bytes are reserved."""
        try:
            response = await self._write(request, begin, kind, ready)
        except (*_REFUSALS, TimeoutError) as error:
            response = self._refusal(error)
        return self._meters.answered(response, begin, self._clock)

    def _refusal(self, error: Exception) -> Response:
        match error:
            case _Refused():
                return error.response
            case compression.TooLarge():
                return Response(413, f"The request is larger than {self._bytes_max} bytes.")
            case sdk.BufferTooSmall():
                return Response(413, str(error))
            case sdk.BufferFull() | TimeoutError():
                return Response(408, _BUFFER_FULL)
            case _:
                return Response(400, str(error))

    async def _write(
        self, request: Request, begin: float, kind: compression.Kind, ready: tuple[sdk.Batch, int] | None
    ) -> Response:
        output, monotonic = self._output, self._clock.monotonic
        assert output is not None
        room_by = begin + self._timeout_s * _BUFFER_SHARE
        try:
            async with asyncio.timeout(max(0.0, room_by - monotonic())):
                await self._slots.take()
        except BaseException:
            if ready is not None:
                output.give_back(ready[1])
            raise
        try:
            if ready is None:
                ready = await self._events(request, kind, room_by)
            batch, size = ready
            ready = None  # the buffer has them now, and lets them go
            delivered: asyncio.Future[bool] | None = None
            handle: sdk.Handle | None = None
            if self._config.acknowledgments:
                future = delivered = asyncio.get_running_loop().create_future()
                handle = output.handle(lambda ok: None if future.done() else future.set_result(ok))
                batch.promise(handle)
            await output.write(batch, size, max(0.0, room_by - monotonic()), reserved=True)
            del batch
            if handle is None or delivered is None:
                return _OK
            handle.seal()
            try:
                async with asyncio.timeout(max(0.0, begin + self._timeout_s - monotonic())):
                    return _OK if await delivered else _NOT_DELIVERED
            except TimeoutError:
                handle.expire()  # the client will send the events again: what still waits need not be delivered
                return Response(408, "Timeout waiting for the events to be delivered.")
        finally:
            self._slots.give_back()

    async def _events(self, request: Request, kind: compression.Kind, room_by: float) -> tuple[sdk.Batch, int]:
        """The events of the request, once their bytes are reserved: until then it waits as it came."""
        output, monotonic = self._output, self._clock.monotonic
        assert output is not None
        if kind == "none":
            size = self._memory(request.body)
            await output.reserve(size, max(0.0, room_by - monotonic()))
            batch = self._reserved_batch(request, request.body, size)
        else:
            async with self._inflating:
                body = await asyncio.to_thread(compression.decompress, request.body, kind, self._bytes_max)
                size = self._memory(body)
                if output.reserve_now(size):
                    batch = self._reserved_batch(request, body, size)
                    request.free_body()
                    return batch, size
                body = b""
            await output.reserve(size, max(0.0, room_by - monotonic()))
            try:
                body = await asyncio.to_thread(compression.decompress, request.body, kind, self._bytes_max)
            except BaseException:
                output.give_back(size)
                raise
            batch = self._reserved_batch(request, body, size)
        request.free_body()
        return batch, size

    def _memory(self, body: bytes) -> int:
        """What the events of a body will take, bytes; refuses what no buffer of this size can hold."""
        if len(body) > self._capacity:
            raise _Refused(Response(413, f"Buffer capacity too small for a request of {len(body)} bytes."))
        assert self._output is not None
        return min(decoded_bytes(body), self._output.bytes_max)  # one that is alone may take more

    def _reserved_batch(self, request: Request, body: bytes, size: int) -> sdk.Batch:
        """The events of a body whose `size` bytes are reserved; gives them back where there are none to be had."""
        output = self._output
        assert output is not None
        try:
            batch = self._batch(request, body)
            if len(batch) > output.events_max:
                raise _Refused(Response(413, f"Buffer capacity too small for the number of records: {len(batch)}"))
        except BaseException:
            output.give_back(size)
            raise
        return batch

    def _compression(self, request: Request) -> compression.Kind:
        """How this body is compressed. Where the option is `none` no header changes that."""
        configured, body = self._config.compression, request.body
        if configured == "none":
            return "none"
        named = request.raw_headers.get(b"content-encoding")
        if named is not None:
            kind = _ENCODINGS.get(named.lower().strip())
            if kind is None:
                raise _Refused(Response(400, f"Content-Encoding {named.decode('latin-1')} is not supported"))
            return kind
        if configured == "snappy" and body[:1] not in (b"[", b"{"):
            return "snappy"  # a raw block has no magic number
        return compression.detect(body)

    def _batch(self, request: Request, body: bytes) -> sdk.Batch:
        try:
            batch = self._read(body)
        except (ValueError, sdk.EventError) as error:
            raise _Refused(Response(400, str(error) or _NOT_AN_ARRAY)) from None
        origin = batch.origin
        if not origin.received_ms:
            origin.received_ms = self._clock.now_ms()
        if self._headers:
            raw = request.raw_headers
            kept = {name: raw[key].decode("latin-1") for name, key in self._headers if key in raw}
            if kept:
                origin.attributes["headers"] = kept
                for meta in batch.metas:
                    if meta is not None:
                        meta.attributes["headers"] = dict(kept)
        return batch


class _Refused(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


_REFUSALS = (_Refused, compression.TooLarge, compression.Corrupt, sdk.BufferFull, sdk.ConfigError)
"""What ends a request without a fault of ours; a ConfigError means a library for this compression is missing."""


class _Slots:
    """How many requests wait for the buffer, and how many wait for that."""

    def __init__(self, running_max: int, pending_max: int) -> None:
        self._free = asyncio.Semaphore(running_max)
        self._pending = 0
        self._pending_max = pending_max

    @property
    def full(self) -> bool:
        return self._free.locked() and self._pending >= self._pending_max

    async def take(self) -> None:
        self._pending += 1
        try:
            await self._free.acquire()
        finally:
            self._pending -= 1

    def give_back(self) -> None:
        self._free.release()


class _Meters:
    def __init__(self, metrics: sdk.Scope, connections: Callable[[], float]) -> None:
        self.received = metrics.counter("requestsReceived")
        self.succeeded = metrics.counter("successRequests")
        self.bad = metrics.counter("badRequests")
        self.timeouts = metrics.counter("requestTimeouts")
        self.too_large = metrics.counter("requestsTooLarge")
        self.rejected = metrics.counter("requestsRejected")
        self.failed = metrics.counter("internalServerError")
        self.payload_size = metrics.summary("payloadSize")
        self.duration = metrics.timer("requestProcessDuration")
        metrics.counter("requestsOverOptimalSize")
        metrics.counter("requestsOverMaximumSize")
        metrics.gauge("serverConnections", connections)
        self._by_status = {
            200: self.succeeded,
            400: self.bad,
            408: self.timeouts,
            413: self.too_large,
            431: self.bad,
        }

    def answered(self, response: Response, begin: float, clock: sdk.Clock) -> Response:
        """Count an answer and give it back."""
        self._by_status.get(response.status, self.failed).add()
        self.duration.observe(clock.monotonic() - begin)
        return response

    def refused(self, status: int) -> None:
        """Count what the server answered by itself."""
        meter = self.rejected if status == 503 else self.failed if status == 500 else self.bad
        self._by_status.get(status, meter).add()


_decode_objects = msgspec.json.Decoder(list[dict]).decode  # type: ignore[type-arg]  # half as fast with arguments


def _json_array(body: bytes) -> sdk.Batch:
    try:
        return sdk.Batch(_decode_objects(body))
    except (ValueError, RecursionError):
        pass
    # The slower reader takes more: half surrogate pairs, numbers beyond a double. A byte order mark is no content.
    try:
        value = sdk.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        raise ValueError(_NOT_AN_ARRAY) from None
    if type(value) is not list or not all(type(element) is dict for element in value):
        raise ValueError(_NOT_AN_ARRAY)
    return sdk.Batch(value)


def _reader(codec: sdk.InputCodec) -> Callable[[bytes], sdk.Batch]:
    def read(body: bytes) -> sdk.Batch:
        decoder = codec.decoder()
        batches = [batch for batch in (decoder.feed(body), decoder.finish()) if len(batch)]
        if not batches:
            return sdk.Batch([])
        whole = sdk.concat(batches)
        # The codec may share the metadata of its batches between requests.
        return sdk.Batch(whole.bodies, whole.metas, whole.handles, whole.origin.copy())

    return read


_ENCODINGS: dict[bytes, compression.Kind] = {
    b"": "none",
    b"identity": "none",
    b"gzip": "gzip",
    b"x-gzip": "gzip",
    b"zstd": "zstd",
    b"snappy": "snappy",
    b"x-snappy": "snappy",
    b"x-snappy-framed": "snappy",
}
_OK = Response(200, "200 OK")
_NOT_FOUND = Response(404, "404 Not Found")
_POST_ONLY = Response(405, "405 Method Not Allowed", headers={"allow": "POST"})
_GET_ONLY = Response(405, "405 Method Not Allowed", headers={"allow": "GET, HEAD"})
_UNAUTHORIZED = Response(
    401, "401 Unauthorized", headers={"www-authenticate": 'Basic realm="penstock", charset="UTF-8"'}
)
_NOT_DELIVERED = Response(503, "The events could not be delivered. Please retry later.", headers={"retry-after": "1"})
_HEALTHY = Response(200, '{"healthy":true}', content_type="application/json; charset=utf-8")
