"""Merges the events of a group into one whose values are lists of theirs.

The keys are those of the first event. A value that is a list grows by each further value, or by its elements. Any other
becomes a list as soon as a different value comes. Keys that are not to be appended keep their first value.
"""

from penstock import sdk
from penstock.lib.aggregation import MERGED, Action, Fate, Group, weight


class Config(sdk.PluginConfig):
    keys_to_append: list[str] | None = None
    """Top-level keys whose values are collected; all when left out or empty."""


class _Appended:
    __slots__ = ("body", "lists")

    def __init__(self, body: sdk.Body) -> None:
        self.body = body
        self.lists = {name for name, value in body.items() if type(value) is list}
        """Keys whose value is a list that grows."""


class Append(Action):
    def __init__(self, config: Config) -> None:
        self._keys = frozenset(key.removeprefix("/") for key in config.keys_to_append or ())

    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        state = group.state
        if state is None:
            group.size_bytes += weight(body)
            group.state = _Appended(dict(body))
            return MERGED
        keys, result = self._keys, state.body
        news = {name: value for name, value in body.items() if name in result and (not keys or name in keys)}
        added = weight(news)
        for name, value in news.items():
            known = result[name]
            if name in state.lists:
                known += value if type(value) is list else [value]
            elif type(value) is not type(known) or value != known:
                result[name] = [known, value]
                state.lists.add(name)
        group.size_bytes += added
        return MERGED

    def conclude(self, group: Group, identification: sdk.Body) -> tuple[sdk.Body, str] | None:
        return None if group.state is None else (group.state.body, "event")


def build(config: Config, ctx: sdk.Context) -> Action:
    return Append(config)


EXAMPLES = [sdk.Example("Collect the values of two keys", config="keys_to_append: [status, path]")]
