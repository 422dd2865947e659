"""Keeps only the chosen values of an event.

Selected keys without a value, or with null, are left out; names selected by regular expression keep null. An event
that cannot be made up of the chosen keys, or whose names take too long to match, stays as it was.
"""

import re
from collections.abc import Callable, Sequence
from typing import Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.limited_loop import each_limited
from penstock.lib.regex import RegexError, compile_java, interruptible

NAMES_REMEMBERED_MAX = 4096
"""Names whose match is remembered; a full memory is cleared."""
NAMES_INLINED_MAX = 16
"""Names that are read one by one."""


class Config(sdk.PluginConfig):
    include_keys: list[sdk.Key] | None = None
    """Keys to keep."""
    include_keys_regex: list[str] | None = None
    """Regular expressions; top-level names that match one as a whole are kept."""
    select_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not self.include_keys and not self.include_keys_regex:
            raise ValueError("At least one of include_keys and include_keys_regex is required.")
        try:
            _compiled(self.include_keys_regex)
        except RegexError:
            raise ValueError("Invalid regex pattern found in include_keys_regex.") from None
        return self


def _compiled(expressions: list[str] | None) -> list[re.Pattern[str]]:
    return [compile_java(expression) for expression in expressions or ()]


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    keys, when = config.include_keys or [], config.select_when
    if not config.include_keys_regex and all(len(key.parts) == 1 for key in keys):
        return ctx.each(_by_name(list(dict.fromkeys(key.parts[0] for key in keys))), when=when)
    select = _selection(config)
    if not config.include_keys_regex:
        return ctx.each(select, when=when)
    return each_limited(sdk.Inline("select(body)", select=select), when=when, fail=ctx.failure())


def _selection(config: Config) -> sdk.EventFn:
    keys = config.include_keys or []
    readers = [(key.get, key.put) for key in keys]
    matches = _any_match(_compiled(config.include_keys_regex)) if config.include_keys_regex else None

    def select(body: sdk.Body) -> None:
        selected: sdk.Body = {}
        for get, put in readers:
            value = get(body)
            if value is not sdk.MISSING and value is not None:
                put(selected, value)
        if matches is not None:
            for name, value in body.items():
                if name not in selected and matches(name):
                    selected[name] = value
        body.clear()
        body.update(selected)

    return select


def _by_name(names: Sequence[str]) -> sdk.Inline:
    if len(names) > NAMES_INLINED_MAX:
        return sdk.Inline(
            "selected = {name: body[name] for name in names if body.get(name) is not None}\n"
            "body.clear()\n"
            "body.update(selected)",
            names=tuple(names),
        )
    places = range(len(names))
    reads = [f"value{place} = body.get(name{place})" for place in places]
    writes = [f"if value{place} is not None: body[name{place}] = value{place}" for place in places]
    return sdk.Inline(
        "\n".join((*reads, "body.clear()", *writes)), **{f"name{place}": name for place, name in enumerate(names)}
    )


def _any_match(expressions: Sequence[re.Pattern[str]]) -> Callable[[str], bool]:
    known: dict[str, bool] = {}

    @interruptible
    def any_match(name: str) -> bool:
        return any(expression.fullmatch(name) for expression in expressions)

    def matches(name: str) -> bool:
        answer = known.get(name)
        if answer is None:
            answer = any_match(name)
            if len(known) >= NAMES_REMEMBERED_MAX:
                known.clear()
            known[name] = answer
        return answer

    return matches


EXAMPLES = [
    sdk.Example(
        "Keep three values",
        config="include_keys: [level, user/name, none]",
        before=[{"level": "info", "user": {"name": "ada", "id": 7}, "trace": "x"}],
        after=[{"level": "info", "user": {"name": "ada"}}],
    ),
    sdk.Example(
        "Keep what begins alike",
        config='include_keys_regex: ["http_.*"]',
        before=[{"http_status": 200, "http_method": None, "https": 1}],
        after=[{"http_status": 200, "http_method": None}],
    ),
]
