"""`penstock validate`: everything that is wrong with pipelines, found offline."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.core import start

if TYPE_CHECKING:
    from penstock.config import Documents
    from penstock.core.errors import Problem
    from penstock.plan import Plan

EXIT_PROBLEMS = 1


def validate(
    pipelines: Annotated[Path, typer.Argument(help="A pipeline file, or a directory of them.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="data-prepper-config.yaml")] = None,
    profile: Annotated[str, typer.Option(help="Rules to check by: engine.")] = "engine",
    units: Annotated[
        int, typer.Option(min=1, envvar="PENSTOCK_UNITS", help="Processes that are to share the work.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check pipelines without starting anything.

    Prints every problem of all files with file, line, place and a likely fix. Exit codes: 0 valid; 1 not valid;
    2 wrong usage.
    """
    start.describe_options = False
    from penstock.config import read_pipelines, read_server_config
    from penstock.plan import PROFILES, make_plan

    if profile not in PROFILES:
        raise typer.BadParameter(f"{profile} is not one of {', '.join(PROFILES)}", param_hint="--profile")
    documents = read_pipelines(pipelines)
    plan = make_plan(documents, profile=profile, server_config=read_server_config(config), units=units)
    warnings = [*plan.warnings, *_missing_values(documents)]
    if as_json:
        _print_json(plan, warnings)
    else:
        _print_text(plan, warnings, len(documents.pipelines))
    raise typer.Exit(EXIT_PROBLEMS if plan.problems else 0)


def _missing_values(documents: Documents) -> list[Problem]:
    """References whose value is not there now: it may be where the pipelines are to run."""
    from penstock.config.nodes import scalar_value
    from penstock.core.errors import Problem
    from penstock.plan.blocks import take_apart
    from penstock.plan.check import Labels

    found = []
    for reference, (located, path) in documents.references().items():
        if reference.provider == "env" and reference.name not in os.environ:
            message = f"The environment variable {reference.name} is not set here."
        elif reference.provider == "file" and not Path(reference.name).is_file():
            message = f"There is no file {reference.name} here."
        else:
            continue
        place = f"{located.name} > {Labels(take_apart(located, scalar_value))(path)}"
        found.append(Problem(message, place, located.file, located.line_of(path), severity="warning"))
    return found


def _print_json(plan: Plan, warnings: list[Problem]) -> None:
    import json
    from dataclasses import asdict

    result = {
        "valid": not plan.problems,
        "pipelines": [pipeline.name for pipeline in plan.pipelines],
        "skipped": list(plan.skipped),
        "problems": [asdict(problem) for problem in plan.problems],
        "warnings": [asdict(problem) for problem in warnings],
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))


def _print_text(plan: Plan, warnings: list[Problem], pipelines: int) -> None:
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def paint(text: str, colour: str) -> str:
        return typer.style(text, fg=colour, bold=True) if colours else text

    for problem in (*plan.problems, *warnings):
        colour = "red" if problem.severity == "error" else "yellow"
        place = ":".join(str(part) for part in (problem.file, problem.line) if part)
        print(": ".join(part for part in (place, problem.path) if part) or "configuration")
        print(f"  {paint(problem.severity, colour)}: {problem.message}")
        if problem.suggestion:
            print(f"  {paint('hint', 'cyan')}: {problem.suggestion}")
        print()
    counts = _counted(pipelines, "pipeline"), _counted(len(warnings), "warning")
    if plan.problems:
        print(f"{paint('FAILED', 'red')}: {_counted(len(plan.problems), 'problem')}, {counts[1]} in {counts[0]}")
    else:
        print(f"{paint('OK', 'green')}: {counts[0]}, {counts[1]}")


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count or 'no'} {word}s"
