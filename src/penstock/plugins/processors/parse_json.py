"""Parses a text that holds a JSON object and writes what it finds into the event."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from penstock import sdk
from penstock.sdk.parsing import NotParsed, ParseOptions, parse_processor


class Config(ParseOptions):
    depth: Annotated[int, Field(ge=0, le=10)] = 0
    """Levels to parse: objects below stay JSON text; 0 parses all."""
    normalize_keys: bool = False
    """Replace characters that no event key can hold by `_`."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return parse_processor(config, ctx, _object, depth=config.depth, normalize=config.normalize_keys)


def _object(text: str) -> sdk.Body:
    try:
        members = sdk.decode(text)
    except ValueError as error:
        raise NotParsed(f"not valid JSON: {error}") from None
    if type(members) is not dict:
        raise NotParsed("the JSON text holds no object but another value")
    return members


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
