"""Removes values by key, or top-level names by regular expression."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Self

from pydantic import model_validator

from penstock import sdk
from penstock.lib.event_keys import Key, event_key, give_back
from penstock.lib.limited_loop import each_limited
from penstock.lib.regex import RegexError, compile_java, interruptible

NAMES_MAX = 4096
"""Names whose verdict is remembered; a full memory is cleared."""
SHAPES_MAX, SHAPE_NAMES_MAX = 256, 64
"""Events, told by their names, whose verdict is remembered, and how many names they may have for that."""


class Entry(sdk.PluginConfig):
    with_keys: list[sdk.DeleteKey] | None = None
    """Keys to remove."""
    with_keys_regex: list[str] | None = None
    """Regular expressions; top-level names that match one as a whole are removed."""
    exclude_from_delete: list[sdk.Key] | None = None
    """Names that stay although a regular expression matches them."""
    delete_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    iterate_on: sdk.ReadKey | None = None
    """List of objects; the values are removed from each of them."""
    delete_from_element_when: sdk.When = sdk.ALWAYS
    """With `iterate_on`: only elements that match this expression are changed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        problems = _problems_of(self, "Invalid regex pattern found in with_keys_regex.")
        if not self.with_keys and not self.with_keys_regex:
            problems.append("One of with_keys or with_keys_regex is required in an entry.")
        if problems:
            raise ValueError(" ".join(problems))
        return self


class Config(sdk.PluginConfig):
    with_keys: list[sdk.DeleteKey] | None = None
    """Keys to remove. `entries` takes several such groups, each with its own condition."""
    with_keys_regex: list[str] | None = None
    """Regular expressions; top-level names that match one as a whole are removed."""
    exclude_from_delete: list[sdk.Key] | None = None
    """Names that stay although a regular expression matches them."""
    delete_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    iterate_on: sdk.ReadKey | None = None
    """List of objects; the values are removed from each of them."""
    delete_from_element_when: sdk.When = sdk.ALWAYS
    """With `iterate_on`: only elements that match this expression are changed."""
    entries: list[Entry] | None = None
    """Several removals, in order, each with its own condition."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        given = sum(bool(each) for each in (self.entries, self.with_keys, self.with_keys_regex))
        problems = []
        if given == 0:
            problems.append(
                "One of the following must be provided: 'entries', 'with_keys', or 'with_keys_regex'. "
                "None of these are configured."
            )
        if given > 1:
            problems.append(
                "You can only use one of the following at a time: 'entries', 'with_keys', or 'with_keys_regex'"
            )
        problems += _problems_of(self, "Invalid regex pattern in 'with_keys_regex'")
        if problems:
            raise ValueError(" ".join(problems))
        return self


def _problems_of(options: Entry | Config, bad_regex: str) -> list[str]:
    problems = []
    if options.exclude_from_delete and not options.with_keys_regex:
        problems.append("exclude_from_delete only applies when with_keys_regex is configured.")
    if options.delete_from_element_when is not None and options.iterate_on is None:
        problems.append("delete_from_element_when only applies when iterate_on is configured.")
    try:
        _compiled(options.with_keys_regex)
    except RegexError:
        problems.append(bad_regex)
    return problems


def _compiled(expressions: list[str] | None) -> list[re.Pattern[str]]:
    return [compile_java(expression) for expression in expressions or ()]


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    groups: list[Entry | Config] = [*config.entries] if config.entries else [config]
    return ctx.chain(_step(group, ctx) for group in groups)


def _step(options: Entry | Config, ctx: sdk.Context) -> sdk.BatchFn:
    when, keys = options.delete_when, options.with_keys or []
    if options.iterate_on is None and not options.with_keys_regex and all(len(key.parts) == 1 for key in keys):
        return ctx.each(_inline_deletion([key.parts[0] for key in keys]), when=when)
    delete = _deletion(options)
    change = sdk.Inline("delete(body)", delete=delete)
    if options.iterate_on is not None:
        change = sdk.Inline("delete(body, meta)", delete=_for_elements(options, options.iterate_on, delete))
    return (
        each_limited(change, when=when, fail=ctx.failure()) if options.with_keys_regex else ctx.each(change, when=when)
    )


def _inline_deletion(names: Sequence[str]) -> sdk.Inline:
    if len(names) == 1:
        return sdk.Inline("if name in body:\n    del body[name]", name=names[0])
    return sdk.Inline("for name in names:\n    if name in body:\n        del body[name]", names=tuple(names))


def _deletion(options: Entry | Config) -> sdk.EventFn:
    if options.with_keys_regex:
        return _by_regex(_compiled(options.with_keys_regex), options.exclude_from_delete or [])
    keys = options.with_keys or []
    by_name = _by_name([key.parts[0] for key in keys if len(key.parts) == 1])
    nested = [key for key in keys if len(key.parts) != 1]
    if not nested:
        return by_name
    by_key: Callable[[sdk.Body], Any] = _by_key(nested) if len(nested) > 1 else _taker(nested[0])
    if len(nested) == len(keys):
        return by_key

    def delete(body: sdk.Body) -> None:
        by_key(body)  # first, because only this can fail
        by_name(body)

    return delete


def _by_name(names: Sequence[str]) -> sdk.EventFn:
    def delete(body: sdk.Body) -> None:
        for name in names:
            if name in body:
                del body[name]

    return delete


def _taker(key: Key) -> Callable[[sdk.Body], Any]:
    """A function that removes what is under a nested key and returns it.

    It fails for an element of a list; below a value that is no object there is nothing to remove.
    """
    parent_of, last = event_key("/".join(key.parts[:-1])).get, key.parts[-1]
    exists, refuse = key.exists, key.delete

    def take(body: sdk.Body) -> Any:
        parent = parent_of(body)
        if type(parent) is dict:
            return parent.pop(last, sdk.MISSING)
        if type(parent) is list and exists(body):
            refuse(body)
        return sdk.MISSING

    return take


def _by_key(keys: Sequence[Key]) -> sdk.EventFn:
    takers = [(key, _taker(key)) for key in keys]

    def delete(body: sdk.Body) -> None:
        taken = []
        try:
            for key, take in takers:
                taken.append((key, take(body)))
        except sdk.EventError:
            for key, value in reversed(taken):
                if value is not sdk.MISSING:
                    give_back(body, key, value)  # a failed event stays as it was
            raise

    return delete


def _by_regex(expressions: Sequence[re.Pattern[str]], exceptions: Sequence[Key]) -> sdk.EventFn:
    matches: list[Callable[[str], Any]] = [expression.fullmatch for expression in expressions]
    kept = {key.parts[0] for key in exceptions if len(key.parts) == 1}

    deletions: dict[str, bool] = {}
    shapes: dict[tuple[str, ...], list[str]] = {}

    @interruptible
    def any_match(name: str) -> bool:
        return any(match(name) for match in matches)

    def is_deleted(name: str) -> bool:
        deleted = deletions.get(name)
        if deleted is None:
            if len(deletions) >= NAMES_MAX:
                deletions.clear()
            deleted = deletions[name] = name not in kept and any_match(name)
        return deleted

    def deleted_of(names: tuple[str, ...]) -> list[str]:
        """Events of one source mostly have the same names, so that their answer is remembered as a whole."""
        deleted = [name for name in names if is_deleted(name)]
        if len(names) <= SHAPE_NAMES_MAX:
            if len(shapes) >= SHAPES_MAX:
                shapes.clear()
            shapes[names] = deleted
        return deleted

    def delete(body: sdk.Body) -> None:
        names = tuple(body)
        deleted = shapes.get(names)
        for name in deleted_of(names) if deleted is None else deleted:
            del body[name]

    return delete


def _for_elements(options: Entry | Config, list_key: Key, delete: sdk.EventFn) -> Callable[[sdk.Body, sdk.Meta], None]:
    test = None if options.delete_from_element_when is None else options.delete_from_element_when.test

    def delete_from_elements(body: sdk.Body, meta: sdk.Meta) -> None:
        elements = list_key.get(body)
        if elements is sdk.MISSING or elements is None:
            return
        if type(elements) is not list or any(type(element) is not dict for element in elements):
            raise sdk.EventError(f"{list_key} is no list of objects", cause="type")
        changed = sdk.copy_value(elements)  # so that an event that fails half-way stays as it was
        for element in changed:
            if test is None or test(element, meta):
                delete(element)
        elements[:] = changed

    return delete_from_elements


EXAMPLES = [
    sdk.Example(
        "Remove two values",
        config="with_keys: [password, user/token]",
        before=[{"password": "x", "user": {"name": "ada", "token": "t"}}, {"user": "bob"}],
        after=[{"user": {"name": "ada"}}, {"user": "bob"}],
    ),
    sdk.Example(
        "Remove by name, with an exception",
        config="""
            with_keys_regex: ["tmp_.*"]
            exclude_from_delete: [tmp_id]
        """,
        before=[{"tmp_a": 1, "tmp_id": 2, "a": 3}],
        after=[{"tmp_id": 2, "a": 3}],
    ),
    sdk.Example(
        "Different conditions for different values",
        config="""
            entries:
              - {with_keys: [debug], delete_when: '/level != "debug"'}
              - {with_keys: [trace], delete_when: /level == "info"}
        """,
        before=[{"level": "debug", "debug": 1, "trace": 2}, {"level": "info", "debug": 1, "trace": 2}],
        after=[{"level": "debug", "debug": 1, "trace": 2}, {"level": "info"}],
    ),
]
