"""Log lines to measure with: always the same, no two alike."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

_AGENTS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605",
    "curl/8.7.1",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
]
_VERBS = ["GET"] * 8 + ["POST", "PUT"]
_PATHS = ["/", "/index.html", "/api/v1/items/{n}", "/static/app.{n}.js", "/search?q=penstock&page={n}", "/img/{n}.png"]


def apache(count: int, seed: int = 7) -> list[str]:
    """Combined access log lines."""
    chance = random.Random(seed)
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    lines = []
    for number in range(count):
        moment += timedelta(milliseconds=chance.randrange(200))
        path = chance.choice(_PATHS).format(n=chance.randrange(100_000))
        lines.append(
            f"{chance.randrange(1, 224)}.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)} - "
            f"{chance.choice(['-', 'alice', 'bob'])} [{moment:%d/%b/%Y:%H:%M:%S +0000}] "
            f'"{chance.choice(_VERBS)} {path} HTTP/1.1" {chance.choice([200, 200, 200, 304, 404, 500])} '
            f'{chance.randrange(100, 90_000)} "https://example.com/{number}" "{chance.choice(_AGENTS)}"'
        )
    return lines


def application(count: int, seed: int = 8) -> list[str]:
    """Application log lines, which no access-log pattern matches."""
    chance = random.Random(seed)
    words = ["request", "handled", "cache", "miss", "user", "session", "token", "expired", "retry", "queue", "flush"]
    return [
        f"2026-03-01 12:{chance.randrange(60):02d}:{chance.randrange(60):02d},{chance.randrange(1000):03d} "
        f"{chance.choice(['INFO', 'WARN', 'ERROR'])} [worker-{chance.randrange(16)}] com.example.app.Service: "
        + " ".join(chance.choices(words, k=12))
        for _ in range(count)
    ]
