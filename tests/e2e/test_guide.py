"""Python on the pages of the guide that starts real servers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
_BLOCK = re.compile(r"^```python e2e\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(match.group(1), id=f"{page.name}-{number}")
    for page in sorted(GUIDE.glob("*.md"))
    for number, match in enumerate(_BLOCK.finditer(page.read_text()))
]


@pytest.mark.parametrize("text", BLOCKS)
def test_python_on_a_page_runs(text: str, opensearch: object, dynamodb_local: object) -> None:
    exec(compile(text, "page.py", "exec"), {})
