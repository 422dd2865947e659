"""Wraps each element of a list into an object with one key: `["a"]` becomes `[{"name": "a"}]`."""

from typing import Any

from pydantic import field_validator

from penstock import sdk
from penstock.lib.inline import COPIED_ITEM, COPYING


class Config(sdk.PluginConfig):
    source: sdk.Key
    """Key of the list. Events without it, or with an empty one, are left alone."""
    target: sdk.Key | None = None
    """Key that receives the new list; the list itself is replaced when left out."""
    key: sdk.NonEmpty[str]
    """Name that each element has in its object."""
    exclude_null_empty_values: bool = False
    """Leave out null and empty texts."""
    append_if_target_exists: bool = False
    """Put the objects at the end of a list that is there already."""
    wrap_entries_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    tags_on_failure: list[str] | None = None
    """Tags for events where source or target is no list."""

    @field_validator("target", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("target must not be empty when specified.")
        return value


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    source, target = config.source, config.target or config.source
    get, get_target, put, name = source.get, target.get, target.put, config.key
    exclude, append = config.exclude_null_empty_values, config.append_if_target_exists

    def wrap(body: sdk.Body) -> None:
        elements = get(body)
        if elements is sdk.MISSING:
            return
        if type(elements) is not list:
            raise sdk.EventError(f"The value of {source} is no list", cause="type")
        if not elements:
            return
        if exclude:
            elements = [element for element in elements if element is not None and element != ""]
        wrapped = [{name: sdk.copy_value(element)} for element in elements]
        known = get_target(body) if append else sdk.MISSING
        if known is sdk.MISSING:
            put(body, wrapped)
        elif type(known) is list:
            known.extend(wrapped)
        else:
            raise sdk.EventError(f"The value of {target} is no list", cause="type")

    change: sdk.EventFn | sdk.Inline = wrap
    if source.top is not None and target.top is not None and not exclude and not append:
        change = sdk.Inline(_WRAP, source=source.top, target=target.top, key=name, wrap=wrap, **COPYING)
    return ctx.each(change, when=config.wrap_entries_when, tags=config.tags_on_failure or ())


_WRAP = f"""
value = body.get(source)
if type(value) is list and value:
    body[target] = [{{key: {COPIED_ITEM}}} for item in value]
else:
    wrap(body)
"""


EXAMPLES = [
    sdk.Example(
        "Names become objects",
        config="{source: names, target: agents, key: name, exclude_null_empty_values: true}",
        before=[{"names": ["alpha", None, "beta"]}],
        after=[{"names": ["alpha", None, "beta"], "agents": [{"name": "alpha"}, {"name": "beta"}]}],
    ),
    sdk.Example(
        "What is no list is tagged",
        config="{source: names, key: name, tags_on_failure: [not_wrapped]}",
        before=[{"names": "alpha"}, {"names": [1]}],
        after=[{"names": "alpha"}, {"names": [{"name": 1}]}],
        tags=[["not_wrapped"], []],
    ),
]
