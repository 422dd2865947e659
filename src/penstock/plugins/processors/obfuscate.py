"""Hides sensitive text: the matches of patterns, or a whole field, are masked or hashed.

Patterns are regular expressions with Java's meaning, or one of `%{EMAIL_ADDRESS}`, `%{IP_ADDRESS_V4}`,
`%{BASE_NUMBER}`, `%{CREDIT_CARD_NUMBER}`, `%{US_PHONE_NUMBER}` and `%{US_SSN_NUMBER}`; they are applied in order, each
to what the one before it left. Numbers and booleans are read as text; null is left alone.

A text on which the patterns take more than a second of CPU time is hidden as a whole, so that nothing gets through.
An object or a list under the source goes on unchanged, with the tags of `tags_on_match_failure`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.java_values import java_text
from penstock.lib.limited_loop import each_limited
from penstock.lib.regex import RegexError, Search, compile_java, parse

EVENT_SECONDS_MAX = 1.0
"""CPU time for the patterns on one text."""

_PREDEFINED_NAME = re.compile(r"%\{([A-Z_0-9]+)\}")
_PREDEFINED = {
    "EMAIL_ADDRESS": r"[A-Za-z0-9+_.-]+@([\w-]+\.)+[\w-]{2,4}",
    "IP_ADDRESS_V4": r"((25[0-5]|(2[0-4]|1\d|[1-9]|)\d)\.?\b){4}",
    "BASE_NUMBER": r"[0-9]*\.?[0-9]+",
    "CREDIT_CARD_NUMBER": r"(\d[ -]*?){13,16}",
    "US_PHONE_NUMBER": r"\+?\d?[\s-]?(\(\d{3}\)|\d{3})[\s-]?\d{3}[\s-]?\d{4}",
    "US_SSN_NUMBER": r"[0-9]{3}-[0-9]{2}-[0-9]{4}",
}

Hide = Callable[[str, sdk.Body], str]
"""What an action makes of a pattern: from a text and its event to the text with the matches hidden."""
Action = Callable[[re.Pattern[str] | None], Hide]


class Config(sdk.PluginConfig):
    source: sdk.Key
    """Field to obfuscate. Events without it are left alone."""
    target: sdk.Key | None = None
    """Field to write; the source when left out."""
    patterns: list[str] | None = None
    """What to hide; the whole value when left out."""
    action: Annotated[sdk.PluginUse | None, sdk.Nested("obfuscate_action")] = None
    """`mask` or `hash`; three `*` when left out."""
    single_word_only: bool = False
    """Hide only matches that are whole words."""
    tags_on_match_failure: list[str] | None = None
    """Tags for events of which nothing was hidden."""
    obfuscate_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            **values,
            "action": values.get("action") or {"mask": None},
            "target": values.get("target") or None,
        }

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for pattern in self.patterns or ():
            _compiled(pattern, self)
        return self


def _compiled(pattern: str, config: Config) -> tuple[str, re.Pattern[str]]:
    """A pattern and a text without which it matches nothing."""
    predefined = _PREDEFINED_NAME.fullmatch(pattern)
    if predefined is not None:
        if predefined[1] not in _PREDEFINED:
            raise ValueError(f'Unable to find a predefined pattern for "{pattern}".')
        pattern = _PREDEFINED[predefined[1]]
    if config.single_word_only:
        pattern = rf"\b{pattern}\b"
    try:
        return Search(parse(pattern)).literal, compile_java(pattern)
    except RegexError:
        raise ValueError(f'Invalid Pattern: "{pattern}" for source field {config.source}') from None


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    assert config.action is not None, "there is a default"
    action: Action = ctx.build(config.action)
    change = _Change(config, action)
    tags = config.tags_on_match_failure or ()
    fail = ctx.failure(tags)
    timeouts = ctx.metrics.counter("processingTimeouts")

    def hide(batch: sdk.Batch, place: int) -> None:
        if not change(batch.bodies[place]) and tags:
            batch.tag(place, tags)

    def hide_all_or_fail(batch: sdk.Batch, place: int, error: sdk.EventError) -> None:
        if error.cause == "timeout":
            timeouts.add()
            ctx.log.warning("%s on an event of pipeline %s: the whole text is hidden", error, ctx.pipeline)
            change.whole(batch.bodies[place])
        else:
            fail(batch, place, error)

    return each_limited(hide, when=config.obfuscate_when, fail=hide_all_or_fail, seconds=EVENT_SECONDS_MAX)


class _Change:
    """Changes one event. Says whether anything was hidden, or there was nothing to hide."""

    def __init__(self, config: Config, action: Action) -> None:
        self._hide_all = action(None)
        compiled = [_compiled(pattern, config) for pattern in config.patterns or ()]
        self._steps = [(literal, action(pattern)) for literal, pattern in compiled] or [("", self._hide_all)]
        self._get, self._source = config.source.get, config.source
        self._put = (config.target or config.source).put
        self._copies = config.target is not None

    def __call__(self, body: sdk.Body) -> bool:
        value = self._get(body)
        if value is None or value is sdk.MISSING:
            return True
        text = value if type(value) is str else self._text(value)
        hidden = text
        for literal, hide in self._steps:
            if literal in hidden:
                hidden = hide(hidden, body)
        if hidden != text:
            self._put(body, hidden)
            return True
        if self._copies:
            self._put(body, hidden)
        return False

    def whole(self, body: sdk.Body) -> None:
        """Hide the whole text, for which the patterns took too long."""
        self._put(body, self._hide_all(self._text(self._get(body)), body))

    def _text(self, value: Any) -> str:
        if isinstance(value, dict | list):
            raise sdk.EventError(f"{self._source} is no text", cause="type")
        return value if type(value) is str else java_text(value)


EXAMPLES = [
    sdk.Example(
        "Mask addresses in a text",
        config="""
            source: log
            patterns: ["%{EMAIL_ADDRESS}", "%{IP_ADDRESS_V4}"]
            tags_on_match_failure: [clean]
        """,
        before=[{"log": "ada@example.com logged in from 10.1.2.3"}, {"log": "disk full"}],
        after=[{"log": "*** logged in from ***"}, {"log": "disk full"}],
        tags=[[], ["clean"]],
    ),
    sdk.Example(
        "Hash a whole field into another one",
        config="""
            source: user
            target: user_hash
            action:
              hash: {salt: correct-horse-battery-staple}
        """,
    ),
]
