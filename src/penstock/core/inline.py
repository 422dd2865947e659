"""Pieces of Python source with the values that their names stand for."""

from __future__ import annotations

import re
from typing import Any, Final

_META: Final = re.compile(r"\bmeta\b")


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

    def __repr__(self) -> str:
        return f"Inline({self.source!r}, {', '.join(self.names)})"
