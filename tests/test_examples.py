"""Every example of every plugin is run: what the documentation shows is what happens."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from penstock.plan import catalog
from penstock.sdk import Example
from penstock.sdk.example import examples_of
from penstock.testing import run_processor
from penstock.testing.plugins import checked

KINDS = ("source", "buffer", "processor", "sink", "input_codec", "output_codec")


def examples() -> list[Any]:
    found = []
    for kind in KINDS:
        for name in catalog.names(kind):
            module = catalog.find(kind, name).module
            listed = examples_of(module, kind)
            found += [pytest.param(kind, name, example, id=f"{kind}-{name}-{example.title}") for example in listed]
    return found


@pytest.mark.parametrize(("kind", "name", "example"), examples())
def test_example(kind: str, name: str, example: Example) -> None:
    options = yaml.safe_load(example.config) or {}
    if kind != "processor" or not example.before:
        checked(kind, name, options)
        return
    results = run_processor(name, options, example.before, **example.options)
    assert [result.body for result in results] == example.after
    if example.tags is not None:
        assert [result.tags for result in results] == example.tags
    if example.metadata is not None:
        assert [result.metadata for result in results] == example.metadata
