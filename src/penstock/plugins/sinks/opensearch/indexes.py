"""Set-up of what is written to: rollover policy, template, index.

Done at the start, for each new dynamic name when it is first used, and again when an index went away.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from penstock import sdk
from penstock.lib.aws import read_object
from penstock.lib.index_name import compile_index_name
from penstock.plugins.sinks.opensearch.client import Cluster, Reply
from penstock.plugins.sinks.opensearch.index_types import INDEX_TYPES
from penstock.plugins.sinks.opensearch.options import Config, parse_template
from penstock.plugins.sinks.opensearch.reply import error_text, error_type
from penstock.plugins.sinks.opensearch.semantic import ensure_semantic_index
from penstock.plugins.sinks.opensearch.targets import Targets

_ISM_ENABLED = ("opendistro", "index_state_management", "enabled")
_ISM_POLICY_ID = "opendistro.index_state_management.policy_id"
_ISM_ROLLOVER_ALIAS = "opendistro.index_state_management.rollover_alias"
_EXISTS_ALREADY = ("resource_already_exists_exception", "version_conflict_engine_exception")
_STREAMS_ONLY = "creates data streams only"
_ILLEGAL_IN_NAME = re.compile(r'[\\/*?"<>| ,#:\x00]')
_NAME_BYTES_MAX = 255


class IndexSetup:
    """Prepares names of `Targets`. Nothing is ever deleted."""

    def __init__(self, config: Config, cluster: Cluster, targets: Targets, ctx: sdk.Context) -> None:
        alias = config.alias
        assert alias is not None, "the options check that there is an index"
        self._config = config
        self._cluster = cluster
        self._targets = targets
        self._ctx = ctx
        self._log = ctx.log
        self._clock = ctx.clock
        self._type = INDEX_TYPES[config.kind]
        self._index = compile_index_name(alias, normalize=config.normalize_index)
        self._detects_streams = not config.is_es6 and not config.is_serverless
        self._policy: dict[str, Any] | None = None
        self._template: dict[str, Any] | None = None
        self._ism = False
        self._templates_put: set[str] = set()
        self.managed = self._type.managed
        """Whether the sink sets anything up."""
        self.require_alias = False
        """Whether the name is a write alias, so that a missing one must not become a plain index."""

    async def start(self) -> None:
        """Prepare the index of a name without event parts; read the files. Raises `Transient` or `Permanent`."""
        if self.managed:
            self._template = await self._read_template()
            self._policy = await self._read_policy()
            self._ism = await self._ism_enabled()
        if not self._index.is_dynamic:
            name = self._index.render({}, sdk.Meta(), self._clock.now_ns())
            await self.prepare(name)
            if self.managed and self._ism:
                found = await self._cluster.call("HEAD", f"/_alias/{quote(name, safe='')}")
                self.require_alias = found.status == 200

    async def prepare(self, name: str, *, again: bool = False) -> None:
        """Make `name` ready to be written to. Raises `Transient`, or `Permanent` when the name can never be."""
        aws = self._config.aws
        if self.managed:
            if not legal_name(name):  # the server says so at the third call only, in words about the template
                raise sdk.Permanent(f"Invalid characters in the index name {name}")
            prefix, pattern = self._names_for_template(name)
            policy_id = await self._put_policy(prefix) if self._ism and self._policy is not None else None
            if self._template and (again or prefix not in self._templates_put):
                await self._put_template(prefix, pattern, policy_id)
                self._templates_put.add(prefix)
        if aws is not None and aws.semantic_enrichment is not None:
            await ensure_semantic_index(aws, self._config.hosts[0], name, self._ctx)
        if self.managed:
            await self._create_index(name)
        if self._detects_streams and await self._is_stream(name):
            self._targets.streams.add(name)
        self._targets.is_ready(name)

    def _names_for_template(self, name: str) -> tuple[str, str]:
        """The start of the template's name and the pattern of the indexes it is for."""
        prefix, pattern = (name, name) if self._index.is_dynamic else (self._index.prefix, self._index.template_pattern)
        return prefix, f"{pattern}-*" if self._rolls_over else pattern

    @property
    def _rolls_over(self) -> bool:
        return self._policy is not None

    async def _ism_enabled(self) -> bool:
        if self._config.is_serverless:
            return False
        path = ".".join(_ISM_ENABLED)
        reply = await self._cluster.call(
            "GET", "/_cluster/settings", {"include_defaults": "true", "filter_path": f"*.{path}"}
        )
        if reply.status in (400, 404):
            return False
        _check(reply)
        settings = reply.json()
        for scope in ("persistent", "transient", "defaults"):
            value: Any = settings.get(scope)
            for part in _ISM_ENABLED:
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                return str(value).lower() == "true"
        return False

    async def _put_policy(self, prefix: str) -> str | None:
        """Put the rollover policy where there is none. Returns its name for servers that know no `ism_template`."""
        assert self._policy is not None
        name = self._type.policy or f"{prefix}-policy"
        path = f"/_opendistro/_ism/policies/{quote(name, safe='')}"
        reply = await self._cluster.call("PUT", path, body=self._policy)
        if b"Invalid field: [ism_template]" in reply.body:
            policy = sdk.copy_value(self._policy)
            policy.get("policy", {}).pop("ism_template", None)
            _check(await self._cluster.call("PUT", path, body=policy), allowed=_EXISTS_ALREADY)
            return name
        _check(reply, allowed=_EXISTS_ALREADY)
        return None

    async def _put_template(self, prefix: str, pattern: str, policy_id: str | None) -> None:
        assert self._template is not None
        name = f"{prefix}-index-template"
        composable = self._config.composable_template
        path = f"/{'_index_template' if composable else '_template'}/{quote(name, safe='')}"
        if not self._should_put(name, await self._cluster.call("GET", path), composable):
            return
        template = {**sdk.copy_value(self._template), "index_patterns": [pattern]}
        if self._ism:
            settings = _settings_of(template, composable)
            if policy_id is not None:
                settings[_ISM_POLICY_ID] = policy_id
            settings[_ISM_ROLLOVER_ALIAS] = prefix
        params = {"include_type_name": "false"} if self._config.is_es6 else None
        _check(await self._cluster.call("PUT", path, params, body=template))

    def _should_put(self, name: str, existing: Reply, composable: bool) -> bool:
        assert self._template is not None
        version = None
        if existing.status != 404:
            _check(existing)
            found = existing.json()
            if composable:
                found = {entry.get("name"): entry.get("index_template") for entry in found.get("index_templates", ())}
            version = (found.get(name) or {}).get("version")
        if version is None:
            self._log.info("Index template %s does not exist and should be created", name)
            return True
        new = self._template.get("version") or 0
        if version >= new:
            self._log.info(
                "Index template %s should not be updated, current version %s >= existing version %s", name, version, new
            )
            return False
        self._log.info("Index template %s should be updated from version %s to version %s", name, version, new)
        return True

    async def _create_index(self, name: str) -> None:
        path = f"/{quote(name, safe='')}"
        found = await self._cluster.call("HEAD", f"/_alias{path}" if self._rolls_over else path)
        if found.status == 200:
            return
        if found.status != 404:
            _check(found)
        body: dict[str, Any] = {}
        if self._rolls_over:
            path, body = f"/{quote(name + '-000001', safe='')}", {"aliases": {name: {"is_write_index": True}}}
        reply = await self._cluster.call("PUT", path, body=body)
        kind, text = error_type(reply.body), error_text(reply.status, reply.body)
        if reply.status == 400 and _STREAMS_ONLY in text:
            _check(await self._cluster.call("PUT", f"/_data_stream/{quote(name, safe='')}"), allowed=_EXISTS_ALREADY)
            return
        if reply.status < 300 or kind == "resource_already_exists_exception":
            return
        if kind == "invalid_index_name_exception":
            raise sdk.Permanent(f"Invalid characters in the index name {name}")
        if kind == "invalid_alias_name_exception" and "an index exists with the same name as the alias" in text:
            raise sdk.Permanent(
                f"An index exists with the same name as the reserved index alias name [{name}], please delete or "
                "migrate the existing index"
            )
        _check(reply)

    async def _is_stream(self, name: str) -> bool:
        reply = await self._cluster.call("GET", f"/_data_stream/{quote(name, safe='')}")
        if reply.status >= 500 or reply.status == 429:
            _check(reply)
        return reply.status == 200 and bool(reply.json().get("data_streams"))

    async def _read_template(self) -> dict[str, Any] | None:
        """The template to put, in the form of its kind; None where there is none."""
        config, composable = self._config, self._config.composable_template
        if config.template_content is not None:
            template = parse_template(config.template_content)
        elif config.template_file is not None:
            template = await self._read_json(config.template_file, "Index template is not valid.")
        elif self._type.template is None:
            template = {}
        elif composable:
            parts = {key: value for key, value in self._type.template.items() if key != "version"}
            template = {"version": self._type.template["version"], "template": sdk.copy_value(parts)}
        else:
            template = sdk.copy_value(self._type.template)
        for setting, value in (
            ("number_of_replicas", config.number_of_replicas),
            ("number_of_shards", config.number_of_shards),
        ):
            if value > 0 and not _has_setting(template, setting):
                _settings_of(template, composable)[setting] = value
        return template or None

    async def _read_policy(self) -> dict[str, Any] | None:
        if self._type.policy is not None:
            return self._type.policy_document()
        if self._config.ism_policy_file is None or self._config.kind != "custom":
            return None
        return await self._read_json(self._config.ism_policy_file, "The index-state-management policy is not valid.")

    async def _read_json(self, path: str, message: str) -> dict[str, Any]:
        try:
            if path.startswith("s3://"):
                text = await read_object(path, self._config.signing or sdk.AwsOptions())
            else:
                text = await asyncio.to_thread(Path(path).read_bytes)
            document = json.loads(text)
        except (OSError, ValueError, sdk.Permanent) as error:
            raise sdk.Permanent(f"{message} {path}: {error}") from error
        if not isinstance(document, dict):
            raise sdk.Permanent(f"{message} {path}: it is no JSON object")
        return document


def legal_name(name: str) -> bool:
    """Whether OpenSearch takes this as the name of an index."""
    return (
        name == name.lower()
        and name[:1] not in ("", "_", "-", "+")
        and name not in (".", "..")
        and _ILLEGAL_IN_NAME.search(name) is None
        and len(name.encode("utf-8", "replace")) <= _NAME_BYTES_MAX
    )


def _settings_of(template: dict[str, Any], composable: bool) -> dict[str, Any]:
    """The settings of a template to write to."""
    holder: dict[str, Any] = template.setdefault("template", {}) if composable else template
    settings: dict[str, Any] = holder.setdefault("settings", {})
    return settings


def _has_setting(template: dict[str, Any], name: str) -> bool:
    """Whether the template says something of the index setting `name`, in any of the ways to write it."""
    for holder in (template, template.get("template")):
        settings = holder.get("settings") if isinstance(holder, dict) else None
        if isinstance(settings, dict):
            inner = settings.get("index")
            if name in settings or f"index.{name}" in settings or (isinstance(inner, dict) and name in inner):
                return True
    return False


_NO_PERMISSIONS = re.compile(r"no permissions for \[([^\]]+)\].*?backend_roles=\[([^\]]*)\]", re.DOTALL)


def permission_hint(text: str) -> str:
    """What to do about a refusal by the security plugin; empty for other errors."""
    found = _NO_PERMISSIONS.search(text)
    if found is None:
        return ""
    return (
        f"The identity of this pipeline lacks the permission {found[1]}. Map it to a role that has it: PUT "
        f'/_plugins/_security/api/rolesmapping/<role> {{"backend_roles":["{found[2]}"]}}'
    )


def _check(reply: Reply, allowed: tuple[str, ...] = ()) -> None:
    """Raise `Transient` for an error, unless it is of a type in `allowed`: whatever it is, somebody may repair it."""
    if reply.status < 300 or error_type(reply.body) in allowed:
        return
    raise SetupRefused(error_text(reply.status, reply.body))


class SetupRefused(sdk.Transient):
    """The server answered a set-up call with an error."""
