"""The admin endpoints of a process. Source: `admin` in docs/behaviour.md.

| path | methods | reply |
| --- | --- | --- |
| `/list` | GET, POST | names of the pipelines |
| `/pipelines` | GET | their definitions, secrets unresolved |
| `/shutdown` | POST | drains, then 200; `bufferReadTimeout` and `bufferDrainTimeout` as in Data Prepper |
| `/ready` | GET | 200 when every source has started, else 503 with the reason |
| `/metrics/prometheus`, `/metrics/sys` | GET, POST | all meters |
| `/status` | GET | state of pipelines and sinks (ours) |
"""

from __future__ import annotations

import base64
import hmac
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson

from penstock.core.metrics import Registry
from penstock.core.units import parse_duration
from penstock.lib.http_server import HttpServer, Limits, Request, Response
from penstock.runtime.engine import Engine
from penstock.runtime.prometheus import MetricsPage

log = logging.getLogger(__name__)

_TEXT = "text/plain; charset=UTF-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_NOT_FOUND = Response(404)
_METHOD_NOT_ALLOWED = Response(405)
_UNAUTHORIZED = Response(401, headers={"www-authenticate": 'Basic realm="core"'})


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """Where and how the admin endpoints are served."""

    host: str = "127.0.0.1"
    port: int = 4900
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = None
    labels: tuple[tuple[str, str], ...] = (("serviceName", "dataprepper"),)
    """Labels of every meter."""
    label_filters: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    """Ant-style patterns of meter names, and the labels such meters have instead; the first match decides."""
    disabled: tuple[str, ...] = ()
    """Ant-style patterns of meters that are not shown."""
    prometheus: bool = True


class Admin:
    """Serves the state of an engine and takes the order to shut down."""

    def __init__(self, engine: Engine, settings: AdminSettings, definitions: list[dict[str, Any]]) -> None:
        self._engine = engine
        self._settings = settings
        self._definitions = orjson.dumps(definitions, default=str)
        self._page = MetricsPage(engine.registry, settings.labels, settings.label_filters, settings.disabled)
        self._authorization = b""
        if settings.username is not None:
            pair = f"{settings.username}:{settings.password or ''}".encode()
            self._authorization = b"Basic " + base64.b64encode(pair)
        self._routes: list[tuple[str, tuple[str, ...], Callable[[Request], Response | Awaitable[Response]]]] = [
            ("/list", ("GET", "POST"), self._list),
            ("/pipelines", ("GET",), self._pipelines),
            ("/shutdown", ("POST",), self._shutdown),
            ("/ready", ("GET",), self._is_ready),
            ("/status", ("GET",), self._status),
        ]
        if settings.prometheus:
            self._routes += [
                ("/metrics/prometheus", ("GET", "POST"), self._metrics),
                ("/metrics/sys", ("GET", "POST"), self._metrics),
            ]
        limits = Limits(body_bytes_max=64 * 1024, connections_max=100)
        self._server = HttpServer(self._handle, host=settings.host, port=settings.port, tls=settings.tls, limits=limits)
        process_meters(engine.registry)

    @property
    def port(self) -> int:
        """Port that is listened on, once started."""
        return self._server.port

    async def start(self) -> None:
        """Listen. Raises `OSError` when the port cannot be had."""
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(grace_s=2.0)

    def _handle(self, request: Request) -> Response | Awaitable[Response]:
        if self._authorization and not hmac.compare_digest(
            request.raw_headers.get(b"authorization", b""), self._authorization
        ):
            return _UNAUTHORIZED
        path = request.path
        for route, methods, answer in self._routes:
            if path == route or path.startswith(route + "/"):
                return answer(request) if request.method in methods else _METHOD_NOT_ALLOWED
        return _NOT_FOUND

    def _list(self, request: Request) -> Response:
        names = [{"name": name} for name in self._engine.pipelines]
        return Response(200, orjson.dumps({"pipelines": names}), content_type=_TEXT)

    def _pipelines(self, request: Request) -> Response:
        return Response(200, self._definitions, content_type=_TEXT)

    def _is_ready(self, request: Request) -> Response:
        if not self._engine.pipelines:
            body: dict[str, Any] = {"ready": False, "reason": "no pipelines registered"}
        elif missing := self._engine.not_started():
            body = {"ready": False, "reason": f"pipelines not started: [{', '.join(missing)}]"}
        else:
            return Response(200, b'{"ready":true}', content_type="application/json")
        return Response(503, orjson.dumps(body), content_type="application/json")

    def _metrics(self, request: Request) -> Response:
        return Response(200, self._page.render(), content_type=_PROMETHEUS)

    def _status(self, request: Request) -> Response:
        return Response(200, orjson.dumps(self._engine.status()), content_type="application/json")

    async def _shutdown(self, request: Request) -> Response:
        try:
            query = {name: parse_duration(values[0]) for name, values in parse_qs(request.query).items() if values}
        except ValueError as error:
            return Response(500, str(error))
        read, drain = query.get("bufferReadTimeout", 0.0), query.get("bufferDrainTimeout")
        if drain is not None and read > drain:
            return Response(500, "Buffer read timeout cannot be greater than buffer drain timeout")
        log.info("Shutdown was asked for")
        self._engine.stop()
        await self._engine.drained.wait()
        return Response(200)


def process_meters(registry: Registry) -> None:
    """Meters of the process itself, under the names that the usual dashboards know."""
    import resource

    started = time.time()
    scope = registry.scope("process")
    scope.gauge("uptime.seconds", lambda: time.time() - started)
    scope.gauge("start.time.seconds", lambda: started)
    scope.gauge("cpu.seconds.total", time.process_time)
    scope.gauge("resident.memory.max.bytes", lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0)
