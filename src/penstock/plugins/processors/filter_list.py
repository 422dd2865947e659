"""Keeps the elements of a list that satisfy a condition.

Elements for which the condition gives no Boolean are left out: they are listed in the metadata of the event, under
`filter_list_processor_failed_elements` and, counted, `filter_list_processor_failed_elements_count`.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from penstock import sdk
from penstock.lib.inline import COPIED_ITEM, COPIED_OBJECT, COPYING

FAILED_ATTRIBUTE = "filter_list_processor_failed_elements"
COUNT_ATTRIBUTE = "filter_list_processor_failed_elements_count"

_ELEMENT_META = sdk.Meta("event")


def _not_empty(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("missing", "must not be null")
    if value == "":
        raise PydanticCustomError("string_too_short", "must not be empty", {"min_length": 1, "actual_length": 0})
    return value


class Config(sdk.PluginConfig):
    iterate_on: sdk.Key
    """Key of the list. Events without it are left alone."""
    target: sdk.Key | None = None
    """Key that receives the new list; the list itself is replaced when left out."""
    keep_element_when: Annotated[sdk.ValueExpression, BeforeValidator(_not_empty)]
    """Elements that match this expression are kept. It sees an object as an event of its own, any other element under
    `/value`."""
    filter_list_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    tags_on_failure: list[str] | None = None
    """Tags for events where there is no list under the key, or where the condition failed for elements."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    source, target = config.iterate_on.top, (config.target or config.iterate_on).top
    if config.keep_element_when.is_plain and source is not None and target is not None:
        keep = _inline_filter(config.keep_element_when, source, target, config.iterate_on)
        return ctx.each(keep, when=config.filter_list_when, tags=config.tags_on_failure or ())
    return _filter(config, ctx)


def _filter(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    """The loop that serves all conditions."""
    source, keeps, when = config.iterate_on, config.keep_element_when.test, config.filter_list_when
    target = config.target or source
    get, put, in_place = source.get, target.put, target == source
    fail = ctx.failure(config.tags_on_failure or ())

    def keep(batch: sdk.Batch, index: int, body: sdk.Body) -> None:
        elements = get(body)
        if elements is sdk.MISSING or elements is None:
            return
        if type(elements) is not list:
            raise sdk.EventError(f"The value of {source} is no list", cause="type")
        kept, failed, reason = [], [], ""
        for element in elements:
            try:
                if keeps(element if type(element) is dict else {"value": element}, _ELEMENT_META):
                    kept.append(element)
            except sdk.ExpressionError as error:
                failed.append(element)
                reason = error.logged
        put(body, kept if in_place else sdk.copy_value(kept))
        if failed:
            attributes = batch.meta(index).attributes
            attributes[FAILED_ATTRIBUTE], attributes[COUNT_ATTRIBUTE] = sdk.copy_value(failed), len(failed)
            fail(batch, index, sdk.EventError(f"{len(failed)} elements were left out: {reason}", cause="element"))

    def keep_in_all(batch: sdk.Batch) -> sdk.Batch:
        for index, body in enumerate(batch.bodies):
            try:
                if when is None or when.test(body, batch.peek(index)):
                    keep(batch, index, body)
            except (sdk.EventError, sdk.ExpressionError) as error:
                fail(batch, index, error)
        return batch

    return keep_in_all


def _inline_filter(condition: sdk.Expression, source: str, target: str, key: sdk.Key) -> sdk.Inline:
    """The filter by a condition that is true or false of every element."""
    keeps = condition.inline("keep")

    def refuse() -> None:
        raise sdk.EventError(f"The value of {key} is no list", cause="type")

    return sdk.Inline(
        _FILTER.format(
            keeps=keeps.source,
            kept="item" if source == target else f"{COPIED_OBJECT} if body is item else {COPIED_ITEM}",
        ),
        source=source,
        target=target,
        element_meta=_ELEMENT_META,
        refuse=refuse,
        **COPYING,
        **keeps.names,
    )


_FILTER = """
elements = body.get(source)
if elements is None:
    continue
if type(elements) is not list:
    refuse()
event, meta, kept = body, element_meta, []
for item in elements:
    body = item if type(item) is dict else {{"value": item}}
    if {keeps}:
        kept.append({kept})
event[target] = kept
"""


EXAMPLES = [
    sdk.Example(
        "Objects of one kind",
        config="{iterate_on: ids, keep_element_when: '/type == \"cve\"', target: cves}",
        before=[{"ids": [{"id": 1, "type": "cve"}, {"id": 2, "type": "cwe"}]}],
        after=[{"ids": [{"id": 1, "type": "cve"}, {"id": 2, "type": "cwe"}], "cves": [{"id": 1, "type": "cve"}]}],
    ),
    sdk.Example(
        "Numbers",
        config="{iterate_on: scores, keep_element_when: '/value > 0', tags_on_failure: [no_list]}",
        before=[{"scores": [3, -1, 0, 5]}, {"scores": 3}],
        after=[{"scores": [3, 5]}, {"scores": 3}],
        tags=[[], ["no_list"]],
    ),
]
