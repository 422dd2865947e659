"""Plugins by name and plain options, checked as a pipeline file would be."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from penstock.config.options import NestedProblem, Subject, check_options
from penstock.core.batch import copy_value
from penstock.core.errors import ConfigError, Problem
from penstock.plan.catalog import Found, find
from penstock.sdk import PluginConfig, PluginUse


def checked(kind: str, name: str, options: Mapping[str, Any] | None) -> tuple[Found, Any]:
    """The plugin and its options. Raises ConfigError with every problem."""
    found = find(kind, name)
    subject = Subject(f' for plugin "{name}"', "", f"Plugin {name} is configured incorrectly: ")
    values = copy_value(dict(options or {}))
    config, faults = check_options(found.config, values, subject, {"resolve": resolve})
    errors = [
        Problem(fault.message, ".".join(map(str, fault.path)), suggestion=fault.suggestion, plugin=name)
        for fault in faults
        if fault.severity == "error"
    ]
    if errors:
        raise ConfigError(errors)
    assert config is not None
    return found, config


def resolve(kind: str, value: Any) -> PluginUse:
    """A plugin named inside the options of another."""
    if isinstance(value, str):
        value = {value: None}
    if not isinstance(value, dict) or not value:
        raise ConfigError([NestedProblem("a plugin is a map with one key, its name")])
    name, options = next(iter(value.items()))
    if options is not None and options != "" and not isinstance(options, dict):
        raise ConfigError(
            [NestedProblem(f"Unexpected value for plugin '{name}': expected an object, null, or no value")]
        )
    found, config = checked(kind, name, options or None)
    assert isinstance(config, PluginConfig)
    return PluginUse(kind, found.name, found.module, config)


@contextmanager
def time_zone(name: str) -> Iterator[None]:
    """The zone of this process is `name` meanwhile."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = before
        time.tzset()
