"""Adds values to events, to the elements of a list, or to the metadata."""

from collections.abc import Callable
from functools import partial
from typing import Any, Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.event_keys import Key, compile_key

_Value = Callable[[sdk.Body, sdk.Meta], Any]


class Entry(sdk.PluginConfig):
    key: str | None = None
    """Key to write; may hold `${...}`. Missing parent objects are created."""
    metadata_key: str | None = None
    """Metadata attribute to write, instead of a key."""
    value: Any = None
    """Value of any type."""
    format: sdk.Template | None = None
    """Text with `${...}`; what does not exist is an empty text."""
    value_expression: sdk.ValueExpression | None = None
    """Expression that gives the value."""
    overwrite_if_key_exists: bool = False
    """Replace a value that is there already; otherwise it is left alone."""
    append_if_key_exists: bool = False
    """Put the value at the end of a list; a single value that is there becomes the first of a list."""
    add_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    iterate_on: sdk.ReadKey | None = None
    """List of objects; the entry is added to each of them."""
    add_to_element_when: sdk.When = sdk.ALWAYS
    """With `iterate_on`: only added where this expression is true of the event."""
    evaluate_when_on_element: bool = False
    """Evaluate `add_to_element_when` for each element instead."""
    flatten_key: bool = True
    """With `iterate_on`: the key is a plain name inside the element; `false` makes it a path."""
    disable_root_keys: bool = True
    """With `iterate_on`: `format` and `value_expression` see the element alone; `false` lets them see the event."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        iterates = self.iterate_on is not None
        given = sum(each is not None for each in (self.value, self.format, self.value_expression))
        broken = {
            "Exactly one of value, format, or value_expression must be specified": given != 1,
            "overwrite_if_key_exists and append_if_key_exists can not be set to true at the same time.": (
                self.overwrite_if_key_exists and self.append_if_key_exists
            ),
            "flatten_key=false must be used with iterate_on.": not self.flatten_key and not iterates,
            "disable_root_keys=false only applies when iterate_on is configured.": (
                not self.disable_root_keys and not iterates
            ),
            "evaluate_when_on_element only applies when both iterate_on and add_to_element_when are configured.": (
                self.evaluate_when_on_element and not (iterates and self.add_to_element_when is not None)
            ),
            "Exactly one of key or metadata_key must be specified.": (self.key is None) == (self.metadata_key is None),
            "iterate_on cannot be used with metadata_key.": iterates and self.metadata_key is not None,
        }
        problems = [message for message, is_broken in broken.items() if is_broken]
        if self.key is not None and (self.flatten_key is False or not iterates):
            try:
                compile_key(self.key)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError(" ".join(problems))
        return self


class Config(sdk.PluginConfig):
    entries: sdk.NonEmpty[list[Entry]]
    """Values to add, in order: each entry sees the result of the one before it."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.chain(_step(entry, ctx) for entry in config.entries)


def _step(entry: Entry, ctx: sdk.Context) -> sdk.BatchFn:
    if entry.metadata_key is not None:
        return _to_metadata(entry, entry.metadata_key, ctx)
    if entry.iterate_on is not None:
        return ctx.each_event(_to_elements(entry, entry.iterate_on), when=entry.add_when)
    assert entry.key is not None, "the rules see to it"
    if "${" not in entry.key:
        return ctx.each(_to_fixed_key(entry, compile_key(entry.key)({}, sdk.Meta())), when=entry.add_when)
    return ctx.each_event(_to_event(entry, entry.key), when=entry.add_when)


def _to_fixed_key(entry: Entry, key: Key) -> sdk.Inline:
    """Most entries: the key is the same for all events, and mostly a name at the top."""
    value = _inline_value(entry)
    names: dict[str, Any]
    if key.top is None:
        exists, put, present = "exists(body)", "put(body, {})", "get(body)"
        names = {"exists": key.exists, "put": key.put, "get": key.get}
    else:
        exists, put, present = "name in body", "body[name] = {}", "body[name]"
        names = {"name": key.top}
    source = put.format(value.source)
    if not entry.overwrite_if_key_exists:
        source = f"if not ({exists}):\n    {source}"
    if entry.append_if_key_exists:
        source += f"\nelse:\n    {put.format(f'appended({present}, {value.source})')}"
        names["appended"] = _appended
    add = sdk.Inline(source, **names, **value.names)
    add.reads_meta = value.reads_meta
    return add


def _inline_value(entry: Entry) -> sdk.Inline:
    if entry.format is not None:
        return entry.format.inline("value", otherwise=_value(entry))
    if entry.value_expression is not None:
        if entry.value_expression.is_plain:
            return entry.value_expression.inline("value")
        return sdk.Inline("value_of(body, meta)", value_of=_value(entry))
    if isinstance(entry.value, dict | list):
        return sdk.Inline("copy_value(value)", copy_value=sdk.copy_value, value=entry.value)
    return sdk.Inline("value", value=entry.value)


def _to_event(entry: Entry, key_text: str) -> Callable[[sdk.Body, sdk.Meta], None]:
    key_of, value_of = compile_key(key_text), _value(entry)
    overwrite, append = entry.overwrite_if_key_exists, entry.append_if_key_exists

    def add(body: sdk.Body, meta: sdk.Meta) -> None:
        key = key_of(body, meta)
        if overwrite or not key.exists(body):
            key.put(body, value_of(body, meta))
        elif append:
            key.put(body, _appended(key.get(body), value_of(body, meta)))

    return add


def _to_metadata(entry: Entry, name: str, ctx: sdk.Context) -> sdk.BatchFn:
    value_of, when, fail = _value(entry), entry.add_when, ctx.failure()
    overwrite, append = entry.overwrite_if_key_exists, entry.append_if_key_exists

    def run(batch: sdk.Batch) -> sdk.Batch:
        for index, body in enumerate(batch.bodies):
            meta = batch.peek(index)
            try:
                if when is None or when.test(body, meta):
                    if overwrite or name not in meta.attributes:
                        value = value_of(body, meta)
                        batch.meta(index).attributes[name] = value
                    elif append:
                        value = _appended(meta.attributes[name], value_of(body, meta))
                        batch.meta(index).attributes[name] = value
            except (sdk.EventError, sdk.ExpressionError) as error:
                fail(batch, index, error)
        return batch

    return run


def _to_elements(entry: Entry, list_key: Key) -> Callable[[sdk.Body, sdk.Meta], None]:
    assert entry.key is not None, "the rules see to it"
    value_of, add_to_element = _value(entry), _element_writer(entry)
    test = None if entry.add_to_element_when is None else entry.add_to_element_when.test
    on_element, sees_element = entry.evaluate_when_on_element, entry.disable_root_keys
    key_of = _name(entry.key) if entry.flatten_key else compile_key(entry.key)

    def add(body: sdk.Body, meta: sdk.Meta) -> None:
        elements = list_key.get(body)
        if elements is sdk.MISSING or elements is None:
            return
        if type(elements) is not list or any(type(element) is not dict for element in elements):
            raise sdk.EventError(f"{list_key} is no list of objects", cause="type")
        key = key_of(body, meta)
        changed = sdk.copy_value(elements)  # so that an event that fails half-way stays as it was
        for element in changed:
            if test is None or test(element if on_element else body, meta):
                add_to_element(element, key, partial(value_of, element if sees_element else body, meta))
        elements[:] = changed

    return add


def _name(text: str) -> _Value:
    """A plain name, or one with `${...}`: unlike a key it is not a path."""
    if "${" not in text:
        return lambda body, meta: text
    key_of = compile_key(text)
    return lambda body, meta: key_of(body, meta).text


def _element_writer(entry: Entry) -> Callable[[sdk.Body, Any, Callable[[], Any]], None]:
    overwrite, append = entry.overwrite_if_key_exists, entry.append_if_key_exists

    def by_name(element: sdk.Body, name: str, value_of: Callable[[], Any]) -> None:
        if overwrite or name not in element:
            element[name] = value_of()
        elif append:
            element[name] = _appended(element[name], value_of())

    def by_path(element: sdk.Body, key: Key, value_of: Callable[[], Any]) -> None:
        if overwrite or not key.exists(element):
            key.put(element, value_of())
        elif append:
            key.put(element, _appended(key.get(element), value_of()))

    return by_name if entry.flatten_key else by_path


def _value(entry: Entry) -> _Value:
    if entry.value_expression is not None:
        evaluate = entry.value_expression.evaluate

        def evaluated(body: sdk.Body, meta: sdk.Meta) -> Any:
            try:
                return evaluate(body, meta)
            except sdk.ExpressionError as error:
                raise sdk.EventError(str(error), cause="expression", logged=error.logged) from error

        return evaluated
    if entry.format is not None:
        render = entry.format.render_or
        return lambda body, meta: render(body, meta, "")
    value = entry.value
    return lambda body, meta: sdk.copy_value(value)


def _appended(present: Any, value: Any) -> list[Any]:
    return [*present, value] if type(present) is list else [present, value]


EXAMPLES = [
    sdk.Example(
        "Add a fixed value, a text made of others, and the result of an expression",
        config="""
            entries:
              - {key: env, value: prod}
              - {key: name, format: "${first} ${last}"}
              - {key: slow, value_expression: "/took_ms > 500"}
        """,
        before=[{"first": "Ada", "last": "Byron", "took_ms": 700}],
        after=[{"first": "Ada", "last": "Byron", "took_ms": 700, "env": "prod", "name": "Ada Byron", "slow": True}],
    ),
    sdk.Example(
        "Collect values in a list",
        config="entries: [{key: seen, value: here, append_if_key_exists: true}]",
        before=[{"seen": "there"}, {}],
        after=[{"seen": ["there", "here"]}, {"seen": "here"}],
    ),
    sdk.Example(
        "Add a value to some elements of a list",
        config="""
            entries:
              - key: urgent
                value: true
                iterate_on: findings
                add_to_element_when: /level == "high"
                evaluate_when_on_element: true
        """,
        before=[{"findings": [{"level": "high"}, {"level": "low"}]}],
        after=[{"findings": [{"level": "high", "urgent": True}, {"level": "low"}]}],
    ),
    sdk.Example(
        "Keep a value in the metadata",
        config='entries: [{metadata_key: target, format: "logs-${app}"}]',
        before=[{"app": "shop"}],
        after=[{"app": "shop"}],
        metadata=[{"target": "logs-shop"}],
    ),
]
