"""Puts a new index in the place of the one that a sink writes to: by its alias, in one step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock import sdk
from penstock.plugins.sinks.opensearch.client import Cluster, Reply
from penstock.plugins.sinks.opensearch.options import Config
from penstock.plugins.sinks.opensearch.reply import error_text

TABLE_NAME = '${getMetadata("table_name")}'


@dataclass(frozen=True, slots=True)
class Standing:
    """What a name stands for."""

    aliases: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Indexes behind the alias of that name, with the options of the alias."""
    is_index: bool = False
    own_aliases: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Aliases of the index of that name, with their options."""


def fixed_name(config: Config, table: str) -> str:
    """The one name that the items of a table are written to.

    Raises ValueError, with the reason, where there is none or another index cannot take its place.
    """
    if config.kind not in ("custom", "management_disabled") or config.pull_indexing is not None:
        raise ValueError(f"an index of type {config.kind} cannot be made anew from a table")
    if config.ism_policy_file is not None:
        raise ValueError("an index that rolls over cannot be made anew from a table")
    if config.document_id is None and config.document_id_field is None:
        raise ValueError(
            "document_id is missing, so what is written twice would stand twice: "
            '"${getMetadata("primary_key")}" is the key of the item'
        )
    if config.document_version is None or config.document_version_type not in ("external", "external_gte"):
        raise ValueError(
            'document_version: "${getMetadata("document_version")}" and document_version_type: external are needed: '
            "two pipelines write to the new index for a while, and the older change must not win"
        )
    name = (config.alias or "").replace(TABLE_NAME, table)
    if "${" in name or "%{" in name:
        raise ValueError(f"the name {config.alias} depends on the event or the day")
    return name


def with_index(config: Config, name: str) -> Config:
    """The options with another index to write to."""
    return config.model_copy(update={"index": name})


class Swap:
    """The calls that it takes. Raises `Transient` while the servers do not answer, `Permanent` when they refuse."""

    def __init__(self, config: Config, ctx: sdk.Context) -> None:
        self._config = config
        self._cluster = Cluster(config, ctx)

    async def start(self) -> None:
        await self._cluster.start()

    async def close(self) -> None:
        await self._cluster.close()

    async def standing(self, name: str) -> Standing:
        """What `name` stands for now."""
        path = quote(name, safe="")
        found = await self._cluster.call("GET", f"/_alias/{path}")
        if found.status == 200:
            behind = {index: entry["aliases"][name] for index, entry in found.json().items()}
            if behind:
                return Standing(aliases=behind)
        elif found.status != 404:
            _refuse(found)
        found = await self._cluster.call("GET", f"/{path}/_alias")
        if found.status == 404:
            return Standing()
        entries = _checked(found).json()
        if name not in entries:
            raise sdk.Permanent(f"{name} is neither an index nor an alias")
        return Standing(is_index=True, own_aliases=entries[name]["aliases"])

    async def create(self, index: str) -> None:
        """Make an index, where the sink itself makes none. Nothing happens where there is one."""
        if (await self._cluster.call("HEAD", f"/{quote(index, safe='')}")).status != 200:
            reply = await self._cluster.call("PUT", f"/{quote(index, safe='')}", body={})
            if reply.status >= 300 and b"resource_already_exists_exception" not in reply.body:
                _refuse(reply)

    async def switch(self, name: str, index: str, standing: Standing) -> None:
        """In one step: from now on `name` is an alias of `index`."""
        actions = switch_actions(name, index, standing)
        _checked(await self._cluster.call("POST", "/_aliases", body={"actions": actions}))

    async def count(self, name: str) -> int | None:
        """How many documents can be found; None where there is no such index."""
        await self._cluster.call("POST", f"/{quote(name, safe='')}/_refresh")
        reply = await self._cluster.call("GET", f"/{quote(name, safe='')}/_count")
        if reply.status == 404:
            return None
        return int(_checked(reply).json()["count"])

    async def drop_template(self, index: str) -> None:
        """Remove the template that the sink has made for this one index."""
        kind = "_index_template" if self._config.composable_template else "_template"
        reply = await self._cluster.call("DELETE", f"/{kind}/{quote(index, safe='')}-index-template")
        if reply.status != 404:
            _checked(reply)

    async def drop(self, index: str) -> None:
        """Delete an index that was never switched to."""
        reply = await self._cluster.call("DELETE", f"/{quote(index, safe='')}")
        if reply.status != 404:
            _checked(reply)


def switch_actions(name: str, index: str, standing: Standing) -> list[dict[str, Any]]:
    """The body of the call: an index of that name is deleted, and its aliases move on."""
    if standing.is_index:
        actions: list[dict[str, Any]] = [{"remove_index": {"index": name}}]
        actions += [
            {"add": {"index": index, "alias": alias, **_options(of)}} for alias, of in standing.own_aliases.items()
        ]
        return [*actions, {"add": {"index": index, "alias": name}}]
    actions = [{"remove": {"index": old, "alias": name}} for old in standing.aliases if old != index]
    options = next(iter(standing.aliases.values()), {})
    return [*actions, {"add": {"index": index, "alias": name, **_options(options)}}]


def _options(of: dict[str, Any]) -> dict[str, Any]:
    """As they are given, which is as they are told."""
    names = ("filter", "index_routing", "search_routing", "is_write_index", "is_hidden")
    return {name: of[name] for name in names if name in of}


def _checked(reply: Reply) -> Reply:
    return reply if reply.status < 300 else _refuse(reply)


def _refuse(reply: Reply) -> Reply:
    text = error_text(reply.status, reply.body)
    if reply.status >= 500 or reply.status in (401, 403, 429):
        raise sdk.Transient(text)
    raise sdk.Permanent(text)
