"""Options and loop of processors that parse a text field into an object: what they share is decided here once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from penstock.core import key as _key
from penstock.core.batch import Batch, Body
from penstock.core.errors import EventError
from penstock.core.json_text import encode
from penstock.lib.event_keys import compile_spread, event_key, give_back, replace_invalid_characters_in
from penstock.sdk.context import Context
from penstock.sdk.options import ALWAYS, Key, PluginConfig, When
from penstock.sdk.protocols import BatchFn

HandleFailedEvents = Literal["drop", "drop_silently", "skip", "skip_silently"]

NESTING_MAX = 250
"""Objects and lists inside each other that a text may hold; deeper ones are refused before they reach other plugins."""


class NotParsed(EventError):
    """The text is not of the form that the processor reads, or holds no object."""

    def __init__(self, message: str) -> None:
        super().__init__(message, cause="parse")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _not_blank(key: _key.Key) -> _key.Key:
    if not key.text.strip():
        raise ValueError("source must not be blank")
    return key


def _named(key: _key.Key) -> _key.Key:
    if not any(key.parts):
        raise ValueError("pointer names nothing inside of the parsed object")
    return key


class ParseOptions(PluginConfig):
    """What such a processor is told."""

    source: Annotated[Key, AfterValidator(_not_blank)] = Field(default="message", validate_default=True)
    """Field to parse. Events without it are left alone."""
    destination: Key | None = None
    """Key that receives the object; its members go to the top of the event when left out."""
    pointer: Annotated[Key, AfterValidator(_named)] | None = None
    """Path inside the parsed object: only the value there is written, under its last name (for an element of a list
    the name of the list, a dot and the index), or under the whole path with dots where the event has that name already.
    When the object has nothing there, all of it is written."""
    overwrite_if_destination_exists: bool = True
    """Replace values that are there already."""
    delete_source: bool = False
    """Remove the source after it was parsed and written. What the object itself holds under that name stays."""
    tags_on_failure: list[str] | None = None
    """Tags for events whose text cannot be parsed or written. They go on as they were."""
    handle_failed_events: Annotated[HandleFailedEvents, BeforeValidator(_lower)] = "skip"
    """`skip` logs events that cannot be parsed, `skip_silently` does not. They go on in both cases."""
    parse_when: When = ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="before")
    @classmethod
    def _destination_is_a_name(cls, values: Any) -> Any:
        destination = values.get("destination") if isinstance(values, dict) else None
        if isinstance(destination, str) and destination.strip() in ("", "/"):
            raise ValueError("destination cannot be empty, whitespace, or a front slash (/)")
        return values

    @model_validator(mode="after")
    def _failed_events_go_on(self) -> Self:
        if not self.handle_failed_events.startswith("skip"):
            raise ValueError("handled_failed_events must be set to 'skip' or 'skip_silently'.")
        return self


def parse_processor(
    options: ParseOptions, ctx: Context, read: Callable[[str], Body], *, depth: int = 0, normalize: bool = False
) -> BatchFn:
    """The loop that applies `read` to the source of each event and writes what it gives.

    `read` raises `NotParsed`, which counts as `parseErrors`; every other failure counts as `processingFailures`.
    `depth` keeps objects below that many levels as JSON text; `normalize` makes valid keys of all names.
    """
    change = _compile(options, read, depth, normalize)
    test = None if options.parse_when is None else options.parse_when.test
    silent = options.handle_failed_events == "skip_silently"
    tags = options.tags_on_failure or ()
    fail_parsing, fail = (
        _uncomplaining(ctx, tags, name) if silent else ctx.failure(tags, name)
        for name in ("parseErrors", "processingFailures")
    )

    def parse(batch: Batch) -> Batch:
        metas, origin = batch.metas, batch.origin
        for index, body in enumerate(batch.bodies):
            try:
                if test is None or test(body, metas[index] or origin):
                    change(body)
            except NotParsed as error:
                fail_parsing(batch, index, error)
            except EventError as error:
                fail(batch, index, error)
        return batch

    return parse


def _uncomplaining(ctx: Context, tags: list[str] | tuple[()], name: str) -> Callable[[Batch, int, EventError], None]:
    counter = ctx.metrics.counter(name)

    def fail(batch: Batch, index: int, error: EventError) -> None:
        counter.add()
        ctx.metrics.counter(name + "ByCause", cause=error.cause).add()
        if tags:
            batch.tag(index, tags)

    return fail


def _compile(options: ParseOptions, read: Callable[[str], Body], depth: int, normalize: bool) -> Callable[[Body], None]:
    source, get = options.source, options.source.get
    write = _writer(options, normalize)
    delete_source, take = options.delete_source, source.take
    pick = None if options.pointer is None else _picker(options.pointer, to_root=options.destination is None)

    def parse(body: Body) -> None:
        text = get(body)
        if text is _key.MISSING or text is None:
            return
        if type(text) is not str:
            if isinstance(text, dict | list):
                raise EventError(f"{source} is no text", cause="type")
            raise NotParsed(f"{source} holds a number or a boolean")
        members = read(text)
        if depth:
            members = {name: _cut(item, depth - 1) for name, item in members.items()}
        if pick is not None:
            members = pick(body, members)
        if not delete_source:
            write(body, members)
            return
        take(body)  # before the object is written, so that what it holds under the same name stays
        written = False
        try:
            written = write(body, members)
        finally:
            if not written:
                give_back(body, source, text)

    if depth or pick is not None or delete_source or options.destination is not None or source.top is None:
        return parse
    name, spread = source.top, compile_spread(overwrite=options.overwrite_if_destination_exists, normalize=normalize)

    def parse_quickly(body: Body) -> None:
        text = body.get(name)
        if type(text) is str:
            spread(body, read(text))
        else:
            parse(body)

    return parse_quickly


def _writer(options: ParseOptions, normalize: bool) -> Callable[[Body, Body], bool]:
    """A function that writes the object and says whether it did."""
    destination, overwrite = options.destination, options.overwrite_if_destination_exists
    spread = compile_spread(overwrite=overwrite, normalize=normalize)
    if destination is None:

        def write_to_root(body: Body, members: Body) -> bool:
            spread(body, members)
            return True

        return write_to_root

    put, exists = destination.put, destination.exists

    def write(body: Body, members: Body) -> bool:
        if not overwrite and exists(body):
            return False
        put(body, replace_invalid_characters_in(members) if normalize else members)
        return True

    return write


def _cut(value: Any, depth: int) -> Any:
    """`value` with the objects below `depth` levels as JSON text."""
    if type(value) is dict:
        if depth == 0:
            return encode(value).decode()
        return {name: _cut(item, depth - 1) for name, item in value.items()}
    return value


def _picker(pointer: _key.Key, *, to_root: bool) -> Callable[[Body, Body], Body]:
    get = pointer.get
    names = pointer.name.removeprefix("/").split("/")
    whole = ".".join(names)
    tail = names[-2:] if names[-1].isdecimal() else names[-1:]
    short, taken = ".".join(tail), event_key("/".join(tail)).exists

    def pick(body: Body, members: Body) -> Body:
        value = get(members)
        if value is _key.MISSING:
            return members
        return {whole if to_root and taken(body) else short: value}

    return pick
