"""What decoded events take, against what they really take."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest

from penstock.lib.footprint import decoded_bytes

LINE = '127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326 "-" "Mozilla/5.0 (X11; Linux)"'


@pytest.mark.parametrize(
    "events",
    [
        [{"log": LINE} for _ in range(5000)],
        [{"log": LINE * 80} for _ in range(500)],
        [{f"field{n}": n * i for n in range(50)} for i in range(1000)],
        [{"a": {"b": {"c": [1, 2, {"d": "x"}]}}} for _ in range(5000)],
        [{"values": list(range(1000, 2000))} for _ in range(200)],
    ],
    ids=["lines", "long lines", "numbers", "nested", "lists"],
)
def test_the_estimate_is_near_and_seldom_too_low(events: list[dict[str, Any]]) -> None:
    text = json.dumps(events).encode()
    decode = msgspec.json.Decoder(list[dict]).decode
    tracemalloc.start()
    try:
        decoded = decode(text)
        real = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(decoded) == len(events)
    assert 0.8 * real <= decoded_bytes(text) <= 3 * real


def test_a_short_text_is_counted_whole() -> None:
    assert decoded_bytes(b"[]") == 2
    assert decoded_bytes(b'[{"a":1},{"b":2}]') == 17 + 2 * 200 + 52
