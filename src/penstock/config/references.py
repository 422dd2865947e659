"""References in options: `${{env:NAME}}`, `${{file:path}}`, `${{aws_secrets:id}}`, `${{aws_secrets:id:key}}`.

The whole scalar must be the reference. What looks like one and is none is refused: it never reaches a plugin as it is.
Their values are never shown; messages name the reference instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.config.nodes import Node, ScalarNode, scalar_value, scalars

PROVIDERS = ("aws_secrets", "env", "file")
MASK = "******"
FILE_BYTES_MAX = 1024 * 1024
_MASKED_LENGTH_MIN = 4
_WHOLE = re.compile(r"\$\{\{\s*([A-Za-z_][A-Za-z0-9_-]*)\s*:\s*(.*?)\s*\}\}\Z", re.DOTALL)
_PART = re.compile(r"\$\{\{\s*(?:" + "|".join(PROVIDERS) + r")\s*:")
_ID = re.compile(r"[a-zA-Z0-9/_+.=@-]+\Z")


class BadReference(ValueError):
    """A reference is malformed, or its value cannot be had."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a value comes from."""

    provider: str
    name: str
    """Variable, file path, or id under `extension.aws.secrets`."""
    key: str | None = None
    """Key in the JSON of the secret; None: the whole secret."""

    def __str__(self) -> str:
        return "${{" + ":".join((self.provider, self.name, *([self.key] if self.key is not None else []))) + "}}"


class Unresolved(str):
    """Stands for the value of a reference while it is not known: a check offline."""

    __slots__ = ()


def parse_reference(text: str) -> Reference | None:
    """The reference a text is, None when it is an ordinary text. Raises BadReference when it only looks like one."""
    if "${{" not in text:
        return None
    match = _WHOLE.match(text)
    if match is None or "${{" in match[2]:
        if _PART.search(text):
            raise BadReference("A reference must be the whole value, it cannot be a part of a text.")
        return None
    provider, rest = match[1], match[2]
    if provider not in PROVIDERS:
        raise BadReference(f"Unknown kind of reference '{provider}'. Known kinds are [{', '.join(PROVIDERS)}].")
    if provider != "aws_secrets":
        if not rest:
            raise BadReference(f"The reference to {provider} names nothing.")
        return Reference(provider, rest)
    name, colon, key = rest.partition(":")
    if not _ID.match(name) or (colon and not key):
        raise BadReference("A reference to a secret is written ${{aws_secrets:<id>}} or ${{aws_secrets:<id>:<key>}}.")
    return Reference(provider, name, key if colon else None)


def secrets_in(node: Node) -> tuple[tuple[str, Reference], ...]:
    """References to secrets below a map of options, each with the option that it stands in."""
    found = []
    for path, scalar in scalars(node):
        try:
            reference = parse_reference(scalar.text)
        except BadReference:
            continue  # reported by its own check, with its line
        if reference is not None and reference.provider == "aws_secrets":
            found.append((str(path[0]) if path else "", reference))
    return tuple(found)


@dataclass(slots=True)
class References:
    """Values of references. Without values (`References()`) every reference is `Unresolved`."""

    values: dict[Reference, str] = field(default_factory=dict)
    offline: bool = True
    """Whether unknown values are left open; else a reference without a value is an error."""
    failures: dict[Reference, str] = field(default_factory=dict)
    """Why a value could not be had."""

    def read(self, node: ScalarNode) -> Any:
        """Value of a scalar; a reference gives the text it stands for, or `Unresolved`. For `nodes.value_of`."""
        value = scalar_value(node)
        if not isinstance(value, str):
            return value
        try:
            reference = parse_reference(value)
        except BadReference:
            return Unresolved(value)  # reported by its own check, with its line
        if reference is None:
            return value
        return self.values.get(reference, Unresolved(value))

    def problem(self, reference: Reference) -> str | None:
        """Why this reference has no value, None when it has one or none is needed."""
        if reference in self.values:
            return None
        if reference in self.failures:
            return self.failures[reference]
        return None if self.offline else f"{reference} has no value."

    def mask(self, text: str) -> str:
        """`text` with every value of a reference hidden."""
        for value in sorted(self.values.values(), key=len, reverse=True):
            if len(value) >= _MASKED_LENGTH_MIN:
                text = text.replace(value, MASK)
        return text


def read_local(reference: Reference, environ: Mapping[str, str], read_file: Callable[[Path], bytes]) -> str:
    """Value of a reference to the environment or to a file (its text without the last line break)."""
    if reference.provider == "env":
        if reference.name not in environ:
            raise BadReference(f"The environment variable {reference.name} is not set.")
        return environ[reference.name]
    assert reference.provider == "file", "other references need a service"
    try:
        data = read_file(Path(reference.name))
    except OSError as error:
        raise BadReference(f"The file {reference.name} cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise BadReference(f"The file {reference.name} is larger than {FILE_BYTES_MAX} bytes.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadReference(f"The file {reference.name} is not UTF-8 text.") from None
    return text.removesuffix("\n").removesuffix("\r")


def read_bytes(path: Path) -> bytes:
    """What a file holds, as far as `FILE_BYTES_MAX` and one byte."""
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX + 1)
