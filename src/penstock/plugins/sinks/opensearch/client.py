"""The way to the servers: addresses, credentials, signatures, compression, and the time limits of a request."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from penstock import sdk
from penstock.lib.aws import Signer, signer
from penstock.lib.compression import gzip_joined
from penstock.lib.http_client import HttpClient
from penstock.lib.tls import client_context
from penstock.plugins.sinks.opensearch.options import Authentication, Config
from penstock.plugins.sinks.opensearch.reply import FILTER_PATH

HOSTS_VARIABLE = "PENSTOCK_OPENSEARCH_HOSTS"
"""Environment variable whose comma-separated addresses replace `hosts`."""
ANSWER_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
_THREAD_BYTES = 256 * 1024
_JSON = {"Content-Type": "application/json"}
_BULK = {"Content-Type": "application/x-ndjson"}
_BULK_GZIP = {**_BULK, "Content-Encoding": "gzip"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever its status."""

    status: int
    body: bytes
    retry_after_s: float | None = None
    plain_bytes: int = 0
    """Size of the request before compression."""
    sent_bytes: int = 0

    def json(self) -> dict[str, Any]:
        """The body. Raises `Transient` where it is no JSON object: something between answered."""
        try:
            document = sdk.decode(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise sdk.Transient(f"the answer is no JSON object: {self.body[:200]!r}")
        return document


class Cluster:
    """Sends requests. Opened by `start`, closed by `close`."""

    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._log = ctx.log
        self._clock = ctx.clock
        self._hosts = config.hosts
        replaced = [host.strip() for host in ctx.environ.get(HOSTS_VARIABLE, "").split(",") if host.strip()]
        if replaced:
            self._log.warning(
                "%s is set: pipeline %s writes to %s instead of the configured hosts",
                HOSTS_VARIABLE,
                ctx.pipeline,
                ", ".join(replaced),
            )
            self._hosts = replaced
        self._prefix = "/" + config.path_prefix.strip("/") if config.path_prefix else ""
        self._compresses = config.compresses
        self._bulk_query = urlencode({"filter_path": FILTER_PATH}, safe="*,")
        self._http: HttpClient | None = None
        self._signer: Signer | None = None
        self._left: dict[HttpClient, Signer | None] = {}
        """Clients before `renew` that still wait for answers."""
        self._connecting = asyncio.Lock()

    async def start(self) -> None:
        """Read certificates and make the client, if there is none. Raises `Permanent` where they cannot be used."""
        async with self._connecting:
            if self._http is None:  # one that is there knows which hosts are down
                self._http, self._signer = await self._connect(self._config)

    async def renew(self, config: Config) -> None:
        """Send with other credentials from now on. Requests under way end with those they were sent with.

        Returns once these have ended. Raises `Permanent` where the credentials cannot be used: nothing has changed.
        """
        async with self._connecting:
            before, signing = self._http, self._signer
            new, new_signing = await self._connect(config)
            self._config = config
            if before is None or self._http is not before:  # not started yet, or closed meanwhile
                await _close(new, new_signing)
                return
            self._http, self._signer = new, new_signing
            self._left[before] = signing
        await before.idle()
        if before in self._left:
            del self._left[before]
            await _close(before, signing)

    async def _connect(self, config: Config) -> tuple[HttpClient, Signer | None]:
        signing = config.signing
        try:
            tls = await asyncio.to_thread(tls_context, config)
            sign = None
            if signing is not None:
                sign = signer("aoss" if signing.serverless else "es", signing.region, signing)
            http = HttpClient(
                self._hosts,
                headers=_credentials(config) if signing is None else None,
                username=_username(config) if signing is None else None,
                password=_password(config) if signing is None else None,
                tls=tls,
                proxy=config.proxy,
                sign=sign,
                timeout_s=(config.socket_timeout or ANSWER_TIMEOUT_S * 1000) / 1000,
                connect_timeout_s=(config.connect_timeout or CONNECT_TIMEOUT_S * 1000) / 1000,
            )
        except sdk.ConfigError as error:
            raise sdk.Permanent(str(error)) from error
        return http, sign

    async def close(self) -> None:
        clients = self._left
        if self._http is not None:
            clients[self._http] = self._signer
        self._http, self._signer, self._left = None, None, {}
        for http, signing in clients.items():
            await _close(http, signing)

    async def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: dict[str, Any] | None = None,
    ) -> Reply:
        """A call with a JSON body or none. `path` is quoted already. Raises `Unreachable` when no host answers."""
        if params:
            path += "?" + urlencode(params, safe="*,")
        data, headers = (None, None) if body is None else (sdk.encode(body), _JSON)
        others = len(self._hosts) - 1
        while True:
            try:
                reply = await self._client.request(method, self._prefix + path, data, headers)
            except sdk.Unreachable:
                if others == 0:
                    raise
                others -= 1
            else:
                return Reply(reply.status, reply.body, self._retry_after_s(reply.headers))

    async def bulk(self, data: Sequence[bytes], *, require_alias: bool = False) -> Reply:
        """Send the operations as one request. Raises `Unreachable`."""
        texts = sdk.texts_of(data)
        plain_bytes = sent_bytes = sum(map(len, texts))
        body: Sequence[bytes] | bytes
        if not self._compresses:
            headers, body = _BULK, texts
        else:
            headers = _BULK_GZIP
            if plain_bytes > _THREAD_BYTES:
                body = await asyncio.to_thread(gzip_joined, texts, plain_bytes)
            else:
                body = gzip_joined(texts, plain_bytes)
            sent_bytes = len(body)
        path = "/_bulk"
        if self._config.is_es6:  # needs a document type, and takes it from the path
            path = f"/{quote(_index_of(texts[0]), safe='')}/_doc/_bulk"
        query = f"{self._bulk_query}&require_alias=true" if require_alias else self._bulk_query
        reply = await self._client.request("POST", f"{self._prefix}{path}?{query}", body, headers)
        return Reply(reply.status, reply.body, self._retry_after_s(reply.headers), plain_bytes, sent_bytes)

    @property
    def _client(self) -> HttpClient:
        if self._http is None:
            raise sdk.Unreachable("the sink is not started")
        return self._http

    def _retry_after_s(self, headers: Mapping[str, str]) -> float | None:
        text = headers.get("Retry-After")
        if not text:
            return None
        try:
            return max(0.0, float(text))
        except ValueError:
            pass
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        now = datetime.fromtimestamp(self._clock.now_ns() / 1e9, UTC)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


async def _close(http: HttpClient, signing: Signer | None) -> None:
    await http.close()
    if signing is not None:
        await signing.close()


def _index_of(item: bytes) -> str:
    ((_, target),) = sdk.decode(item.partition(b"\n")[0]).items()
    return str(target["_index"])


def basic_credentials(config: Config) -> tuple[str | None, str | None]:
    """User name and password."""
    return _username(config), _password(config)


def _username(config: Config) -> str | None:
    return config.authentication.username if config.authentication is not None else config.username


def _password(config: Config) -> str | None:
    secret = config.authentication.password if config.authentication is not None else config.password
    return None if secret is None else secret.get_secret_value()


def _credentials(config: Config) -> dict[str, str] | None:
    token = config.authentication.api_token if config.authentication is not None else config.api_token
    return None if token is None else {"Authorization": f"bearer {token.get_secret_value()}"}


def tls_context(config: Config) -> ssl.SSLContext | None:
    """How servers and this client prove who they are; None: in the usual way. Reads files."""
    auth = config.authentication
    if auth is not None and auth.client_certificate is not None:
        return _with_client_certificate(config, auth)
    if not config.insecure and config.cert is None:
        return None
    return client_context(ca_file=None if config.insecure else config.cert, insecure=config.insecure)


def _with_client_certificate(config: Config, auth: Authentication) -> ssl.SSLContext:
    assert auth.client_certificate is not None and auth.client_key is not None, "the options check both are there"
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        paths = []
        for name, value in (
            ("certificate", auth.client_certificate),
            ("key", auth.client_key.get_secret_value()),
        ):
            path = Path(value)
            if "-----BEGIN" in value:  # the standard library takes PEM text from files only
                path = Path(folder) / f"{name}.pem"
                path.touch(0o600)
                path.write_text(value)
            paths.append(str(path))
        return client_context(
            ca_file=None if config.insecure else config.cert,
            cert_file=paths[0],
            key_file=paths[1],
            insecure=config.insecure,
        )
