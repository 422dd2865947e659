"""From events to bulk operations: the action line, the document, and the key that keeps operations in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

import orjson

from penstock import sdk
from penstock.lib.index_name import compile_index_name
from penstock.plugins.sinks.opensearch.index_types import INDEX_TYPES
from penstock.plugins.sinks.opensearch.notices import Notices
from penstock.plugins.sinks.opensearch.options import ACTIONS, Config, Script, compile_template
from penstock.plugins.sinks.opensearch.targets import Targets

ID_BYTES_MAX = 512
"""OpenSearch refuses a whole request for one longer id."""
JOINED_EVENTS = 32
"""So many documents are encoded before they are joined: each has a kilobyte of memory until then."""
PLAIN_RETRY_BATCHES = 64
"""After a batch that the fastest way cannot encode, this many go the second way before it is tried again."""
ID_CHARACTERS_MAX = 127
"""An id of so many is short enough, whatever its characters are."""

_LONG = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_SHORT_VERSION = re.compile(r"[0-9]{1,18}", re.ASCII)
_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_RETRY_ON_CONFLICT = 3
_dumps = orjson.dumps

Text = Callable[[sdk.Body, sdk.Meta], str]


class Documents:
    """Encodes batches for one sink. Reads bodies, never changes them."""

    def __init__(self, config: Config, ctx: sdk.Context, targets: Targets, notices: Notices) -> None:
        alias = config.alias
        assert alias is not None, "the options check that there is an index"
        self._alias = alias
        self._targets = targets
        self._notices = notices
        self._clock = ctx.clock
        self._index = compile_index_name(alias, normalize=config.normalize_index)
        self._document = _compile_document(config, ctx.sink_options)
        self._action = _compile_action(config)
        self._static_action = config.action if not config.actions and "${" not in config.action else None
        self._id, self._id_source = _text_option(
            INDEX_TYPES[config.kind].document_id or config.document_id, config.document_id_field
        )
        self._routing, self._routing_source = _text_option(config.routing, config.routing_field)
        self._version = None if config.document_version is None else compile_template(config.document_version).render
        self._version_source = config.document_version
        type_ = config.document_version_type
        self._version_type = None if type_ is None else b',"version_type":"' + type_.encode() + b'"'
        self._script = None if config.script is None else _CompiledScript(config.script)
        self._pulls = config.pull_indexing is not None
        """Whether every operation needs its id and version, whatever the action."""
        self._has_options = not (
            self._routing is None and self._version is None and self._version_type is None and self._script is None
        )
        self._plain = (
            self._static_action in ("index", "create")
            and not self._index.is_dynamic
            and self._document is None
            and self._id is None
            and not self._has_options
        )
        """Whether every event of a batch has the same action line and is written as it is."""
        self._keyed = (
            self._id is not None
            and not self._index.is_dynamic
            and not self._pulls
            and self._document is None
            and self._routing is None
            and self._script is None
        )
        """Whether action lines differ in action, id and version alone, and documents are written as they are."""
        self._rest_batches = 0
        self._lines: dict[tuple[str, str], bytes] = {}
        self._dropped = {
            "index": ctx.metrics.counter("dynamicIndexDroppedEvents"),
            "document_version": ctx.metrics.counter("dynamicDocumentVersionDroppedEvents"),
            "action": ctx.metrics.counter("invalidActionErrors"),
        }

    def encode(self, batch: sdk.Batch) -> sdk.Items:
        now_ns = self._clock.now_ns()
        if self._index.is_dynamic:
            return self._encode_each(batch, None, now_ns)
        name = self._index.render({}, batch.origin, now_ns)
        self._targets.see(name)
        if name not in self._targets.streams:
            if self._plain:
                return self._encode_alike(batch, name)
            if self._keyed:
                return self._encode_keyed(batch, name) or self._encode_each(batch, name, now_ns)
        return self._encode_each(batch, name, now_ns)

    def _encode_alike(self, batch: sdk.Batch, name: str) -> sdk.Items:
        assert self._static_action is not None
        line = self._line(self._static_action, name) + b"}}\n"
        bodies = batch.bodies
        if not bodies:
            return sdk.Items([], [])
        if self._rest_batches == 0:
            try:
                between = b"\n" + line
                texts = [
                    line + between.join(map(_dumps, bodies[start : start + JOINED_EVENTS])) + b"\n"
                    for start in range(0, len(bodies), JOINED_EVENTS)
                ]
            except TypeError:
                self._rest_batches = PLAIN_RETRY_BATCHES
            else:
                count = len(bodies)
                return sdk.Items(sdk.JoinedItems(line, texts, count), range(count))
        self._rest_batches -= 1
        data: list[bytes] = []
        slots: list[int] = []
        rejected: list[sdk.Failure] = []
        encode_line = sdk.encode_line
        for slot, body in enumerate(bodies):
            try:
                data.append(line + encode_line(body))
            except sdk.EventError as error:
                rejected.append(self.rejection(slot, error, name, None))
            else:
                slots.append(slot)
        return sdk.Items(data, slots, None, rejected)

    def _encode_keyed(self, batch: sdk.Batch, name: str) -> sdk.Items | None:
        """What `_encode_each` makes of a batch in which nothing is unusual; None where something is."""
        if self._rest_batches:
            self._rest_batches -= 1
            return None
        assert self._id is not None
        origin, encode_line = batch.origin, sdk.encode_line
        render_id, render_action, render_version = self._id, self._action, self._version
        data: list[bytes] = []
        ids: list[str] = []
        action_before = version = version_before = None
        begin = end = b""
        try:
            for body, own in zip(batch.bodies, batch.metas, strict=True):
                meta = own or origin
                id_ = render_id(body, meta)
                action = render_action(body, meta)
                if render_version is not None:
                    version = render_version(body, meta)
                if action != action_before or version != version_before:
                    begin, end = self._line_around(action, version, name)
                    action_before, version_before = action, version
                if not 0 < len(id_) <= ID_CHARACTERS_MAX:
                    raise ValueError("an id that is looked at more closely")
                if action == "delete":
                    data.append(begin + _dumps(id_) + end)
                else:
                    data.append(b"%b%b%b%b" % (begin, _dumps(id_), end, encode_line(body)))
                ids.append(id_)
        except (sdk.EventError, sdk.ExpressionError, TypeError, ValueError):
            self._rest_batches = PLAIN_RETRY_BATCHES
            return None
        return sdk.Items(data, range(len(data)), list(zip(repeat(name), ids, strict=False)))

    def _line_around(self, action: str, version: str | None, name: str) -> tuple[bytes, bytes]:
        """What stands before and behind the id in the action line. Raises `ValueError` where that is not so simple."""
        if action not in ("index", "create", "delete"):
            raise ValueError(f"{action} may be another action")
        if version is not None and not _SHORT_VERSION.fullmatch(version):
            raise ValueError(f"{version} may be no version")
        begin = self._line(action, name) + b',"_id":'
        if action == "create":
            return begin, b"}}\n"
        options = b"" if version is None else b',"version":%d' % int(version)
        return begin, options + (self._version_type or b"") + b"}}\n"

    def _encode_each(self, batch: sdk.Batch, static_name: str | None, now_ns: int) -> sdk.Items:
        data: list[bytes] = []
        slots: list[int] = []
        keys: list[Any] | None = None if self._id is None else []
        rejected: list[sdk.Failure] = []
        metas, origin, streams = batch.metas, batch.origin, self._targets.streams
        render_id, static_action, operation = self._id, self._static_action, self._operation
        for slot, body in enumerate(batch.bodies):
            meta = metas[slot] or origin
            name, id_ = static_name or self._alias, None
            try:
                if static_name is None:
                    name = self._name(body, meta, now_ns)
                if render_id is not None:
                    try:
                        id_ = render_id(body, meta) or None
                    except (sdk.EventError, sdk.ExpressionError) as error:
                        self._unfilled("document_id", self._id_source, error)
                action = static_action or self._resolve_action(body, meta)
                if name in streams:
                    action, body = self._for_stream(action, body, meta, name)
                data.append(operation(action, body, meta, name, id_))
            except sdk.EventError as error:
                rejected.append(self.rejection(slot, error, name, id_))
            else:
                slots.append(slot)
                if keys is not None:
                    keys.append(None if id_ is None else (name, id_))
        return sdk.Items(data, slots, keys, rejected)

    def _operation(self, action: str, body: sdk.Body, meta: sdk.Meta, name: str, id_: str | None) -> bytes:
        if self._pulls and (action == "update" or action == "upsert"):
            raise sdk.EventError(f"pull_indexing does not support the action {action}", cause="action")
        line = self._lines.get((action, name)) or self._line(action, name)
        if id_ is not None:
            if len(id_) > ID_CHARACTERS_MAX and len(id_.encode("utf-8", "replace")) > ID_BYTES_MAX:
                raise sdk.EventError(f"id is too long, must be no longer than {ID_BYTES_MAX} bytes", cause="id")
            line += b',"_id":' + _text(id_)
        elif self._pulls:
            raise sdk.EventError("document_id is required for pull-based ingestion", cause="id")
        elif action != "index" and action != "create":
            raise sdk.EventError(f"the action {action} needs a document id", cause="id")
        if self._has_options:
            line += self._options(action, body, meta, name, id_)
        if action == "delete":
            return line + b"}}\n"
        document = body if self._document is None else self._document(body, meta)
        text = sdk.encode_line(document)
        if action == "index" or action == "create":
            return line + b"}}\n" + text
        if self._script is not None:
            return line + b"}}\n" + self._script.operation(text[:-1], body, meta, upsert=action == "upsert")
        if action == "upsert":
            return line + b'}}\n{"doc":' + text[:-1] + b',"upsert":' + text[:-1] + b"}\n"
        return line + b'}}\n{"doc":' + text[:-1] + b"}\n"

    def replay(self, failed_data: Mapping[str, Any]) -> bytes:
        """The operation that the dead letter `failed_data` tells of."""
        document = failed_data.get("document")
        if not isinstance(document, dict):
            raise sdk.EventError("the dead letter holds no document", cause="document")
        name, id_ = failed_data.get("index"), failed_data.get("indexId")
        if not isinstance(name, str) or not name or "${" in name or "%{" in name:  # it never got one
            items = self.encode(sdk.Batch([document], [sdk.read_metadata(failed_data)]))
            if items.rejected:
                raise sdk.EventError(items.rejected[0].reason)
            return items.data[0]
        action = failed_data.get("action") or self._static_action or "index"
        if action not in ACTIONS:
            raise sdk.EventError(f"the dead letter names an unknown action {action}", cause="action")
        self._targets.see(name)
        wire = "update" if action == "upsert" else action
        target: dict[str, Any] = {"_index": name}
        if id_ is not None:
            target["_id"] = str(id_)
        elif wire in ("update", "delete"):
            raise sdk.EventError(f"the dead letter names no id, but the action {action}", cause="id")
        for key, recorded in (("routing", "routing"), ("version", "version"), ("version_type", "versionType")):
            if failed_data.get(recorded) is not None:
                target[key] = failed_data[recorded]
        if self._script is not None and action == "upsert":
            target["retry_on_conflict"] = _RETRY_ON_CONFLICT
        return sdk.encode({wire: target}) + b"\n" + self._replayed_document(action, document)

    def _replayed_document(self, action: str, document: sdk.Body) -> bytes:
        if action == "delete":
            return b""
        text = sdk.encode(document)
        if action in ("update", "upsert"):
            if self._script is not None:
                return self._script.operation(text, document, sdk.Meta(), upsert=action == "upsert")
            upsert = b',"upsert":' + text if action == "upsert" else b""
            text = b'{"doc":' + text + upsert + b"}"
        return text + b"\n"

    def _options(self, action: str, body: sdk.Body, meta: sdk.Meta, name: str, id_: str | None) -> bytes:
        """What the action line says of routing and version."""
        options = b""
        version = None if self._version is None else self._version_number(self._version, body, meta)
        if self._routing is not None and name not in self._targets.streams:
            try:
                routing = self._routing(body, meta)
                options = b',"routing":' + _text(routing) if routing else b""
            except (sdk.EventError, sdk.ExpressionError) as error:
                self._unfilled("routing", self._routing_source, error)
        if action == "create" and not self._pulls:
            return options
        if version is not None:
            if id_ is None:
                raise sdk.EventError("a document version needs a document id", cause="id")
            options += b',"version":%d' % version
        if self._version_type is not None:
            options += self._version_type
        if self._script is not None and action == "upsert":
            options += b',"retry_on_conflict":%d' % _RETRY_ON_CONFLICT
        return options

    def _for_stream(self, action: str, body: sdk.Body, meta: sdk.Meta, name: str) -> tuple[str, sdk.Body]:
        """Action and body as a data stream takes them."""
        if action not in ("create", "index"):
            self._notices.once(
                "Data Stream '%s' requires 'create' action, but '%s' was configured. Using 'create' action.",
                name,
                action,
            )
        if self._id is not None:
            self._notices.once(
                "Data Stream '%s' with document ID configuration uses first-write-wins behavior. Subsequent writes to "
                "the same ID will be ignored.",
                name,
            )
        if self._routing is not None:
            self._notices.once(
                "Data Stream '%s' does not support routing. Routing configuration will be ignored.", name
            )
        if "@timestamp" not in body:
            body = {**body, "@timestamp": meta.received_ms or self._clock.now_ms()}
        return "create", body

    def _line(self, action: str, name: str) -> bytes:
        """The action line up to its options."""
        line = self._lines.get((action, name))
        if line is None:
            if len(self._lines) >= 10_000:
                self._lines.clear()
            wire = "update" if action == "upsert" else action
            line = self._lines[action, name] = b'{"%s":{"_index":%s' % (wire.encode(), _text(name))
        return line

    def _name(self, body: sdk.Body, meta: sdk.Meta, now_ns: int) -> str:
        try:
            name = self._index.render(body, meta, now_ns)
        except (sdk.EventError, sdk.ExpressionError) as error:
            self._notices.error(
                "There was an exception when constructing the index name. Check the dlq if configured to see details "
                "about the affected Event: %s",
                error.logged,
            )
            raise sdk.EventError(str(error), cause="index", logged=error.logged) from error
        self._targets.see(name)
        return name

    def _unfilled(self, option: str, source: str, error: sdk.EventError) -> None:
        """An id or routing cannot be made: the server chooses."""
        self._notices.error(
            f"Unable to construct {option} with format %s, the {option} will be generated by OpenSearch: %s",
            source,
            error.logged,
        )

    def _resolve_action(self, body: sdk.Body, meta: sdk.Meta) -> str:
        try:
            action = self._action(body, meta)
        except (sdk.EventError, sdk.ExpressionError) as error:
            wrong = "The action cannot be resolved: "
            raise sdk.EventError(f"{wrong}{error}", cause="action", logged=f"{wrong}{error.logged}") from error
        if action in ACTIONS:
            return action
        known = action.lower()
        if known not in ACTIONS:
            self._notices.error("Unknown action, the event is a dead letter: it is none of %s", ", ".join(ACTIONS))
            raise sdk.EventError(
                f'action "{action}" is invalid. action must be one of the following: [{", ".join(ACTIONS)}]',
                cause="action",
            )
        return known

    def _version_number(self, render: Text, body: sdk.Body, meta: sdk.Meta) -> int:
        try:
            text = render(body, meta)
        except (sdk.EventError, sdk.ExpressionError) as error:
            wrong = f"There was an exception when evaluating the document_version '{self._version_source}': "
            self._notices.error(
                "%s Check the dlq if configured to see more details about the affected Event", wrong + error.logged
            )
            raise sdk.EventError(f"{wrong}{error}", cause="document_version", logged=wrong + error.logged) from error
        if len(text) < 19 and text.isascii() and text.isdigit():
            return int(text)
        if _LONG.fullmatch(text) and _LONG_MIN <= int(text) <= _LONG_MAX:
            return int(text)
        wrong = (
            f"Unable to convert the result of evaluating document_version '{self._version_source}' to Long for an "
            "Event."
        )
        self._notices.error("%s", wrong)
        message = f"{wrong} The evaluation result '{text}' must be a valid Long type"
        raise sdk.EventError(message, cause="document_version", logged=wrong)

    def line_without_id(self, name: str, body: sdk.Body, meta: sdk.Meta) -> bytes:
        """The whole action line of a document that gets its id from the server."""
        action = self._static_action or self._resolve_action(body, meta)
        if action != "index" and action != "create":
            raise sdk.EventError(f"the action {action} needs a document id", cause="id")
        return self._line(action, name) + b"}}\n"

    def rejection(self, slot: int, error: sdk.EventError, name: str, id_: str | None) -> sdk.Failure:
        """What becomes of an event that cannot be encoded; counts it."""
        counter = self._dropped.get(error.cause)
        if counter is not None:
            counter.add()
        return sdk.Failure(slot, str(error), details={"index": name, "indexId": id_})


def _text(value: str) -> bytes:
    try:
        return _dumps(value)
    except TypeError:  # half a surrogate pair
        return sdk.encode(value)


class _CompiledScript:
    """The script of an update, as it stands in the body of an operation."""

    def __init__(self, script: Script) -> None:
        lines = (line.strip() for line in script.source.split("\n"))
        source = "\n".join(line for line in lines if line and not line.startswith("//"))
        self._head = b'{"script":{"lang":"painless","source":' + sdk.encode(source) + b',"params":'
        params = script.params or {}
        self._fixed = {key: value for key, value in params.items() if not (isinstance(value, str) and "${" in value)}
        self._filled = {key: compile_template(params[key]).render for key in params if key not in self._fixed}

    def operation(self, document: bytes, body: sdk.Body, meta: sdk.Meta, *, upsert: bool) -> bytes:
        try:
            params = {**self._fixed, **{key: render(body, meta) for key, render in self._filled.items()}}
        except sdk.ExpressionError as error:
            raise sdk.EventError(f"A parameter of the script cannot be filled: {error}", cause="script") from error
        rest = sdk.encode(params)[1:-1]
        text = self._head + b'{"doc":' + document + (b"," + rest if rest else b"") + b"}}"
        if upsert:
            text += b',"scripted_upsert":true,"upsert":' + document
        return text + b"}\n"


def _compile_document(config: Config, options: sdk.SinkOptions) -> Callable[[sdk.Body, sdk.Meta], Any] | None:
    """What is written of an event; None: all of it."""
    shape: Callable[[sdk.Body, sdk.Meta], Any] | None = None
    if options.include_keys or options.exclude_keys or options.tags_target_key is not None:
        shape = sdk.compile_document(
            include_keys=options.include_keys,
            exclude_keys=options.exclude_keys,
            tags_target_key=options.tags_target_key,
        )
    if config.document_root_key is None or not config.document_root_key.parts:
        return shape
    read = config.document_root_key.get

    def document(body: sdk.Body, meta: sdk.Meta) -> Any:
        part = read(body)
        if part is sdk.MISSING:
            part = body
        elif type(part) is not dict:
            part = {"data": part}
        return part if shape is None else shape(part, meta)

    return document


def _compile_action(config: Config) -> Text:
    default = _action_text(config.action)
    if not config.actions:
        return default
    entries = [(None if entry.when is None else entry.when.test, _action_text(entry.type)) for entry in config.actions]

    def resolve(body: sdk.Body, meta: sdk.Meta) -> str:
        for test, text in entries:
            if test is None or test(body, meta):
                return text(body, meta)
        return default(body, meta)

    return resolve


def _action_text(action: str) -> Text:
    if "${" in action:
        render: Text = compile_template(action).render
        return render
    return lambda _body, _meta: action


def _text_option(template: Any, field: Any) -> tuple[Text | None, str]:
    """The way to the text of an id or routing and how it was configured."""
    if field is not None:
        return compile_template("${" + field.text + "}").render, field.text
    if template is None:
        return None, ""
    if isinstance(template, str):
        return compile_template(template).render, template
    return template.render, template.text
