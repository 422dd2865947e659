"""Takes fields out of text with grok patterns.

A pattern such as `%{IPORHOST:client} %{NUMBER:status:int}` names library patterns, the fields that receive what they
match, and types. It may match anywhere in the text unless it is anchored; regular expressions have Java's meaning.
The texts of a field are tried in order. Captures go to the top of the event or under `target_key`; where a key has a
value already, old and new become a list, unless `keys_to_overwrite` names the key.

Numbers and booleans are matched as text; an object or a list under a source key is an error of that event. An event
that takes longer than `timeout_millis` of CPU time is given up; the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, model_validator

from penstock import sdk
from penstock.lib.java_values import java_text
from penstock.lib.regex import Row, TimeLimit, TimeLimitExceeded
from penstock.plugins.processors.grok.compile import (
    FAILURE_SUFFIX,
    GrokError,
    Pattern,
    clean_definitions,
    compile_pattern,
)
from penstock.plugins.processors.grok.files import read_directories
from penstock.plugins.processors.grok.loop import Loop, compile_loop, event_key

ATTEMPTS_ATTRIBUTE = "_total_grok_patterns_attempted"
TIME_ATTRIBUTE = "_total_grok_processing_time"


class Config(sdk.PluginConfig):
    match: sdk.NonEmpty[dict[str, list[str]]]
    """Patterns for each source key, tried in order."""
    target_key: sdk.Key | None = None
    """Key that receives all captures as one object. It is written even when nothing matched, then empty."""
    break_on_match: bool = True
    """Stop at the first pattern that captures something; otherwise all patterns of all keys are tried."""
    keep_empty_captures: bool = False
    """Write null for captures that took no part in the match."""
    named_captures_only: bool = True
    """Leave out captures without a field name; otherwise they are named like their pattern."""
    keys_to_overwrite: list[str] = Field(default_factory=list)
    """Keys whose value a capture replaces instead of joining it in a list."""
    pattern_definitions: dict[str, str] = Field(default_factory=dict)
    """Further patterns by name; they win over the library."""
    patterns_directories: list[str] = Field(default_factory=list)
    """Directories with pattern files, one `NAME pattern` a line, read when the options are checked. One that cannot be
    read is logged at start and left out."""
    patterns_files_glob: str = "*"
    """Which files in the directories are read: `*`, `?`, `[a-z]` and `{a,b}` as in Java's globs."""
    timeout_millis: Annotated[int, Field(ge=0, le=2**31 - 1)] = 30_000
    """CPU time one event may take, in milliseconds; 0 sets no limit."""
    tags_on_match_failure: list[str] = Field(default_factory=list)
    """Tags for an event that nothing matched or that cannot be matched."""
    tags_on_timeout: list[str] = Field(default_factory=list)
    """Tags for an event that took too long; those of `tags_on_match_failure` when there are none."""
    performance_metadata: bool = False
    """Add up the patterns tried and the milliseconds taken in the attributes `_total_grok_patterns_attempted` and
    `_total_grok_processing_time`."""
    grok_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are handled."""
    _compiled: list[tuple[sdk.Key, list[Pattern]]] = PrivateAttr(default_factory=list)
    _unread: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _compile_patterns(self) -> Self:
        keys = {text: event_key(text) for text in self.match}
        definitions, self._unread = read_directories(self.patterns_directories, self.patterns_files_glob)
        try:
            self._compiled = _compile(self, keys, definitions)
        except ValueError as error:  # perhaps because of a definition in a file that could not be read
            raise ValueError("; ".join([str(error), *self._unread])) from None
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    for problem in config._unread:
        ctx.log.error(problem)
    return _Grok(config, ctx, config._compiled).run


def _compile(config: Config, keys: dict[str, sdk.Key], more: dict[str, str]) -> list[tuple[sdk.Key, list[Pattern]]]:
    """The patterns by source key. Raises `ValueError` that names every key with a wrong pattern."""
    definitions = {**clean_definitions(config.pattern_definitions), **more}
    compiled: list[tuple[sdk.Key, list[Pattern]]] = []
    problems = []
    for text, patterns in config.match.items():
        try:
            found = [compile_pattern(p, definitions, named_only=config.named_captures_only) for p in patterns]
        except GrokError as error:
            problems.append(f"Invalid regular expression pattern in match: {text} ({error})")
        else:
            compiled.append((keys[text], found))
    if problems:
        raise ValueError("; ".join(problems))
    return compiled


class _Grok:
    """The processor for compiled patterns."""

    def __init__(self, config: Config, ctx: sdk.Context, sources: Sequence[tuple[sdk.Key, Sequence[Pattern]]]) -> None:
        self._config = config
        self._ctx = ctx
        self._sources = sources
        self._keep_empty = config.keep_empty_captures
        self._overwrite = frozenset(config.keys_to_overwrite)
        self._limit = TimeLimit(config.timeout_millis / 1000) if config.timeout_millis else None
        self._tags_on_timeout = config.tags_on_timeout or config.tags_on_match_failure
        self._keys = _capture_keys(sources)
        self._at_top = all(key is not None and len(key.parts) == 1 for key in self._keys.values())
        metrics = ctx.metrics
        self._matches = metrics.counter("grokProcessingMatch")
        self._mismatches = metrics.counter("grokProcessingMismatch")
        self._timeouts = metrics.counter("grokProcessingTimeouts")
        self._errors = metrics.counter("grokProcessingErrors")
        self._time = metrics.timer("grokProcessingTime")
        self._fail = ctx.failure(config.tags_on_match_failure, "grokProcessingErrors")
        self._batch = sdk.Batch([])
        self._chosen: Sequence[int] = ()
        self._failed = 0
        self._loop = self._make_loop()

    def _make_loop(self) -> Loop:
        config = self._config
        if config.break_on_match and config.target_key is None and not config.performance_metadata:
            return compile_loop(
                self._sources,
                keep_empty=self._keep_empty,
                overwrite=self._overwrite,
                merge=self._merge_row,
                general=self._general,
            )
        return self._each_in_general

    def run(self, batch: sdk.Batch) -> sdk.Batch:
        chosen, bodies = self._choose(batch)
        self._batch, self._chosen, self._failed = batch, chosen, 0
        begin = self._ctx.clock.monotonic()
        missed: list[int] = []
        timeouts = self._run_limited(bodies, missed)
        if missed and self._config.tags_on_match_failure:
            batch.tag_each([chosen[place] for place in missed], self._config.tags_on_match_failure)
        self._mismatches.add(len(missed))
        self._matches.add(len(bodies) - len(missed) - timeouts - self._failed)
        if bodies:
            self._time.observe((self._ctx.clock.monotonic() - begin) / len(bodies), len(bodies))
        self._batch, self._chosen = sdk.Batch([]), ()
        return batch

    def _choose(self, batch: sdk.Batch) -> tuple[Sequence[int], list[sdk.Body]]:
        """The events for which the condition holds: their indices and bodies."""
        bodies = batch.bodies
        if self._config.grok_when is None:
            return range(len(bodies)), bodies
        test, chosen = self._config.grok_when.test, []
        for index, body in enumerate(bodies):
            try:
                if test(body, batch.peek(index)):
                    chosen.append(index)
            except (sdk.EventError, sdk.ExpressionError) as error:
                self._fail(batch, index, sdk.EventError(str(error), cause="condition", logged=error.logged))
        return chosen, [bodies[index] for index in chosen]

    def _run_limited(self, bodies: list[sdk.Body], missed: list[int]) -> int:
        """Run the loop over all bodies; returns how many took too long."""
        place, end, timeouts = 0, len(bodies), 0
        if self._limit is None:
            self._loop(bodies, 0, missed)
            return 0
        while place < end:
            begin = place
            with self._limit:
                place = self._loop(bodies, begin, missed)
            if place == begin:  # the limit was spent on this event alone; otherwise it is tried again with a new one
                timeouts += 1
                self._timeouts.add()
                if self._tags_on_timeout:
                    self._batch.tag(self._chosen[place], self._tags_on_timeout)
                self._ctx.log.warning(
                    "Matching an event of pipeline %s took longer than %d ms and was given up",
                    self._ctx.pipeline,
                    self._config.timeout_millis,
                )
                if self._config.performance_metadata:
                    self._add_up(place, TIME_ATTRIBUTE, self._config.timeout_millis)
                place += 1
        return timeouts

    def _each_in_general(self, bodies: list[sdk.Body], begin: int, missed: list[int]) -> int:
        place = begin
        try:
            for place in range(begin, len(bodies)):
                if self._general(bodies[place], place) is False:
                    missed.append(place)
        except TimeLimitExceeded:
            return place
        return len(bodies)

    def _general(self, body: sdk.Body, place: int) -> bool | None:
        """Handle one event: True when something was captured, False when not, None when it failed."""
        if not self._config.performance_metadata:
            return self._handle(body, place)
        clock = self._ctx.clock
        begin = clock.monotonic()
        try:
            return self._handle(body, place)
        finally:
            self._add_up(place, TIME_ATTRIBUTE, int((clock.monotonic() - begin) * 1000))

    def _handle(self, body: sdk.Body, place: int) -> bool | None:
        try:
            captures, attempts = self._capture(body)
        except sdk.EventError as error:
            self._failed_event(place, error)
            return None
        if self._config.performance_metadata:
            self._add_up(place, ATTEMPTS_ATTRIBUTE, attempts)
        if not self._write(body, place, captures):
            return None
        return bool(captures)

    def _capture(self, body: sdk.Body) -> tuple[dict[str, Any], int]:
        """What the patterns capture and how many were tried. Changes nothing. Raises `EventError`."""
        captures: dict[str, Any] = {}
        attempts = 0
        for key, patterns in self._sources:
            text = _text(key.get(body), key)
            if not text:
                continue
            for pattern in patterns:
                attempts += 1
                row = pattern.find(text)
                if row is None:
                    continue
                for name, value in pattern.captures(row, keep_empty=self._keep_empty).items():
                    captures[name] = self._joined(name, captures.get(name, sdk.MISSING), value)
                if captures and self._config.break_on_match:
                    return captures, attempts
        return captures, attempts

    def _merge_row(self, body: sdk.Body, place: int, pattern: Pattern, row: Row) -> bool:
        captures = pattern.captures(row, keep_empty=self._keep_empty)
        if captures:
            self._write(body, place, captures)
        return bool(captures)

    def _write(self, body: sdk.Body, place: int, captures: dict[str, Any]) -> bool:
        """Put the captures into the event, or leave it as it was and return False."""
        target = self._config.target_key
        before = None if self._at_top and target is None else sdk.copy_value(body)
        try:
            if target is not None:
                target.put(body, captures)
            else:
                for name, value in captures.items():
                    self._put(body, name, value)
        except sdk.EventError as error:
            if before is not None:
                body.clear()
                body.update(before)
            self._failed_event(place, error)
            return False
        return True

    def _put(self, body: sdk.Body, name: str, value: Any) -> None:
        key = self._keys[name]
        if key is None:
            raise sdk.EventError(f"the capture {name} is no event key", cause="key")
        key.put(body, self._joined(name, key.get(body), value))

    def _joined(self, name: str, old: Any, value: Any) -> Any:
        """The value of a key after a capture: alone, or in a list behind the old one."""
        if old is sdk.MISSING or name in self._overwrite:
            return value
        return [*(old if isinstance(old, list) else [old]), *(value if isinstance(value, list) else [value])]

    def _failed_event(self, place: int, error: sdk.EventError) -> None:
        self._failed += 1
        self._fail(self._batch, self._chosen[place], error)

    def _add_up(self, place: int, attribute: str, value: int) -> None:
        attributes = self._batch.meta(self._chosen[place]).attributes
        attributes[attribute] = attributes.get(attribute, 0) + value


def _capture_keys(sources: Sequence[tuple[sdk.Key, Sequence[Pattern]]]) -> dict[str, sdk.Key | None]:
    """The event keys of all captures; None for those that no event can have."""
    keys: dict[str, sdk.Key | None] = {}
    for _, patterns in sources:
        for field in (field for pattern in patterns for field in pattern.fields):
            for name in (field.key, field.key + FAILURE_SUFFIX):
                try:
                    keys[name] = event_key(name)
                except ValueError:
                    keys[name] = None
    return keys


def _text(value: Any, key: sdk.Key) -> str | None:
    """The text to be matched. Raises `EventError` for an object or a list."""
    if type(value) is str:
        return value
    if value is None or value is sdk.MISSING:
        return None
    if isinstance(value, dict | list):
        raise sdk.EventError(f"Unable to map {key.text} to String", cause="type")
    return java_text(value)


EXAMPLES = [
    sdk.Example(
        "Read an access log",
        config='match: {log: ["%{COMMONAPACHELOG}"]}',
        before=[{"log": '10.0.0.7 - frank [10/Oct/2024:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326'}],
        after=[
            {
                "log": '10.0.0.7 - frank [10/Oct/2024:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326',
                "clientip": "10.0.0.7",
                "ident": "-",
                "auth": "frank",
                "timestamp": "10/Oct/2024:13:55:36 -0700",
                "verb": "GET",
                "request": "/a.gif",
                "httpversion": "1.0",
                "response": "200",
                "bytes": "2326",
            }
        ],
    ),
    sdk.Example(
        "Try several patterns, convert numbers, tag what does not match",
        config=(
            'match: {message: ["took %{INT:millis:int} ms", "%{LOGLEVEL:level} %{GREEDYDATA:text}"]}\n'
            "tags_on_match_failure: [unparsed]"
        ),
        before=[{"message": "request took 12 ms"}, {"message": "WARN disk is full"}, {"message": "?"}],
        after=[
            {"message": "request took 12 ms", "millis": 12},
            {"message": "WARN disk is full", "level": "WARN", "text": "disk is full"},
            {"message": "?"},
        ],
        tags=[[], [], ["unparsed"]],
    ),
    sdk.Example(
        "Define a pattern and keep captures apart",
        config=(
            'match: {message: ["order %{ORDER:id} of (?<customer>\\\\w+)"]}\n'
            'pattern_definitions: {ORDER: "[A-Z]{2}-[0-9]+"}\n'
            "target_key: order"
        ),
        before=[{"message": "order AB-12 of ann"}],
        after=[{"message": "order AB-12 of ann", "order": {"id": "AB-12", "customer": "ann"}}],
    ),
    sdk.Example(
        "A key that has a value already",
        config='match: {message: ["%{WORD:user} %{WORD:action}"]}\nkeys_to_overwrite: [action]',
        before=[{"message": "ann login", "user": "root", "action": "none"}],
        after=[{"message": "ann login", "user": ["root", "ann"], "action": "login"}],
    ),
]
