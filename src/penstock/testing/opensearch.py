"""A stand-in for OpenSearch inside the test process: bulk, indexes, aliases, templates, data streams, and faults.

    async with FakeOpenSearch() as server:
        server.fail("/_bulk", 503, times=2)
        ... write to server.url ...
        assert server.documents("logs") == {"1": {"message": "hello"}}

It answers as OpenSearch 3 does, as far as writing goes: versions and tombstones, conflicts, validation of a whole
request, one level of field types. Scripts are not run: `params.doc` is merged into the document.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

_ILLEGAL = set(' "*\\<|,>/?#:')
_REQUEST_BYTES_MAX = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    """Content coding removed."""

    @property
    def operations(self) -> list[tuple[str, dict[str, Any], Any]]:
        """Action, target and document of each operation of a bulk request."""
        return list(_operations(self.body))


@dataclass(slots=True)
class _Fault:
    prefix: str
    status: int
    body: Any
    headers: dict[str, str]
    left: int


@dataclass(slots=True)
class _ItemFault:
    matches: Callable[[str, dict[str, Any], Any], bool]
    status: int
    kind: str
    reason: str
    left: int


@dataclass(slots=True)
class _Document:
    source: Any
    version: int
    routing: str | None = None


@dataclass(slots=True)
class _Index:
    settings: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, _Document] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    """Versions of deleted documents."""


class _Refused(Exception):
    """An operation or request is answered with an error."""

    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.error = {"type": kind, "reason": reason}


class FakeOpenSearch:
    """Listens on a free loopback port while it is entered."""

    def __init__(self, *, ism: bool = False, auto_create: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self.ism = ism
        """Whether index-state management is there."""
        self.auto_create = auto_create
        """Whether a bulk request creates a missing index."""
        self.indexes: dict[str, _Index] = {}
        self.aliases: dict[str, str] = {}
        """Alias to the index it writes to."""
        self.templates: dict[str, dict[str, Any]] = {}
        self.index_templates: dict[str, dict[str, Any]] = {}
        self.streams: set[str] = set()
        self.policies: dict[str, dict[str, Any]] = {}
        self.blocked: set[str] = set()
        """Indexes that refuse writes with 403."""
        self.denied: str | None = None
        """A permission that the caller lacks: every request is answered with 403."""
        self.requests: list[Request] = []
        self.url = ""
        self._faults: list[_Fault] = []
        self._item_faults: list[_ItemFault] = []
        self._cuts = 0
        self._ids = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._tls = tls

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_REQUEST_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"{'http' if self._tls is None else 'https'}://{host}:{port}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # for tests

    def fail(
        self, prefix: str, status: int, body: Any = None, *, times: int = 1, headers: dict[str, str] | None = None
    ) -> None:
        """Answer the next requests whose path starts with `prefix` with `status`."""
        if body is None:
            body = {"error": {"type": "injected_exception", "reason": f"injected {status}"}, "status": status}
        self._faults.append(_Fault(prefix, status, body, headers or {}, times))

    def fail_items(
        self,
        matches: Callable[[str, dict[str, Any], Any], bool],
        status: int,
        kind: str = "injected_exception",
        reason: str = "injected",
        *,
        times: int = 1,
    ) -> None:
        """Answer the next operations for which `matches(action, target, document)` holds with `status`."""
        self._item_faults.append(_ItemFault(matches, status, kind, reason, times))

    def cut(self, times: int = 1) -> None:
        """Close the connection of the next requests instead of answering, after having read them."""
        self._cuts += times

    def documents(self, name: str) -> dict[str, Any]:
        """Sources by id of an index, alias or data stream."""
        index = self.indexes.get(self.aliases.get(name, name), _Index())
        return {id_: document.source for id_, document in index.documents.items()}

    def version(self, name: str, id_: str) -> int:
        return self.indexes[self.aliases.get(name, name)].documents[id_].version

    def routing(self, name: str, id_: str) -> str | None:
        return self.indexes[self.aliases.get(name, name)].documents[id_].routing

    def bulk_requests(self) -> list[Request]:
        return [request for request in self.requests if request.path.endswith("/_bulk")]

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Status and JSON document of the answer to a request, for those who bring their own transport."""
        try:
            return self._answer(method, path, query, body)
        except _Refused as refusal:
            error = {"root_cause": [refusal.error], **refusal.error}
            return refusal.status, {"error": error, "status": refusal.status}

    # HTTP

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        path = request.rel_url.raw_path
        self.requests.append(Request(request.method, path, dict(request.query), dict(request.headers), body))
        if self._cuts:
            self._cuts -= 1
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        for fault in self._faults:
            if path.startswith(fault.prefix) and fault.left:
                fault.left -= 1
                return web.json_response(fault.body, status=fault.status, headers=fault.headers)
        status, reply = self.answer(request.method, path, dict(request.query), body)
        if request.method == "HEAD":
            return web.Response(status=status)
        return web.json_response(reply, status=status)

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if self.denied is not None:
            role = "arn:aws:iam::123456789012:role/pipeline"
            raise _Refused(
                403,
                "security_exception",
                f"no permissions for [{self.denied}] and User [name={role}, backend_roles=[{role}], "
                "requestedTenant=null]",
            )
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[-1] == "_bulk":
            return self._bulk(body, query, parts[0] if len(parts) > 1 else None)
        if len(parts) == 2 and parts[1] in ("_alias", "_count", "_refresh"):
            return self._of_name(parts[0], parts[1])
        special = {
            "_aliases": self._change_aliases,
            "_cluster": self._cluster,
            "_template": self._template,
            "_index_template": self._template,
            "_data_stream": self._data_stream,
            "_alias": self._alias,
            "_opendistro": self._policy,
        }.get(parts[0])
        if special is not None:
            return special(method, parts, json.loads(body or b"{}"))
        if len(parts) == 2 and parts[1] == "_search":
            return self._search(parts[0], json.loads(body or b"{}"))
        if len(parts) == 3 and parts[1] == "_doc" and method == "GET":
            return self._document(parts[0], parts[2])
        if len(parts) == 1 and parts[0]:
            return self._index(method, parts[0], json.loads(body or b"{}"))
        raise _Refused(400, "illegal_argument_exception", f"no handler found for uri [{path}] and method [{method}]")

    def _cluster(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        enabled = {"opendistro": {"index_state_management": {"enabled": "true"}}} if self.ism else {}
        return 200, {"persistent": {}, "transient": {}, "defaults": enabled}

    def _template(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        composable = parts[0] == "_index_template"
        templates = self.index_templates if composable else self.templates
        name = parts[1]
        if method == "PUT":
            templates[name] = body
            return 200, {"acknowledged": True}
        if name not in templates:
            return 404, {}
        if method == "DELETE":
            del templates[name]
            return 200, {"acknowledged": True}
        if composable:
            return 200, {"index_templates": [{"name": name, "index_template": templates[name]}]}
        return 200, {name: templates[name]}

    def _data_stream(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        name = parts[1]
        if method == "PUT":
            if name in self.streams:
                raise _Refused(400, "resource_already_exists_exception", f"data_stream [{name}] already exists")
            self._create_stream(name)
            return 200, {"acknowledged": True}
        if name not in self.streams:
            raise _Refused(404, "index_not_found_exception", f"no such index [{name}]")
        return 200, {"data_streams": [{"name": name, "timestamp_field": {"name": "@timestamp"}}]}

    def _alias(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        name = parts[1]
        if name not in self.aliases:
            return 404, {"error": f"alias [{name}] missing", "status": 404}
        return 200, {self.aliases[name]: {"aliases": {name: {}}}}

    def _of_name(self, name: str, what: str) -> tuple[int, Any]:
        index = self.indexes.get(self.aliases.get(name, name))
        if index is None:
            raise _Refused(404, "index_not_found_exception", f"no such index [{name}]")
        if what == "_count":
            return 200, {"count": len(index.documents)}
        concrete = self.aliases.get(name, name)
        own: dict[str, Any] = {alias: {} for alias, of in self.aliases.items() if of == concrete}
        return 200, {concrete: {"aliases": own}} if what == "_alias" else {}

    def _change_aliases(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        """All actions or none."""
        dropped = {of["index"] for action in body["actions"] for kind, of in action.items() if kind == "remove_index"}
        for action in body["actions"]:
            ((kind, of),) = action.items()
            if of["index"] not in self.indexes:
                raise _Refused(404, "index_not_found_exception", f"no such index [{of['index']}]")
            if kind == "add" and of["alias"] in self.indexes and of["alias"] not in dropped:
                raise _Refused(400, "invalid_alias_name_exception", f"an index exists with the name [{of['alias']}]")
            if kind == "remove" and self.aliases.get(of["alias"]) != of["index"]:
                raise _Refused(404, "aliases_not_found_exception", f"aliases [{of['alias']}] missing")
        for name in dropped:
            self.drop(name)
        for action in body["actions"]:
            ((kind, of),) = action.items()
            if kind == "remove":
                del self.aliases[of["alias"]]
            elif kind == "add":
                self.aliases[of["alias"]] = of["index"]
        return 200, {"acknowledged": True}

    def _policy(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        if not self.ism:
            raise _Refused(400, "illegal_argument_exception", "no handler found for uri")
        if parts[-1] in self.policies:
            raise _Refused(409, "version_conflict_engine_exception", f"[{parts[-1]}]: version conflict")
        self.policies[parts[-1]] = body
        return 201, {"_id": parts[-1]}

    def _document(self, name: str, id_: str) -> tuple[int, Any]:
        documents = self.indexes.get(self.aliases.get(name, name), _Index()).documents
        if id_ not in documents:
            return 404, {"_index": name, "_id": id_, "found": False}
        found = documents[id_]
        return 200, {"_index": name, "_id": id_, "_version": found.version, "found": True, "_source": found.source}

    def _index(self, method: str, name: str, body: Any) -> tuple[int, Any]:
        exists = name in self.indexes or name in self.aliases
        if method == "DELETE":
            self.drop(name)
            return 200, {"acknowledged": True}
        if method != "PUT":
            return (200, {name: {}}) if exists else (404, {"error": {"type": "index_not_found_exception"}})
        if exists:
            raise _Refused(400, "resource_already_exists_exception", f"index [{name}] already exists")
        for alias in body.get("aliases", {}):
            if alias in self.indexes:
                raise _Refused(
                    400,
                    "invalid_alias_name_exception",
                    f"Invalid alias name [{alias}], an index exists with the same name as the alias",
                )
        if self._stream_template(name):
            raise _Refused(
                400,
                "illegal_argument_exception",
                f"cannot create index with name [{name}], because it matches with template [t] that creates data "
                "streams only, use create data stream api instead",
            )
        self._create_index(name)
        for alias in body.get("aliases", {}):
            self.aliases[alias] = name
        return 200, {"acknowledged": True, "index": name}

    def drop(self, name: str) -> None:
        """Delete an index with its aliases and data stream."""
        self.indexes.pop(name, None)
        self.streams.discard(name)
        self.aliases = {alias: index for alias, index in self.aliases.items() if index != name}

    # indexes

    def _create_index(self, name: str) -> _Index:
        if name != name.lower() or _ILLEGAL & set(name) or name[:1] in ("_", "-", "+") or not name:
            raise _Refused(400, "invalid_index_name_exception", f"Invalid index name [{name}]")
        index = _Index()
        for template in self.templates.values():
            if _matches(template, name):
                index.settings.update(template.get("settings", {}))
                index.properties.update(template.get("mappings", {}).get("properties", {}))
        for template in self.index_templates.values():
            if _matches(template, name):
                inner = template.get("template", {})
                index.settings.update(inner.get("settings", {}))
                index.properties.update(inner.get("mappings", {}).get("properties", {}))
        self.indexes[name] = index
        return index

    def _create_stream(self, name: str) -> _Index:
        index = self._create_index(name)
        self.streams.add(name)
        return index

    def _stream_template(self, name: str) -> bool:
        return any("data_stream" in template and _matches(template, name) for template in self.index_templates.values())

    def _search(self, name: str, body: Any) -> tuple[int, Any]:
        """Documents for which all `terms` of the filter hold."""
        index = self.indexes.get(self.aliases.get(name, name))
        if index is None:
            raise _Refused(404, "index_not_found_exception", f"no such index [{name}]")
        filters = body.get("query", {}).get("bool", {}).get("filter", [])
        terms = [(field, values) for entry in filters for field, values in entry.get("terms", {}).items()]
        found = [
            {"_index": name, "_id": id_, "_source": document.source}
            for id_, document in index.documents.items()
            if all(_value_at(document.source, field) in values for field, values in terms)
        ]
        total = {"value": len(found), "relation": "eq"}
        return 200, {"took": 1, "timed_out": False, "hits": {"total": total, "hits": found[: body.get("size", 10)]}}

    # bulk

    def _bulk(self, body: bytes, query: dict[str, str], default: str | None) -> tuple[int, Any]:
        operations = list(_operations(body))
        if not operations:
            raise _Refused(400, "action_request_validation_exception", "Validation Failed: 1: no requests added;")
        for action, target, _ in operations:
            id_ = target.get("_id")
            if action in ("delete", "update") and id_ is None:
                raise _Refused(400, "action_request_validation_exception", "Validation Failed: 1: id is missing;")
            if id_ is not None and len(str(id_).encode()) > 512:
                raise _Refused(400, "action_request_validation_exception", "Validation Failed: 1: id is too long;")
        items = []
        for action, target, document in operations:
            name = target.get("_index") or default or ""
            answer: dict[str, Any] = {"_index": name, "_id": target.get("_id")}
            try:
                answer |= self._operation(action, name, target, document, query)
            except _Refused as refusal:
                answer |= {"status": refusal.status, "error": refusal.error}
            items.append({action: answer})
        errors = any("error" in answer for item in items for answer in item.values())
        reply = {"took": 1, "errors": errors, "items": items}
        return 200, _filtered(reply, query.get("filter_path"))

    def _operation(
        self, action: str, name: str, target: dict[str, Any], document: Any, query: dict[str, str]
    ) -> dict[str, Any]:
        for fault in self._item_faults:
            if fault.left and fault.matches(action, target, document):
                fault.left -= 1
                raise _Refused(fault.status, fault.kind, fault.reason)
        if query.get("require_alias") == "true" and name not in self.aliases:
            raise _Refused(
                404,
                "index_not_found_exception",
                f"no such index [{name}] and [require_alias] request flag is [true] and [{name}] is not an alias",
            )
        index = self._writable(name, action)
        if name in self.streams:
            if action != "create":
                raise _Refused(
                    400,
                    "illegal_argument_exception",
                    "only write ops with an op_type of create are allowed in data streams",
                )
            if "@timestamp" not in document:
                raise _Refused(400, "mapper_parsing_exception", "data stream timestamp field [@timestamp] is missing")
        id_ = target.get("_id")
        if id_ is None:
            id_ = f"auto-{next(self._ids)}"
        version = _next_version(index, action, id_, target)
        if action == "delete":
            existed = index.documents.pop(id_, None) is not None
            index.deleted[id_] = version
            return {"_id": id_, "status": 200 if existed else 404, "result": "deleted" if existed else "not_found"}
        source = _updated(index, name, id_, document) if action == "update" else document
        _check_types(index, source)
        created = id_ not in index.documents
        index.documents[id_] = _Document(source, version, target.get("routing"))
        return {"_id": id_, "status": 201 if created else 200, "_version": version}

    def _writable(self, name: str, action: str) -> _Index:
        concrete = self.aliases.get(name, name)
        if concrete in self.blocked or name in self.blocked:
            raise _Refused(
                403, "cluster_block_exception", f"index [{name}] blocked by: [FORBIDDEN/8/index write (api)];"
            )
        index = self.indexes.get(concrete)
        if index is not None:
            return index
        if not self.auto_create:
            raise _Refused(404, "index_not_found_exception", f"no such index [{name}]")
        return self._create_stream(name) if self._stream_template(name) else self._create_index(name)


def _value_at(source: Any, field: str) -> Any:
    for part in field.split("."):
        source = source.get(part) if isinstance(source, dict) else None
    return source


def _operations(body: bytes) -> Iterator[tuple[str, dict[str, Any], Any]]:
    lines = iter(body.split(b"\n"))
    try:
        for line in lines:
            if not line.strip():
                continue
            ((action, target),) = json.loads(line).items()
            yield action, target, None if action == "delete" else json.loads(next(lines))
    except (ValueError, StopIteration) as error:
        raise _Refused(400, "illegal_argument_exception", f"Malformed action/metadata line: {error}") from None


def _next_version(index: _Index, action: str, id_: str, target: dict[str, Any]) -> int:
    found = index.documents.get(id_)
    current = found.version if found is not None else index.deleted.get(id_, 0)
    if action == "create" and found is not None:
        raise _Refused(
            409,
            "version_conflict_engine_exception",
            f"[{id_}]: version conflict, document already exists (current version [{current}])",
        )
    kind, version = target.get("version_type"), target.get("version")
    if version is None or kind not in ("external", "external_gte"):
        return current + 1
    if current and (version <= current if kind == "external" else version < current):
        raise _Refused(
            409,
            "version_conflict_engine_exception",
            f"[{id_}]: version conflict, current version [{current}] is higher or equal to the one provided "
            f"[{version}]",
        )
    return int(version)


def _updated(index: _Index, name: str, id_: str, operation: dict[str, Any]) -> Any:
    found = index.documents.get(id_)
    script = operation.get("script")
    change = script["params"]["doc"] if script is not None else operation.get("doc", {})
    if found is not None:
        return {**found.source, **change}
    if "upsert" in operation:
        return operation["upsert"]
    if operation.get("doc_as_upsert"):
        return change
    raise _Refused(404, "document_missing_exception", f"[{id_}]: document missing")


def _check_types(index: _Index, source: Any) -> None:
    for name, mapping in index.properties.items():
        value = source.get(name)
        if value is not None and mapping.get("type") in ("long", "integer", "double", "float"):
            try:
                float(value)
            except (TypeError, ValueError):
                raise _Refused(
                    400,
                    "mapper_parsing_exception",
                    f"failed to parse field [{name}] of type [{mapping['type']}] in document",
                ) from None


def _matches(template: dict[str, Any], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in template.get("index_patterns", ()))


def _filtered(reply: dict[str, Any], filter_path: str | None) -> dict[str, Any]:
    if filter_path is None:
        return reply
    wanted = set(filter_path.split(","))
    kept = {path.removeprefix("items.*.") for path in wanted if path.startswith("items.*.")}
    filtered: dict[str, Any] = {key: reply[key] for key in ("took", "errors") if key in wanted}
    filtered["items"] = [
        {action: {key: value for key, value in answer.items() if key in kept}}
        for item in reply["items"]
        for action, answer in item.items()
    ]
    return filtered
