"""Pieces of Python source with the values that their names stand for."""

from __future__ import annotations

import re
from typing import Any, Final

_META: Final = re.compile(r"\bmeta\b")
_MADE: Final = re.compile(r"\b(?:_|v)[0-9]+\b", re.ASCII)
"""Names of values and variables in source that a compiler put together; no other words of it look like that."""


class Inline:
    """Statements over `body`, to be put into a loop over events, or an expression, to be put into statements.

    The source is text of our own, without a trace of any configuration: values are bound to names. It may use `meta`.
    Of statements, `continue` ends the work on an event. They leave an event as it was when they raise `EventError`.
    """

    __slots__ = ("names", "reads_meta", "source")

    def __init__(self, source: str, /, **names: Any) -> None:
        self.source = source
        self.names = names
        """What the names in the source stand for."""
        self.reads_meta = _META.search(source) is not None

    def prefixed(self, prefix: str) -> Inline:
        """The same with longer names, where `_0`, `_1` … and `v0`, `v1` … name all values and variables.

        Two such pieces can then be put together. Values without a use are left out.
        """
        used = sorted({name for name in _MADE.findall(self.source) if name in self.names})
        inline = Inline(_MADE.sub(rf"{prefix}\g<0>", self.source), **{prefix + name: self.names[name] for name in used})
        inline.reads_meta = self.reads_meta
        return inline

    def __repr__(self) -> str:
        return f"Inline({self.source!r}, {', '.join(self.names)})"
