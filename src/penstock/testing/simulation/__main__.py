"""`python -m penstock.testing.simulation --seeds 200 [--start 5000]`: run worlds nobody has seen yet."""

from __future__ import annotations

import argparse
import random
import sys
import time

from penstock.testing.simulation.scenario import draw
from penstock.testing.simulation.world import Report, simulate

FRESH_MAX = 10**9
TELL_EVERY_S = 10.0


def main() -> int:
    """Exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="simulate", description="Run whole pipelines in virtual time with faults.")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--start", type=int, default=None, help="the first seed; without it nobody knows")
    parser.add_argument("--show", action="store_true", help="print the scenario of each seed before it runs")
    options = parser.parse_args()
    start = random.SystemRandom().randrange(FRESH_MAX) if options.start is None else options.start
    _tell(f"seeds {start} to {start + options.seeds - 1}")
    failed: list[Report] = []
    begin = told = time.monotonic()
    for seed in range(start, start + options.seeds):
        if options.show:
            _show(seed)
        report = simulate(seed)
        if report.violations:
            failed.append(report)
            _tell_failure(report)
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            _tell(f"  {seed - start + 1} of {options.seeds} seeds, {len(failed)} failed, {told - begin:.0f} s")
    _tell(f"{options.seeds} seeds, {len(failed)} failed, {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


def _tell(text: object) -> None:
    print(text, flush=True)  # noqa: T201 (it is a command)


def _show(seed: int) -> None:
    scenario = draw(seed)
    _tell(scenario.yaml())
    _tell(f"{scenario.profile}, ids: {scenario.ids}, sources: {[spec.source for spec in scenario.pipelines]}")
    for spec in scenario.pipelines:
        for stage in spec.stages:
            _tell(f"  {spec.name}: {stage}")
    _tell(scenario.faults)


def _tell_failure(report: Report) -> None:
    _tell(f"seed {report.seed} ({report.profile}, {report.lives} lives, {report.seconds:.0f} virtual s) failed:")
    for violation in report.violations[:5]:
        _tell(f"    {violation[:500]}")
    _tell(f"  again: make simulate START={report.seed} SEEDS=1 SHOW=1")


if __name__ == "__main__":
    sys.exit(main())
