"""Amazon Ion text as the values that a body can hold.

Annotations are left out. Symbols, timestamps (in UTC, in their own precision) and bytes (in base64) become text, lists
and S-expressions lists, typed nulls None. Integers and decimals keep all their digits. Symbols that are numbers of a
symbol table are known only where every Ion reader knows them (`$4` is `name`).

JSON is Ion: texts that are plain JSON take a shorter way to the same values.
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isinf
from typing import Any

import msgspec

NUMBER_CHARACTERS_MAX = 400
NESTING_MAX = 250
"""Containers inside each other."""


AT_ONCE_CHARACTERS_MAX = 64 * 1024
"""The members of longer structs are read one by one: matches take many times the memory of their text."""


class IonError(ValueError):
    """The text is not Ion, or beyond a limit."""


def read_ion(text: str) -> Any:
    """The first value of an Ion text. Raises `IonError`."""
    if text[:1] == "{" and text[1:2].isidentifier() and len(text) <= AT_ONCE_CHARACTERS_MAX:
        return _struct(text)
    if _MAY_BE_JSON.match(text) and text.count("{") + text.count("[") <= NESTING_MAX:
        try:
            return _json(text)
        except ValueError:
            pass  # Ion that is no JSON
    return _Reader(text).read()


def _struct(text: str) -> Any:
    """The struct that a text begins with: its plain members at once, and whatever comes behind them step by step."""
    members: dict[str, Any] = {}
    rest = ""
    for quoted, name, string, word, integer, decimal, time, rest in _PLAIN_MEMBERS.findall(text, 1):
        if word:
            members[name or quoted] = _WORDS.get(word, word)
        elif integer:
            members[name or quoted] = int(integer)
        elif decimal:
            members[name or quoted] = _number(decimal)
        elif not rest:
            members[name or quoted] = string or time
    if rest[:1] == "}":
        return members
    return _Reader(text).read_on(members, len(text) - len(rest))


def _number(text: str) -> int | float | Decimal:
    """A decimal as the double that prints like it, or exactly where there is none; `7.` is an integer."""
    if len(text) <= 16 and "e" not in text:  # 15 digits survive a double
        return int(text[:-1]) if text.endswith(".") else float(text)
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise IonError("a number is too long")
    try:
        exact = Decimal(text)
    except ArithmeticError:
        raise IonError(f"{text} is too large a number") from None
    if text.endswith("."):
        return int(exact)
    number = float(exact) if abs(exact.adjusted()) < NUMBER_CHARACTERS_MAX else 0.0
    return number if Decimal(repr(number)) == exact else exact


def _float(text: str) -> float | Decimal:
    number = float(text)
    if not isinf(number):
        return number
    try:
        return Decimal(text)
    except ArithmeticError:
        raise IonError(f"{text} is too large a number") from None


_json = msgspec.json.Decoder(
    float_hook=lambda text: _float(text) if "e" in text or "E" in text else _number(text)
).decode

_MAY_BE_JSON = re.compile(r'\s*+(?!\{\s*+[^"}\s])')
_SKIPPED = re.compile(r"(?:[ \t\r\n\f\v]++|//[^\n\r]*+|/\*[^*]*+(?:\*(?!/)[^*]*+)*\*/)*")
_STOP = r"""(?=[{}\[\](),"' \t\r\n\f\v/]|\Z)"""
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*+")
_OPERATOR = re.compile(r"[!#%&*+\-./;<=>?@^`|~]++")
_SHORT = re.compile(r'"([^"\\\n\r]*+(?:\\(?:\r\n|[\s\S])[^"\\\n\r]*+)*)"')
_SYMBOL = re.compile(r"'([^'\\\n\r]*+(?:\\(?:\r\n|[\s\S])[^'\\\n\r]*+)*)'")
_LONG = re.compile(r"'''([^'\\]*+(?:(?:\\(?:\r\n|[\s\S])|'(?!''))[^'\\]*+)*)'''")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(\r\n|[\s\S]))")
_LOB = re.compile(r"\{\{\s*+(?:(\")|(''')|([A-Za-z0-9+/=\s]*+)\}\})")
_DIGITS = "(?:0|[1-9][0-9]*+(?:_[0-9]++)*)"
_HEXADECIMAL, _BINARY = "0[xX][0-9A-Fa-f]++(?:_[0-9A-Fa-f]++)*", "0[bB][01]++(?:_[01]++)*"
_INTEGER = re.compile(f"-?(?:{_HEXADECIMAL}|{_BINARY}|{_DIGITS}){_STOP}")
_REAL = re.compile(rf"-?{_DIGITS}(?:\.(?:[0-9]++(?:_[0-9]++)*)?)?(?:([eEdD])[+-]?[0-9]++)?{_STOP}")
_TIMESTAMP = re.compile(
    r"(\d{4})(?:T|-(\d\d)(?:T|-(\d\d)(?:T(?:(\d\d):(\d\d)(?::(\d\d)(\.\d++)?)?(Z|[+-]\d\d:\d\d))?)?))" + _STOP, re.ASCII
)
_PLAIN_FIELD = re.compile(
    r'[ \t\r\n]*+(?:"([^"\\\n\r\ud800-\udfff]*+)"|(?!(?:null|true|false|nan)\b)([A-Za-z_][A-Za-z0-9_]*+))'
    r"[ \t\r\n]*+:(?!:)"
)
_PLAIN_VALUE = re.compile(
    r"""[ \t\r\n]*+(?:"([^"\\\n\r\ud800-\udfff]*+)"|(?:([A-Za-z_][A-Za-z0-9_]*+)|(-?(?:0|[1-9][0-9]{0,17}+))"""
    r"""|(-?(?:0|[1-9][0-9]*+)\.[0-9]*+))(?=[ \t\r\n]*+[,}\]])|(\{(?!\{)|\[))"""
)
_DATE = (
    "[1-9][0-9]{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
"""A day that every year has."""
_MEMBER = (
    r'[ \t\r\n]*+(?:"([^"\\\n\r\ud800-\udfff]*+)"|(?!(?:null|true|false|nan)\b)([A-Za-z_][A-Za-z0-9_]*+))'
    r'[ \t\r\n]*+:(?!:)[ \t\r\n]*+(?:"([^"\\\n\r\ud800-\udfff]*+)"|([A-Za-z_][A-Za-z0-9_]*+)'
    r"|(-?(?:0|[1-9][0-9]{0,17}+))|(-?(?:0|[1-9][0-9]*+)\.[0-9]*+)"
    rf"|({_DATE}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]++)?Z))"
    r"[ \t\r\n]*+(?:,|(?=\}))"
)
_PLAIN_MEMBER = re.compile(_MEMBER)
_PLAIN_MEMBERS = re.compile(rf"{_MEMBER}|([\s\S]++)")
"""The tokens that nearly all texts are made of; what these do not match takes the longer way."""
_ESCAPED = dict(zip("0abtnfrv\"'?\\/", "\0\a\b\t\n\f\r\v\"'?\\/", strict=True))
_ESCAPED |= dict.fromkeys(("\n", "\r", "\r\n"), "")
_NULL_TYPES = frozenset(
    (
        "null",
        "bool",
        "int",
        "float",
        "decimal",
        "timestamp",
        "symbol",
        "string",
        "clob",
        "blob",
        "struct",
        "list",
        "sexp",
    )
)
_WORDS = {"true": True, "false": False, "null": None, "nan": float("nan")}
_SYSTEM_SYMBOLS = (
    *("", "$ion", "$ion_1_0", "$ion_symbol_table", "name", "version", "imports", "symbols", "max_id"),
    "$ion_shared_symbol_table",
)
_CLOSING = {"{": "}", "[": "]", "(": ")"}
_SURROGATE = re.compile("[\ud800-\udfff]")


_OPENED = object()


class _Reader:
    """Goes through one text with a stack of its own, so that nesting costs no call."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._around: list[tuple[Any, str, str]] = []
        self._container: Any = None
        self._end = ""
        """The sign that ends the container; empty outside of all."""
        self._name = ""
        """The field that is read."""

    def read_on(self, members: dict[str, Any], at: int) -> Any:
        """Read from inside the struct that the text begins with: `members` stand before the place `at`."""
        self._open("{")
        self._container, self._at = members, at
        return self.read()

    def read(self) -> Any:
        while True:
            value = self._next()
            if value is _OPENED:
                continue
            if value == "$ion_1_0" and not self._end and self._text.startswith(value, self._at - len(value)):
                continue  # the version marker
            value = self._put(value)
            if not self._end:
                return value

    def _next(self) -> Any:
        """The next value, a container that ends here, or `_OPENED` where one begins."""
        text = self._text
        if self._end == "}":
            self._plain_members()
        if self._end == "}" and (field := _PLAIN_FIELD.match(text, self._at)):
            self._name = field[field.lastindex or 0]
            self._at = field.end()
        else:
            char = self._skip()
            if char and char == self._end:
                return self._close()
            if self._end == "}":
                self._name = self._field()
        plain = _PLAIN_VALUE.match(text, self._at)
        if plain is None:
            char = self._annotations()
            if char in _CLOSING and not text.startswith("{{", self._at):
                return self._open(char)
            return self._scalar(char)
        self._at = plain.end()
        token = plain[plain.lastindex or 0]
        match plain.lastindex:
            case 2:
                return _WORDS.get(token, token)
            case 3:
                return int(token)
            case 4:
                return _number(token)
            case 5:
                self._at -= 1
                return self._open(token)
            case _:
                return token

    def _plain_members(self) -> None:
        """Go past the members of a struct as far as they are plain ones."""
        text, at, members, match = self._text, self._at, self._container, _PLAIN_MEMBER.match
        while (found := match(text, at)) is not None:
            quoted, name, string, word, integer, decimal, time = found.groups()
            value: Any = string
            if string is None:
                if integer is not None:
                    value = int(integer)
                elif word is not None:
                    value = _WORDS.get(word, word)
                elif decimal is not None:
                    value = _number(decimal)
                else:
                    value = time
            members[name if quoted is None else quoted] = value
            at = found.end()
        self._at = at

    def _open(self, char: str) -> object:
        if len(self._around) == NESTING_MAX:
            raise IonError(f"nested more than {NESTING_MAX} deep")
        self._around.append((self._container, self._end, self._name))
        self._container, self._end = ({} if char == "{" else []), _CLOSING[char]
        self._at += 1
        return _OPENED

    def _close(self) -> Any:
        self._at += 1
        value = self._container
        self._container, self._end, self._name = self._around.pop()
        return value

    def _put(self, value: Any) -> Any:
        """Put a value into its container, and that into the one around it if it ends here; returns the outermost."""
        while self._end:
            if self._end == "}":
                self._container[self._name] = value
            else:
                self._container.append(value)
            if self._end == ")":
                return None
            char = self._text[self._at : self._at + 1]
            if char != "," and char != self._end:
                char = self._skip()
            if char == ",":
                self._at += 1
                return None
            if char != self._end:
                raise self._unexpected()
            value = self._close()
        return value

    def _skip(self) -> str:
        """Go to the next sign and return it; empty at the end."""
        found = _SKIPPED.match(self._text, self._at)
        assert found is not None, "the pattern matches nothing too"
        self._at = found.end()
        return self._text[self._at : self._at + 1]

    def _unexpected(self) -> IonError:
        found = self._text[self._at : self._at + 1]
        return IonError(f"unexpected {found!r} at {self._at}" if found else "the text ends too early")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._unexpected()
        self._at = found.end()
        return found

    def _field(self) -> str:
        """The name of a field and its colon."""
        char = self._text[self._at : self._at + 1]
        if char == '"' or self._text.startswith("'''", self._at):
            name = self._string(char)
        elif char == "'":
            name = _unescaped(self._match(_SYMBOL)[1])
        else:
            name = _symbol(self._match(_IDENTIFIER)[0])
            if name in _WORDS:
                raise IonError(f"{name} is no name of a field")
        if self._skip() != ":" or self._text.startswith("::", self._at):
            raise self._unexpected()
        self._at += 1
        return name

    def _annotations(self) -> str:
        """Go past the annotations of a value and return its first sign."""
        while True:
            char = self._skip()
            if char == "'" and not self._text.startswith("'''", self._at):
                found = _SYMBOL.match(self._text, self._at)
            else:
                found = _IDENTIFIER.match(self._text, self._at)
            if found is None:
                return char
            begin, self._at = self._at, found.end()
            self._skip()
            if not self._text.startswith("::", self._at):
                self._at = begin
                return char
            self._at += 2

    def _scalar(self, char: str) -> Any:
        if char == '"' or self._text.startswith("'''", self._at):
            return self._string(char)
        if char == "'":
            return _unescaped(self._match(_SYMBOL)[1])
        if char == "{":
            return self._bytes()
        if char.isdecimal() or char == "-" or char == "+":
            number = self._number()
            if number is not None:
                return number
        if self._end == ")" and (found := _OPERATOR.match(self._text, self._at)):
            self._at = found.end()
            return found[0]
        return self._word()

    def _word(self) -> Any:
        word = self._match(_IDENTIFIER)[0]
        if word == "null" and self._text.startswith(".", self._at):
            self._at += 1
            if self._match(_IDENTIFIER)[0] not in _NULL_TYPES:
                raise self._unexpected()
            return None
        return _WORDS[word] if word in _WORDS else _symbol(word)

    def _number(self) -> int | float | Decimal | str | None:
        text, at = self._text, self._at
        found = _INTEGER.match(text, at)
        if found is not None:
            self._at = found.end()
            if self._at - at > NUMBER_CHARACTERS_MAX:
                raise IonError("a number is too long")
            return int(found[0], 0)
        found = _REAL.match(text, at)
        if found is not None:
            self._at = found.end()
            if self._at - at > NUMBER_CHARACTERS_MAX:
                raise IonError("a number is too long")
            digits = found[0].replace("_", "")
            if found[1] is not None and found[1] in "eE":
                return _float(digits)
            return _number(digits.replace("d", "e").replace("D", "e"))
        found = _TIMESTAMP.match(text, at)
        if found is not None:
            self._at = found.end()
            return _timestamp(found)
        if text.startswith(("+inf", "-inf"), at):
            self._at += 4
            return float(text[at : at + 4])
        return None

    def _string(self, char: str) -> str:
        if char == '"':
            return _unescaped(self._match(_SHORT)[1])
        pieces = []
        while self._text.startswith("'''", self._at):
            pieces.append(_unescaped(self._match(_LONG)[1].replace("\r\n", "\n").replace("\r", "\n")))
            self._skip()
        return "".join(pieces)

    def _bytes(self) -> str:
        """A blob or a clob, in base64."""
        found = self._match(_LOB)
        if found[3] is not None:
            try:
                data = binascii.a2b_base64("".join(found[3].split()).encode(), strict_mode=True)
            except ValueError as error:
                raise IonError(f"a blob is no base64: {error}") from None
        else:
            opening = found[1] or found[2]
            self._at -= len(opening)
            try:
                data = self._string(opening[0]).encode("latin-1")
            except UnicodeEncodeError:
                raise IonError("a clob holds more than bytes") from None
            if self._skip() != "}" or not self._text.startswith("}}", self._at):
                raise self._unexpected()
            self._at += 2
        return binascii.b2a_base64(data, newline=False).decode()


def _symbol(word: str) -> str:
    number = word[1:]
    if word[0] != "$" or not number.isdecimal():
        return word
    if len(number) > 1 or number == "0":
        raise IonError(f"the symbol {word} is unknown")
    return _SYSTEM_SYMBOLS[int(number)]


def _unescaped(text: str) -> str:
    if "\\" in text:
        text = _ESCAPE.sub(_escaped, text)
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _escaped(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    if digits is None:
        if found[4] not in _ESCAPED:
            raise IonError(f"the escape \\{found[4]} is unknown")
        return _ESCAPED[found[4]]
    code = int(digits, 16)
    if code > 0x10FFFF:
        raise IonError(f"there is no character {digits}")
    return chr(code)


def _timestamp(found: re.Match[str]) -> str:
    """The timestamp as text: in UTC where it has a time."""
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        at = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
        if hour is None:
            return f"{year}T" if month is None else f"{year}-{month}T" if day is None else f"{year}-{month}-{day}"
        if zone != "Z":
            hours, minutes = int(zone[1:3]), int(zone[4:])
            if hours > 23 or minutes > 59:
                raise IonError(f"{zone} is no offset")
            offset = timedelta(hours=hours, minutes=minutes)
            at = at + offset if zone[0] == "-" else at - offset
    except (ValueError, OverflowError) as error:
        raise IonError(f"{found[0]} is no timestamp: {error}") from None
    text = at.strftime("%m-%dT%H:%M")
    return f"{at.year:04}-{text}{'' if second is None else f':{second}'}{fraction or ''}Z"
