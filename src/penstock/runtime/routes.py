"""Which way events go, and in which order pipelines start."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from penstock.core.batch import Batch
from penstock.core.errors import ExpressionError
from penstock.runtime.parts import Branch, Parts

log = logging.getLogger(__name__)


def choose(parts: Parts, batch: Batch) -> list[tuple[Branch, list[int] | None]]:
    """Which events go which way; None stands for all of them."""
    branches = parts.branches
    if not any(branch.routes for branch in branches):
        return [(branch, None) for branch in branches]
    bodies, metas, origin = batch.bodies, batch.metas, batch.origin
    matches: dict[str, list[int]] = {}
    for name, expression in parts.routes:
        test = expression.test
        matches[name] = [i for i, body in enumerate(bodies) if _matches(test, body, metas[i] or origin)]
    routed = {i for places in matches.values() for i in places}
    matches["_default"] = [i for i in range(len(bodies)) if i not in routed]
    chosen: list[tuple[Branch, list[int] | None]] = []
    for branch in branches:
        if not branch.routes:
            chosen.append((branch, None))
            continue
        places = sorted({i for name in branch.routes for i in matches[name]})
        if places:
            chosen.append((branch, places))
    return chosen


def topological(names: Sequence[str], upstreams: Callable[[str], Sequence[str]]) -> list[str]:
    """`names` with every pipeline behind those that feed it."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for upstream in upstreams(name):
                if upstream in names:
                    visit(upstream)
            order.append(name)

    for name in names:
        visit(name)
    return order


def _matches(test: Callable[[Any, Any], bool], body: Any, meta: Any) -> bool:
    try:
        return test(body, meta)
    except ExpressionError as error:
        log.error("Failed to evaluate route. This route will not be applied to any events. %s", error.logged)
        return False
