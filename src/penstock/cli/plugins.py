"""`penstock plugins`: which plugins there are, and what one of them takes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

EXIT_UNKNOWN = 1


def plugins(
    name: Annotated[str | None, typer.Argument(help="Show this plugin.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only source, buffer, processor, sink, input_codec …")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the plugins, or show purpose, options and examples of one.

    Exit codes: 0; 1 there is no such plugin; 2 wrong usage.
    """
    from penstock.cli.reference import PAGE_KINDS, describe, every_plugin

    if kind is not None and kind not in PAGE_KINDS:
        raise typer.BadParameter(f"{kind} is not one of {', '.join(PAGE_KINDS)}", param_hint="--kind")
    kinds = (kind,) if kind else PAGE_KINDS
    found = [describe(each, plugin) for each, plugin in every_plugin(kinds) if name in (None, plugin)]
    found = found or _by_other_name(kinds, name)
    if not found:
        _not_found(kinds, name)
    if as_json:
        import json

        pages = [page.as_dict() for page in found]
        print(json.dumps(pages, indent=2, ensure_ascii=False))
    elif name is None:
        _print_list(found)
    else:
        for page in found:
            _print_page(page)


def _by_other_name(kinds: tuple[str, ...], name: str | None) -> list[Any]:
    from penstock.cli.reference import describe
    from penstock.core.errors import ConfigError
    from penstock.plan.catalog import find

    pages = []
    for kind in kinds:
        try:
            pages.append(describe(kind, find(kind, name or "").name))
        except ConfigError:
            continue
    return pages


def _not_found(kinds: tuple[str, ...], name: str | None) -> None:
    from penstock.core.errors import ConfigError
    from penstock.plan.catalog import DATA_PREPPER_NAMES, find

    if name is not None:
        known = [kind for kind in kinds if name in DATA_PREPPER_NAMES.get(kind, ())]
        problems = []
        for kind in known or kinds:
            try:
                find(kind, name)
            except ConfigError as error:
                problems += error.problems
        helpful = [problem for problem in problems if problem.suggestion]
        typer.echo(str((helpful or problems)[0]), err=True)
    raise typer.Exit(EXIT_UNKNOWN)


def _print_list(pages: list[Any]) -> None:
    width = max((len(page.name) for page in pages), default=0)
    for number, page in enumerate(pages):
        if number == 0 or pages[number - 1].kind != page.kind:
            print(f"{'' if number == 0 else chr(10)}{page.kind}")
        print(f"  {page.name:{width}}  {page.summary}")


def _print_page(page: Any) -> None:
    print(f"{page.kind} {page.name}\n\n{page.purpose}\n\nOptions")
    for row in page.options:
        default = row.default_text if row.required or not row.default_text else f"default {row.default_text}"
        print(f"  {row.path}  ({', '.join(part for part in (row.type, default) if part)})")
        if row.description:
            print(f"      {row.description}")
    if not page.options:
        print("  none")
    for example in page.examples:
        print(f"\nExample: {example.title}\n")
        print("\n".join(f"    {line}" for line in example.yaml(page.name).splitlines()))
