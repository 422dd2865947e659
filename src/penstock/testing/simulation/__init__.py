"""Whole pipelines in virtual time, with everything around them going wrong as a seed says.

    >>> simulate(7).violations
    ()

A world has sources that ask again, a server that refuses, hangs, cuts connections and forgets indexes, dead letters
that cannot be written, a process that is killed and started again, and a clock that jumps. The engine, its buffers, its
delivery and the `opensearch` sink are the real ones. After the run the ledger says whether every promise was kept: see
`docs/guide/simulation.md`.
"""

from penstock.testing.simulation.scenario import Faults, Scenario, draw
from penstock.testing.simulation.world import Report, World, simulate

__all__ = ["Faults", "Report", "Scenario", "World", "draw", "simulate"]
