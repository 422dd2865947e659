"""The `penstock` command.

Nothing heavy is imported here, and of the commands only the one that was asked for: help must come at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

COMMANDS = {
    "run": "Run pipelines.",
    "validate": "Check pipelines without starting anything.",
    "plugins": "List the plugins, or show one of them.",
    "dlq": "Look at dead letters, and send them again.",
    "demo": "DynamoDB to OpenSearch on this machine, live.",
    "docs": "Write a reference page for every plugin.",
    "schema": "Print the JSON Schema of pipeline files for editors.",
    "dynamodb": "How far exports are loaded and changes read; indexes made anew.",
    "iam-policy": "The least rights that the role of a pipeline needs.",
}
"""Each is a function, or a group of commands, of the same name in a module of the same name, with _ for -."""

_EPILOG = (
    "Exit codes: 0 all is well; 1 the pipelines are not valid, or nothing could run; 2 wrong usage. "
    "The help of each command tells them all."
)


def main() -> None:
    """Entry point of the console script."""
    application(sys.argv[1:], os.environ)()


def application(arguments: list[str], environ: Mapping[str, str]) -> typer.Typer:
    """The command line for these arguments. Only the command they name is loaded, all of them for completion."""
    app = typer.Typer(
        name="penstock",
        help="OpenSearch Ingestion and Data Prepper pipelines: the same YAML, a fraction of the cost.",
        epilog=_EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    completes = "_PENSTOCK_COMPLETE" in environ
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        loaded = completes or name == named
        command = _loaded(name) if loaded else _only_listed
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, short_help=summary)
        else:
            app.command(name, short_help=summary)(command)
    return app


def _loaded(name: str) -> typer.Typer | Callable[..., None]:
    module = name.replace("-", "_")
    command: typer.Typer | Callable[..., None] = getattr(importlib.import_module(f"penstock.cli.{module}"), module)
    return command


def _only_listed() -> None:
    raise AssertionError("a command was run that the arguments do not name")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"penstock {version('penstock')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
