"""Hypothesis strategies for what users send: events that no processor may stumble over. Needs the package hypothesis.

The few names collide on purpose, with each other and with the keys below.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "0", "key", "value", "")

names = st.sampled_from(NAMES)
"""Names inside objects."""
keys = st.sampled_from(["a", "b", "/c", "a/b", "b/c", "a/0", "0", "c/a/b", "b/0/a", "key", "value"])
"""Event keys, many of which lead through something that is no object."""
texts = st.text(st.sampled_from("aAbz019 ,;=&-.\n\t{}<>[]\"'\\$%ßİ😀\ud800") | st.characters(), max_size=12)
"""Texts, also with line ends, delimiters and half surrogate pairs."""
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.decimals(allow_nan=True, places=None)
    | st.just(Decimal("1E+30"))
    | texts
    | names
)
"""Null, truth values, numbers of every kind and size, texts."""
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
"""Scalars and what is nested of them."""
bodies = st.dictionaries(names, values, max_size=5)
"""One event."""
events = st.lists(bodies, max_size=4)
"""Events in order."""


def nested(depth: int, leaf: Any = 1) -> Any:
    """Objects and lists in turn, deeper than calls may be."""
    value = leaf
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return {"a": value}
