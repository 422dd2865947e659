"""SigV4 signatures for requests that another HTTP client sends: OpenSearch domains (`es`) and collections (`aoss`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from penstock.core.errors import Permanent
from penstock.lib.aws.errors import verdict
from penstock.lib.aws.sessions import Access, AwsSessions, sessions


class Signer:
    """Call it for each request, close it at the end. Nothing is opened before the first call."""

    def __init__(self, service: str, region: str | None, access: Access) -> None:
        self._service = service
        self._region = region or access.region
        self._access = access
        self._sessions: AwsSessions | None = None
        self._credentials: Any = None

    async def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> dict[str, str]:
        """All headers to send, `headers` included. The request must go out with exactly these, `url` and `body`.

        Raises `Transient` while there are no credentials or the role cannot be assumed.
        """
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        frozen = await self._frozen_credentials()
        request = AWSRequest(
            method=method,
            url=url,
            data=body,
            # Collections insist on this header; botocore signs it as given and does not hash the body again.
            headers={**headers, "X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest()},
        )
        SigV4Auth(frozen, self._service, self._region).add_auth(request)
        return dict(request.headers.items())

    async def close(self) -> None:
        """Give the shared session back. Calling it twice is fine; a later call opens it again."""
        held, self._sessions, self._credentials = self._sessions, None, None
        if held is not None:
            await held.__aexit__()

    async def _frozen_credentials(self) -> Any:
        if self._region is None:
            raise Permanent("requests cannot be signed without a region: set aws.region")
        if self._sessions is None:
            self._sessions = await sessions().__aenter__()
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if self._credentials is None:
                self._credentials = await self._sessions.credentials(self._access)
            return await self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise verdict(error) or error from error


def signer(service: str, region: str | None, access: Access) -> Signer:
    """A signer for `service` with the role of `access`; `region` overrides that of the options."""
    return Signer(service, region, access)
