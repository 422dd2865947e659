"""Every event vector: keys, reading and writing, JSON text, metadata and format strings as Data Prepper has them."""

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest

from penstock.core import event, json_text
from penstock.core.batch import Meta
from penstock.core.errors import EventError, ExpressionSyntaxError
from penstock.core.key import MISSING, Key, valid_key
from penstock.expr import compile_template

HERE = Path(__file__).parent
VECTORS = [json.loads(line) for line in (HERE / "event.jsonl").read_text().splitlines()]
DIFFERENT = set(re.findall(r"^\| `?(event-[\w-]+)`? \|", (HERE / "differences.md").read_text(), re.MULTILINE))
JSON_TEXTS = {"toJson", "toJsonString", "getAsJsonString"}
REFUSALS = (EventError, ExpressionSyntaxError, ValueError)


def parameters():
    for vector in VECTORS:
        marks = [pytest.mark.xfail(strict=True, reason="see differences.md")] if vector["id"] in DIFFERENT else []
        yield pytest.param(vector, id=vector["id"], marks=marks)


def put(body, meta, key, value, replace_invalid=False):
    if replace_invalid:
        event.put_replacing(body, key, value)
    else:
        Key.parse(key, "put").put(body, value)
    return body


def delete(body, meta, key):
    Key.parse(key, "delete").delete(body)
    return body


def get(body, meta, key):
    value = Key.parse(key, "get").get(body)
    return None if value is MISSING else value


def merge(body, meta, other, *keys):
    event.merge(body, other, *([Key.parse(key) for key in (keys[0] or [])] for _ in keys))
    return body


def clear(body, meta):
    event.clear(body)
    return body


def failure_metadata(body, meta, entries):
    event.add_failure_metadata(body, entries)
    return body


def set_attribute(body, meta, name, value):
    event.set_attribute(meta, name, value)
    return meta.attributes


def add_tags(body, meta, *tags):
    meta.tags.update(*(tag if isinstance(tag, list) else [tag] for tag in tags if tag is not None))
    return sorted(meta.tags)


def key_path(key):
    """The parts as Data Prepper lists them: it counts the empty text before a leading slash, too."""
    parts = list(Key.parse(key, "get").parts) or [""]
    return ["", *parts] if key.startswith("/") else parts


OPERATIONS = {
    "get": get,
    "getList": lambda body, meta, key: event.get_list(body, Key.parse(key, "get")),
    "containsKey": lambda body, meta, key: Key.parse(key, "get").exists(body),
    "isValueAList": lambda body, meta, key: event.is_value_a_list(body, Key.parse(key, "get")),
    "getAsJsonString": lambda body, meta, key: event.as_json_string(body, Key.parse(key, "get")),
    "toJsonString": lambda body, meta: event.to_json(body, meta).decode(),
    "toMap": lambda body, meta: body,
    "toJson": lambda body, meta, options: event.to_json(body, meta, **options).decode(),
    "formatString": lambda body, meta, text, *default: (
        compile_template(text).render(body, meta)
        if default in ((), (None,))
        else compile_template(text).render_or(body, meta, *default)
    ),
    "formatStringPlain": lambda body, meta, text: compile_template(text, with_expressions=False).render(body, meta),
    "put": put,
    "delete": delete,
    "merge": merge,
    "clear": clear,
    "failureMetadata": failure_metadata,
    "getAttribute": lambda body, meta, name: event.get_attribute(meta, name),
    "setAttribute": set_attribute,
    "hasTags": lambda body, meta, *tags: event.has_tags(meta, tags),
    "addTags": add_tags,
    "isValidEventKey": lambda body, meta, key: valid_key(key),
    "replaceInvalidKeyChars": lambda body, meta, key: event.replace_invalid_characters(key),
    "keyTrimmed": lambda body, meta, key: Key.parse(key, "get").name,
    "keyPath": lambda body, meta, key: key_path(key),
    "fromMessage": lambda body, meta, text: event.from_message(text)[0],
    "newEvent": lambda body, meta, data: event.new_event(data, meta.event_type)[0],
}


@pytest.mark.parametrize("vector", list(parameters()))
def test_vector(vector):
    body = deepcopy(vector.get("event", {}))
    meta = Meta(vector.get("event_type", "event"), attributes=vector.get("metadata", {}), tags=vector.get("tags", ()))
    operation, arguments = OPERATIONS[vector["op"]], vector["args"]
    if vector.get("expect_error"):
        with pytest.raises(REFUSALS):
            operation(body, meta, *arguments)
        return
    actual, expected = operation(body, meta, *arguments), vector["expect"]
    if vector["op"] in JSON_TEXTS and expected is not None:
        actual, expected = json_text.decode(actual), json_text.decode(expected)
    assert actual == expected
    assert isinstance(actual, bool) == isinstance(expected, bool)
