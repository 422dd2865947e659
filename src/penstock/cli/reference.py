"""Reference pages of plugins: gathered from their modules, written as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from textwrap import dedent, indent
from typing import Any

from penstock.plan.catalog import find, names
from penstock.plan.schema import options_schema
from penstock.sdk.example import examples_of

PAGE_KINDS = (
    "source",
    "buffer",
    "processor",
    "sink",
    "input_codec",
    "output_codec",
    "aggregate_action",
    "obfuscate_action",
    "http_authentication",
    "dlq",
    "extension",
)
"""Kinds in the order of the pages."""


@dataclass(frozen=True, slots=True)
class Row:
    """One option."""

    path: str
    """`entries[].from_key`"""
    type: str
    default: Any
    required: bool
    description: str

    @property
    def default_text(self) -> str:
        """The default as YAML, or that there is none."""
        return "required" if self.required else "" if self.default is None else _json(self.default)


@dataclass(frozen=True, slots=True)
class Shown:
    """One example."""

    title: str
    config: str
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]

    def yaml(self, plugin: str) -> str:
        """The example as it stands in a pipeline."""
        body = dedent(self.config).strip()
        if body == "{}":
            return f"{plugin}:"
        return f"{plugin}:\n{indent(body, '  ')}" if body else f"{plugin}:"


@dataclass(frozen=True, slots=True)
class Page:
    """All there is to say about a plugin."""

    kind: str
    name: str
    purpose: str
    options: tuple[Row, ...]
    examples: tuple[Shown, ...]

    @property
    def summary(self) -> str:
        return " ".join(self.purpose.partition("\n\n")[0].split())

    def as_dict(self) -> dict[str, Any]:
        return {"summary": self.summary, **asdict(self)}


def every_plugin(kinds: Iterable[str] = PAGE_KINDS) -> Iterator[tuple[str, str]]:
    """Kind and name of each plugin, in order."""
    for kind in kinds:
        for name in names(kind):
            yield kind, name


def describe(kind: str, name: str) -> Page:
    """Gather the page of a plugin from its module."""
    found = find(kind, name)
    schema = options_schema(found.config)
    examples = [
        Shown(example.title, example.config, example.before, example.after)
        for example in examples_of(found.module, kind)
    ]
    return Page(
        kind,
        name,
        (found.module.__doc__ or "").strip(),
        tuple(_rows(schema, schema.get("$defs", {}), "", ())),
        tuple(examples),
    )


def _rows(schema: dict[str, Any], definitions: dict[str, Any], prefix: str, seen: tuple[str, ...]) -> Iterator[Row]:
    required = schema.get("required", [])
    for name, option in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        default = option.get("default")
        yield Row(path, _type(option, definitions), default, name in required, _line(option.get("description", "")))
        for step, reference in _below(option):
            if reference not in seen:
                yield from _rows(definitions[reference], definitions, f"{path}{step}.", (*seen, reference))


def _line(text: str) -> str:
    return " ".join(text.split())


def _below(option: dict[str, Any], step: str = "") -> Iterator[tuple[str, str]]:
    """Names of the models inside an option, and how their path goes on."""
    if "$ref" in option:
        yield step, option["$ref"].removeprefix("#/$defs/")
    for part in (*option.get("anyOf", ()), *option.get("oneOf", ()), *option.get("allOf", ())):
        yield from _below(part, step)
    if isinstance(option.get("items"), dict):
        yield from _below(option["items"], step + "[]")
    if isinstance(option.get("additionalProperties"), dict):
        yield from _below(option["additionalProperties"], step + ".<name>")


_JSON_TYPES = {"integer": "int", "number": "double", "array": "list", "object": "map"}


def _type(option: dict[str, Any], definitions: dict[str, Any]) -> str:
    """An option's type in one word or two."""
    if "x-plugin" in option:
        return f"plugin ({option['x-plugin']})"
    if "$ref" in option:
        target = definitions[option["$ref"].removeprefix("#/$defs/")]
        return "object" if "properties" in target else _type(target, definitions)
    parts = [*option.get("anyOf", ()), *option.get("oneOf", ()), *option.get("allOf", ())]
    if parts:
        types = [_type(part, definitions) for part in parts if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(types))
    if "enum" in option or "const" in option:
        return "one of " + ", ".join(f"`{value}`" for value in option.get("enum", [option.get("const")]))
    kind = option.get("format") or option.get("type") or "any"
    if kind == "array" and isinstance(option.get("items"), dict):
        return f"list of {_type(option['items'], definitions)}"
    if kind == "object" and isinstance(option.get("additionalProperties"), dict):
        return f"map of {_type(option['additionalProperties'], definitions)}"
    return _JSON_TYPES.get(str(kind), str(kind))


def markdown(page: Page) -> str:
    """The page as Markdown."""
    lines = [f"# {page.kind} `{page.name}`", "", page.purpose, "", "## Options", ""]
    if page.options:
        lines += ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [_table_row(row) for row in page.options]
    else:
        lines.append("None.")
    for example in page.examples:
        lines += ["", f"## Example: {example.title}", "", "```yaml", example.yaml(page.name), "```"]
        if example.before or example.after:
            lines += ["", "Events before:", "", *_events(example.before), "", "and after:", "", *_events(example.after)]
    return "\n".join(lines) + "\n"


def _table_row(row: Row) -> str:
    default = row.default_text if row.required or not row.default_text else f"`{row.default_text}`"
    cells = (f"`{row.path}`", row.type, default, row.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _events(events: list[dict[str, Any]]) -> list[str]:
    return ["```json", *(_json(event) for event in events), "```"] if events else ["none"]


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def index(pages: Iterable[Page]) -> str:
    """The page that lists all others."""
    lines = ["# Plugins", ""]
    kind = ""
    for page in pages:
        if page.kind != kind:
            kind = page.kind
            lines += ["", f"## {kind}", "", "| name | purpose |", "| --- | --- |"]
        summary = page.summary.replace("|", "\\|")
        lines.append(f"| [{page.name}]({page.kind}.{page.name}.md) | {summary} |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"
