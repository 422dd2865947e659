"""Dates by the pattern letters of `java.time.format.DateTimeFormatter`, compiled to functions.

Instants are nanoseconds since 1970-01-01T00:00Z. Zones are ids (`Europe/Paris`, `Z`, `+01:00`, `UTC+1`), an empty one
is the zone of this machine. Every function made here is pure but for a bounded cache, and raises ValueError alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from penstock.core.dates.conversion import (
    EPOCH_UNITS_NS,
    convert_by_minute,
    convert_by_text,
    epoch_reader,
    epoch_writer,
)
from penstock.core.dates.iso import parse_iso
from penstock.core.dates.names import find_names
from penstock.core.dates.parsing import compile_plain_reading, compile_reading
from penstock.core.dates.pattern import Element, Optional, fields_of, read_pattern
from penstock.core.dates.resolving import compile_plain_resolving, compile_resolving
from penstock.core.dates.seconds import cached_parse, cached_render
from penstock.core.dates.zones import find_zone

__all__ = [
    "EPOCH_UNITS_NS",
    "compile_conversion",
    "compile_formatter",
    "compile_parser",
    "compile_reader",
    "parse_iso",
    "validate_locale",
    "validate_pattern",
    "validate_zone",
]

_T = TypeVar("_T")
_Now = Callable[[], int]


def validate_pattern(pattern: str) -> None:
    """Raise ValueError when `pattern` is neither a date pattern nor an epoch unit such as `epoch_milli`."""
    if pattern not in EPOCH_UNITS_NS:
        read_pattern(pattern)


def validate_zone(zone: str) -> None:
    """Raise ValueError when there is no such time zone."""
    find_zone(zone)


def validate_locale(locale: str) -> None:
    """Raise ValueError when `locale` is neither a language tag nor the text of a Java locale."""
    find_names(locale)


def compile_parser(
    pattern: str, zone: str = "UTC", locale: str | None = None, now: _Now | None = None
) -> Callable[[str], int]:
    """A function from text to instant, for a date pattern or an epoch unit.

    Missing date parts are those of today in `zone` (by `now`, nanoseconds), a missing year is this one, missing time
    parts are 0. An offset or zone in the text goes before `zone`.
    """
    if pattern in EPOCH_UNITS_NS:
        return epoch_reader(pattern)
    elements, names = read_pattern(pattern), find_names(locale)
    parse = _compile_parse(elements, zone, locale, now or time.time_ns)
    if _needs_today(elements):
        return _renewed(lambda: cached_parse(parse, elements, names), now or time.time_ns)
    return cached_parse(parse, elements, names)


def compile_formatter(pattern: str, zone: str = "UTC", locale: str | None = None) -> Callable[[int], str]:
    """A function from instant to text, for a date pattern or an epoch unit."""
    if pattern in EPOCH_UNITS_NS:
        return epoch_writer(pattern)
    elements = read_pattern(pattern)
    found, names = find_zone(zone), find_names(locale)
    return cached_render(elements, found, names)


def compile_reader(
    patterns: Sequence[str], zone: str = "UTC", locale: str | None = None, now: _Now | None = None
) -> Callable[[str], int | None]:
    """A function that reads a text by the first of `patterns` that fits; None when none fits."""
    return _first_of([compile_parser(pattern, zone, locale, now) for pattern in patterns])


def compile_conversion(
    patterns: Sequence[str],
    output: str,
    source_zone: str = "UTC",
    destination_zone: str = "UTC",
    locale: str | None = None,
    now: _Now | None = None,
) -> Callable[[str], str | None]:
    """A function that reads a text by the first of `patterns` that fits and writes it as `output`; None when none fits.

    `locale` is that of the texts; what is written is English.
    """
    ways = [_compile_way(pattern, output, source_zone, destination_zone, locale, now) for pattern in patterns]
    return _first_of(ways)


def _first_of(ways: Sequence[Callable[[str], _T]]) -> Callable[[str], _T | None]:
    if len(ways) == 1:
        only = ways[0]

        def try_one(text: str) -> _T | None:
            try:
                return only(text)
            except ValueError:
                return None

        return try_one

    def try_all(text: str) -> _T | None:
        for way in ways:
            try:
                return way(text)
            except ValueError:
                continue
        return None

    return try_all


def _compile_way(
    pattern: str, output: str, source_zone: str, destination_zone: str, locale: str | None, now: _Now | None
) -> Callable[[str], str]:
    if pattern in EPOCH_UNITS_NS or output in EPOCH_UNITS_NS:
        parse = compile_parser(pattern, source_zone, locale, now)
        write = compile_formatter(output, destination_zone)
        return lambda text: write(parse(text))
    elements, written = read_pattern(pattern), read_pattern(output)
    found, names = find_zone(destination_zone), find_names(locale)
    parse = _compile_parse(elements, source_zone, locale, now or time.time_ns)

    def build() -> Callable[[str], str]:
        convert = convert_by_minute(parse, elements, names, written, found)
        finest = fields_of(elements)
        return convert if "nano_of_second" in finest or "nano_of_day" in finest else convert_by_text(convert)

    return _renewed(build, now or time.time_ns) if _needs_today(elements) else build()


def _compile_parse(elements: Sequence[Element], zone: str, locale: str | None, now: _Now) -> Callable[[str], int]:
    names, found = find_names(locale), find_zone(zone)
    read, resolve = compile_reading(elements, names), compile_resolving(names, found, now)
    read_plain, resolve_plain = compile_plain_reading(elements, names), compile_plain_resolving(found, now)
    if read_plain is None:
        return lambda text: resolve(read(text))

    def parse(text: str) -> int:
        instant = resolve_plain(read_plain(text))
        return resolve(read(text)) if instant is None else instant

    return parse


_WHOLE_DATES = (
    {"year", "month", "day"},
    {"year", "day_of_year"},
    {"week_based_year", "week_of_year"},
    {"modified_julian_day"},
)
_QUARTER_HOUR_NS = 900_000_000_000


def _needs_today(elements: Sequence[Element]) -> bool:
    fields = fields_of([element for element in elements if not isinstance(element, Optional)])
    if "year_of_era" in fields:
        fields.add("year")
    return not any(whole <= fields for whole in _WHOLE_DATES)


def _renewed(build: Callable[[], Callable[[str], _T]], now: _Now) -> Callable[[str], _T]:
    """What `build` makes, made anew whenever the day may have changed: at each quarter of an hour."""
    function = build()
    begin = end = 0

    def call(text: str) -> _T:
        nonlocal function, begin, end
        if not begin <= now() < end:
            begin = now() // _QUARTER_HOUR_NS * _QUARTER_HOUR_NS
            end = begin + _QUARTER_HOUR_NS
            function = build()
        return function(text)

    return call
