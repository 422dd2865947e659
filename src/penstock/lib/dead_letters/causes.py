"""Why documents were refused, in words that are the same for all that were refused for the same reason."""

from __future__ import annotations

import re

from penstock.lib.dead_letters.record import Record

CAUSE_CHARACTERS_MAX = 160
_KNOWN: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"failed to parse field \[(?P<a>[^\]]+)\] of type \[(?P<b>[^\]]+)\]"),
        "mapper_parsing_exception on field {a} ({b})",
    ),
    (
        re.compile(r"object mapping for \[(?P<a>[^\]]+)\] tried to parse"),
        "mapper_parsing_exception on field {a} (object)",
    ),
    (
        re.compile(r"mapping set to strict, dynamic introduction of \[(?P<a>[^\]]+)\] within \[(?P<b>[^\]]+)\]"),
        "strict_dynamic_mapping_exception on field {a} within {b}",
    ),
    (re.compile(r"Limit of total fields \[(?P<a>\d+)\]", re.IGNORECASE), "too many fields in the index (limit {a})"),
    (re.compile(r"no such index \[(?P<a>[^\]]+)\]"), "index_not_found_exception: {a}"),
    (re.compile(r"Invalid characters in the index name"), "invalid index name"),
    (re.compile(r"document missing"), "document_missing_exception"),
    (re.compile(r"version conflict"), "version_conflict_engine_exception"),
    (re.compile(r"could not be found in the Event when formatting"), "a key that a template needs is missing"),
    (
        re.compile(r"Number of retries reached the limit.*Last exception message: (?P<a>.*)\)", re.DOTALL),
        "retries used up: {a}",
    ),
    (re.compile(r"Number of retries reached the limit"), "retries used up"),
)
_VARYING = (
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "…"),
    (re.compile(r"'(?:[^']{0,2000})'"), "'…'"),
    (re.compile(r'"(?:[^"]{0,2000})"'), '"…"'),
    (re.compile(r"\d+"), "N"),
)


def cause_of(record: Record) -> str:
    """The cause of a dead letter without what is special to its document."""
    return cause_in(record.message) or f"status {record.status}, no message"


def cause_in(message: str) -> str:
    """The cause that a message tells of; empty for an empty one."""
    message = message[:4000]
    for pattern, words in _KNOWN:
        found = pattern.search(message)
        if found is not None:
            parts = found.groupdict()
            if words.startswith("retries") and parts:
                parts = {"a": _general(parts["a"])}
            return words.format(**parts)[:CAUSE_CHARACTERS_MAX]
    return _general(message)[:CAUSE_CHARACTERS_MAX]


def _general(text: str) -> str:
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return " ".join(text.split())
