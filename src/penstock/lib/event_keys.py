"""Event keys that are only known when the event is there: made of templates, or read out of a text."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from penstock.core.batch import Body, Meta, copy_value
from penstock.core.errors import EventError, ExpressionSyntaxError
from penstock.core.event import replace_invalid_characters, replace_invalid_characters_in
from penstock.core.key import Key
from penstock.expr import compile_template

__all__ = [
    "Key",
    "compile_key",
    "compile_spread",
    "event_key",
    "give_back",
    "replace_invalid_characters",
    "replace_invalid_characters_in",
]

_PLAIN_NAME = re.compile(r"(?![0-9]+\Z)[A-Za-z0-9.\-_@\[\]()$ ]{1,2048}", re.ASCII)
PLAIN_NAMES_MAX = 4096
"""Names remembered as plain; a full memory is cleared."""


def event_key(text: str) -> Key:
    """The key of that text, to be read and written. Raises EventError when it is none."""
    try:
        return Key.parse(text)
    except ValueError as error:
        raise EventError(str(error), cause="key") from error


def give_back(body: Body, key: Key, value: Any) -> None:
    """Undo a `take` or `delete` of what was under `key`, while its parent is still there. A list kept its element.

    Unlike `put` it also takes names that are numbers, which some other component may have written.
    """
    node: Any = body
    for part in key.parts[:-1]:
        node = node[int(part) if type(node) is list else part]
    if type(node) is not list:
        node[key.parts[-1]] = value


def compile_key(text: str) -> Callable[[Body, Meta], Key]:
    """A function that gives the key of one event, for a text that may hold `${...}`. It raises EventError.

    Raises ValueError for a text without `${` that is no key.
    """
    if "${" not in text:
        fixed = Key.parse(text)
        return lambda body, meta: fixed
    try:
        render = compile_template(text).render
    except ExpressionSyntaxError as error:
        broken = str(error)

        def refuse(body: Body, meta: Meta) -> Key:
            raise EventError(broken, cause="format")

        return refuse
    return lambda body, meta: event_key(render(body, meta))


def compile_spread(*, overwrite: bool, normalize: bool, lenient: bool = False) -> Callable[[Body, Body], None]:
    """A function that puts each member of its second argument under its own name into the first.

    A name is an event key: `a/b` is `b` inside `a`. `overwrite` replaces what is there; `normalize` turns characters
    that no key can hold into `_`. A name that cannot be put is left out when `lenient`; else the function raises
    EventError for it, and then nothing is put.
    """
    plain_names: set[str] = set()
    put_keys = _key_putter(overwrite=overwrite, lenient=lenient)

    def is_plain(name: str) -> bool:
        if _PLAIN_NAME.fullmatch(name) is None:
            return False
        if len(plain_names) >= PLAIN_NAMES_MAX:
            plain_names.clear()
        plain_names.add(name)
        return True

    def spread(body: Body, members: Body) -> None:
        if normalize:
            members = replace_invalid_characters_in(members)
        if not (plain_names.issuperset(members) or all(map(is_plain, members))):
            put_keys(body, members)
        elif overwrite:
            body.update(members)
        else:
            body.update({name: value for name, value in members.items() if name not in body})

    return spread


def _key_putter(*, overwrite: bool, lenient: bool) -> Callable[[Body, Body], None]:
    """The same with every name read as a key."""

    def put(body: Body, name: str, value: Any) -> None:
        key = event_key(name)
        if overwrite or not key.exists(body):
            key.put(body, value)

    def put_what_can_be(body: Body, members: Body) -> None:
        for name, value in members.items():
            with suppress(EventError):
                put(body, name, value)

    def put_all(body: Body, members: Body) -> None:
        trial = copy_value(body)
        for name, value in members.items():
            put(trial, name, value)
        body.clear()
        body.update(trial)

    return put_what_can_be if lenient else put_all
