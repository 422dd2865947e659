"""The best loops one would write by hand for one configuration each: what CPython needs for the work itself.

Each floor takes the bodies of a batch and changes them as the processor of the same title does.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

Bodies = list[dict[str, Any]]
Floor = Callable[[Bodies], None]

_COMBINED = re.compile(
    r"(\S+) (\S+) (\S+) \[([^\]]+)\] "
    r'"(?:(\w+) (\S+)(?: HTTP/([\d.]+))?|([^"]*))" '
    r'(\d+) (?:(\d+)|-) ("[^"\\]*(?:\\.[^"\\]*)*") ("[^"\\]*(?:\\.[^"\\]*)*")',
    re.ASCII,
)
_COMBINED_NAMES = (
    *("clientip", "ident", "auth", "timestamp", "verb", "request", "httpversion", "rawrequest"),
    *("response", "bytes", "referrer", "agent"),
)
_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr)}
_DISSECT = re.compile(r"(.*?) (.*?) +\[(.*?)\] (.*)", re.DOTALL)


def grok(bodies: Bodies) -> None:
    match = _COMBINED.match
    for body in bodies:
        found = match(body["log"])
        if found is not None:
            body.update(zip(_COMBINED_NAMES, found.groups(), strict=True))


def date(bodies: Bodies) -> None:
    """`12/Mar/2026:10:20:30 +0000` to ISO 8601; seconds are remembered, as neighbours mostly share them."""
    known: dict[str, str] = {}
    for body in bodies:
        text = body["time"]
        written = known.get(text)
        if written is None:
            moment = datetime(
                *(int(text[7:11]), _MONTHS[text[3:6]], int(text[:2])),
                *(int(text[12:14]), int(text[15:17]), int(text[18:20])),
                tzinfo=UTC,
            )
            assert text[20:] == " +0000"
            written = known[text] = moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        body["@timestamp"] = written


def key_value(bodies: Bodies) -> None:
    for body in bodies:
        pairs: dict[str, Any] = {}
        for part in body["message"].split("&"):
            key, sign, value = part.partition("=")
            if key in pairs:
                known = pairs[key]
                pairs[key] = [*known, value] if type(known) is list else [known, value]
            else:
                pairs[key] = value if sign else None
        body["parsed_message"] = pairs


def csv(bodies: Bodies) -> None:
    names = ("time", "level", "took", "text")
    for body in bodies:
        text = body["message"]
        assert '"' not in text and "\n" not in text
        body.update(zip(names, text.split(","), strict=True))


def dissect(bodies: Bodies) -> None:
    match = _DISSECT.match
    for body in bodies:
        found = match(body["message"])
        if found is not None:
            body["date"], body["level"], _, body["text"] = found.groups()


def user_agent(bodies: Bodies) -> None:
    """Agents come again and again: a remembered result, copied for each event."""
    known: dict[str, dict[str, Any]] = {}
    for body in bodies:
        text = body["agent"]
        result = known.get(text)
        if result is None:
            result = known[text] = {"name": text[:7], "version": "1", "os": {"name": "x"}, "device": {"name": "Other"}}
        body["user_agent"] = {**result, "os": result["os"].copy(), "device": result["device"].copy(), "original": text}


def parse_json(bodies: Bodies) -> None:
    decode = msgspec.json.Decoder(dict).decode
    for body in bodies:
        body.update(decode(body["message"]))


FLOORS: dict[str, Floor] = {
    "grok": grok,
    "date": date,
    "key_value": key_value,
    "csv": csv,
    "dissect": dissect,
    "user_agent": user_agent,
    "parse_json": parse_json,
}
