"""The Ion text of export files: structs and lists of strings, decimals, blobs, booleans and nulls.

What the service writes is JSON but for names without quotes, numbers, sets and blobs. So most lines are made JSON,
many at once, and decoded as such. The others take a slower way: one regular expression takes a field name, a value and
the brackets that close behind it at once; nesting costs no call.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec

from penstock.plugins.sources.dynamodb import attributes, lines

_MARKER = "$ion_1_0"
_decoder = msgspec.json.Decoder(dict[str, Any], float_hook=attributes.number)
_NAME = re.compile(rb"\b([A-Za-z_]\w*+):", re.ASCII)
_ANY_NAME = re.compile(rb"'?((?<=')[^'\\\0]*+(?=':(?!:))|(?<!['A-Za-z0-9_$])[A-Za-z_$][A-Za-z0-9_$]*+(?=:(?!:)))'?:")
_SETS = (b"$dynamodb_SS::[", b"$dynamodb_NS::[", b"$dynamodb_BS::[")
_WHOLE = re.compile(rb"\.(?<=[0-9]\.)(?=[,}\]])")
"""The point behind a whole number."""
_TENS = re.compile(rb"[dD](?=[-+0-9])")
_BLOB = re.compile(rb"\{\{\s*+([A-Za-z0-9+/=]*+)\s*+\}\}")
_VALUE = re.compile(
    r"""[ \t\r]*+
    (?:(?:([A-Za-z_$][A-Za-z0-9_$]*+)|'([^'\\]*+(?:\\.[^'\\]*+)*+)')[ \t]*+:(?!:)[ \t]*+)?
    (?:\$dynamodb_[SNB]S::[ \t]*+)?
    (?:"([^"\\]*+)"
      |(-?[0-9]++)\.?(?=[,}\] \t])
      |(\[|\{(?!\{))
      |(-?[0-9]++(?:\.[0-9]*+)?(?:[dD][+-]?[0-9]++)?)
      |(true|false|null(?:\.[a-z]++)?)(?![A-Za-z0-9_$])
      |"((?:[^"\\]|\\.)*+)"
      |\{\{([A-Za-z0-9+/=\s]*+)\}\}
    )
    [ \t]*+([}\] \t]*+)(,?)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPED = dict(zip("0abtnfrv\"'?\\/", "\0\a\b\t\n\f\r\v\"'?\\/", strict=True))
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {"true": True, "false": False}


def read_lines(text: bytes, count: int) -> list[Any]:
    """The struct of each of so many lines, or the `ValueError` that says why there is none."""
    return lines.read(text, count, lambda text: _decoder.decode_lines(_as_json(text)), _read_line)


def _read_line(line: bytes) -> Any:
    try:
        return _decoder.decode(_as_json(line))
    except (ValueError, RecursionError):
        pass
    try:
        return read_item(line.decode())
    except ValueError as error:
        return error


def _as_json(text: bytes) -> bytes:
    """Lines of Ion as lines of JSON. Raises `ValueError` where that cannot be done; what comes out may be no JSON."""
    if (b"\\" in text and b'\\"' in text) or b"\0" in text or b"\1" in text:
        raise ValueError("a string holds a quote")
    pieces = text.split(b'"')  # every other one is the content of a string
    outside = b"\0".join(pieces[::2]).removeprefix(b"$ion_1_0 ").replace(b"\n$ion_1_0 ", b"\n")
    quoted = b"'" in outside  # names that may hold anything, annotations too
    if not quoted:
        outside = _without_annotations(outside)
    parts = (_ANY_NAME if quoted or b"$" in outside else _NAME).split(outside)  # every other one is a name
    rest = b"\1:".join(parts[::2])
    if quoted:
        rest = _without_annotations(rest)
        if b"'" in rest:
            raise ValueError("a name holds a quote")
    rest = _WHOLE.sub(b"", rest)
    if b"{{" in rest:
        rest = _BLOB.sub(rb'"\1"', rest)
    if b"d" in rest or b"D" in rest:
        rest = _TENS.sub(b"e", rest)
    parts[::2] = rest.split(b"\1")
    pieces[::2] = b'"'.join(parts).split(b"\0")
    return b'"'.join(pieces)


def _without_annotations(text: bytes) -> bytes:
    if b"::" in text:
        for annotation in _SETS:
            text = text.replace(annotation, b"[")
        if b"::" in text:
            raise ValueError("there is another annotation than that of a set")
    return text


def read_item(text: str) -> dict[str, Any]:  # noqa: C901 (one loop: a call per value would cost as much as the value)
    """The struct of one line. Sets are lists, blobs base64 text, numbers int or Decimal. Raises `ValueError`."""
    begin = text.find("{")
    if begin < 0 or text[:begin].strip() not in ("", _MARKER):
        raise ValueError("the line is no Ion struct")
    root: dict[str, Any] = {}
    holder: Any = root
    around: list[Any] = [None]
    comma = ","
    at = begin + 1
    if text[at:].strip() == "}":
        return root
    for token in iter(_VALUE.scanner(text, at).match, None):  # type: ignore[attr-defined]
        if not comma:
            raise ValueError(f"a value is not expected at {token.start()}")
        name, quoted, value, whole, opening, number, word, escaped, blob, closing, comma = token.groups()
        if value is None:
            if whole is not None:
                value = int(whole) if len(whole) < attributes.EXPONENT_MAX else attributes.number(whole)
            elif opening is not None:
                value = {} if opening == "{" else []
            else:
                value = _scalar(number, word, escaped, blob)
        if type(holder) is list and name is None and quoted is None:
            holder.append(value)
        elif type(holder) is dict and (name or quoted is not None):
            holder[name or _unescaped(quoted)] = value
        else:
            raise ValueError(f"a field or its name is not expected at {token.start()}")
        if opening is not None:
            around.append(holder)
            holder = value
            if not closing:
                comma = "" if comma else ","
        if closing:
            holder = _closed(holder, around, closing)
            if holder is None:
                if comma or text[token.end() :].strip():
                    raise ValueError("the line goes on behind its item")
                return root
        at = token.end()
    raise ValueError(f"the line is no Ion of an export at {at}")


def _closed(holder: Any, around: list[Any], closing: str) -> Any:
    """The container that is open behind the brackets; None behind the outermost."""
    for bracket in closing:
        if bracket in " \t":
            continue
        if holder is None or (bracket == "}") is not (type(holder) is dict):
            raise ValueError(f"a {bracket} is not expected")
        holder = around.pop()
    return holder


def _scalar(number: str | None, word: str | None, escaped: str | None, blob: str) -> Any:
    if number is not None:
        return attributes.number(number.replace("d", "E").replace("D", "E"))
    if word is not None:
        return _WORDS.get(word)
    if escaped is not None:
        return _unescaped(escaped)
    return "".join(blob.split())


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    text = _ESCAPE.sub(_character, text)
    if _SURROGATE.search(text):  # a character in two halves; a lone half cannot be written anywhere
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _character(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    if digits is not None:
        code = int(digits, 16)
        if code > 0x10FFFF:
            raise ValueError(f"there is no character {digits}")
        return chr(code)
    if found[4] not in _ESCAPED:
        raise ValueError(f"the escape \\{found[4]} is unknown")
    return _ESCAPED[found[4]]


def number_text(value: Any) -> str:
    """A key's value as text, as `attributes.key_text` gives it: no exponent."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    raise ValueError("a key is no text, number or binary")
