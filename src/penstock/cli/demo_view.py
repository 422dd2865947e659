"""What the demonstration shows: one table that is redrawn in a terminal, one line now and then in a pipe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

_LINE_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the demonstration at one moment."""

    elapsed_s: float
    puts: int
    changes: int
    deletes: int
    pending: int
    """Writes that the index does not show yet."""
    documents: int
    arrived_per_s: float
    p50_s: float | None
    p99_s: float | None


class View:
    """Shows notes as they come, and snapshots in place."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._live: Live | None = None
        self._last_line_s = 0.0

    def note(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def start(self, places: list[tuple[str, str]]) -> None:
        """Begin with snapshots; `places` are names and commands that let one look for oneself."""
        for name, command in places:  # as lines of their own, which can be copied in a terminal of any width
            self.note(f"{name}: {command}")
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=False)
            self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        """Show the newest state."""
        if self._live:
            self._live.update(self._table(snapshot), refresh=True)
        elif time.monotonic() - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self.note(line(snapshot))

    def close(self) -> None:
        """Leave the last snapshot on the screen."""
        if self._live:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _table(snapshot: Snapshot) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column()
        writes = f"{snapshot.puts} puts, {snapshot.changes} changes, {snapshot.deletes} deletes"
        grid.add_row("written to DynamoDB", writes)
        grid.add_row("documents in OpenSearch", f"{snapshot.documents} ({snapshot.pending} writes on their way)")
        grid.add_row("throughput", f"{snapshot.arrived_per_s:.0f} writes/s")
        grid.add_row("write → readable", f"p50 {milliseconds(snapshot.p50_s)}, p99 {milliseconds(snapshot.p99_s)}")
        grid.add_row("running for", f"{snapshot.elapsed_s:.0f} s, Ctrl-C ends it")
        return grid


def line(snapshot: Snapshot) -> str:
    """A snapshot in one line."""
    return (
        f"{snapshot.elapsed_s:5.0f} s  {snapshot.puts} puts  {snapshot.changes} changes  {snapshot.deletes} deletes  "
        f"{snapshot.documents} documents  {snapshot.pending} on their way  {snapshot.arrived_per_s:.0f}/s  "
        f"p50 {milliseconds(snapshot.p50_s)}  p99 {milliseconds(snapshot.p99_s)}"
    )


def milliseconds(seconds: float | None) -> str:
    """`12 ms`, or a dash while nothing was measured."""
    return "–" if seconds is None else f"{seconds * 1000:.0f} ms"
