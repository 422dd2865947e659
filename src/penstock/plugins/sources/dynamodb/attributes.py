"""Attribute values of DynamoDB as what JSON can hold. Numbers never pass through a float."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from penstock import sdk

EXPONENT_MAX = 400
"""Far beyond the 125 of DynamoDB; keeps a hostile `1E999999999` from becoming a billion digits."""
DIGITS_MAX = 170
"""Of 38 digits and as many places as a number of DynamoDB may have; longer texts are looked at more closely."""
_NOT_ZERO = frozenset("123456789")


class Value(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An attribute as it stands in JSON: `{"N": "7"}`. Decoded so, types are checked on the way and cost no dict."""

    S: str | None = None
    N: str | None = None
    BOOL: bool | None = None
    M: dict[str, Value] | None = None
    L: list[Value] | None = None
    SS: list[str] | None = None
    NS: list[str] | None = None
    NULL: bool | None = None
    B: str | None = None
    BS: list[str] | None = None


def body(image: dict[str, Value]) -> sdk.Body:
    """A body from a decoded image. Raises `ValueError` where a value has no type."""
    found: sdk.Body = {}
    for name, value in image.items():
        if (text := value.S) is not None:
            found[name] = text
        elif (text := value.N) is not None:
            found[name] = int(text) if text.isdecimal() else number(text)
        elif (flag := value.BOOL) is not None:
            found[name] = flag
        elif (inner := value.M) is not None:
            found[name] = body(inner)
        else:
            found[name] = _rare(value)
    return found


def entry(value: Value) -> Any:
    if (text := value.S) is not None:
        return text
    if (text := value.N) is not None:
        return int(text) if text.isdecimal() else number(text)
    if (inner := value.M) is not None:
        return body(inner)
    return value.BOOL if value.BOOL is not None else _rare(value)


def _rare(value: Value) -> Any:
    """The value of the less usual types."""
    if (entries := value.L) is not None:
        return [entry(value) for value in entries]
    if (texts := value.SS) is not None:
        return texts
    if (texts := value.NS) is not None:
        return [number(text) for text in texts]
    if value.NULL is not None:
        return None
    for same in (value.B, value.BS):
        if same is not None:
            return same
    raise ValueError("an attribute has no type")


def key_of(value: Value) -> str:
    """A key attribute as text, as `key_text` gives it. Raises `ValueError`."""
    if value.S is not None:
        return value.S
    if value.N is not None:
        return value.N if value.N.isdecimal() else plain(value.N)
    if value.B is not None:
        return value.B
    raise ValueError("a key is no text, number or binary")


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
    if "." in text and text[-1] in _NOT_ZERO and "E" not in text and "e" not in text and len(text) < DIGITS_MAX:
        try:
            return Decimal(text)  # the usual form, known to be finite and no integer
        except InvalidOperation:
            raise ValueError(f"{text[:50]!r} is not a number") from None
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
        if not tagged:
            body[name] = _empty(tagged)
            continue
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
        if not tagged:
            result.append(_empty(tagged))
            continue
        (kind,) = tagged
        result.append(_convert(kind, tagged[kind]))
    return result


def _empty(tagged: Any) -> dict[str, Any]:
    """An attribute of no type: DynamoDB Local writes empty maps so into its streams."""
    if tagged != {}:
        raise ValueError("an attribute has no type")
    return {}


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
