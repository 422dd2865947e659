"""No authentication: everybody who reaches the port may send. The same as to name none, but said on purpose."""

from __future__ import annotations

from collections.abc import Callable

from penstock import sdk


class Config(sdk.PluginConfig):
    """There is nothing to configure."""


def build(config: Config, ctx: sdk.Context) -> Callable[[bytes], bool]:
    """Whether the value of an `Authorization` header (empty when there is none) opens the door: it always does."""
    return lambda authorization: True


EXAMPLES = [sdk.Example("Open to everybody", config="{}")]
