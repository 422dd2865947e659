"""Durations, byte counts and versions as pipeline files write them."""

from __future__ import annotations

import re

_ISO = re.compile(
    r"(?P<sign>[-+])?P(?:(?P<d>[-+]?\d+)D)?"
    r"(?P<t>T(?:(?P<h>[-+]?\d+)H)?(?:(?P<m>[-+]?\d+)M)?(?:(?P<s>[-+]?\d+)(?:[.,](?P<f>\d{0,9}))?S)?)?",
    re.IGNORECASE | re.ASCII,
)
_SIMPLE = re.compile(r"(0|[1-9]\d*)(s|ms)", re.ASCII)
_BYTES = re.compile(r"(\d+)(?:\.(\d+))?([a-zA-Z]*)", re.ASCII)
_FACTORS = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?", re.ASCII)
_DURATION_HELP = (
    "Durations must use either ISO 8601 notation or simple notations for seconds (60s) or milliseconds (100ms). "
    "Whitespace is ignored."
)


def parse_duration(text: object) -> float:
    """Seconds of `60s`, `100ms` or an ISO 8601 duration such as `PT15M` or `P1DT2H`."""
    if not isinstance(text, str):
        raise ValueError(_DURATION_HELP)
    compact = "".join(text.split())
    simple = _SIMPLE.fullmatch(compact)
    if simple:
        amount = int(simple.group(1))
        return amount / 1000 if simple.group(2) == "ms" else float(amount)
    iso = _ISO.fullmatch(compact)
    if iso is None or not any(iso.group(part) for part in "dhms") or iso.group("t") in ("T", "t"):
        raise ValueError(_DURATION_HELP)
    part = {name: int(iso.group(name) or 0) for name in "dhms"}
    fraction = int((iso.group("f") or "").ljust(9, "0")) / 1e9
    if (iso.group("s") or "").startswith("-"):
        fraction = -fraction
    seconds = part["d"] * 86_400 + part["h"] * 3600 + part["m"] * 60 + part["s"] + fraction
    return -seconds if iso.group("sign") == "-" else float(seconds)


def parse_bytes(text: object) -> int:
    """Bytes of `10mb`, `1.5gb`: units b, kb, mb, gb, factor 1024."""
    match = _BYTES.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"Unable to parse bytes provided by '{text}'")
    whole, fraction, unit = match.groups()
    if not unit:
        raise ValueError(f"Byte counts must have a unit. Valid byte units include: [{', '.join(_FACTORS)}]")
    factor = _FACTORS.get(unit)
    if factor is None:
        raise ValueError(f"Invalid byte unit: '{unit}'. Valid byte units include: [{', '.join(_FACTORS)}]")
    scaled = int(whole) * factor
    if fraction:
        part = int(fraction) * factor
        if unit == "b" and int(fraction):
            raise ValueError(
                f"The byte value '{text}' is explicitly declared as a fractional byte which is not allowed."
            )
        scaled += part // 10 ** len(fraction)
    return scaled


def parse_version(text: object) -> tuple[int, int | None]:
    """Major and minor of a pipeline file's version, `2` or `2.17`; the minor may be absent."""
    match = _VERSION.fullmatch(str(text))
    if match is None:
        raise ValueError(f"Invalid Data Prepper Version provided: {text}")
    return int(match.group(1)), int(match.group(2)) if match.group(2) else None


def version_compatible(version: tuple[int, int | None], current: tuple[int, int | None]) -> bool:
    """Whether a server of `current` can run a file of `version`."""
    if version[0] != current[0]:
        return version[0] < current[0]
    return version[1] is None or current[1] is None or version[1] <= current[1]
