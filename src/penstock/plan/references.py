"""Values of references, fetched before the plan is made: environment, files, AWS Secrets Manager."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.config.documents import Documents
from penstock.config.nodes import scalars
from penstock.config.references import BadReference, Reference, References, parse_reference, read_bytes, read_local
from penstock.config.server import ServerDocument
from penstock.core.errors import PenstockError
from penstock.plan.extensions import check_extensions
from penstock.sdk import Context


async def resolve_references(
    documents: Documents,
    server_config: ServerDocument | None = None,
    *,
    environ: Mapping[str, str],
    read_file: Callable[[Path], bytes] = read_bytes,
    build: Callable[[Any, Any], Any] | None = None,
) -> References:
    """The values of all references in the pipeline files and the server configuration, for `make_plan`.

    A value that cannot be had is remembered with its reason; `make_plan` makes it a problem where the reference
    stands. Secrets Manager is called only where a reference names a secret. `build(module, config)` makes the
    extension that reads secrets.
    """
    references = References(offline=False)
    blocks = [documents.extension, server_config.root if server_config else None]
    outside = {
        reference
        for block in blocks
        if block is not None
        for _, scalar in scalars(block.node)
        for reference in [_reference(scalar.text)]
        if reference is not None
    }
    wanted = list(dict.fromkeys([*outside, *documents.references()]))
    _read_local(references, wanted, environ, read_file)
    secrets = [reference for reference in wanted if reference.provider == "aws_secrets"]
    if secrets:
        server_block = server_config.extensions if server_config else None
        extensions = check_extensions(documents.extension, server_block, references)
        await _read_secrets(references, secrets, extensions.plugins, build or _build)
    return references


def _reference(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except BadReference:
        return None


def _read_local(
    references: References,
    wanted: Iterable[Reference],
    environ: Mapping[str, str],
    read_file: Callable[[Path], bytes],
) -> None:
    for reference in wanted:
        if reference.provider == "aws_secrets":
            continue
        try:
            references.values[reference] = read_local(reference, environ, read_file)
        except BadReference as error:
            references.failures[reference] = str(error)


async def _read_secrets(
    references: References, wanted: list[Reference], plugins: Iterable[Any], build: Callable[[Any, Any], Any]
) -> None:
    aws = next((plugin for plugin in plugins if plugin.name == "aws"), None)
    if aws is None:
        return  # each reference is told that its id is unknown
    async with build(aws.module, aws.config) as secrets:
        for reference in wanted:
            if reference.name not in aws.config.secrets:
                continue
            try:
                references.values[reference] = await secrets.read(reference.name, reference.key)
            except PenstockError as error:
                references.failures[reference] = str(error)


def _build(module: Any, config: Any) -> Any:
    return module.build(config, Context("extensions", "aws", kind="extension"))
