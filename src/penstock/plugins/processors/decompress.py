"""Decompresses fields that hold compressed data in base64, and writes the text under the same key.

Bytes that are no UTF-8 become U+FFFD. What inflates to more than 16 MiB, or beyond 1 MiB to more than 100 times its
size, is refused: the key fails. A key that fails keeps its value, the event gets the tags, and the other keys go on.
"""

from __future__ import annotations

import binascii
from typing import Any, Literal

from pydantic import Field

from penstock import sdk
from penstock.lib.compression import Corrupt, TooLarge, decompress
from penstock.lib.java_values import java_text

TEXT_BYTES_MAX = 16 * 1024 * 1024
UNSUSPICIOUS_BYTES = 1024 * 1024
RATIO_MAX = 100


class Config(sdk.PluginConfig):
    keys: sdk.NonEmpty[list[sdk.Key]]
    """Fields to decompress. Those that an event lacks are left out."""
    type: Literal["gzip"]
    """How the data is compressed."""
    tags_on_failure: list[str] = Field(default=["_decompression_failure"])
    """Tags for events of which a field cannot be decompressed."""
    decompress_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    when, keys = config.decompress_when, [(key, key.get, key.put) for key in config.keys]
    fail = ctx.failure(config.tags_on_failure)

    def inflate(batch: sdk.Batch) -> sdk.Batch:
        for index, body in enumerate(batch.bodies):
            try:
                if when is not None and not when.test(body, batch.peek(index)):
                    continue
            except sdk.EventError as error:
                fail(batch, index, error)
                continue
            for key, get, put in keys:
                value = get(body)
                if value is None or value is sdk.MISSING:
                    continue
                try:
                    put(body, _text(value, key))
                except sdk.EventError as error:
                    fail(batch, index, error)
        return batch

    return inflate


def _text(value: Any, key: object) -> str:
    if isinstance(value, dict | list):
        raise sdk.EventError(f"{key} is no text", cause="type")
    text = value if type(value) is str else java_text(value)
    try:
        data = binascii.a2b_base64((text + "=" * (-len(text) % 4)).encode(), strict_mode=True)
    except ValueError as error:
        raise sdk.EventError(f"{key} is no base64: {error}", cause="decode") from None
    try:
        inflated = decompress(data, "gzip", min(TEXT_BYTES_MAX, max(UNSUSPICIOUS_BYTES, RATIO_MAX * len(data))))
    except Corrupt as error:
        raise sdk.EventError(f"{key}: {error}", cause="corrupt") from None
    except TooLarge as error:
        raise sdk.EventError(f"{key}: {error}", cause="too_large") from None
    return inflated.decode("utf-8", "replace")


EXAMPLES = [
    sdk.Example(
        "Inflate a text",
        config="{keys: [log], type: gzip}",
        before=[{"log": "H4sIAAAAAAAAA8tIzcnJBwCGphA2BQAAAA=="}, {"log": "plain"}],
        after=[{"log": "hello"}, {"log": "plain"}],
        tags=[[], ["_decompression_failure"]],
    ),
]
