"""Whatever stands in an event, no processor throws, hangs, loses it, changes it half or mixes it up with another."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import logging
import math
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.batch import Batch, Meta, copy_value
from penstock.core.clock import ManualClock
from penstock.core.handle import Handle
from penstock.core.metrics import Counter, Registry
from penstock.plan import catalog
from penstock.sdk import Context
from penstock.testing.plugins import checked
from penstock.testing.strategies import events, nested

KEY = "message"
RUNAWAY = "(a|aa)+b"

CONFIGS: dict[str, list[dict[str, Any]]] = {
    "add_entries": [
        {"entries": [{"key": KEY, "value": {"a": []}, "append_if_key_exists": True}]},
        {"entries": [{"key": "message/new/deep", "value": 1, "overwrite_if_key_exists": True}]},
        {"entries": [{"key": "text", "format": "${message}-${/message/0}"}]},
        {"entries": [{"key": "new${message}", "value": 1}]},
        {"entries": [{"key": "sum", "value_expression": "/message + 1"}]},
        {"entries": [{"key": "size", "value_expression": "length(/message)", "add_when": "/message > 1"}]},
        {"entries": [{"metadata_key": "kept", "value_expression": "/message"}]},
        {"entries": [{"key": "seen", "value": 1, "iterate_on": KEY}]},
        {"entries": [{"key": "seen", "value": 1, "add_when": f'/message =~ "{RUNAWAY}"'}]},
    ],
    "aggregate": [
        {"identification_keys": [KEY], "action": {"put_all": None}, "group_duration": "1s"},
        {"identification_keys": [KEY], "action": {"append": None}, "group_duration": "1s"},
        {"identification_keys": [KEY], "action": {"count": None}, "group_duration": "1s"},
        {"identification_keys": [KEY], "action": {"remove_duplicates": None}},
        {
            "identification_keys": ["none"],
            "action": {"histogram": {"key": KEY, "units": "s", "buckets": [1, 10]}},
            "group_duration": "1s",
        },
    ],
    "convert_type": [
        *[{"key": KEY, "type": kind} for kind in ("integer", "long", "double", "boolean", "string", "big_decimal")],
        {"key": KEY, "type": "big_decimal", "scale": 5},
        {"key": KEY, "type": "long", "null_values": ["-", "null"]},
        {"key": "a", "iterate_on": KEY},
        {"coerce_strings": {}},
    ],
    "copy_values": [
        {"entries": [{"from_key": KEY, "to_key": "copy/of"}]},
        {"entries": [{"from_key": "", "to_key": "all"}]},
        {"entries": [{"from_key": "a", "to_key": "b"}], "from_list": KEY, "to_list": "list"},
    ],
    "csv": [
        {},
        {"multiline": True, "delete_source": True},
        {"column_names_source_key": KEY, "source": KEY},
        {"delimiter": "\t", "quote_character": "'", "column_names": ["a", "b/c", ""]},
    ],
    "date": [
        {"match": [{"key": KEY, "patterns": ["yyyy-MM-dd'T'HH:mm:ss", "epoch_milli", "dd/MMM/yyyy"]}]},
        {"from_time_received": True, "destination": "message/at"},
    ],
    "decompress": [{"keys": [KEY], "type": "gzip"}],
    "delay": [{"for": "0ms"}],
    "delete_entries": [{"with_keys": ["message/a/0"]}, {"with_keys_regex": [RUNAWAY]}],
    "detect_format": [{"source": KEY, "target_key": "format"}],
    "dissect": [{"map": {KEY: "%{a} %{b->} [%{?c}] %{+a} %{&c}"}, "target_types": {"a": "integer"}}],
    "drop_events": [{"drop_when": f'/message =~ "{RUNAWAY}"'}, {"drop_when": "/message < 3"}],
    "filter_list": [
        {"iterate_on": KEY, "keep_element_when": "/a == 1"},
        {"iterate_on": KEY, "keep_element_when": "/value > 1 and /value != null", "target": "message/kept"},
    ],
    "flatten": [
        {"source": "", "target": ""},
        {"source": KEY, "target": "flat/all", "remove_source_keys": True, "remove_list_elements": True},
    ],
    "grok": [
        {"match": {KEY: ["%{COMBINEDAPACHELOG}"]}},
        {"match": {KEY: ["%{NUMBER:n:int} %{GREEDYDATA:rest}", "%{WORD:w} "]}},
        {"match": {KEY: [RUNAWAY, "(?<x>(a*)*)b"]}, "timeout_millis": 50},
    ],
    "key_value": [
        {},
        {"field_delimiter_regex": RUNAWAY, "field_split_characters": ""},
        {"key_value_delimiter_regex": RUNAWAY, "value_split_characters": ""},
        {"delete_key_regex": RUNAWAY, "delete_value_regex": RUNAWAY, "destination": None},
        {"value_grouping": True, "strict_grouping": True},
        {"value_grouping": True, "string_literal_character": '"', "destination": "message/pairs"},
        {"recursive": True},
        {"normalize_keys": True, "destination": None, "transform_key": "capitalize", "remove_brackets": True},
        {"skip_duplicate_values": True, "whitespace": "strict", "default_values": {"a": []}, "prefix": "p/"},
    ],
    "list_to_map": [
        {"source": KEY, "key": "a"},
        {"source": KEY, "key": "a", "value_key": "b", "flatten": True, "flattened_element": "last", "target": "map"},
        {"source": KEY, "use_source_key": True, "extract_value": True, "target": "map"},
    ],
    "lowercase_string": [{"with_keys": [KEY, "message/a/0"]}],
    "map_to_list": [
        {"source": "", "target": "list"},
        {"source": KEY, "target": "message/list", "remove_processed_fields": True},
        {"source": KEY, "target": "list", "convert_field_to_list": True},
    ],
    "no-op": [{}],
    "obfuscate": [
        {"source": KEY},
        {"source": KEY, "patterns": ["%{EMAIL_ADDRESS}", "%{CREDIT_CARD_NUMBER}", "%{IP_ADDRESS_V4}"]},
        {"source": KEY, "patterns": [RUNAWAY], "target": "hidden"},
        {"source": KEY, "action": {"hash": {"salt": "correct-horse-battery-staple"}}},
    ],
    "parse_ion": [{}, {"destination": "message/parsed", "delete_source": True}, {"depth": 2}],
    "parse_json": [{}, {"destination": "message/parsed", "delete_source": True}, {"pointer": "a/0/b"}, {"depth": 2}],
    "parse_xml": [{}, {"destination": "message/parsed", "delete_source": True}],
    "python": [
        {"module": "copy", "function": "copy"},
        {"module": "copy", "function": "copy", "copy": False},
        {"module": "math", "function": "sqrt"},
    ],
    "rate_limiter": [{"events_per_second": 1_000_000}, {"events_per_second": 3, "limit_when": "/message > 1"}],
    "rename_keys": [
        {"entries": [{"from_key": KEY, "to_key": "a/b/c", "overwrite_if_to_key_exists": True}]},
        {"entries": [{"from_key": "message/a", "to_key": "message/0"}]},
        {"entries": [{"from_key_regex": RUNAWAY, "to_key": "x"}]},
        {"transform_key": "uppercase"},
    ],
    "replace_string": [{"entries": [{"source": KEY, "from": "a", "to": "b"}]}],
    "select_entries": [{"include_keys": [KEY, "message/a/0"]}, {"include_keys_regex": [RUNAWAY]}],
    "split_event": [{"field": KEY, "delimiter": ","}, {"field": KEY, "delimiter_regex": RUNAWAY}],
    "split_string": [
        {"entries": [{"source": KEY, "delimiter": ","}]},
        {"entries": [{"source": KEY, "delimiter_regex": RUNAWAY}]},
    ],
    "string_converter": [{}, {"upper_case": False}],
    "substitute_string": [
        {"entries": [{"source": KEY, "from": RUNAWAY, "to": "$1"}]},
        {"entries": [{"source": KEY, "from": "(a*)*b", "to": ""}]},
    ],
    "translate": [
        {"mappings": [{"source": KEY, "targets": [{"target": "out", "map": {"1-5": "few", "a,b": "letter"}}]}]},
        {
            "mappings": [
                {
                    "source": KEY,
                    "targets": [
                        {"target": "out", "regex": {"patterns": {RUNAWAY: "x", "(b*)*c": "y"}, "exact": False}}
                    ],
                }
            ]
        },
        {"mappings": [{"source": "message/a", "targets": [{"target": "out", "map": {"a": 1}, "default": "none"}]}]},
    ],
    "trim_string": [{"with_keys": [KEY, "message/a/0"]}],
    "truncate": [
        {"entries": [{"length": 10, "recursive": True}]},
        {"entries": [{"source_keys": [KEY], "start_at": 3}]},
    ],
    "uppercase_string": [{"with_keys": [KEY, "message/a/0"]}],
    "user_agent": [{"source": KEY}, {"source": KEY, "target": "message/agent"}],
    "wrap_entries": [{"source": KEY, "key": "a", "target": "message/wrapped"}],
    "write_json": [{"source": KEY, "target": "text"}, {"source": KEY}],
}
NEEDS_MORE = {"geoip": "its databases"}
"""Processors that cannot be built from options alone; their own tests feed them the same events."""

LENGTH = 5_000_000
"""Characters of a text: what grows with the square of it meets the time limit of the tests."""
MEMORY_MAX = 128 * LENGTH
"""Bytes that a processor may take for such a text, in which every character may be a value of its own."""


def repeated(text: str) -> str:
    return text * (LENGTH // len(text))


def _bomb() -> str:
    """A gzip member of 5 MB in base64, of which each kilobyte inflates to a megabyte."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = deflate.compress(bytes(1_000_000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    member = b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + megabyte * (LENGTH * 3 // 4 // len(megabyte))
    return b64encode(member).decode()


def _laughs(levels: int) -> str:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, levels))
    return f'<!DOCTYPE a [<!ENTITY l0 "lol">{entities}]><a>&l{levels - 1};</a>'


def _structures(brackets: str, depth: int) -> str:
    return brackets[:-1] * depth + "1" + brackets[-1] * depth


_OWN_TEXTS: dict[str, list[Callable[[], str]]] = {
    "aggregate": [partial(repeated, text) for text in ("\ud800", "a", '"', "1", "\\")],
    "csv": [partial(repeated, ","), partial(repeated, '"'), partial(repeated, '"\n')],
    "date": [partial(repeated, "1"), partial(repeated, "2026-01-01T")],
    "decompress": [_bomb, partial(repeated, "A"), lambda: b64encode(gzip.compress(b"")[:-1] * 200_000).decode()],
    "detect_format": [partial(repeated, "a=1 "), partial(repeated, ",\n")],
    "dissect": [partial(repeated, " "), partial(repeated, "a [")],
    "grok": [lambda: "b" + repeated("a") + "c", partial(repeated, "1 "), partial(repeated, '"')],
    "key_value": [partial(repeated, text) for text in ("a=1&", "a=(", "a", '"', "[")],
    "obfuscate": [lambda: "b" + repeated("a") + "@", partial(repeated, "1"), partial(repeated, "a.")],
    "parse_ion": [
        partial(_structures, "{a:}", 10_000),
        lambda: f"{{a:{'9' * LENGTH}}}",
        lambda: f"[{repeated('a::')}",
        lambda: "{" + repeated("/**/"),
        lambda: "{a:" + "'" * 3 + repeated("''"),
        lambda: "{a:1," * 240 + "[" + repeated("1,"),
    ],
    "parse_json": [
        partial(_structures, '{"a":}', 10_000),
        partial(_structures, "[]", 10_000),
        lambda: f'{{"a":{"9" * LENGTH}}}',
        lambda: f'{{"a":1e{"9" * LENGTH}}}',
        lambda: '{"a":[' + "[]," * (LENGTH // 3) + "1]}",
        lambda: "{" + ",".join(f'"{n}":{n}' for n in range(LENGTH // 12)) + "}",
        lambda: '{"a":"' + "\\ud800" * (LENGTH // 6) + '"}',
    ],
    "parse_xml": [
        partial(_laughs, 10),
        lambda: f'<!DOCTYPE a [<!ENTITY x "{repeated("x")}">]><a>{"&x;" * 100_000}</a>',
        lambda: '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>',
        lambda: '<!DOCTYPE a SYSTEM "file:///etc/hostname"><a>1</a>',
        lambda: f'<a xmlns="{"u" * (LENGTH // 2)}">{"<b/>" * (LENGTH // 8)}</a>',
        lambda: "<a " + " ".join(f'a{n}="1"' for n in range(LENGTH // 12)) + "/>",
        lambda: "<a>" + "<b/>" * (LENGTH // 4) + "</a>",
        partial(_structures, "<a>", 10_000),
    ],
    "split_event": [partial(repeated, "a" * 99 + ","), partial(repeated, "a")],
    "split_string": [partial(repeated, ",")],
    "user_agent": [partial(repeated, "Mozilla/5.0 ("), partial(repeated, "\ud800")],
}
"""Texts of the form that a processor reads; the others get any."""
ANY_TEXTS: list[Callable[[], str]] = [partial(repeated, "a"), partial(repeated, "a b "), partial(repeated, "\\")]


def large_texts(name: str) -> list[Callable[[], str]]:
    return _OWN_TEXTS.get(name, ANY_TEXTS)


NAMES = (
    *(
        "",
        "/",
        "a/b",
        "/a",
        "a/",
        "//",
        "~",
        "~0",
        "~1",
        "~2",
        "0",
        "00",
        "-1",
        "1e9",
        "99999999999999999999",
        " ",
        "\n",
    ),
    *(
        "\0",
        "ключ",
        "😀",
        "\ud800",
        "${message}",
        "%{a}",
        "$ref",
        ".",
        "..",
        "[0]",
        "*",
        "'",
        '"',
        "a" * 5000,
        "__class__",
    ),
)


CHARACTERS = [chr(code) for code in (*range(0x180), 0x2028, 0x2029, 0xD800, 0xDFFF, 0xFEFF, 0xFFFF, 0x10000, 0x10FFFF)]


class Odd(str):
    __slots__ = ()


def scalars() -> Iterator[Any]:
    yield from (None, True, math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7e308, 2**63, -(2**63) - 1, 10**400)
    yield 10**5000  # more digits than `int` and `str` convert
    yield from map(Decimal, ("NaN", "sNaN", "Infinity", "-0", "1E+999999", "1E+999999999", "1E-999999999", "1" * 500))
    yield from ("", "\ud800", "a\0b", "\u0130" * 3, "2024-13-45T99:99:99", "9" * 400, "1e999999999")
    yield from (b"bytes", bytearray(b"x"), (1, 2), {1, 2}, object(), Odd("odd"), 1j, datetime.date(2026, 1, 1), Odd)


def hostile_events() -> list[dict[str, Any]]:
    """Events nobody wants, each for a reason of its own."""
    found: list[dict[str, Any]] = [{}, {KEY: {}}, {KEY: []}]
    for value in scalars():
        found += [{KEY: value}, {KEY: [value, {"a": value}]}, {KEY: {"a": value, "0": [value], "": {"": value}}}]
    found += [{KEY: "a" * 60 + "!", "a" * 60: 1}]
    found += [{KEY: name, name: KEY} for name in NAMES]
    found += [dict.fromkeys(NAMES), {KEY: dict.fromkeys(NAMES)}, {KEY: {name: {name: [name]} for name in NAMES}}]
    found += [dict.fromkeys(CHARACTERS, 1), {KEY: dict.fromkeys(CHARACTERS, "a")}]
    found += [{KEY: nested(10_000)}, nested(1_500), {KEY: [nested(300)], "a": nested(900)}]
    found += [{KEY: [None] * 1000}, {KEY: [[], {}, [[]], {"": None}]}]
    return found


CASES = [
    pytest.param(name, config, id=f"{name}-{number}")
    for name, configs in CONFIGS.items()
    for number, config in enumerate(configs)
]


def same(left: Any, right: Any) -> bool:
    """Equality of values of any depth, by type; NaN equals itself."""
    pending = [(left, right)]
    while pending:
        left, right = pending.pop()
        if left is right:
            continue
        if type(left) is not type(right):
            return False
        if type(left) is dict:
            if left.keys() != right.keys():
                return False
            pending += [(left[name], right[name]) for name in left]
        elif type(left) is list:
            if len(left) != len(right):
                return False
            pending += zip(left, right, strict=True)
        elif left != right and repr(left) != repr(right):
            return False
    return True


class Run:
    """One processor over events, each with a promise of its own."""

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        self.registry = Registry()
        self.clock = ManualClock()
        found, options = checked("processor", name, config)
        self.process = found.module.build(options, Context("p", name, registry=self.registry, clock=self.clock))

    def failures(self) -> int:
        meters = [meter for name, _, meter in self.registry if name.endswith("ByCause")]
        return sum(meter.value for meter in meters if isinstance(meter, Counter))

    def __call__(self, bodies: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[int]]:
        """The bodies that come out, and from which events they are."""
        batch, outcomes = Batch([copy_value(body) for body in bodies], origin=Meta(received_ms=1)), []
        handles = [Handle(outcomes.append) for _ in bodies]
        batch.handles = list(handles)
        places = {id(handle): place for place, handle in enumerate(handles)}
        for handle in handles:
            handle.add(1)
            handle.seal()
        came = [self._called(batch)]
        if getattr(self.process, "holds_events", False):
            self.clock.advance(1000)
            came += [self._called(Batch([])), self.process.drain()]
        origins: list[int] = []
        result: list[dict[str, Any]] = []
        for part in came:
            result += part.bodies
            origins += [places.get(id(handle), -1) for handle in part.handles]
            assert all(meta is None or isinstance(meta, Meta) for meta in part.metas)
            assert len(part.bodies) == len(part.metas) == len(part.handles)
            part.release_all(ok=True)
        assert len(outcomes) == len(bodies), "a promise was lost"
        return result, origins

    def _called(self, batch: Batch) -> Batch:
        result = self.process(batch)
        if isinstance(result, Batch):
            return result

        async def wait() -> Batch:
            return await result

        return asyncio.run(wait())


def check(name: str, config: dict[str, Any], bodies: list[dict[str, Any]]) -> None:
    together, origins = Run(name, config)(bodies)
    inside = [origin for origin in origins if origin >= 0]
    assert inside == sorted(inside), "the order has changed"
    run = Run(name, config)
    for index, body in enumerate(bodies):
        before = run.failures()
        result, _ = run([body])
        if run.failures() > before:
            assert len(result) == 1, f"event {index} failed and is gone"
            assert same(result[0], body), f"event {index} failed half-way"
        if name not in ("aggregate", "rate_limiter"):
            of_this = [each for each, origin in zip(together, origins, strict=True) if origin == index]
            assert same(of_this, result), f"event {index} depends on those beside it"


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 2 s takes as long as it needs to be seen; thousands of failures need not be printed."""
    monkeypatch.setattr("penstock.lib.limited_loop.MATCHING_S_MAX", 0.04)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)


def test_every_processor_is_here() -> None:
    assert set(CONFIGS) | set(NEEDS_MORE) == set(catalog.names("processor"))


@pytest.mark.parametrize(("name", "config"), CASES)
def test_odd_values_of_every_kind(name: str, config: dict[str, Any]) -> None:
    check(name, config, hostile_events())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", CONFIGS)
def test_texts_of_five_megabytes(name: str, memory_below: Callable[[int], AbstractContextManager[None]]) -> None:
    """Each text with one configuration, and each configuration with one text."""
    configs, texts = CONFIGS[name], large_texts(name)
    for number in range(max(len(configs), len(texts))):
        config, text = configs[number % len(configs)], texts[number % len(texts)]()
        run = Run(name, config)
        with memory_below(MEMORY_MAX):
            result, _ = run([{KEY: text}])
        assert not run.failures() or same(result, [{KEY: text}]), "a failed event stays as it was"


def test_bombs_are_failures_that_are_counted_and_tagged() -> None:
    for name, text in (("decompress", _bomb()), ("parse_xml", _laughs(10)), ("parse_json", _structures("[]", 10_000))):
        run = Run(name, {**CONFIGS[name][0], "tags_on_failure": ["bomb"]})
        batch = Batch([{KEY: text}])
        batch.promise(Handle())
        result = run.process(batch)
        assert isinstance(result, Batch)
        assert [(result.bodies[0], result.peek(0).tags)] == [({KEY: text}, {"bomb"})]
        assert run.failures() == 1


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), bodies=events)
def test_any_events(name: str, data: st.DataObject, bodies: list[dict[str, Any]]) -> None:
    config = data.draw(st.sampled_from(CONFIGS[name]))
    check(name, config, [{**body, KEY: body.get("a")} for body in bodies])
