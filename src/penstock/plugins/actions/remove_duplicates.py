"""Lets the first event of a group pass and drops the others until the group is concluded."""

from penstock import sdk
from penstock.lib.aggregation import DROPPED, PASSED, Action, Fate, Group


class Config(sdk.PluginConfig):
    """There is nothing to configure."""


class RemoveDuplicates(Action):
    takes_first_only = True

    def take(self, group: Group, body: sdk.Body, meta: sdk.Meta) -> Fate:
        if group.state is None:
            group.state = True
            return PASSED
        return DROPPED


def build(config: Config, ctx: sdk.Context) -> Action:
    return RemoveDuplicates()


EXAMPLES = [sdk.Example("Let one of a kind pass", config="{}")]
