"""Merges the events of a group into one: top-level values of later events replace those of earlier ones."""

from penstock import sdk
from penstock.lib.aggregation import MERGED, Action, Fate, Group, weight

REWEIGH_BYTES = 64 * 1024
"""A merged event is weighed anew when what was put into it adds up to twice its weight and this much."""


class Config(sdk.PluginConfig):
    """There is nothing to configure."""


class _Merged:
    __slots__ = ("body", "bytes", "reweigh_at_bytes")

    def __init__(self, body: sdk.Body, size_bytes: int) -> None:
        self.body = body
        self.bytes = size_bytes
        self.reweigh_at_bytes = REWEIGH_BYTES


class PutAll(Action):
    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        size = weight(body)
        group.size_bytes += size
        merged: _Merged | None = group.state
        if merged is None:
            group.state = _Merged(body, size)
            return MERGED
        merged.body.update(body)
        merged.bytes += size
        if merged.bytes > merged.reweigh_at_bytes:  # values were replaced: the sum says too much
            size = weight(merged.body)
            group.size_bytes += size - merged.bytes
            merged.bytes = size
            merged.reweigh_at_bytes = 2 * size + REWEIGH_BYTES
        return MERGED

    def conclude(self, group: Group, identification: sdk.Body) -> tuple[sdk.Body, str] | None:
        return None if group.state is None else (group.state.body, "event")


def build(config: Config, ctx: sdk.Context) -> Action:
    return PutAll()


EXAMPLES = [sdk.Example("Put the parts of an event together", config="{}")]
