"""Parses a text that holds an Ion struct (or a JSON object, which is one) and writes what it finds into the event.

Ion types that JSON lacks become text: symbols, timestamps in UTC (`2024-05-01T10:00:00Z`), bytes in base64. Annotations
are left out. Decimals keep all their digits. Only the first value of the text counts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from penstock import sdk
from penstock.lib.ion import IonError, read_ion
from penstock.sdk.parsing import NotParsed, ParseOptions, parse_processor


class Config(ParseOptions):
    depth: Annotated[int, Field(ge=0, le=10)] = 0
    """Levels to parse: structs below stay JSON text; 0 parses all."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return parse_processor(config, ctx, _struct, depth=config.depth)


def _struct(text: str) -> sdk.Body:
    try:
        members = read_ion(text)
    except IonError as error:
        raise NotParsed(f"not valid Ion: {error}") from None
    if type(members) is not dict:
        raise NotParsed("the Ion text holds no struct but another value")
    return members


EXAMPLES = [
    sdk.Example(
        "Lift the fields of a struct to the top of the event",
        config="""
            delete_source: true
            tags_on_failure: [no_ion]
        """,
        before=[{"message": "{level: INFO, at: 2024-05-01T12:00:00+02:00, took: ms::7.5}"}, {"message": "{level"}],
        after=[{"level": "INFO", "at": "2024-05-01T10:00:00Z", "took": 7.5}, {"message": "{level"}],
        tags=[[], ["no_ion"]],
    ),
    sdk.Example(
        "Parse one level into a field of its own",
        config="{destination: parsed, depth: 1}",
        before=[{"message": "{a: 1, b: {c: [x, y]}}"}],
        after=[{"message": "{a: 1, b: {c: [x, y]}}", "parsed": {"a": 1, "b": '{"c":["x","y"]}'}}],
    ),
]
