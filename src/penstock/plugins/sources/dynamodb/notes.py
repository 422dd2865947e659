"""What can be told of a pipeline that reads tables before it starts: where the index would not become the table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from penstock import sdk
from penstock.plugins.sources.dynamodb.shard import RETENTION_MS

READERS_MAX = 2
"""Readers of a shard that the service allows."""
_PART = re.compile(r"\$\{(.*?)\}")
_EXPORT_MS = re.compile(r"/export/0*(\d{13,})-")
_TABLE_NAME = "table_name"


def pipeline_notes(config: Any, around: sdk.Around) -> Iterator[sdk.Note]:
    """Warnings on the options of the source and on those of the sinks behind it."""
    yield from _of_source(config, around)
    for sink in around.sinks:
        if sink.name == "opensearch":
            for note in _of_sink(config, sink.config):
                yield note._replace(sink=sink)


def _of_source(config: Any, around: sdk.Around) -> Iterator[sdk.Note]:
    readers = Counter(
        table.table_arn for use in around.alike for table in use.config.tables if table.stream is not None
    )
    for place, table in enumerate(config.tables):
        path = ("tables", place)
        parts = table.table_arn.split(":")
        region = parts[3] if len(parts) > 3 else ""
        if region and config.aws.region and "<<" not in table.table_arn and region != config.aws.region:
            yield sdk.Note(
                f"The table is in {region}, and requests go to {config.aws.region}: it will not be found.",
                f"write region: {region}",
                ("aws", "region"),
            )
        if table.stream is not None and readers[table.table_arn] > READERS_MAX:
            yield sdk.Note(
                f"{readers[table.table_arn]} pipelines read the stream of {table.table_arn}: more than {READERS_MAX} "
                "readers of a shard are throttled, functions that the stream triggers included.",
                "let one pipeline read it and send the events on to the others",
                (*path, "stream"),
            )
        arn = table.export.export_arn if table.export is not None else None
        known = _EXPORT_MS.search(arn or "")
        if known and table.stream is not None and around.now_ms - int(known[1]) > RETENTION_MS:
            at = datetime.fromtimestamp(int(known[1]) / 1000, UTC).strftime("%Y-%m-%d %H:%M")
            yield sdk.Note(
                f"The export was made at {at} UTC, and a stream keeps 24 hours: what changed after the export and "
                "before that is missing until it changes again.",
                "leave export_arn out for a new export",
                (*path, "export", "export_arn"),
            )


def _of_sink(config: Any, sink: Any) -> Iterator[sdk.Note]:
    streams = [table.stream for table in config.tables if table.stream is not None]
    if sink.document_id is None and sink.document_id_field is None:
        yield sdk.Note(
            "Without document_id every change of an item makes another document, and so does whatever is read again.",
            'write document_id: "${getMetadata(\\"primary_key\\")}"',
        )
    elif len(config.tables) > 1 and _TABLE_NAME not in f"{sink.alias}{_text(sink.document_id)}":
        yield sdk.Note(
            "Items of several tables with the same key overwrite each other in this index.",
            'write index: "${getMetadata(\\"table_name\\")}"',
            ("index",),
        )
    if not streams:
        return
    actions = [sink.action, *(entry.type for entry in sink.actions or ())]
    if not any("${" in action or action == "delete" for action in actions):
        yield sdk.Note(
            f"Every change is written with the action {sink.action}: items that are removed from the table stay in the "
            "index.",
            'write action: "${getMetadata(\\"opensearch_action\\")}"',
            ("action",) if "action" in sink.model_fields_set else (),
        )
    if sink.document_version is None or sink.document_version_type not in ("external", "external_gte"):
        early = any(stream.during_export for stream in streams)
        why = "with during_export an item of the export" if early else "a change that is read again, or late,"
        yield sdk.Note(
            f"Without a version of the document from outside, {why} may overwrite a newer one.",
            'write document_version: "${getMetadata(\\"document_version\\")}" and document_version_type: external',
        )
    yield from _of_names(sink, [stream.view_on_remove for stream in streams])


def _of_names(sink: Any, views: list[str]) -> Iterator[sdk.Note]:
    index = sink.index or ""
    if "%{" in index:
        yield sdk.Note(
            "The name of the index has a date: an item that changes on another day becomes a second document, and a "
            "removal does not find the first.",
            "leave the date out",
            ("index",),
        )
    if "NEW_IMAGE" not in views:
        return
    named = [("index", index), ("document_id", _text(sink.document_id)), ("routing", _text(sink.routing))]
    named.append(("document_id_field", "${/}" if sink.document_id_field is not None else ""))
    for option, text in named:
        if any("getMetadata" not in part for part in _PART.findall(text)):
            yield sdk.Note(
                f"{option} reads the item, and the event of a removed item is empty: the removal does not find the "
                "document.",
                "write view_on_remove: OLD_IMAGE under stream, or read the keys with getMetadata",
                (option,),
            )


def _text(template: Any) -> str:
    return "" if template is None else template.text
