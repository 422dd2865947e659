"""Reading the answer to a bulk request: which items were refused, and what each refusal means.

Most answers say `"errors":false` at their head; then nothing else of them is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

import msgspec

FILTER_PATH = "errors,took,items.*.error,items.*.status,items.*._index"
_HEAD_BYTES = 512
_NOT_FOUND = re.compile(rb'"status": ?404')


class Verdict(Enum):
    """What became of an item that was not simply written."""

    DUPLICATE = auto()
    """`create` of an id that exists."""
    OUTDATED = auto()
    """The index holds the same or a newer external version."""
    ALREADY_GONE = auto()
    """`delete` of a document that does not exist."""
    INDEX_MISSING = auto()
    RETRY = auto()
    TOO_LARGE = auto()
    REFUSED = auto()


_SUCCESS = (Verdict.DUPLICATE, Verdict.OUTDATED, Verdict.ALREADY_GONE)


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's word on an item that was not simply written."""

    verdict: Verdict
    status: int
    index: str
    reason: str


class BulkReplyError(Exception):
    """The reply is no answer to the request: cut short, or not one answer for each item."""


class _Cause(msgspec.Struct, gc=False):
    type: str | None = None
    reason: str | None = None
    caused_by: _Cause | None = None


class _Outcome(msgspec.Struct, gc=False):
    status: int = 0
    index: str = msgspec.field(default="", name="_index")
    error: _Cause | str | None = None


class _Item(msgspec.Struct, gc=False):
    index: _Outcome | None = None
    create: _Outcome | None = None
    update: _Outcome | None = None
    delete: _Outcome | None = None


class _Reply(msgspec.Struct, gc=False):
    items: list[_Item]


class _ErrorReply(msgspec.Struct):
    error: _Cause | str | None = None
    message: str | None = None


_decode = msgspec.json.Decoder(_Reply).decode
_decode_error = msgspec.json.Decoder(_ErrorReply).decode


def read_bulk_reply(body: bytes, expected: int, *, external_version: bool) -> dict[int, Answer]:
    """The answers that say something else than "written", by the place of their item. Raises `BulkReplyError`."""
    head = body[:_HEAD_BYTES]
    all_well = (b'"errors":false' in head or b'"errors": false' in head) and body.rstrip().endswith(b"}")
    if all_well and _NOT_FOUND.search(body) is None:  # deleting what does not exist is no error, but has a counter
        return {}
    try:
        items = _decode(body).items
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BulkReplyError(f"the answer to the bulk request cannot be read: {error}") from error
    if len(items) != expected:
        raise BulkReplyError(f"the bulk request had {expected} items, its answer has {len(items)}")
    answers: dict[int, Answer] = {}
    same = Answer(Verdict.REFUSED, 0, "", "")
    same_said: tuple[int, str, str | None, str | None] | None = None
    for place, item in enumerate(items):
        outcome = item.index or item.create or item.update or item.delete
        if outcome is None:
            raise BulkReplyError("an item of the answer to the bulk request names no action")
        cause = outcome.error
        if cause is None and 200 <= outcome.status < 300:
            continue
        if cause.__class__ is _Cause and cause.caused_by is None and item.index is not None:
            said = (outcome.status, outcome.index, cause.type, cause.reason)
            if said != same_said:
                same, same_said = _judge("index", outcome, external_version), said
            answers[place] = same  # a server in need says the same of many
        else:
            answers[place] = _judge(_action(item), outcome, external_version)
    return answers


def _judge(action: str, outcome: _Outcome, external_version: bool) -> Answer:
    cause = outcome.error if isinstance(outcome.error, _Cause) else None
    kind = (cause.type or "") if cause is not None else ""
    verdict = _verdict(action, outcome.status, kind, external_version)
    reason = ""
    if verdict not in _SUCCESS:
        reason = _reason(outcome.error) or f"{action} answered {outcome.status}"
    return Answer(verdict, outcome.status, outcome.index, reason)


def _action(item: _Item) -> str:
    if item.index is not None:
        return "index"
    if item.create is not None:
        return "create"
    return "update" if item.update is not None else "delete"


def _verdict(action: str, status: int, kind: str, external_version: bool) -> Verdict:
    if status == 409:
        if action == "create":
            return Verdict.DUPLICATE
        if external_version and kind == "version_conflict_engine_exception":
            return Verdict.OUTDATED
        return Verdict.RETRY if action == "update" else Verdict.REFUSED  # an update lost a race against another one
    if status == 404:
        if action == "delete":
            return Verdict.ALREADY_GONE
        return Verdict.INDEX_MISSING if kind == "index_not_found_exception" else Verdict.REFUSED
    if status == 413:
        return Verdict.TOO_LARGE
    if status == 400 or 200 <= status < 300:
        return Verdict.REFUSED
    return Verdict.RETRY


def _reason(error: _Cause | str | None) -> str:
    """The reason and what caused it, in one line."""
    if error is None or isinstance(error, str):
        return error or ""
    reasons: list[str] = []
    cause: _Cause | None = error
    while cause is not None:
        reasons.append(cause.reason or "unknown")
        cause = cause.caused_by
    return " caused by ".join(reasons)


def error_text(status: int, body: bytes) -> str:
    """What an answer with an error status says: `Request failed: [security_exception] no permissions for …`."""
    error: _Cause | str | None = None
    try:
        reply = _decode_error(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body[:300].decode("utf-8", "replace").strip()
    else:
        error = reply.error
        text = reply.message or ""
    if isinstance(error, _Cause):
        return f"Request failed: [{error.type or status}] {_reason(error)}"
    return f"Request failed: [{status}] {error or text or 'no reason given'}"


def error_type(body: bytes) -> str:
    """The type of the error in an answer; empty where it names none."""
    try:
        error = _decode_error(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return (error.type or "") if isinstance(error, _Cause) else ""
