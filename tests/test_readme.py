"""What the README and the guide show is true: YAML is planned, Python is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.config.documents import parse_pipelines
from penstock.config.nodes import read_nodes
from penstock.plan import make_plan

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[object]:
    found = []
    for page in PAGES:
        for number, match in enumerate(_FENCE.finditer(page.read_text())):
            if match.group(1) == language and not match.group(2).strip():
                found.append(pytest.param(match.group(3), id=f"{page.name}-{number}"))
    return found


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_on_a_page_is_a_valid_pipeline(text: str) -> None:
    read_nodes(text.encode())
    plan = make_plan(parse_pipelines([("page.yaml", text.encode())]))
    assert not plan.problems, "\n".join(map(str, plan.problems))


@pytest.mark.parametrize("text", blocks("python"))
def test_python_on_a_page_runs(text: str) -> None:
    exec(compile(text, "page.py", "exec"), {})


def test_the_readme_has_both_commands() -> None:
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), f"no target {command}"
