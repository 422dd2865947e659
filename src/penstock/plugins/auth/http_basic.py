"""Basic authentication: clients of a source give a user name and a password."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable

from penstock import sdk


class Config(sdk.PluginConfig):
    username: sdk.NonEmpty[str]
    """User name that clients give."""
    password: sdk.NonEmpty[sdk.Secret]
    """Password that clients give."""


def build(config: Config, ctx: sdk.Context) -> Callable[[bytes], bool]:
    """Whether the value of an `Authorization` header (empty when there is none) opens the door."""
    expected = f"{config.username}:{config.password.get_secret_value()}".encode()

    def allows(authorization: bytes) -> bool:
        scheme, _, credentials = authorization.partition(b" ")
        try:
            given = base64.b64decode(credentials.strip(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        # Compared in constant time, so that the time taken says nothing about the password.
        return hmac.compare_digest(given, expected) and scheme.lower() == b"basic"

    return allows


EXAMPLES = [sdk.Example("A user with a password", config="username: ingest\npassword: secret")]
