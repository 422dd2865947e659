"""`penstock demo`: DynamoDB to OpenSearch on this machine, with nothing but Python."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from typing import Annotated

import typer


def demo(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Send 100 items, check that the index equals the table, and end.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End after so many seconds, then check as --once does.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=500, help="Writes per second.")] = 20.0,
) -> None:
    """DynamoDB to OpenSearch, live, on stand-ins that run on this machine: no cloud, no containers, no Java."""
    if importlib.util.find_spec("aiobotocore") is None:
        sys.stderr.write("penstock demo needs the extra `aws`: pip install 'penstock[aws]'\n")
        raise typer.Exit(1)
    from penstock.cli.demo_play import perform

    raise typer.Exit(asyncio.run(perform(once=once, seconds=seconds, rate=rate)))
