"""What holds for every processor, whatever the events look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from penstock.core.batch import Batch, Meta, copy_value
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.sdk import Context
from penstock.testing.plugins import checked

FAILURES = ("processingErrors", "dateProcessingMatchFailure", "parseErrors", "processingFailures")
Events = list[dict[str, Any]]


def build(name: str, config: Mapping[str, Any]) -> tuple[Callable[[Batch], Batch], Callable[[], float]]:
    """A processor and a function that counts the events it could not handle."""
    found, options = checked("processor", name, config)
    registry = Registry()
    run = found.module.build(options, Context("p", name, registry=registry))
    return run, lambda: sum(registry.value(f"p.{name}.{failure}") for failure in FAILURES)


@pytest.fixture(scope="session")
def run_unharmed() -> Callable[[str, Mapping[str, Any], Events], Events]:
    """Run a processor over events and return what comes out.

    No delivery promise is lost or kept twice, events do not influence each other, an event that fails stays as it was.
    """

    def run(name: str, config: Mapping[str, Any], events: Events) -> Events:
        processor, failures = build(name, config)
        outcomes: list[bool] = []
        batch, handle = Batch(copy_value(events), origin=Meta(received_ms=1)), Handle(outcomes.append)
        batch.promise(handle)
        handle.seal()
        result = processor(batch)
        assert handle.pending == len(result) == len(result.bodies) == len(result.metas)
        result.release_all(ok=True)
        assert outcomes == [True]

        one_by_one: Events = []
        for event in events:
            failed_before = failures()
            single = Batch([copy_value(event)], origin=Meta(received_ms=1))
            single.promise(Handle())
            bodies = processor(single).bodies
            failed = failures() - failed_before
            assert failed in (0, 1)
            assert not failed or bodies in ([event], [])
            one_by_one += bodies
        assert repr(result.bodies) == repr(one_by_one)
        return result.bodies

    return run
