"""Attribute values of DynamoDB as what JSON can hold. Numbers never pass through a float."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from penstock import sdk

EXPONENT_MAX = 400
"""Far beyond the 125 of DynamoDB; keeps a hostile `1E999999999` from becoming a billion digits."""
_FRACTION = re.compile(r"-?[0-9]{1,40}\.[0-9]{0,130}[1-9]")


def item(image: dict[str, Any]) -> sdk.Body:
    """A body from an image in wire form, `{"id": {"N": "7"}}`. Raises `EventError` for an unknown type."""
    try:
        return _map(image)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise sdk.EventError(f"{type(error).__name__}: {error}", cause="type") from None


def key_text(value: dict[str, str]) -> str:
    """A key attribute as text: numbers without exponent, binary as base64. Raises `EventError`."""
    try:
        for kind, raw in value.items():
            if kind == "N":
                return plain(raw)
            if kind in ("S", "B"):
                return raw
    except (AttributeError, ValueError) as error:
        raise sdk.EventError(f"{type(error).__name__}: {error}", cause="type") from None
    raise sdk.EventError(f"a key cannot be of type {', '.join(value) or 'none'}", cause="type")


def number(text: str) -> int | Decimal:
    """The number, an int where it is whole. Raises `ValueError`."""
    if _FRACTION.fullmatch(text):  # the usual form, known to be finite and no integer
        return Decimal(text)
    try:
        return int(text)
    except ValueError:
        value = _decimal(text)
        return int(value) if value == value.to_integral_value() else value


def plain(text: str) -> str:
    """The number without exponent: `3.937E+4` is `39370`. Raises `ValueError`."""
    return format(_decimal(text), "f") if "E" in text or "e" in text else text


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:50]!r} is not a number") from None
    if not value.is_finite() or abs(value.adjusted()) > EXPONENT_MAX:
        raise ValueError(f"{text[:50]!r} is not a number of DynamoDB")
    return value


def _map(image: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, tagged in image.items():
        (kind,) = tagged
        raw = tagged[kind]
        if kind == "S" or kind == "BOOL" or kind == "B":
            body[name] = raw
        elif kind == "N":
            body[name] = int(raw) if raw.isdecimal() and raw.isascii() else number(raw)
        else:
            body[name] = _convert(kind, raw)
    return body


def _list(values: list[dict[str, Any]]) -> list[Any]:
    result = []
    for tagged in values:
        (kind,) = tagged
        result.append(_convert(kind, tagged[kind]))
    return result


def _convert(kind: str, raw: Any) -> Any:
    convert = _CONVERT.get(kind)
    if convert is None:
        raise ValueError(f"unknown attribute type {kind}")
    return convert(raw)


def _same(raw: Any) -> Any:
    return raw


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "S": _same,
    "N": number,
    "BOOL": _same,
    "NULL": lambda _raw: None,
    "B": _same,
    "SS": list,
    "NS": lambda raw: [number(text) for text in raw],
    "BS": list,
    "L": _list,
    "M": _map,
}
