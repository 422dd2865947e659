"""Clients of AWS services, shared by all plugins of a process that use the same service, region and role."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, Protocol, Self

from penstock.core.errors import Permanent
from penstock.lib.aws.wire import wire_parser_factory

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
CONNECTIONS_MAX = 256
"""Connections of one client; bounds the calls in flight."""


class Access(Protocol):
    """How a plugin reaches AWS: the `aws` options of its configuration."""

    @property
    def region(self) -> str | None: ...
    @property
    def sts_role_arn(self) -> str | None: ...
    @property
    def sts_external_id(self) -> str | None: ...
    @property
    def sts_header_overrides(self) -> Mapping[str, str] | None: ...


SESSION_PREFIX = "penstock"


class Role(NamedTuple):
    """A role to assume; the region is where its session is asked for."""

    region: str | None
    arn: str
    external_id: str | None
    headers: tuple[tuple[str, str], ...]
    session_prefix: str = SESSION_PREFIX
    """The name of the session is this, a hyphen and a UUID: CloudTrail shows it."""


class S3Style(NamedTuple):
    """How a client speaks to S3, where that is not as usual."""

    path_style: bool = False
    """Put the bucket into the path instead of the host name."""
    md5_checksum: bool = False
    """Send no checksums but those the caller gives, for stores that know `Content-MD5` only."""


def role_of(access: Access, session_prefix: str = SESSION_PREFIX) -> Role | None:
    """The role that the options name, None for the credentials of the process itself."""
    if not access.sts_role_arn:
        return None
    headers = tuple(sorted((access.sts_header_overrides or {}).items()))
    return Role(access.region, access.sts_role_arn, access.sts_external_id, headers, session_prefix)


class AwsSessions:
    """The clients of one event loop. Use it as a context manager: the last one out closes everything."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users = 0
        self._open = AsyncExitStack()
        self._sessions: dict[tuple[Role | None, bool], Any] = {}
        self._clients: dict[tuple[str, str | None, Role | None, bool, S3Style], asyncio.Task[Any]] = {}

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._users -= 1
        if self._users == 0:
            if _of_loop.get(self._loop) is self:
                del _of_loop[self._loop]
            await asyncio.gather(*self._clients.values(), return_exceptions=True)
            self._clients.clear()
            await self._open.aclose()

    async def client(
        self,
        service: str,
        access: Access,
        *,
        wire: bool = False,
        s3_style: S3Style | None = None,
        session_prefix: str = SESSION_PREFIX,
    ) -> Any:
        """The client of `service` with the region and role of `access`; never close it.

        It does not retry: the caller knows better how long a call may take. With `wire`, JSON replies come as they are
        on the wire (numbers for times, base64 text for binary), at a fraction of the cost of botocore's own parser.
        `session_prefix` begins the name of the session where a role is assumed.
        """
        key = (service, access.region, role_of(access, session_prefix), wire, s3_style or S3Style())
        made = self._clients.get(key)
        if made is None or (made.done() and (made.cancelled() or made.exception() is not None)):
            made = self._clients[key] = asyncio.ensure_future(self._make_client(*key))
        return await asyncio.shield(made)

    async def credentials(self, access: Access) -> Any:
        """Credentials that refresh themselves; read them with `get_frozen_credentials`."""
        from botocore.exceptions import NoCredentialsError

        credentials = await self._session(role_of(access), wire=False).get_credentials()
        if credentials is None:
            raise NoCredentialsError
        return credentials

    async def _make_client(
        self, service: str, region: str | None, role: Role | None, wire: bool, s3_style: S3Style
    ) -> Any:
        session = self._session(role, wire=wire)
        options: dict[str, Any] = {"region_name": region}
        if s3_style != S3Style():
            options["config"] = _s3_config(s3_style)
        return await self._open.enter_async_context(session.create_client(service, **options))

    def _session(self, role: Role | None, *, wire: bool) -> Any:
        session = self._sessions.get((role, wire))
        if session is None:
            session = _new_session()
            if wire:
                session.register_component("response_parser_factory", wire_parser_factory())
            if role is not None:
                _assume(session, role)
            self._sessions[role, wire] = session
        return session


_of_loop: dict[asyncio.AbstractEventLoop, AwsSessions] = {}


def sessions() -> AwsSessions:
    """The sessions of the running event loop. They live as long as someone has entered them."""
    loop = asyncio.get_running_loop()
    found = _of_loop.get(loop)
    if found is None:
        for closed in [other for other in _of_loop if other.is_closed()]:
            del _of_loop[closed]
        found = _of_loop[loop] = AwsSessions(loop)
    return found


def _new_session() -> Any:
    try:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import AioSession
    except ImportError:
        raise Permanent("AWS access needs further packages: pip install 'penstock[aws]'") from None
    session = AioSession()
    session.set_default_client_config(
        AioConfig(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=CONNECTIONS_MAX,
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
            user_agent_extra="penstock",
        )
    )
    return session


def _s3_config(style: S3Style) -> Any:
    from aiobotocore.config import AioConfig

    options: dict[str, Any] = {}
    if style.path_style:
        options["s3"] = {"addressing_style": "path"}
    if style.md5_checksum:
        options["request_checksum_calculation"] = "when_required"
    return AioConfig(**options)


def _assume(session: Any, role: Role) -> None:
    """Make `session` use the credentials of `role`, taken with those of the process and refreshed before they end."""
    from aiobotocore.credentials import (
        AioAssumeRoleCredentialFetcher,
        AioCredentialResolver,
        AioDeferredRefreshableCredentials,
    )

    source = _new_session()

    def add_headers(params: dict[str, Any], **_event: object) -> None:
        params["headers"].update(role.headers)

    source.register("before-call.sts.AssumeRole", add_headers)

    def sts(service: str, **credentials: str | None) -> Any:
        return source.create_client(service, region_name=role.region, **credentials)

    extra = {"RoleSessionName": f"{role.session_prefix}-{uuid.uuid4()}"}
    if role.external_id:
        extra["ExternalId"] = role.external_id

    class AssumedRole:
        METHOD = "assume-role"
        CANONICAL_NAME = "AssumeRole"

        async def load(self) -> Any:
            from botocore.exceptions import NoCredentialsError

            own = await source.get_credentials()
            if own is None:
                raise NoCredentialsError
            fetcher = AioAssumeRoleCredentialFetcher(sts, own, role.arn, extra_args=extra)
            return AioDeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)

    session.register_component("credential_provider", AioCredentialResolver([AssumedRole()]))
