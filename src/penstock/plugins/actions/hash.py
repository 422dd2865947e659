"""Replaces what is to be hidden by its salted SHA-512 digest in base64, so that equal texts stay equal.

A salt keeps digests from being looked up in tables. Without one a random salt is made at start: digests then differ
between restarts and between units.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b64encode
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from penstock import sdk
from penstock.lib.java_values import java_text
from penstock.lib.regex import interruptible

SALT_BYTES = 64


def _sized(value: str) -> str:
    if len(value) < 16:
        raise ValueError("Minimum size of salt string is 16.")
    if len(value) > 64:
        raise ValueError("Maximum size of salt string is 64")
    return value


def _known(value: Any) -> Any:
    if value != "SHA-512":
        raise ValueError("Valid values: `SHA-512`")
    return value


class Config(sdk.PluginConfig):
    salt: Annotated[str, AfterValidator(_sized)] | None = None
    """Text of 16 to 64 characters that enters every digest."""
    salt_key: sdk.ReadKey | None = None
    """Field whose value is the salt of its event; events without it take the other salt."""
    format: Annotated[Literal["SHA-512"], BeforeValidator(_known)] = "SHA-512"
    """Kind of digest."""


def build(config: Config, ctx: sdk.Context) -> Callable[[re.Pattern[str] | None], Callable[[str, sdk.Body], str]]:
    """What is built takes a pattern and gives a function that hides its matches; without one it hides all the text."""
    fixed = secrets.token_bytes(SALT_BYTES) if config.salt is None else config.salt.encode()
    salted_by = hashlib.sha512(fixed)
    salt_key = config.salt_key

    @interruptible
    def replace(pattern: re.Pattern[str], start: Any, text: str) -> str:
        return pattern.sub(lambda found: _digest(start, found[0]), text)

    def compile_hash(pattern: re.Pattern[str] | None) -> Callable[[str, sdk.Body], str]:
        def hide(text: str, body: sdk.Body) -> str:
            start = salted_by if salt_key is None else _salted_by_event(salt_key.get(body)) or salted_by
            return _digest(start, text) if pattern is None else replace(pattern, start, text)

        return hide

    return compile_hash


def _salted_by_event(value: Any) -> Any:
    """A digest begun with the value of an event, cut or filled up to 64 bytes; None where there is no value."""
    if value is None or value is sdk.MISSING:
        return None
    if isinstance(value, dict | list):
        raise sdk.EventError("the salt is no text", cause="salt")
    salt = (value if type(value) is str else java_text(value)).encode(errors="replace")[:SALT_BYTES]
    return hashlib.sha512(salt.ljust(SALT_BYTES, b"\x80"))


def _digest(start: Any, text: str) -> str:
    digest = start.copy()
    digest.update(text.encode(errors="replace"))
    return b64encode(digest.digest()).decode()


EXAMPLES = [sdk.Example("A salt of one's own", config="salt: correct-horse-battery-staple")]
