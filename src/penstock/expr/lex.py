"""Tokens of the expression language. The longest match wins, as it does in Data Prepper, with all its traps:

the blanks around `and`, `or`, `in`, `not in` and `typeof` belong to the token; `/a/b` is always one pointer;
`6/2` is a number and the pointer `/2`. Source: `expressions` in docs/behaviour.md.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from penstock.core.errors import ExpressionSyntaxError

STATEMENT_CHARACTERS_MAX = 65_536

TYPE_NAMES: Final = frozenset(("integer", "boolean", "big_decimal", "long", "map", "array", "double", "string"))

WORD_OPERATORS: Final = {
    " in ": "in",
    " not in ": "not in",
    " typeof ": "typeof",
    " and ": "and",
    " or ": "or",
}


class Token(NamedTuple):
    """`kind` is one of the names below, or the operator itself."""

    kind: str
    text: str
    start: int
    end: int


POINTER, QUOTED_POINTER, STRING, INTEGER, FLOAT = "pointer", "quoted pointer", "string", "integer", "float"
BOOLEAN, NULL, VARIABLE, TYPE_NAME, NAME, END = "boolean", "null", "variable", "type name", "name", "end"

_WORD_OPERATOR = re.compile(r" (?:not in|in|typeof|and|or) ")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]*)(\.[0-9]+(?:[eE]-?(?:0|[1-9][0-9]*))?)?")
_NAME = re.compile(r"[A-Za-z0-9_.@]+")
_CHARACTERS = r"""[^"\\$]*(?:\\[btnfr"'\\$][^"\\$]*)*"""
_LONG_STRING = re.compile(f'"""{_CHARACTERS}"""')
_STRING = re.compile(f'"{_CHARACTERS}"')
_QUOTED_POINTER = re.compile(r""""/[^"\\]*(?:\\[btnfr"'\\$/][^"\\]*)*\"""")
_POINTER = re.compile(r"(?:/[A-Za-z0-9_.@]+)+")
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_-]*\}")
_OPERATOR = re.compile(r"==|!=|=~|!~|<=|>=|[<>+\-*/%(){},]")
_WORDS: Final = {"true": BOOLEAN, "false": BOOLEAN, "null": NULL} | dict.fromkeys(TYPE_NAMES, TYPE_NAME)

_HINTS: Final = {
    "'": "texts stand in double quotes",
    "&": "write ` and ` in lower case with one blank on each side",
    "|": "write ` or ` in lower case with one blank on each side",
    "=": "equality is written ==",
    "!": "negation is written `not ` followed by one expression",
    "[": "elements of arrays are addressed as /list/0",
    "$": r"inside a string a dollar is written \$",
    '"': r"the string does not end, or holds a bare $ or an escape other than \b \t \n \f \r \" \' \\ \$",
}


def syntax_error(statement: str, position: int, reason: str) -> ExpressionSyntaxError:
    """An error that shows the statement and the place, counted from 1."""
    shown = statement if len(statement) <= 1000 else f"{statement[:1000]}…"
    message = f'Unable to parse statement "{shown}": {reason} at position {position + 1}'
    return ExpressionSyntaxError(message, position=position)


def tokens_of(statement: str) -> list[Token]:
    """All tokens of a statement, closed by one of kind `END`. Raises ExpressionSyntaxError."""
    if len(statement) > STATEMENT_CHARACTERS_MAX:
        raise syntax_error(
            statement, STATEMENT_CHARACTERS_MAX, f"the statement is longer than {STATEMENT_CHARACTERS_MAX} characters"
        )
    tokens: list[Token] = []
    position, end = 0, len(statement)
    while position < end:
        token = _token_at(statement, position)
        if token is None:
            character = statement[position]
            if character not in " \t\r\n":
                hint = _HINTS.get(character)
                raise syntax_error(statement, position, f"unexpected {character!r}{f' ({hint})' if hint else ''}")
            position += 1
        else:
            tokens.append(token)
            position = token.end
    tokens.append(Token(END, "", end, end))
    return tokens


def _token_at(statement: str, position: int) -> Token | None:
    character = statement[position]
    if character == " ":
        found = _WORD_OPERATOR.match(statement, position)
        return found and Token(WORD_OPERATORS[found[0]], found[0], position, found.end())
    if character == '"':
        return (
            _token(STRING, _LONG_STRING, statement, position)
            or _token(QUOTED_POINTER, _QUOTED_POINTER, statement, position)
            or _token(STRING, _STRING, statement, position)
        )
    if character == "$":
        return _token(VARIABLE, _VARIABLE, statement, position)
    if character == "/":
        pointer = _token(POINTER, _POINTER, statement, position)
        if pointer is not None:
            return pointer
    if statement.startswith("not ", position):
        return Token("not", "not ", position, position + 4)
    name = _NAME.match(statement, position)
    if name is not None:
        return _word(name, statement, position)
    found = _OPERATOR.match(statement, position)
    return found and Token(found[0], found[0], position, found.end())


def _token(kind: str, pattern: re.Pattern[str], statement: str, position: int) -> Token | None:
    found = pattern.match(statement, position)
    return found and Token(kind, found[0], position, found.end())


def _word(name: re.Match[str], statement: str, position: int) -> Token:
    number = _NUMBER.match(statement, position)
    if number is not None and number.end() >= name.end():
        return Token(FLOAT if number[1] else INTEGER, number[0], position, number.end())
    return Token(_WORDS.get(name[0], NAME), name[0], position, name.end())
