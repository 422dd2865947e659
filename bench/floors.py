"""The best loops one would write by hand for one configuration each: what CPython needs for the work itself.

A floor takes the bodies of a batch and changes them exactly as the processor of the same title does, which a test
checks on the lines that are measured. It knows its configuration and what its events look like; no condition, no
failure, no delivery promise and no other configuration costs it anything.
"""

from __future__ import annotations

import calendar
import csv as csv_module
import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Network, ip_address
from time import monotonic
from typing import Any
from xml.etree import ElementTree

import msgspec
import orjson
from isal import igzip

Bodies = list[dict[str, Any]]
Floor = Callable[[Bodies], None]


def add_text(bodies: Bodies) -> None:
    for body in bodies:
        body["name"] = f"{body['path']}-{body['status']}"


class MergeGroups:
    """The events of a user become one, which comes out at the end.

    A group knows its bytes, as memory has a limit, and what it promised: which requests wait for it, and for how many
    of their events. An event without JSON text could not be weighed and would go on.
    """

    def __init__(self) -> None:
        self._groups: dict[str, tuple[dict[str, Any], dict[object, int]]] = {}
        self._bytes: dict[str, int] = {}

    def __call__(self, bodies: Bodies) -> None:
        groups, bytes_of, dumps, request = self._groups, self._bytes, orjson.dumps, object()
        rest = []
        for body in bodies:
            user = body["user"]
            try:
                size = len(dumps(body))
            except TypeError:
                rest.append(body)
                continue
            if user in groups:
                merged, promised = groups[user]
                merged.update(body)
                promised[request] = promised.get(request, 0) + 1
                bytes_of[user] += size
            else:
                groups[user] = body, {request: 1}
                bytes_of[user] = size
        bodies[:] = rest

    def drain(self) -> Bodies:
        return [merged for merged, _ in self._groups.values()]


class FirstOfGroup:
    """The first event of a user goes on; three minutes later the next one may.

    Metadata and promise of an event are beside it, so it is their places that are kept or have ended.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def __call__(self, bodies: Bodies) -> None:
        due, now = self._due, monotonic()
        while due and next(iter(due.values())) <= now:
            del due[next(iter(due))]
        first, ended = [], []
        for place, body in enumerate(bodies):
            user = body["user"]
            if user in due:
                ended.append(place)
            else:
                due[user] = now + 180
                first.append(place)
        bodies[:] = [bodies[place] for place in first]


def convert_type(bodies: Bodies) -> None:
    for body in bodies:
        text = body.get("bytes")
        if type(text) is str and text.isdecimal():
            body["bytes"] = int(text)


def copy_values(bodies: Bodies) -> None:
    for body in bodies:
        if "status" in body and "copy" not in body:
            body["copy"] = body["status"]


def csv(bodies: Bodies) -> None:
    names = ("time", "level", "took", "text")
    for body in bodies:
        text = body["message"]
        values = text.split(",") if '"' not in text else next(csv_module.reader([text]))
        body.update(zip(names, values, strict=True))


_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr)}


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
            if text[20:] != " +0000":
                hours = timedelta(hours=int(text[22:24]), minutes=int(text[24:]))
                moment = moment + hours if text[21] == "-" else moment - hours
            written = known[text] = moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        body["@timestamp"] = written


def decompress(bodies: Bodies) -> None:
    inflate = igzip.decompress
    for body in bodies:
        body["log"] = inflate(b64decode(body["log"])).decode()


_SECRET_NAME = re.compile("sec.*")


def delete_by_regex(bodies: Bodies) -> None:
    """Names come again and again: what the pattern says of each is remembered."""
    known: dict[str, bool] = {}
    for body in bodies:
        gone = []
        for name in body:
            matches = known.get(name)
            if matches is None:
                matches = known[name] = _SECRET_NAME.fullmatch(name) is not None
            if matches:
                gone.append(name)
        for name in gone:
            del body[name]


def detect_format(bodies: Bodies) -> None:
    for body in bodies:
        text = body["message"].strip()
        if text.startswith("{") and text.endswith("}"):
            body["format"] = "json"
        elif text.startswith("<") and text.endswith(">"):
            body["format"] = "xml"
        else:
            lines = text.splitlines()[:10]
            commas = [line.count(",") for line in lines]
            if len(lines) > 1 and commas[1:].count(commas[0]) >= len(lines) // 2:
                body["format"] = "csv"
            else:
                line = lines[0]
                for separator in " ,&":
                    first, _, rest = line.partition(separator)
                    if "=" in first and rest:
                        body["format"] = "keyvalue"
                        break


_DISSECT = re.compile(r"(.*?) (.*?) +\[(.*?)\] (.*)", re.DOTALL)


def dissect(bodies: Bodies) -> None:
    match = _DISSECT.match
    for body in bodies:
        found = match(body["message"])
        if found is not None:
            body["date"], body["level"], _, body["text"] = found.groups()


def filter_list(bodies: Bodies) -> None:
    for body in bodies:
        body["kept"] = [{**item} for item in body["list"] if item["v"] > 1]


def flatten(bodies: Bodies) -> None:
    def add(value: Any, name: str, flat: dict[str, Any]) -> None:
        kind = type(value)
        if kind is dict and value:
            for key, item in value.items():
                add(item, f"{name}.{key}" if name else key, flat)
        elif kind is list and value:
            for place, item in enumerate(value):
                add(item, f"{name}[{place}]", flat)
        else:
            flat[name] = kind() if kind is dict or kind is list else value

    for body in bodies:
        flat: dict[str, Any] = {}
        add(body["http"], "", flat)
        body["flat"] = flat


_PRIVATE = [IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8")]


def compile_geoip(reader: Any) -> Floor:
    """Country, city and place of an address; those of the last 4096 addresses are remembered."""

    @lru_cache(4096)
    def find(text: str) -> dict[str, Any]:
        address = ip_address(text)
        if any(address in network for network in _PRIVATE):
            return {}
        record = reader.get(address)
        if not record:
            return {}
        location = record["location"]
        return {
            "country_name": record["country"]["names"]["en"],
            "city_name": record["city"]["names"]["en"],
            "location": {"lat": location["latitude"], "lon": location["longitude"]},
        }

    def look_up(bodies: Bodies) -> None:
        for body in bodies:
            found = find(body["ip"])
            if found:
                body["geo"] = {**found, "location": {**found["location"]}}

    return look_up


_COMBINED = re.compile(
    r"(\S+) (\S+) (\S+) \[([^\]]+)\] "
    r'"(?:(\w+) (\S+)(?: HTTP/([\d.]+))?|([^"]*))" '
    r'(\d+) (?:(\d+)|-) "([^"\\]*(?:\\.[^"\\]*)*)" "([^"\\]*(?:\\.[^"\\]*)*)"',
    re.ASCII,
)
_COMBINED_NAMES = (
    *("clientip", "ident", "auth", "timestamp", "verb", "request", "httpversion", "rawrequest"),
    *("response", "bytes", "referrer", "agent"),
)


def grok(bodies: Bodies) -> None:
    match = _COMBINED.match
    for body in bodies:
        found = match(body["log"])
        if found is not None:
            for name, value in zip(_COMBINED_NAMES, found.groups(), strict=True):
                if value is not None:
                    body[name] = value


def hash_field(bodies: Bodies) -> None:
    salted = hashlib.sha512(b"correct-horse-battery-staple")
    for body in bodies:
        digest = salted.copy()
        digest.update(body["user"].encode())
        body["user"] = b64encode(digest.digest()).decode()


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


def list_to_map(bodies: Bodies) -> None:
    for body in bodies:
        body["map"] = {item["k"]: item["v"] for item in body["list"]}


def lowercase_string(bodies: Bodies) -> None:
    for body in bodies:
        text = body.get("agent")
        if type(text) is str:
            body["agent"] = text.lower()


def map_to_list(bodies: Bodies) -> None:
    for body in bodies:
        body["list"] = [{"key": name, "value": value} for name, value in body["user"].items()]


_EMAIL = re.compile(r"[A-Za-z0-9+_.-]+@([\w-]+\.)+[\w-]{2,4}", re.ASCII)


def mask(bodies: Bodies) -> None:
    for body in bodies:
        text = body["log"]
        if "@" in text:
            body["log"] = _EMAIL.sub("***", text)


_ION_FIELD = re.compile(
    r'(\w+): (?:"([^"\\]*)"|([A-Za-z_]\w*)|(\d{4}-\d\d-\d\dT[\d:.]+Z)|(-?\d+\.\d*)|(-?\d+))(?:, |$)'
)


def parse_ion(bodies: Bodies) -> None:
    """A flat struct without escapes, annotations and offsets of time."""
    fields = _ION_FIELD.findall
    for body in bodies:
        for name, text, symbol, time, decimal, integer in fields(body["message"][1:-1]):
            body[name] = float(decimal) if decimal else int(integer) if integer else text or symbol or time


def parse_json(bodies: Bodies) -> None:
    decode = msgspec.json.Decoder(dict).decode
    for body in bodies:
        body.update(decode(body["message"]))


def parse_xml(bodies: Bodies) -> None:
    def members(element: ElementTree.Element) -> dict[str, Any]:
        found: dict[str, Any] = {**element.attrib}
        for child in element:
            value = members(child) if len(child) or child.attrib else child.text or ""
            if child.tag not in found:
                found[child.tag] = value
            elif type(found[child.tag]) is list:
                found[child.tag].append(value)
            else:
                found[child.tag] = [found[child.tag], value]
        if element.text and not element.text.isspace():
            found[""] = element.text
        return found

    for body in bodies:
        body.update(members(ElementTree.fromstring(body["message"])))


def mark(event: dict[str, Any]) -> dict[str, Any]:
    """The function that the `python` processor calls."""
    event["marked"] = True
    return event


def call_function(bodies: Bodies) -> None:
    """The function on a copy, so that an event for which it fails stays as it was.

    Its result has to be plain, and is copied too: the function may keep what it returned, or return it again.
    """
    plain = {str, int, float, bool, type(None)}
    for place, body in enumerate(bodies):
        try:
            result = mark({**body})
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            continue
        assert type(result) is dict
        for name, value in result.items():
            if type(value) not in plain or type(name) is not str:
                break
        else:
            bodies[place] = {**result}


def rename_keys(bodies: Bodies) -> None:
    for body in bodies:
        if "status" in body and "code" not in body:
            body["code"] = body.pop("status")


def replace_string(bodies: Bodies) -> None:
    for body in bodies:
        text = body.get("path")
        if type(text) is str:
            body["path"] = text.replace("/", "-")


def select_entries(bodies: Bodies) -> None:
    names = ("status", "bytes", "path")
    for place, body in enumerate(bodies):
        bodies[place] = {name: body[name] for name in names if name in body}


def split_event(bodies: Bodies) -> None:
    result = []
    for body in bodies:
        text = body["path"]
        if "/" in text:
            result += [{**body, "path": part} for part in text.split("/")]
        else:
            result.append(body)
    bodies[:] = result


def split_string(bodies: Bodies) -> None:
    for body in bodies:
        body["path"] = body["path"].split("/")


def string_converter(bodies: Bodies) -> None:
    for body in bodies:
        for name, value in body.items():
            if type(value) is str:
                body[name] = value.upper()


_SLASHES = re.compile("/+")


def substitute_string(bodies: Bodies) -> None:
    replace = _SLASHES.sub
    for body in bodies:
        body["path"] = replace("-", body["path"])


_KINDS: dict[int | str, str] = {200: "ok", "200": "ok"}


def translate(bodies: Bodies) -> None:
    for body in bodies:
        code = body.get("status")
        if type(code) is int or type(code) is str:
            kind = _KINDS.get(code)
            if kind is not None:
                body["kind"] = kind


_BLANKS = "".join(map(chr, range(0x21)))
"""What counts as blank at the ends of a text; `strip` alone would leave control characters and take wide blanks."""


def trim_string(bodies: Bodies) -> None:
    for body in bodies:
        text = body.get("agent")
        if type(text) is str:
            body["agent"] = text.strip(_BLANKS)


def truncate(bodies: Bodies) -> None:
    for body in bodies:
        text = body.get("path")
        if type(text) is str:
            body["path"] = text[:3]


def uppercase_string(bodies: Bodies) -> None:
    for body in bodies:
        text = body.get("agent")
        if type(text) is str:
            body["agent"] = text.upper()


def user_agent(bodies: Bodies) -> None:
    """Agents come again and again: a remembered result, copied for each event."""
    for body in bodies:
        text = body["agent"]
        result = _agent(text)
        body["user_agent"] = {**result, "os": {**result["os"]}, "device": {**result["device"]}, "original": text}


@lru_cache(1000)
def _agent(text: str) -> dict[str, Any]:
    from ua_parser import parse

    def version(part: Any) -> str:
        numbers = (part.major, part.minor, part.patch) if part else ()
        return ".".join(number for number in numbers if number is not None)

    def family(part: Any) -> str:
        return str(part.family) if part else "Other"

    found = parse(text)
    system = {"name": family(found.os), "version": version(found.os)}
    return {
        "name": family(found.user_agent),
        "version": version(found.user_agent),
        "os": {**system, "full": " ".join(filter(None, system.values()))},
        "device": {"name": family(found.device)},
    }


def wrap_entries(bodies: Bodies) -> None:
    for body in bodies:
        body["wrapped"] = [{"name": item} for item in body["names"]]


def write_json(bodies: Bodies) -> None:
    dumps = orjson.dumps
    for body in bodies:
        body["text"] = dumps(body["http"]).decode()
