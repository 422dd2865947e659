"""Pipeline files of the original, read in place: which are accepted, and what is said of those that are not."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from penstock.config import parse_pipelines
from penstock.config.references import References
from penstock.plan import catalog, make_plan
from penstock.plan.blocks import take_apart

ROOT = Path(__file__).parent.parent.parent
FILE = Path(os.environ.get("PENSTOCK_PEER_DATA", ROOT.parent / "shared/conformance/peer-data")) / "pipelines.jsonl"
VECTORS = [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []
DIFFERENCES = (Path(__file__).parent / "differences.md").read_text()

pytestmark = pytest.mark.skipif(not VECTORS, reason=f"the peer's pipeline files are not at {FILE}")

NEEDED = {
    "source": ("stdin", "file", "random"),
    "processor": ("string_converter",),
    "sink": ("stdout", "file"),
    "buffer": ("zero",),
}
"""Plugins that the vectors start."""
STAND_INS = {
    ("source", "file"): "path: str",
    ("sink", "file"): "path: str",
    ("processor", "string_converter"): "upper_case: bool = True",
}


@pytest.fixture(scope="module", autouse=True)
def stand_ins(tmp_path_factory):
    """The vectors are about pipelines: a plugin that is not built yet is stood in for by its options."""
    root = tmp_path_factory.mktemp("stand_ins")
    added, modules = [], []
    for kind, names in NEEDED.items():
        package = catalog.kind_of(kind).package
        (root / package).mkdir()
        missing = [name for name in names if name not in catalog.names(kind)]
        for name in missing:
            options = STAND_INS.get((kind, name), "pass")
            text = f"from penstock import sdk\nclass Config(sdk.PluginConfig):\n    {options}\n"
            (root / package / f"{name}.py").write_text(text)
            modules.append(f"penstock.plugins.{package}.{name}")
        places = importlib.import_module(f"penstock.plugins.{package}").__path__
        places.append(str(root / package))
        added.append((places, str(root / package)))
    importlib.invalidate_caches()
    yield
    for places, place in added:
        places.remove(place)
    for name in modules:
        sys.modules.pop(name, None)
        package, _, last = name.rpartition(".")
        sys.modules[package].__dict__.pop(last, None)


def check(vector):
    documents = parse_pipelines([("pipelines.yaml", vector["yaml"].encode())])
    if vector.get("parse_only") and vector["valid"]:
        _check_reading(vector, documents)
        return
    plan = make_plan(documents)
    if vector["valid"]:
        assert not plan.problems
        assert sorted(pipeline.name for pipeline in plan.pipelines) == sorted(vector["pipelines"])
        return
    assert plan.problems
    assert all(problem.line for problem in plan.problems) or not documents.pipelines
    _check_failure(vector, plan)


def _check_failure(vector, plan):
    if "error_contains" in vector:
        assert any(vector["error_contains"] in problem.message for problem in plan.problems)
    if "failed_pipeline" in vector:
        assert vector["failed_pipeline"] in {problem.pipeline for problem in plan.problems}
        assert vector["failed_pipeline"] in plan.skipped
    if "failed_plugin" in vector:
        assert vector["failed_plugin"] in {problem.plugin for problem in plan.problems}
    if "failed_component" in vector:
        assert any(f" {vector['failed_component']} " in f"{problem.path} " for problem in plan.problems)


def _check_reading(vector, documents):
    """Only the shape is judged: plugins need not exist."""
    assert not documents.problems
    drafts = {name: take_apart(located, References().read) for name, located in documents.pipelines.items()}
    assert not [problem for draft in drafts.values() for problem in draft.problems]
    assert list(drafts) == vector.get("pipelines", list(drafts))
    if "version" in vector:
        assert [located.node.text for located in documents.versions] == [vector["version"]]
    if "extensions" in vector:
        assert list(documents.extension.node.entries) == list(vector["extensions"])
    if "model" in vector:
        _check_model(vector["model"], next(iter(drafts.values())))


def _check_model(model, draft):
    read = {
        "source": draft.source.name,
        "processors": [block.name for block in draft.processors],
        "sinks": [block.name for block in draft.sinks],
        "workers": draft.options.workers,
        "delay": draft.options.delay,
        "routes": [{name: condition} for name, condition, _ in draft.routes],
        "sink_routes": [_routes(block) for block in draft.sinks],
    }
    assert {key: read[key] for key in model} == model


def _routes(block):
    return [item.text for item in block.options.entries["routes"].node.items] if block.options else []


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_a_pipeline_file_of_the_peer(vector):
    if f"| {vector['id']} |" in DIFFERENCES:
        with pytest.raises(AssertionError):
            check(vector)
    else:
        check(vector)
