"""How much memory the events of a text will take, told from a sample of it."""

from __future__ import annotations

_SAMPLE_BYTES = 4096
_OBJECT_BYTES = 200
"""What an object takes beside its entries."""
_VALUE_BYTES = 52
"""What a value takes beside its text: its place in the object or list and its own head."""


def decoded_bytes(text: bytes) -> int:
    """About what the objects take that JSON `text` is decoded into; more for values that are short.

    Long texts are judged by two stretches of them. Other formats have commas as well, so that it will do for them.
    """
    size = len(text)
    if size <= 2 * _SAMPLE_BYTES:
        return size + _OBJECT_BYTES * text.count(b"{") + _VALUE_BYTES * text.count(b",")
    middle = size // 2
    sample = text[:_SAMPLE_BYTES] + text[middle : middle + _SAMPLE_BYTES]
    extra = _OBJECT_BYTES * sample.count(b"{") + _VALUE_BYTES * sample.count(b",")
    return size + extra * size // len(sample)
