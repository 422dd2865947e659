"""Events as lines of JSON, for sinks that write text."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.batch import Batch
from penstock.core.event import compile_document
from penstock.core.json_text import encode


def compile_lines(tags_target_key: str | None = None) -> Callable[[Batch], bytes]:
    """A function that gives one line for each event of a batch, with its tags where a key for them is named.

    It raises EventError for an event that cannot be written as JSON.
    """
    if tags_target_key is None:

        def lines(batch: Batch) -> bytes:
            return b"".join([encode(body) + b"\n" for body in batch.bodies])

        return lines

    document = compile_document(tags_target_key=tags_target_key)

    def lines_with_tags(batch: Batch) -> bytes:
        metas, origin = batch.metas, batch.origin
        return b"".join(
            [encode(document(body, metas[place] or origin)) + b"\n" for place, body in enumerate(batch.bodies)]
        )

    return lines_with_tags
