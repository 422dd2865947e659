"""What an error of an AWS call means for the caller."""

from __future__ import annotations

from typing import Any

from penstock.core.errors import PenstockError, Permanent, Transient, Unreachable

THROTTLED = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""Error codes that ask for fewer requests."""
_HEALS = frozenset({401, 403, 408, 429})
"""Client errors that go away without a change of the request: rights are granted, clocks are set, load falls."""
_HEALS_BY_CODE = THROTTLED | {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "RequestTimeout",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}


def code_of(error: BaseException) -> str:
    """The error code of the service, such as `ExpiredIteratorException`; empty when the service did not answer."""
    return str(_reply(error).get("Error", {}).get("Code", "")).rpartition("#")[2]


def status_of(error: BaseException) -> int:
    """The HTTP status of the answer, 0 when there was none."""
    return int(_reply(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def verdict(error: BaseException) -> PenstockError | None:
    """The error as `Unreachable`, `Transient` or `Permanent`; None when it is none of botocore's.

    Missing rights and missing credentials are `Transient`: they are granted while the pipeline waits.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,  # noqa: A004 (botocore's own)
        CredentialRetrievalError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )
    from botocore.parsers import ResponseParserError

    if isinstance(error, ClientError):
        status = status_of(error)
        if status >= 500 or status in _HEALS or code_of(error) in _HEALS_BY_CODE:
            return Transient(str(error))
        return Permanent(str(error))
    if isinstance(error, (ConnectionError, HTTPClientError, TimeoutError, OSError)):
        return Unreachable(str(error) or type(error).__name__)
    if isinstance(error, NoCredentialsError):
        return Transient(
            "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        )
    if isinstance(error, (PartialCredentialsError, CredentialRetrievalError, ResponseParserError)):
        return Transient(str(error))
    if isinstance(error, BotoCoreError):
        return Permanent(str(error))
    return None


def _reply(error: BaseException) -> dict[str, dict[str, Any]]:
    reply = getattr(error, "response", None)
    return reply if isinstance(reply, dict) else {}
