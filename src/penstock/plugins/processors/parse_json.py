"""Parses a text that holds a JSON object and writes what it finds into the event."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from penstock import sdk
from penstock.lib.event_keys import Key, compile_spread, replace_invalid_characters_in

HandleFailedEvents = Literal["drop", "drop_silently", "skip", "skip_silently"]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _not_blank(key: Key) -> Key:
    if not key.text.strip():
        raise ValueError("source must not be blank")
    return key


class Config(sdk.PluginConfig):
    source: Annotated[sdk.Key, AfterValidator(_not_blank)] = Field(default="message", validate_default=True)
    """Field to parse."""
    destination: sdk.Key | None = None
    """Key that receives the object; the members go to the top of the event when left out."""
    depth: Annotated[int, Field(ge=0, le=10)] = 0
    """Levels to parse: objects below stay JSON text; 0 parses all."""
    pointer: sdk.Key | None = None
    """Path inside the parsed object: only the value there is written, under its last name. When the object has
    nothing there, all of it is written."""
    overwrite_if_destination_exists: bool = True
    """Replace values that are there already."""
    delete_source: bool = False
    """Remove the source after it was parsed."""
    tags_on_failure: list[str] | None = None
    """Tags for events whose text cannot be parsed."""
    handle_failed_events: Annotated[HandleFailedEvents, BeforeValidator(_lower)] = "skip"
    """`skip` logs events that cannot be parsed, `skip_silently` does not. They go on in both cases."""
    normalize_keys: bool = False
    """Replace characters that no event key can hold by `_`."""
    parse_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="before")
    @classmethod
    def _destination_is_a_name(cls, values: Any) -> Any:
        destination = values.get("destination") if isinstance(values, dict) else None
        if isinstance(destination, str) and destination.strip() in ("", "/"):
            raise ValueError("destination cannot be empty, whitespace, or a front slash (/)")
        return values

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not self.handle_failed_events.startswith("skip"):
            raise ValueError("handled_failed_events must be set to 'skip' or 'skip_silently'.")
        return self


class _ParseError(sdk.EventError):
    """The text is no JSON object."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    change, when = _parser(config), config.parse_when
    silent = config.handle_failed_events == "skip_silently"
    tags = config.tags_on_failure or ()
    fail_parsing, fail = (
        _quiet_failure(ctx, tags, name) if silent else ctx.failure(tags, name)
        for name in ("parseErrors", "processingFailures")
    )

    def parse(batch: sdk.Batch) -> sdk.Batch:
        for index, body in enumerate(batch.bodies):
            try:
                if when is None or when.test(body, batch.peek(index)):
                    change(body)
            except _ParseError as error:
                fail_parsing(batch, index, error)
            except (sdk.EventError, sdk.ExpressionError) as error:
                fail(batch, index, error)
        return batch

    return parse


def _quiet_failure(
    ctx: sdk.Context, tags: list[str] | tuple[()], name: str
) -> Callable[[sdk.Batch, int, sdk.EventError | sdk.ExpressionError], None]:
    counter = ctx.metrics.counter(name)

    def fail(batch: sdk.Batch, index: int, error: sdk.EventError | sdk.ExpressionError) -> None:
        counter.add()
        if tags:
            batch.tag(index, tags)

    return fail


def _parser(config: Config) -> sdk.EventFn:
    get, source = config.source.get, config.source
    overwrite, depth, delete_source = config.overwrite_if_destination_exists, config.depth, config.delete_source
    destination, normalize = config.destination, config.normalize_keys
    pick = _picker(config)
    spread = compile_spread(overwrite=overwrite, normalize=normalize)

    def parse(body: sdk.Body) -> None:
        text = get(body)
        if text is sdk.MISSING or text is None:
            return
        members = _decoded(text, source)
        if depth:
            members = _cut(members, depth)
        if pick is not None:
            members = pick(body, members)
        if destination is None:
            spread(body, members)
        elif overwrite or not destination.exists(body):
            destination.put(body, replace_invalid_characters_in(members) if normalize else members)
        if delete_source and get(body) is text:  # else it was replaced by what it held
            source.take(body)

    return parse


def _decoded(text: Any, source: Key) -> sdk.Body:
    if type(text) is not str:
        if isinstance(text, dict | list):
            raise sdk.EventError(f"{source} is no text", cause="type")
        raise _ParseError(f"{source} holds no JSON object", cause="parse")
    try:
        members = sdk.decode(text)
    except ValueError as error:
        raise _ParseError(f"{source} holds no JSON object: {error}", cause="parse") from error
    if type(members) is not dict:
        raise _ParseError(f"{source} holds no JSON object but another JSON value", cause="parse")
    return members


def _cut(value: Any, depth: int) -> Any:
    """`value` with the objects below `depth` levels as JSON text."""
    if type(value) is dict:
        if depth == 0:
            return sdk.encode(value).decode()
        return {name: _cut(item, depth - 1) for name, item in value.items()}
    return value


def _picker(config: Config) -> Callable[[sdk.Body, sdk.Body], sdk.Body] | None:
    pointer, to_root = config.pointer, config.destination is None
    if pointer is None:
        return None
    get = pointer.get
    last, dotted = pointer.parts[-1], ".".join(pointer.parts)

    def pick(body: sdk.Body, members: sdk.Body) -> sdk.Body:
        value = get(members)
        if value is sdk.MISSING:
            return members
        return {dotted if to_root and last in body else last: value}

    return pick


EXAMPLES = [
    sdk.Example(
        "Lift the members of a JSON text to the top of the event",
        config="""
            delete_source: true
            tags_on_failure: [no_json]
        """,
        before=[{"message": '{"level": "info", "took": {"ms": 7}}'}, {"message": "plain"}],
        after=[{"level": "info", "took": {"ms": 7}}, {"message": "plain"}],
        tags=[[], ["no_json"]],
    ),
    sdk.Example(
        "Parse one level into a field of its own",
        config="{destination: parsed, depth: 1}",
        before=[{"message": '{"a": 1, "b": {"c": 2}}'}],
        after=[{"message": '{"a": 1, "b": {"c": 2}}', "parsed": {"a": 1, "b": '{"c":2}'}}],
    ),
    sdk.Example(
        "Take one part of a document",
        config="pointer: detail/user",
        before=[{"message": '{"detail": {"user": {"id": 1}}}'}],
        after=[{"message": '{"detail": {"user": {"id": 1}}}', "user": {"id": 1}}],
    ),
]
