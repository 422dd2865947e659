"""Writes a timestamp: one parsed from a text of the event, or the time at which the event was received."""

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, model_validator

from penstock import sdk
from penstock.lib import dates


class Match(sdk.PluginConfig):
    key: sdk.ReadKey
    """Field to parse: a text, or a number where a pattern is an epoch unit."""
    patterns: list[str]
    """Patterns tried in order: letters of Java's `DateTimeFormatter`, or one of `epoch_second`, `epoch_milli`,
    `epoch_micro` and `epoch_nano`; with one of these, numbers of up to ten digits that no pattern fits are seconds.
    Parts of the date that a pattern lacks are those of today, a missing year is this year, missing parts of the time
    are 0."""


class Config(sdk.PluginConfig):
    from_time_received: bool = False
    """Write the time at which the event was received. Excludes `match`."""
    match: list[Match] | None = None
    """The field to parse: a list with exactly one entry."""
    destination: sdk.Key = Field(default="@timestamp", validate_default=True)
    """Field to write. The result is a text, also for an epoch unit."""
    output_format: str = "yyyy-MM-dd'T'HH:mm:ss.SSSXXX"
    """Pattern of what is written, or an epoch unit."""
    origination_timestamp_to_metadata: Annotated[
        bool, Field(validation_alias=AliasChoices("origination_timestamp_to_metadata", "to_origination_metadata"))
    ] = False
    """Also remember the parsed time as the origination time of the event, for the end-to-end latency of sinks."""
    source_timezone: str = ""
    """Zone of texts that name none: `Europe/Paris`, `+01:00`, `UTC`. The zone of this machine when left out."""
    destination_timezone: str = ""
    """Zone of what is written. The zone of this machine when left out."""
    locale: str | None = None
    """Language of month and day names in texts: a tag (`de-DE`) or the text of a Java locale (`de_DE`). English when
    left out."""
    date_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        problems = []
        if self.from_time_received == (self.match is not None):
            problems.append(
                "match and from_time_received are mutually exclusive options. match or from_time_received is required."
            )
        if self.match is not None:
            problems += _problems_of(self.match)
        problems += _refused(dates.validate_pattern, self.output_format, "Invalid output format.")
        problems += _refused(dates.validate_zone, self.source_timezone, "Invalid source_timezone provided.")
        problems += _refused(dates.validate_zone, self.destination_timezone, "Invalid destination_timezone provided.")
        problems += _refused(dates.validate_locale, self.locale or "en-US", "Invalid locale provided.")
        if problems:
            raise ValueError(" ".join(problems))
        return self


def _problems_of(match: list[Match]) -> list[str]:
    rule = "match can have a minimum and maximum of 1 entry and at least one pattern."
    patterns = [pattern for entry in match for pattern in entry.patterns]
    if len(match) != 1 or not patterns:
        return [rule]
    if sum(pattern in dates.EPOCH_UNITS_NS for pattern in patterns) > 1:
        return [f"{rule} Only one of the patterns can be an epoch unit."]
    problems = []
    for pattern in patterns:
        try:
            dates.validate_pattern(pattern)
        except ValueError as error:
            problems.append(f"{rule} Invalid pattern {pattern}: {error}")
    return problems


def _refused(validate: Callable[[str], None], value: str, message: str) -> list[str]:
    try:
        validate(value)
    except ValueError:
        return [message]
    return []


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    when, put = config.date_when, config.destination.put
    matched, failures = ctx.metrics.counter("dateProcessingMatchSuccess"), "dateProcessingMatchFailure"
    ctx.metrics.counter(failures)
    if not config.match:
        write = dates.compile_formatter(config.output_format, config.destination_timezone)

        def stamp(body: sdk.Body, meta: sdk.Meta) -> None:
            put(body, write(meta.received_ms * 1_000_000))

        return ctx.each_event(stamp, when=when, failures=failures)
    if config.origination_timestamp_to_metadata:
        return _with_origination(config, config.match[0], ctx)
    get, source = config.match[0].key.get, config.match[0]
    convert = dates.compile_conversion(
        _patterns(source),
        config.output_format,
        config.source_timezone,
        config.destination_timezone,
        config.locale,
        ctx.clock.now_ns,
    )

    def change(body: sdk.Body) -> None:
        value = get(body)
        written = convert(value if type(value) is str else _text_of(value, source))
        if written is None:
            raise _no_match(source)
        put(body, written)
        matched.value += 1

    return ctx.each(change, when=when, failures=failures)


def _with_origination(config: Config, source: Match, ctx: sdk.Context) -> sdk.BatchFn:
    get, put, when = source.key.get, config.destination.put, config.date_when
    read = dates.compile_reader(_patterns(source), config.source_timezone, config.locale, ctx.clock.now_ns)
    write = dates.compile_formatter(config.output_format, config.destination_timezone)
    matched = ctx.metrics.counter("dateProcessingMatchSuccess")
    fail = ctx.failure(failures="dateProcessingMatchFailure")

    def run(batch: sdk.Batch) -> sdk.Batch:
        for index, body in enumerate(batch.bodies):
            try:
                if when is None or when.test(body, batch.peek(index)):
                    value = get(body)
                    instant = read(value if type(value) is str else _text_of(value, source))
                    if instant is None:
                        raise _no_match(source)
                    put(body, write(instant))
                    batch.meta(index).origination_ms = instant // 1_000_000
                    matched.add()
            except (sdk.EventError, sdk.ExpressionError) as error:
                fail(batch, index, error)
        return batch

    return run


def _patterns(source: Match) -> list[str]:
    """All patterns to try, in order: Data Prepper takes few digits for seconds, whatever epoch unit is named."""
    patterns = source.patterns
    has_unit = not dates.EPOCH_UNITS_NS.keys().isdisjoint(patterns)
    return [*patterns, "epoch_second"] if has_unit and "epoch_second" not in patterns else patterns


_NUMBER_END = 10**20
"""No number of more digits stands for a date."""


def _is_small(value: Decimal) -> bool:
    return value.is_finite() and -_NUMBER_END < value < _NUMBER_END


def _text_of(value: Any, source: Match) -> str:
    kind = type(value)
    if kind is int and -_NUMBER_END < value < _NUMBER_END:
        return str(value)
    small = -_NUMBER_END < value < _NUMBER_END if kind is float else kind is Decimal and _is_small(value)
    if small and value == value // 1:
        return str(int(value))
    if value is sdk.MISSING or value is None:
        raise sdk.EventError(f"There is no {source.key} to read a date from", cause="missing")
    raise _no_match(source)


def _no_match(source: Match) -> sdk.EventError:
    return sdk.EventError(f"No pattern of {source.patterns} matches {source.key}", cause="no_match")


EXAMPLES = [
    sdk.Example(
        "Turn the time of an access log into a timestamp",
        config="""
            match: [{key: time, patterns: ["dd/MMM/yyyy:HH:mm:ss Z"]}]
            destination_timezone: UTC
        """,
        before=[{"time": "15/Jan/2024:10:20:30 +0100"}, {"time": "yesterday"}],
        after=[
            {"time": "15/Jan/2024:10:20:30 +0100", "@timestamp": "2024-01-15T09:20:30.000Z"},
            {"time": "yesterday"},
        ],
    ),
    sdk.Example(
        "Write milliseconds as a date of another zone",
        config="""
            match: [{key: at, patterns: [epoch_milli]}]
            destination: day
            output_format: EEEE, d MMMM yyyy HH:mm z
            destination_timezone: America/New_York
        """,
        before=[{"at": 1705314030123}],
        after=[{"at": 1705314030123, "day": "Monday, 15 January 2024 05:20 EST"}],
    ),
]
