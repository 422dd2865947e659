"""Items like those before them: decoded by a type and converted by a function that are made for their attributes.

The items of a table are of few shapes. Where attributes and types are known beforehand, decoding makes no dict and no
value that has to be asked for its type. What does not fit is left to the general way, and may be learned. Attributes
stand in the order in which they were learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from penstock import sdk
from penstock.plugins.sources.dynamodb import attributes

ATTRIBUTES_MAX = 200
"""Items of more attributes go the general way."""
LEARN_MAX = 10
"""How often the shape of one file is learned anew."""
SHAPES_MAX = 32
"""Shapes that are kept: most files of a table have the same."""


class Rows(NamedTuple):
    """Items side by side."""

    bodies: list[sdk.Body]
    keys: list[str]
    sort_keys: list[str]
    """Empty where the table has no sort key."""
    failed: int = 0
    """Lines that hold none."""


class _Text(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    S: str


class _Number(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    N: str


class _Flag(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    BOOL: bool


class _Texts(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    SS: list[str]


class _Kind(NamedTuple):
    """How an attribute of one type is decoded and converted."""

    type: type[msgspec.Struct]
    value: str
    """Expression for its value; `{}` stands for the attribute."""
    key: str
    """Expression for its text as a key."""


_KINDS = {
    "S": _Kind(_Text, "{}.S", "{}.S"),
    "N": _Kind(
        _Number,
        "int(text) if (text := {}.N).isdecimal() else number(text)",
        "text if (text := {}.N).isdecimal() else plain(text)",
    ),
    "BOOL": _Kind(_Flag, "{}.BOOL", "key_of({})"),
    "SS": _Kind(_Texts, "{}.SS", "key_of({})"),
    "": _Kind(attributes.Value, "entry({})", "key_of({})"),
}
"""Of the types that are worth it; the last one serves all others, and attributes that come in several types."""
_USED = {
    "UNSET": msgspec.UNSET,
    "entry": attributes.entry,
    "key_of": attributes.key_of,
    "number": attributes.number,
    "plain": attributes.plain,
}


class _Attribute(NamedTuple):
    name: str
    kind: str
    always: bool
    """Whether no item was without it."""


class Shapes:
    """The shape of the items of one file, learned from those that came."""

    def __init__(self, partition_key: str, sort_key: str | None) -> None:
        self._keys = (partition_key, sort_key)
        self._known: dict[str, _Attribute] = {}
        self._learned = 0
        self._read: Callable[[bytes], Rows] | None = None
        self._credit = 0
        """How often it has fitted, less how often it has not."""

    def read(self, text: bytes, count: int) -> Rows | None:
        """The items in so many lines, if all of them fit."""
        if self._read is None:
            return None
        try:
            rows = self._read(text)
        except (ValueError, RecursionError):
            rows = None
        if rows is not None and len(rows.bodies) == count:
            self._credit += 1
            return rows
        self._credit -= 1
        if self._credit < 0:
            self._read = None  # trying costs more than it gains
        return None

    def learn(self, images: Sequence[dict[str, attributes.Value]]) -> None:
        """Items that did not fit: the next of their kind will."""
        if not images or self._learned >= LEARN_MAX:
            return
        self._learned += 1
        self._known = _with(self._known, images, first=not self._known)
        known = tuple(self._known.values())
        self._read = _compile(known, *self._keys) if len(known) <= ATTRIBUTES_MAX else None
        self._credit = max(self._credit, 1)
        if self._read is None:
            self._learned = LEARN_MAX


def _with(
    known: dict[str, _Attribute], images: Sequence[dict[str, attributes.Value]], *, first: bool
) -> dict[str, _Attribute]:
    """What is known once these images are known too."""
    counts = dict.fromkeys(known, 0)
    found = dict(known)
    for image in images:
        for name, value in image.items():
            kind = next((kind for kind in _KINDS if kind and getattr(value, kind) is not None), "")
            attribute = found.get(name)
            if attribute is None:
                found[name] = _Attribute(name, kind, first)
            elif attribute.kind != kind:
                found[name] = attribute._replace(kind="")
            counts[name] = counts.get(name, 0) + 1
    return {
        name: attribute._replace(always=attribute.always and counts[name] == len(images))
        for name, attribute in found.items()
    }


@lru_cache(SHAPES_MAX)
def _compile(known: tuple[_Attribute, ...], partition_key: str, sort_key: str | None) -> Callable[[bytes], Rows] | None:
    """What reads lines of such items, raising `ValueError` for others; None where the shape cannot be had."""
    fields: list[Any] = []
    always, sometimes, rename = [], [], {}
    keys: dict[str, str] = {}
    for place, (name, kind, is_always) in enumerate(known):
        field = f"a{place}"
        rename[field] = name
        value, type_ = _KINDS[kind].value.format(f"item.{field}"), _KINDS[kind].type
        if is_always:
            fields.append((field, type_))
            always.append(f"{name!r}: {value}")
            keys[name] = _KINDS[kind].key.format(f"item.{field}")
        else:
            fields.append((field, type_ | msgspec.UnsetType, msgspec.UNSET))
            sometimes.append(f"if item.{field} is not UNSET: body[{name!r}] = {value}")
    if partition_key not in keys or (sort_key is not None and sort_key not in keys):
        return None
    steps = [f"body = {{{', '.join(always)}}}", *sometimes, f"keys.append({keys[partition_key]})"]
    if sort_key is not None:
        steps.append(f"sort_keys.append({keys[sort_key]})")
    steps.append("bodies.append(body)")
    source = "def rows(lines, bodies, keys, sort_keys):\n for line in lines:\n  item = line.Item\n"
    space = dict(_USED)
    try:
        item = msgspec.defstruct("Item", sorted(fields, key=len), rename=rename, forbid_unknown_fields=True, gc=False)
        exec(source + "".join(f"  {step}\n" for step in steps), space)  # noqa: S102 (names are quoted by repr)
    except ValueError:  # a name that msgspec or the source cannot hold
        return None
    decode = msgspec.json.Decoder(msgspec.defstruct("Line", [("Item", item)], gc=False)).decode_lines
    rows: Any = space["rows"]

    def read(text: bytes) -> Rows:
        found = Rows([], [], [])
        rows(decode(text), found.bodies, found.keys, found.sort_keys)
        return found

    return read
