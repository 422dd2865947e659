"""Texts of one format to texts of another, in the fewest steps that a batch of log lines allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.core.dates.names import ENGLISH, Names
from penstock.core.dates.pattern import Element
from penstock.core.dates.rendering import compile_rendering, compile_split_rendering
from penstock.core.dates.seconds import (
    CACHE_ENTRIES_MAX,
    SECOND_TEXTS,
    Seconds,
    ends_day,
    find_seconds,
    find_slice,
    has_whole_minutes,
    may_share_minute,
    read_seconds,
)
from penstock.core.dates.zones import Zone

EPOCH_UNITS_NS = {"epoch_second": 1_000_000_000, "epoch_milli": 1_000_000, "epoch_micro": 1_000, "epoch_nano": 1}
_EPOCH_DIGITS_MAX = {"epoch_second": 10, "epoch_milli": 13, "epoch_micro": 16, "epoch_nano": 19}


def epoch_reader(pattern: str) -> Callable[[str], int]:
    """A function from the digits of an epoch time to nanoseconds.

    The number of digits tells the unit: up to 10 seconds, up to 13 milliseconds, up to 16 microseconds, else
    nanoseconds. Digits of another unit than that of the pattern raise ValueError.
    """
    unit_ns, digits_max = EPOCH_UNITS_NS[pattern], _EPOCH_DIGITS_MAX[pattern]
    digits_min = {10: 1, 13: 11, 16: 14, 19: 17}[digits_max]

    def read(text: str) -> int:
        digits = text[1:] if text[:1] in ("-", "+") else text
        if not (digits.isascii() and digits.isdigit() and digits_min <= len(digits) <= digits_max):
            raise ValueError(f"'{text[:64]}' is no {pattern}")
        return int(text) * unit_ns

    return read


def epoch_writer(pattern: str) -> Callable[[int], str]:
    """A function from nanoseconds to the digits of an epoch time."""
    unit_ns = EPOCH_UNITS_NS[pattern]
    return lambda epoch_ns: str(epoch_ns // unit_ns)


def convert_by_text(convert: Callable[[str], str]) -> Callable[[str], str]:
    """`convert` with a memory of whole texts."""
    cache: dict[str, str] = {}

    def convert_cached(text: str) -> str:
        found = cache.get(text)
        if found is None:
            found = convert(text)
            if len(cache) >= CACHE_ENTRIES_MAX:
                cache.clear()
            cache[text] = found
        return found

    return convert_cached


def convert_by_minute(
    parse: Callable[[str], int], source: Sequence[Element], names: Names, destination: Sequence[Element], zone: Zone
) -> Callable[[str], str]:
    """From the texts that `parse` understands, of the pattern `source`, to texts of `destination` in `zone`.

    It remembers minutes where the seconds have one place in both patterns.
    """
    render = compile_rendering(destination, zone, ENGLISH)
    seconds, written = find_seconds(source), find_seconds(destination)
    place = find_slice(source, seconds, names) if seconds else None
    if seconds is None or written is None or place is None or not has_whole_minutes(zone):
        return lambda text: render(parse(text))
    start, end = place
    after = written.index + written.elements
    split = compile_split_rendering(destination[: written.index], destination[after:], zone, ENGLISH)
    value_of, cut = read_seconds(seconds), _cutter(seconds, written)
    cache: dict[str, tuple[str, str]] = {}

    def convert(text: str) -> str:
        part = cut(text[start:end])
        if part is None:
            return render(parse(text))
        rest = text[:start] + text[end:] if end else text[:start]
        around = cache.get(rest)
        if around is None:
            parsed = parse(text)
            value = value_of(text[start:end])
            if value is None or not may_share_minute(parsed - value) or ends_day(text, parsed):
                return render(parsed)
            if len(cache) >= CACHE_ENTRIES_MAX:
                cache.clear()
            around = cache[rest] = split(parsed)
        return around[0] + part + around[1]

    return convert


def _cutter(seconds: Seconds, written: Seconds) -> Callable[[str], str | None]:
    """A function from the seconds of the source to those of the destination; None when the text is no such seconds.

    Digits are cut off, or zeros added.
    """
    if not seconds.digits:
        behind = written.separator + "0" * written.digits
        return {text: text + behind for text in SECOND_TEXTS}.get
    fraction_start = 2 + len(seconds.separator)
    heads = {text + seconds.separator: text + written.separator for text in SECOND_TEXTS}
    width, digits, zeros = seconds.width, min(seconds.digits, written.digits), "0" * (written.digits - seconds.digits)

    def cut(part: str) -> str | None:
        head, fraction = heads.get(part[:fraction_start]), part[fraction_start:]
        if head is None or len(part) != width or not (fraction.isascii() and fraction.isdigit()):
            return None
        return head + fraction[:digits] + zeros

    return cut
