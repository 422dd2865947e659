"""Options as JSON Schema: for editors (the whole pipeline file) and for the reference pages (one plugin)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from penstock.plan.blocks import PipelineOptions, SinkOptions
from penstock.plan.catalog import find, names

_REFERENCE = {"type": "string", "pattern": r"^\$\{\{.+\}\}$"}
_BYTES = ((1024**3, "gb"), (1024**2, "mb"), (1024, "kb"), (1, "b"))


class _Generator(GenerateJsonSchema):
    """Defaults that JSON cannot hold are written as the text they were made of."""

    def encode_default(self, dft: Any) -> Any:
        if hasattr(dft, "get_secret_value"):
            return None if not dft.get_secret_value() else "******"
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", exclude_defaults=True, fallback=str)
        return dft.text if hasattr(dft, "text") else super().encode_default(dft)


def options_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of the options of a plugin, with `$defs` of its own."""
    schema: dict[str, Any] = _tidied(model.model_json_schema(schema_generator=_Generator, by_alias=True))
    return schema


def _tidied(value: Any) -> Any:
    """Without generated titles, and with spans and sizes as they are written in YAML."""
    if isinstance(value, list):
        return [_tidied(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidy = {
        key: {name: _tidied(item) for name, item in inner.items()}
        if key in ("properties", "$defs") and isinstance(inner, dict)
        else inner
        if key in ("default", "enum", "const")
        else _tidied(inner)
        for key, inner in value.items()
        if key != "title" or not isinstance(inner, str)
    }
    if tidy.pop("x-not-yet", False):
        tidy["description"] = f"{tidy.get('description', '')} Not supported yet.".strip()
    if "default" in tidy:
        tidy["default"] = _written(tidy["default"], _format(tidy))
    return tidy


def _format(schema: dict[str, Any]) -> str:
    options = [schema, *schema.get("anyOf", [])]
    return next((str(option["format"]) for option in options if "format" in option), "")


def _written(default: Any, form: str) -> Any:
    if isinstance(default, bool) or not isinstance(default, int | float):
        return default
    if form == "duration":
        return f"{round(default)}s" if float(default).is_integer() else f"{round(default * 1000)}ms"
    if form == "bytesize":
        factor, unit = next((pair for pair in _BYTES if default and default % pair[0] == 0), (1, "b"))
        return f"{default // factor}{unit}"
    return default


def pipeline_schema() -> dict[str, Any]:
    """The JSON Schema of a pipeline file, with all plugins there are."""
    definitions: dict[str, Any] = {}
    for kind in ("source", "buffer", "processor", "sink", "extension"):
        definitions[kind] = _one_plugin(kind, definitions)
    common = _scalars(options_schema(SinkOptions))
    _lift(common, "sink_options", definitions)
    for name in names("sink"):
        target = definitions[f"sink.{name}"]
        target.setdefault("properties", {}).update(copy.deepcopy(common["properties"]))
    pipeline = _scalars(options_schema(PipelineOptions))
    parts = pipeline["properties"]
    parts["source"] |= {"anyOf": [{"type": "string"}, _ref("source")]}
    parts["buffer"] |= _ref("buffer")
    parts["processor"] |= {"type": ["array", "null"], "items": _ref("processor")}
    several = {**definitions["sink"], "maxProperties": 1000}
    parts["sink"] |= {"anyOf": [{"type": "array", "minItems": 1, "items": _ref("sink")}, several]}
    route = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "string"}}
    parts["routes"] |= {"type": ["array", "null"], "items": route}
    parts["route"] = parts["routes"]
    for part in parts.values():
        part.pop("default", None) if part.get("default", 0) is None else None
    pipeline["required"] = ["sink"]
    definitions["pipeline"] = pipeline
    extensions = {**definitions.pop("extension"), "maxProperties": 1000, "additionalProperties": True}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipelines",
        "type": "object",
        "properties": {
            "version": {"type": ["string", "number"], "description": "Version of Data Prepper they are written for."},
            "extension": extensions,
            "pipeline_configurations": extensions,
        },
        "additionalProperties": _ref("pipeline"),
        "$defs": definitions,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _one_plugin(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A map with one key, the name of a plugin of that kind."""
    properties = {}
    for name in names(kind):
        _define(kind, name, definitions)
        properties[name] = {"anyOf": [_ref(f"{kind}.{name}"), {"type": "null"}]}
    return {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "properties": properties,
        "additionalProperties": False,
    }


def _define(kind: str, name: str, definitions: dict[str, Any]) -> None:
    found = find(kind, name)
    schema = _scalars(options_schema(found.config))
    summary = (found.module.__doc__ or "").strip().partition("\n")[0]
    definitions[f"{kind}.{name}"] = schema
    _lift(schema, f"{kind}.{name}", definitions)
    schema["description"] = summary
    _expand(schema, definitions)


def _lift(schema: dict[str, Any], owner: str, definitions: dict[str, Any]) -> None:
    """Move the definitions of one plugin to the common ones, under names of their own."""
    own = schema.pop("$defs", {})
    for part in (schema, *own.values()):
        for node in _nodes(part):
            reference = node.get("$ref", "")
            if isinstance(reference, str) and reference.removeprefix("#/$defs/") in own:
                node["$ref"] = f"#/$defs/{owner}.{reference.removeprefix('#/$defs/')}"
    for name, part in own.items():
        definitions[f"{owner}.{name}"] = part
        _expand(part, definitions)


def _expand(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Say which plugins an option takes."""
    for node in _nodes(schema):
        kind = node.pop("x-plugin", None)
        if kind is None:
            continue
        if kind not in definitions:
            definitions[kind] = {}  # a plugin may hold another of its own kind
            definitions[kind].update(_one_plugin(kind, definitions))
        node.pop("type", None)
        node["$ref"] = f"#/$defs/{kind}"


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in list(value.values()):
            yield from _nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _nodes(item)


def _scalars(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a reference stand where a number or a boolean is wanted."""
    for node in list(_nodes(schema)):
        if node.get("type") in ("integer", "number", "boolean"):
            plain = {key: node.pop(key) for key in list(node) if key not in ("description", "default")}
            node["anyOf"] = [plain, dict(_REFERENCE)]
    return schema
