"""House rules that no linter knows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import penstock
from penstock.plan import catalog
from penstock.sdk.example import examples_of

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "penstock"
KINDS = ("source", "buffer", "processor", "sink", "input_codec", "output_codec")
PLUGINS = [(kind, name) for kind in KINDS for name in catalog.names(kind)]


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=lambda value: str(value))
def test_a_plugin_is_documented_with_examples_and_every_option_described(kind: str, name: str) -> None:
    found = catalog.find(kind, name)
    assert found.module.__doc__, "the module says what it promises"
    assert examples_of(found.module, kind), "at least one example"
    undescribed = _undescribed(found.config, set())
    assert not undescribed, f"options without a description: {undescribed}"


def _undescribed(model: type, seen: set[type]) -> list[str]:
    missing = []
    seen.add(model)
    for name, field in model.model_fields.items():  # type: ignore[attr-defined]
        if not field.description:
            missing.append(f"{model.__name__}.{name}")
    return missing


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == penstock.__version__


def test_names_say_what_a_thing_is() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "base", "impl", "manager", "misc"}
    assert not [path for path in SOURCE.rglob("*.py") if path.stem in vague]


def test_every_promised_behaviour_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "behaviour.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert named, "the page names its tests"
    for path, function in named:
        file = ROOT / path
        assert file.exists(), f"{path} does not exist"
        if function:
            assert re.search(rf"def {function}\b", file.read_text()), f"{path} has no {function}"


def test_the_project_names_no_registry_and_no_machine() -> None:
    names = ("pypi" + r"\.org", "python" + "hosted", "repo1?" + r"\.maven", "registry" + r"\.npmjs", "/ro" + "ot/")
    hosts = re.compile("|".join(names))
    suffixes = {".py", ".md", ".toml", ".yaml", ".yml", ".lock", ".java", ".xml", ".jsonl", ".json", ""}
    skipped = {".git", ".venv", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__"}
    for path in ROOT.rglob("*"):
        if skipped & set(path.parts) or not path.is_file() or path.suffix not in suffixes:
            continue
        found = hosts.search(path.read_text(errors="replace"))
        assert not found, f"{path.relative_to(ROOT)} names a host or a machine"
