"""What the processors are measured with: at least one configuration of each, the events for it, and its floor."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from isal import igzip

from bench import corpus, floors
from penstock.plan.catalog import find
from penstock.sdk import BatchFn, Context
from penstock.testing import build_processor
from penstock.testing.plugins import checked

Bodies = list[dict[str, Any]]

SIMPLE_US = 0.4
"""Budget of a processor that changes a value or two."""
BARE_FACTOR = 1.5
"""Its budget on a slow machine, in multiples of the bare loop beside it: some of those take longer by themselves."""
FLOOR_FACTOR = 2.0
"""Budget of every other one, in multiples of its floor."""


def plain(number: int) -> dict[str, Any]:
    return {
        "status": 200 + number % 300,
        "bytes": str(number),
        "secret": "x",
        "path": f"/a/{number}",
        "agent": " Curl ",
    }


def nested(number: int) -> dict[str, Any]:
    return {
        **plain(number),
        "http": {"method": "GET", "version": 2, "headers": {"host": f"h{number}", "accept": ["text/html", "*/*"]}},
        "list": [{"k": "a", "v": 1}, {"k": "b", "v": number}],
        "names": ["a", "b"],
    }


@dataclass(frozen=True)
class Case:
    """One row: a processor with one configuration, and the best loop for it where it has a floor."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    what: str = ""
    """Tells it from the other cases of the processor."""
    event: Callable[[int], dict[str, Any]] = plain
    floor: Callable[[], floors.Floor] | None = None
    """Makes the floor: it may keep something from batch to batch, as the processor does."""
    bare: Callable[[], floors.Floor] | None = None
    """Makes the bare loop beside a processor whose budget is `SIMPLE_US`: it tells how fast the machine is just now."""
    build: Callable[[str, Mapping[str, Any]], BatchFn] = build_processor

    @property
    def title(self) -> str:
        return f"{self.name} ({self.what})" if self.what else self.name

    def processor(self) -> BatchFn:
        return self.build(self.name, self.config)

    def bodies(self, count: int) -> Bodies:
        return [self.event(number) for number in range(count)]


def _same(floor: floors.Floor) -> Callable[[], floors.Floor]:
    return lambda: floor


@cache
def _apache() -> list[str]:
    return corpus.apache(20_000)


def _line(number: int) -> str:
    return _apache()[number % len(_apache())]


def _address(number: int) -> str:
    """Of 2,000 clients, of which no database knows a tenth."""
    client = number * 7919 % 2000
    return f"{'9.9' if client % 10 == 0 else '81.2'}.{client // 250}.{client % 250}"


def _new_address(number: int) -> str:
    return f"81.2.{number // 250 % 250}.{number % 250}"


@cache
def _city_database() -> Path:
    """A database with places; the directory goes with the process."""
    from mmdb_writer import MMDBWriter
    from netaddr import IPSet

    folder = tempfile.TemporaryDirectory(prefix="penstock-bench-")
    _kept.append(folder)
    writer = MMDBWriter(6, ipv4_compatible=True, database_type="Bench-City", float_type="f64")
    for third in range(256):
        record = {
            "country": {"iso_code": "GB", "names": {"en": "United Kingdom", "de": "Vereinigtes Königreich"}},
            "city": {"names": {"en": f"City {third}"}},
            "location": {"latitude": third / 8, "longitude": -0.5, "time_zone": "Europe/London"},
        }
        writer.insert_network(IPSet([f"81.2.{third}.0/24"]), record)
    path = Path(folder.name) / "city.mmdb"
    writer.to_db_file(str(path))
    return path


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _build_geoip(name: str, config: Mapping[str, Any]) -> BatchFn:
    path = _city_database()
    service = find("extension", "geoip_service").module
    maxmind = {"databases": {"city": str(path)}, "database_destination": str(path.parent)}
    options = service.Config.model_validate({"maxmind": maxmind})
    databases = service.build(options, Context("bench", "geoip_service", kind="extension"))
    found, checked_config = checked("processor", name, config)
    run: BatchFn = found.module.build(checked_config, Context("bench", name, extensions={"geoip_service": databases}))
    return run


def _geoip_floor() -> floors.Floor:
    import maxminddb

    return floors.compile_geoip(maxminddb.open_database(str(_city_database())))


_GEOIP = {"entries": [{"source": "ip", "include_fields": ["country_name", "city_name", "location"]}]}
_TEXTS = (
    '{{"level": "info", "took": {n}}}',
    "<event><level>info</level><took>{n}</took></event>",
    "level,took\ninfo,{n}\nwarn,{n}",
    "level=info took={n} path=/a",
    "request {n} was handled",
)

CASES = [
    Case("add_entries", {"entries": [{"key": "env", "value": "prod"}]}),
    Case("add_entries", {"entries": [{"key": "bad", "value": True, "add_when": "/status >= 400"}]}, "conditional"),
    Case(
        "add_entries",
        {"entries": [{"key": "name", "format": "${path}-${status}"}]},
        "format",
        floor=_same(floors.add_text),
    ),
    Case(
        "aggregate",
        {"identification_keys": ["user"], "action": {"put_all": None}},
        "put_all",
        event=lambda number: {"user": f"u{number % 1000}", "took": number, "path": f"/a/{number}"},
        floor=floors.MergeGroups,
    ),
    Case(
        "aggregate",
        {"identification_keys": ["user"], "action": {"remove_duplicates": None}},
        "remove_duplicates",
        event=lambda number: {"user": f"u{number % 1000}", "took": number, "path": f"/a/{number}"},
        floor=floors.FirstOfGroup,
    ),
    Case("convert_type", {"key": "bytes", "type": "integer"}, bare=_same(floors.convert_type)),
    Case("copy_values", {"entries": [{"from_key": "status", "to_key": "copy"}]}, bare=_same(floors.copy_values)),
    Case(
        "csv",
        {"column_names": ["time", "level", "took", "text"]},
        event=lambda number: {"message": f"10:30:{number % 60:02d},info,{number},request handled"},
        floor=_same(floors.csv),
    ),
    Case(
        "date",
        {"match": [{"key": "time", "patterns": ["dd/MMM/yyyy:HH:mm:ss Z"]}]},
        event=lambda number: {"time": _line(number).split("[")[1].split("]")[0]},
        floor=_same(floors.date),
    ),
    Case(
        "decompress",
        {"keys": ["log"], "type": "gzip"},
        event=lambda number: {"log": b64encode(igzip.compress(_line(number).encode())).decode()},
        floor=_same(floors.decompress),
    ),
    Case("delay", {"for": "0ms"}),
    Case("delete_entries", {"with_keys": ["secret"]}),
    Case("delete_entries", {"with_keys_regex": ["sec.*"]}, "regex", floor=_same(floors.delete_by_regex)),
    Case(
        "detect_format",
        {"source": "message", "target_key": "format"},
        event=lambda number: {"message": _TEXTS[number % len(_TEXTS)].format(n=number)},
        floor=_same(floors.detect_format),
    ),
    Case(
        "dissect",
        {"map": {"message": "%{date} %{level->} [%{?thread}] %{text}"}},
        event=lambda number: {"message": f"2026-01-15 WARN   [main-{number}] request handled"},
        floor=_same(floors.dissect),
    ),
    Case("drop_events", {"drop_when": "/status == 999"}),
    Case(
        "filter_list",
        {"iterate_on": "list", "keep_element_when": "/v > 1", "target": "kept"},
        event=nested,
        floor=_same(floors.filter_list),
    ),
    Case("flatten", {"source": "http", "target": "flat"}, event=nested, floor=_same(floors.flatten)),
    Case(
        "geoip",
        _GEOIP,
        event=lambda number: {"ip": _address(number)},
        floor=_geoip_floor,
        build=_build_geoip,
    ),
    Case(
        "geoip",
        _GEOIP,
        "no address twice",
        event=lambda number: {"ip": _new_address(number)},
        floor=_geoip_floor,
        build=_build_geoip,
    ),
    Case(
        "grok",
        {"match": {"log": ["%{COMBINEDAPACHELOG}"]}},
        event=lambda number: {"log": _line(number)},
        floor=_same(floors.grok),
    ),
    Case(
        "key_value",
        event=lambda number: {"message": f"a={number}&b=2&c=three&d=four"},
        floor=_same(floors.key_value),
    ),
    Case(
        "list_to_map",
        {"source": "list", "key": "k", "value_key": "v", "flatten": True, "target": "map"},
        event=nested,
        floor=_same(floors.list_to_map),
    ),
    Case("lowercase_string", {"with_keys": ["agent"]}, bare=_same(floors.lowercase_string)),
    Case(
        "map_to_list",
        {"source": "user", "target": "list"},
        event=lambda number: {"user": {"id": number, "name": "ada"}},
        floor=_same(floors.map_to_list),
    ),
    Case("no-op"),
    Case(
        "obfuscate",
        {"source": "log", "patterns": ["%{EMAIL_ADDRESS}"]},
        "mask",
        event=lambda number: {"log": f"user{number}@example.com logged in from web-{number % 9}"},
        floor=_same(floors.mask),
    ),
    Case(
        "obfuscate",
        {"source": "user", "action": {"hash": {"salt": "correct-horse-battery-staple"}}},
        "hash",
        event=lambda number: {"user": f"user{number}"},
        floor=_same(floors.hash_field),
    ),
    Case(
        "parse_ion",
        event=lambda number: {
            "message": f'{{level: INFO, at: 2026-01-15T10:30:{number % 60:02d}Z, took: {number}, path: "/a/{number}"}}'
        },
        floor=_same(floors.parse_ion),
    ),
    Case(
        "parse_json",
        event=lambda number: {
            "message": f'{{"level": "info", "took": {{"ms": {number}}}, "path": "/a/{number}", "tags": ["a", "b"]}}'
        },
        floor=_same(floors.parse_json),
    ),
    Case(
        "parse_xml",
        event=lambda number: {
            "message": f'<event id="{number}"><level>info</level><took unit="ms">{number}</took>'
            "<tag>a</tag><tag>b</tag><user><name>ada</name><role>admin</role></user></event>"
        },
        floor=_same(floors.parse_xml),
    ),
    Case("python", {"module": "bench.floors", "function": "mark"}, floor=_same(floors.call_function)),
    Case("rate_limiter", {"events_per_second": 1_000_000_000}),
    Case("rename_keys", {"entries": [{"from_key": "status", "to_key": "code"}]}, bare=_same(floors.rename_keys)),
    Case(
        "replace_string", {"entries": [{"source": "path", "from": "/", "to": "-"}]}, bare=_same(floors.replace_string)
    ),
    Case("select_entries", {"include_keys": ["status", "bytes", "path"]}, floor=_same(floors.select_entries)),
    Case("split_event", {"field": "agent", "delimiter": ","}, "one part"),
    Case("split_event", {"field": "path", "delimiter": "/"}, "three parts", floor=_same(floors.split_event)),
    Case("split_string", {"entries": [{"source": "path", "delimiter": "/"}]}, floor=_same(floors.split_string)),
    Case("string_converter", {"upper_case": True}, floor=_same(floors.string_converter)),
    Case(
        "substitute_string",
        {"entries": [{"source": "path", "from": "/+", "to": "-"}]},
        floor=_same(floors.substitute_string),
    ),
    Case(
        "translate",
        {"mappings": [{"source": "status", "targets": [{"target": "kind", "map": {"200": "ok"}}]}]},
        bare=_same(floors.translate),
    ),
    Case("trim_string", {"with_keys": ["agent"]}, bare=_same(floors.trim_string)),
    Case("truncate", {"entries": [{"source_keys": ["path"], "length": 3}]}, bare=_same(floors.truncate)),
    Case("uppercase_string", {"with_keys": ["agent"]}, bare=_same(floors.uppercase_string)),
    Case(
        "user_agent",
        {"source": "agent"},
        event=lambda number: {"agent": _line(number).rsplit('"', 2)[1]},
        floor=_same(floors.user_agent),
    ),
    Case(
        "wrap_entries",
        {"source": "names", "target": "wrapped", "key": "name"},
        event=nested,
        floor=_same(floors.wrap_entries),
    ),
    Case("write_json", {"source": "http", "target": "text"}, event=nested, floor=_same(floors.write_json)),
]

CHAIN = [
    *("add_entries", "add_entries (conditional)", "convert_type", "copy_values", "drop_events", "lowercase_string"),
    *("rename_keys", "replace_string", "trim_string", "delete_entries"),
]
CHAIN_US = 3.0
