"""`penstock docs`: the reference pages, written from the plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_STALE = 1


def docs(
    directory: Annotated[Path, typer.Option(help="Where the pages are.")] = Path("docs/reference"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a page is stale.")] = False,
) -> None:
    """Write a reference page for every plugin.

    Exit codes: 0; 1 a page is stale (with --check); 2 wrong usage.
    """
    from penstock.cli.reference import describe, every_plugin, index, markdown

    pages = [describe(kind, name) for kind, name in every_plugin()]
    wanted = {f"{page.kind}.{page.name}.md": markdown(page) for page in pages}
    wanted["index.md"] = index(pages)
    there = {file.name for file in directory.glob("*.md")} if directory.is_dir() else set()
    stale = sorted(
        {name for name, text in wanted.items() if name not in there or (directory / name).read_text("utf-8") != text}
        | (there - wanted.keys())
    )
    if check:
        for name in stale:
            typer.echo(f"{directory / name} is stale", err=True)
        if stale:
            typer.echo("Write them anew with: penstock docs", err=True)
        raise typer.Exit(EXIT_STALE if stale else 0)
    directory.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (directory / name).write_text(wanted[name], "utf-8")
        else:
            (directory / name).unlink()
    print(f"{len(wanted)} pages in {directory}, {len(stale)} changed")
