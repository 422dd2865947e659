"""The loop over a batch for the usual configuration: the first match wins and its captures go to the top of the event.

It is written as source for the patterns at hand and compiled once: fields are stored one by one, without a dictionary
in between, and only those that may be absent are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import TypeAdapter

from penstock import sdk
from penstock.lib.regex import Row, TimeLimitExceeded
from penstock.plugins.processors.grok.compile import Pattern

_KEY: TypeAdapter[sdk.Key] = TypeAdapter(sdk.Key)

Loop = Callable[[list[sdk.Body], int, list[int]], int]
"""Handles the bodies from a place on; adds the places without a match to the list; returns where it was interrupted."""
Merge = Callable[[sdk.Body, int, Pattern, Row], bool]
"""Puts the captures of a match into an event that has some of the keys. False: there are no captures."""
General = Callable[[sdk.Body, int], bool | None]
"""Handles one event whatever is in it; False: nothing matched."""


def compile_loop(
    sources: Sequence[tuple[sdk.Key, Sequence[Pattern]]],
    *,
    keep_empty: bool,
    overwrite: frozenset[str],
    merge: Merge,
    general: General,
) -> Loop:
    """A loop for these patterns by source key."""
    names: dict[str, Any] = {"TimeLimitExceeded": TimeLimitExceeded, "merge": merge, "general": general}
    lines = [
        "def run(bodies, place, missed):",
        "    end = len(bodies)",
        "    try:",
        "        for place in range(place, end):",
        "            body = bodies[place]",
    ]
    for number, (key, patterns) in enumerate(sources):
        names[f"get_{number}"] = key.get
        names["MISSING"] = sdk.MISSING
        read = f"body.get({key.parts[0]!r})" if len(key.parts) == 1 else f"get_{number}(body)"
        lines += [
            f"            text = {read}",
            "            if type(text) is str:",
            "                if text:",
            "                    pass",
        ]
        for each, pattern in enumerate(patterns):
            lines += _attempt(f"{number}_{each}", pattern, names, keep_empty=keep_empty, overwrite=overwrite)
        lines += [
            "            elif text is not None and text is not MISSING:",
            "                if general(body, place) is False:",
            "                    missed.append(place)",
            "                continue",
        ]
    lines += [
        "            missed.append(place)",
        "    except TimeLimitExceeded:",
        "        return place",
        "    return end",
    ]
    exec(compile("\n".join(lines), "<grok>", "exec"), names)  # noqa: S102 (keys are quoted by repr)
    loop: Loop = names["run"]
    return loop


def _attempt(
    at: str, pattern: Pattern, names: dict[str, Any], *, keep_empty: bool, overwrite: frozenset[str]
) -> list[str]:
    """Lines that try one pattern and go on with the next event when it gave captures."""
    names[f"pattern_{at}"] = pattern
    keys = [field.key for field in pattern.fields]
    by_hand = not keys or len(set(keys)) < len(keys) or not all(map(_plain, keys))
    if by_hand or not (pattern.certain or keep_empty):
        names[f"find_{at}"] = pattern.find
        lines = [
            f"row = find_{at}(text)",
            f"if row is not None and merge(body, place, pattern_{at}, row):",
            "    continue",
        ]
        return _indented(lines, 5)
    guarded = frozenset(keys) - overwrite
    if guarded:
        names[f"keys_{at}"] = guarded
    lines = []
    if common := pattern.common:
        names |= {**common.names, f"match_{at}": common.pattern.match}
        lines += [
            f"found = match_{at}(text)",
            "if found is not None:",
            f"    {common.groups} = found.groups()",
            f"    if {common.accept}:",
            *_indented(common.finish, 2),
            *_indented([f"v{place} = None" for place in sorted(common.absent)], 2),
            *_indented(_store(at, pattern, names, keep_empty=keep_empty, guarded=bool(guarded)), 2),
            "        continue",
        ]
    names[f"search_{at}"] = pattern.search
    lines += [
        f"row = search_{at}(text)",
        "if row is not None:",
        f"    {_row(pattern)} = row",
        *_indented(_store(at, pattern, names, keep_empty=keep_empty, guarded=bool(guarded)), 1),
        "    continue",
    ]
    return _indented(lines, 5)


def _store(at: str, pattern: Pattern, names: dict[str, Any], *, keep_empty: bool, guarded: bool) -> list[str]:
    """Lines that put the fields `v0`, `v1` … into the event."""
    merge = f"merge(body, place, pattern_{at}, ({_row(pattern)}))"
    conversions, stores = [], []
    for place, field in enumerate(pattern.fields):
        present = "" if place in pattern.certain else f"if v{place} is not None: "
        value = f"v{place}"
        if field.convert is not None:
            names[f"convert_{at}_{place}"] = field.convert
            value = f"c{place}"
            absent = f" if v{place} is not None else None" if present else ""
            conversions.append(f"    {value} = convert_{at}_{place}(v{place}){absent}")
        stores.append(f"{'' if keep_empty else present}body[{field.key!r}] = {value}")
    if conversions:
        stores = ["try:", *conversions, "except ValueError:", f"    {merge}", "else:", *_indented(stores, 1)]
    if guarded:
        return [f"if keys_{at}.isdisjoint(body):", *_indented(stores, 1), "else:", f"    {merge}"]
    return stores


def _row(pattern: Pattern) -> str:
    return "".join(f"v{place}, " for place in range(len(pattern.fields))).rstrip()


def _indented(lines: Sequence[str], depth: int) -> list[str]:
    return ["    " * depth + line for line in lines]


def _plain(key: str) -> bool:
    """Whether a capture of this name goes to the top of the event under just this name."""
    try:
        parsed = event_key(key)
    except ValueError:
        return False
    return parsed.parts == (key,) and not key.isdecimal()


def event_key(text: str) -> sdk.Key:
    """The event key of a capture. Raises ValueError for one that cannot be written."""
    key: sdk.Key = _KEY.validate_python(text)
    return key
