"""Every vector of index names: what the OpenSearch sink would write to."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock.core.batch import Meta
from penstock.core.dates import parse_iso
from penstock.core.errors import EventError
from penstock.lib.index_name import compile_index_name
from penstock.plugins.sinks.opensearch.index_types import INDEX_TYPES

VECTORS = [json.loads(line) for line in (Path(__file__).parent / "index-names.jsonl").read_text().splitlines()]


def run(vector):
    index_type = INDEX_TYPES.get(vector.get("index_type", "custom"), SimpleNamespace(alias=None))
    pattern = index_type.alias or vector["pattern"]
    if pattern is None or vector.get("index_type", "custom") not in INDEX_TYPES:
        raise ValueError("no index")
    name = compile_index_name(pattern, normalize=vector.get("normalize_index", False))
    return name.render(vector["event"], Meta(), parse_iso(vector["now"]))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_index_names(vector):
    if vector.get("expect_error"):
        with pytest.raises((ValueError, EventError)):
            run(vector)
    else:
        assert run(vector) == vector["expect"]
