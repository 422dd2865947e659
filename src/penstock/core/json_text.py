"""JSON text of bodies. Numbers survive: integers of any size, and `Decimal` as a plain number, never through a float.

Decoding keeps integers exact. Encoding tries the fastest way first; what that refuses (integers beyond 64 bits, deep
nesting, half surrogate pairs) takes a second, slower way.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

import msgspec
import orjson

from penstock.core.errors import EventError
from penstock.core.inline import Inline

PLAIN_DIGITS_MAX = 400
"""Decimals with a longer plain form are written with an exponent."""

_decode = msgspec.json.Decoder().decode
_encode_slowly = msgspec.json.Encoder().encode
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def encode(value: Any) -> bytes:
    """UTF-8 JSON text without blanks. NaN and Infinity become null. Raises EventError when it cannot be written."""
    try:
        return orjson.dumps(value, default=_fragment)
    except TypeError:
        return _encode_rest(value)


def encode_line(value: Any) -> bytes:
    """What `encode` gives, and a newline: made at once, so that the text is not copied for it."""
    try:
        return orjson.dumps(value, _fragment, orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return _encode_rest(value) + b"\n"


def decode(text: bytes | str) -> Any:
    """The value of one JSON text. Raises ValueError when it is malformed or too deeply nested."""
    try:
        return _decode(text)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except ValueError as error:
        return _decode_rest(text, error)


def decimal_text(value: Decimal) -> str:
    """A finite decimal as a plain number: `39370`, never `3.937E+4`."""
    if abs(value.adjusted()) > PLAIN_DIGITS_MAX:
        return str(value)
    return format(value, "f")


def _fragment(value: Any) -> Any:
    if isinstance(value, Decimal):
        text = str(value)
        if "E" in text or "N" in text or "I" in text:  # with an exponent, NaN or Infinity
            return orjson.Fragment(decimal_text(value).encode()) if value.is_finite() else None
        return orjson.Fragment(text.encode())
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


INLINE_ENCODE = Inline("dumps(value, fragment)", dumps=orjson.dumps, fragment=_fragment)
"""`encode` of most values as an expression. It raises TypeError for those that take the slower way."""


def _encode_rest(value: Any) -> bytes:
    try:
        return _encode_slowly(_encodable(value))
    except RecursionError:
        raise EventError("The event is nested too deeply to be written as JSON", cause="json") from None
    except (TypeError, ValueError) as error:
        raise EventError(f"The event cannot be written as JSON: {error}", cause="json") from error


def _encodable(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {_key_text(key): _encodable(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_encodable(item) for item in value]
    if isinstance(value, str):
        return _SURROGATE.sub(_REPLACEMENT, value)
    if isinstance(value, Decimal):
        return msgspec.Raw(decimal_text(value).encode()) if value.is_finite() else None
    if isinstance(value, (bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return float(value)
    return msgspec.Raw(orjson.dumps(value))


def _key_text(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is no text")
    return _SURROGATE.sub(_REPLACEMENT, key)


def _decode_rest(text: bytes | str, error: ValueError) -> Any:
    """Accept what is valid JSON and only beyond the fast decoder: half surrogate pairs and numbers beyond a double."""
    if isinstance(error, msgspec.DecodeError) and _may_be_valid(text, error):
        try:
            return _exact.decode(text if isinstance(text, str) else text.decode())
        except RecursionError:
            raise ValueError("JSON is nested too deeply") from None
        except ValueError:
            pass
    raise error


def _may_be_valid(text: bytes | str, error: ValueError) -> bool:
    has_escape = "\\u" in text if isinstance(text, str) else b"\\u" in text
    return has_escape or "out of range" in str(error)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _parse_float(text: str) -> float | Decimal:
    number = float(text)
    if not math.isinf(number):
        return number
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{text} is too large a number") from None


class _ExactDecoder(json.JSONDecoder):
    def decode(self, s: str, *args: Any) -> Any:
        return _clean(super().decode(s, *args))


def _clean(value: Any) -> Any:
    if type(value) is dict:
        return {_SURROGATE.sub(_REPLACEMENT, key): _clean(item) for key, item in value.items()}
    if type(value) is list:
        return [_clean(item) for item in value]
    return _SURROGATE.sub(_REPLACEMENT, value) if type(value) is str else value


_exact = _ExactDecoder(parse_constant=_refuse_constant, parse_float=_parse_float)
