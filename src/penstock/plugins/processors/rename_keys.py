"""Moves values from one key to another, or changes the letter case of all names."""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.event_keys import Key, give_back
from penstock.lib.limited_loop import each_limited
from penstock.lib.regex import RegexError, compile_java, interruptible

TransformKey = Literal["none", "lowercase", "uppercase", "capitalize"]


class Entry(sdk.PluginConfig):
    from_key: sdk.Key | None = None
    """Key of the value to move. Events without it are left alone; an element of a list is copied and stays."""
    from_key_regex: str | None = None
    """Regular expression; top-level names that match it as a whole are renamed. Without overwriting only the first."""
    to_key: sdk.Key
    """Key that receives the value. Missing parent objects are created."""
    overwrite_if_to_key_exists: bool = False
    """Replace a value already at `to_key`; otherwise that event is left alone."""
    rename_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.from_key is None and self.from_key_regex is None:
            raise ValueError("Either from_key or from_key_regex must be specified.")
        if self.from_key is not None and self.from_key_regex is not None:
            raise ValueError("Only one of from_key or from_key_regex should be specified.")
        if self.from_key_regex is not None:
            try:
                compile_java(self.from_key_regex)
            except RegexError:
                raise ValueError("The value of from_key_regex is not a valid regex string") from None
        return self


class Config(sdk.PluginConfig):
    entries: list[Entry] | None = None
    """Moves, applied in order: each one sees the result of the one before it."""
    transform_key: TransformKey = "none"
    """Change the letter case of every name, also inside of objects. Excludes `entries`."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if bool(self.entries) == (self.transform_key != "none"):
            raise ValueError(
                "entries and transform_key are mutually exclusive options. entries or transform_key is required."
            )
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    if config.entries:
        return ctx.chain(_step(entry, ctx) for entry in config.entries)
    change = {"lowercase": str.lower, "uppercase": str.upper, "capitalize": _capitalized}[config.transform_key]

    def transform(body: sdk.Body) -> None:
        renamed = _renamed(body, change)
        body.clear()
        body.update(renamed)

    return ctx.each(transform)


def _step(entry: Entry, ctx: sdk.Context) -> sdk.BatchFn:
    if entry.from_key_regex is None:
        return ctx.each(_move(entry), when=entry.rename_when)
    move = _move_by_regex(entry, entry.from_key_regex)
    return each_limited(sdk.Inline("move(body)", move=move), when=entry.rename_when, fail=ctx.failure())


def _move(entry: Entry) -> sdk.EventFn | sdk.Inline:
    assert entry.from_key is not None, "the rules see to it"
    if entry.from_key == entry.to_key:
        return lambda body: None
    return _mover(entry.from_key, entry.to_key, overwrite=entry.overwrite_if_to_key_exists)


def _mover(source: Key, target: Key, *, overwrite: bool) -> sdk.EventFn | sdk.Inline:
    if source.top is not None and target.top is not None:
        may = "source in body" if overwrite else "source in body and target not in body"
        return sdk.Inline(f"if {may}:\n    body[target] = body.pop(source)", source=source.top, target=target.top)
    take, put, taken = _taker(source), target.put, target.exists

    def move(body: sdk.Body) -> None:
        if overwrite or not taken(body):
            value = take(body)
            if value is not sdk.MISSING:  # None is a value like any other
                try:
                    put(body, value)
                except sdk.EventError:
                    give_back(body, source, value)  # a failed event stays as it was
                    raise

    return move


def _taker(source: Key) -> Callable[[sdk.Body], Any]:
    take, get = source.take, source.get
    if not source.parts[-1].isdecimal():
        return take

    def take_or_copy(body: sdk.Body) -> Any:
        try:
            return take(body)
        except sdk.EventError:  # an element of a list, which keeps its elements
            return sdk.copy_value(get(body))

    return take_or_copy


def _move_by_regex(entry: Entry, expression: str) -> sdk.EventFn:
    fullmatch = compile_java(expression).fullmatch
    put, taken, overwrite = entry.to_key.put, entry.to_key.exists, entry.overwrite_if_to_key_exists
    first_name = entry.to_key.parts[0]
    own_name = first_name if len(entry.to_key.parts) == 1 else None

    @interruptible
    def matches(name: str) -> object:
        return fullmatch(name)

    def move(body: sdk.Body) -> None:
        names = [name for name in body if name != own_name and matches(name)]
        before = sdk.copy_value(body) if first_name in names and len(names) > 1 else None
        for name in names:
            if not overwrite and taken(body):
                return
            value = body.pop(name)
            try:
                put(body, value)
            except sdk.EventError:
                if before is None:
                    body[name] = value
                else:  # only where the target itself was renamed can a second move fail
                    body.clear()
                    body.update(before)
                raise

    return move


def _renamed(value: Any, change: Callable[[str], str]) -> Any:
    """The object with other names. The walk keeps its own stack: objects may be nested deeper than calls."""
    result: sdk.Body = {}
    pending: list[tuple[sdk.Body, sdk.Body]] = [(value, result)]
    while pending:
        source, target = pending.pop()
        for name, item in source.items():
            if type(item) is dict:
                inner: sdk.Body = {}
                pending.append((item, inner))
                target[change(name)] = inner
            else:
                target[change(name)] = item
    return result


def _capitalized(name: str) -> str:
    return name[:1].upper() + name[1:]


EXAMPLES = [
    sdk.Example(
        "Lift a nested value to the top",
        config="entries: [{from_key: http/status, to_key: status}]",
        before=[{"http": {"status": 200}}, {"other": 1}],
        after=[{"http": {}, "status": 200}, {"other": 1}],
    ),
    sdk.Example(
        "Many spellings, one name",
        config='entries: [{from_key_regex: "(user|usr)_?name", to_key: user}]',
        before=[{"username": "ada"}, {"usr_name": "bob"}],
        after=[{"user": "ada"}, {"user": "bob"}],
    ),
    sdk.Example(
        "Lower-case names",
        config="transform_key: lowercase",
        before=[{"Request": {"Method": "GET"}}],
        after=[{"request": {"method": "GET"}}],
    ),
]
