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

import asyncio
import base64
import hmac
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import orjson

from penstock.core.metrics import Meter, Registry
from penstock.core.units import parse_duration
from penstock.lib.http_server import HttpServer, Limits, Request, Response
from penstock.runtime.prometheus import Labels, MetricsPage

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


class Running(Protocol):
    """What runs pipelines: an engine, or the supervisor of several."""

    drained: asyncio.Event

    @property
    def meters(self) -> Iterable[tuple[str, Labels, Meter]]:
        """All meters in the order of their names, as they were at the last `refresh`."""

    async def refresh(self) -> None:
        """Find out the state as it is now."""

    def names(self) -> Iterable[str]:
        """Names of the pipelines."""

    def not_started(self) -> list[str]:
        """Pipelines whose source does not take data yet."""

    def status(self) -> dict[str, Any]: ...

    def stop(self) -> None: ...


class Admin:
    """Serves the state of what runs and takes the order to shut down."""

    def __init__(self, running: Running, settings: AdminSettings, definitions: list[dict[str, Any]]) -> None:
        self._running = running
        self._settings = settings
        self._definitions = orjson.dumps(definitions, default=str)
        self._page = MetricsPage(running.meters, settings.labels, settings.label_filters, settings.disabled)
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
        names = [{"name": name} for name in self._running.names()]
        return Response(200, orjson.dumps({"pipelines": names}), content_type=_TEXT)

    def _pipelines(self, request: Request) -> Response:
        return Response(200, self._definitions, content_type=_TEXT)

    async def _is_ready(self, request: Request) -> Response:
        await self._running.refresh()
        if not [*self._running.names()]:
            body: dict[str, Any] = {"ready": False, "reason": "no pipelines registered"}
        elif missing := self._running.not_started():
            body = {"ready": False, "reason": f"pipelines not started: [{', '.join(missing)}]"}
        else:
            return Response(200, b'{"ready":true}', content_type="application/json")
        return Response(503, orjson.dumps(body), content_type="application/json")

    async def _metrics(self, request: Request) -> Response:
        await self._running.refresh()
        return Response(200, self._page.render(), content_type=_PROMETHEUS)

    async def _status(self, request: Request) -> Response:
        await self._running.refresh()
        return Response(200, orjson.dumps(self._running.status()), content_type="application/json")

    async def _shutdown(self, request: Request) -> Response:
        try:
            query = {name: parse_duration(values[0]) for name, values in parse_qs(request.query).items() if values}
        except ValueError as error:
            return Response(500, str(error))
        read, drain = query.get("bufferReadTimeout", 0.0), query.get("bufferDrainTimeout")
        if drain is not None and read > drain:
            return Response(500, "Buffer read timeout cannot be greater than buffer drain timeout")
        log.info("Shutdown was asked for")
        self._running.stop()
        await self._running.drained.wait()
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
