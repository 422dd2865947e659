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
DISTINCT_MAX = 100
"""Different words in an answer. With more of them it is read item by item."""
_ACTIONS = (b"index", b"create", b"update", b"delete")
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
_decode_outcome = msgspec.json.Decoder(_Outcome).decode
_decode_error = msgspec.json.Decoder(_ErrorReply).decode


Answers = list[tuple[list[int], Answer]]
"""What was said, with the places of the items of which it was said: they ascend."""


def read_bulk_reply(body: bytes, expected: int, *, external_version: bool) -> Answers:
    """The answers that say something else than "written". Raises `BulkReplyError`."""
    head = body[:_HEAD_BYTES]
    all_well = (b'"errors":false' in head or b'"errors": false' in head) and body.rstrip().endswith(b"}")
    if all_well and _NOT_FOUND.search(body) is None:  # deleting what does not exist is no error, but has a counter
        return []
    answers = _read_alike(body, expected, external_version)
    return _read_each(body, expected, external_version) if answers is None else answers


def _read_alike(body: bytes, expected: int, external_version: bool) -> Answers | None:
    """What is said of many in the same words is read once; None where there are too many different ones.

    No text of a JSON document holds a quotation mark behind a brace, so the items can be told apart without reading
    them.
    """
    _, found, rest = body.partition(b'"items":[{"')
    action, opened, rest = rest.partition(b'":{')
    end = rest.rstrip()
    if not (found and opened and end.endswith(b"}}]}") and action in _ACTIONS):
        return None
    words = end[:-4].split(b'}},{"%b":{' % action)
    distinct = dict.fromkeys(words)  # in their order, so that the log tells of the first refusal
    if len(words) != expected or len(distinct) > DISTINCT_MAX:
        return None
    meaning: dict[bytes, list[int]] = {}
    answers: Answers = []
    try:
        for word in distinct:
            outcome = _decode_outcome(b"{%b}" % word)
            if outcome.error is not None or not 200 <= outcome.status < 300:
                meaning[word] = []
                answers.append((meaning[word], _judge(action.decode(), outcome, external_version)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    for place, word in enumerate(words):
        if word in meaning:
            meaning[word].append(place)
    return answers


def _read_each(body: bytes, expected: int, external_version: bool) -> Answers:
    try:
        items = _decode(body).items
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BulkReplyError(f"the answer to the bulk request cannot be read: {error}") from error
    if len(items) != expected:
        raise BulkReplyError(f"the bulk request had {expected} items, its answer has {len(items)}")
    answers: dict[Answer, list[int]] = {}
    for place, item in enumerate(items):
        outcome = item.index or item.create or item.update or item.delete
        if outcome is None:
            raise BulkReplyError("an item of the answer to the bulk request names no action")
        if outcome.error is None and 200 <= outcome.status < 300:
            continue
        answers.setdefault(_judge(_action(item), outcome, external_version), []).append(place)
    return [(places, answer) for answer, places in answers.items()]


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
