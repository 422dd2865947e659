"""Every processor vector: what comes out of a processor as Data Prepper has it."""

import json
import math
import re
from decimal import Decimal
from pathlib import Path

import pytest

from penstock.core.errors import ConfigError
from penstock.plan import catalog
from penstock.testing import run_processor

HERE = Path(__file__).parent
VECTORS = [json.loads(line) for line in (HERE / "processors.jsonl").read_text().splitlines()]
DIFFERENT = set(re.findall(r"^\| `?(proc-[\w-]+)`? \|", (HERE / "differences.md").read_text(), re.MULTILINE))
NOT_BUILT_YET = {"csv", "decompress", "obfuscate", "parse_ion", "user_agent"}
BUILT = set(catalog.names("processor"))


def parameters():
    for vector in VECTORS:
        if vector["processor"] in BUILT or vector["processor"] not in NOT_BUILT_YET:
            marks = [pytest.mark.xfail(strict=True, reason="see differences.md")] if vector["id"] in DIFFERENT else []
            yield pytest.param(vector, id=vector["id"], marks=marks)


def same(actual, expected, tolerance):
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and actual.keys() == expected.keys()
            and all(same(actual[key], value, tolerance) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(expected)
            and all(same(one, other, tolerance) for one, other in zip(actual, expected, strict=True))
        )
    if isinstance(expected, bool) or isinstance(actual, bool) or not isinstance(expected, int | float):
        return type(actual) is type(expected) and actual == expected
    if not isinstance(actual, int | float | Decimal):
        return False
    if tolerance or isinstance(actual, Decimal):
        return math.isclose(float(actual), expected, rel_tol=tolerance or 1e-15)
    return actual == expected


def without(body, ignored):
    return {key: value for key, value in body.items() if key not in ignored}


@pytest.mark.parametrize("vector", list(parameters()))
def test_processors(vector):
    options = {"metadata": vector.get("metadata"), "tz": vector.get("tz", "UTC")}
    if "flush_after_s" in vector:
        options["flush_after_s"] = vector["flush_after_s"]
    if vector.get("expect_config_error"):
        with pytest.raises(ConfigError):
            run_processor(vector["processor"], vector["config"], [], **options)
        return
    results = run_processor(vector["processor"], vector["config"], vector["events"], **options)
    ignored = set(vector.get("ignore_keys", ()))
    bodies = [without(result.body, ignored) for result in results]
    expected = [without(body, ignored) for body in vector["expect"]]
    if vector.get("unordered"):
        for some in (bodies, expected):
            some.sort(key=lambda body: json.dumps(body, sort_keys=True, default=str))
    assert same(bodies, expected, vector.get("approx")), (bodies, expected)
    if "expect_tags" in vector:
        assert [result.tags for result in results] == vector["expect_tags"]
    if "expect_metadata" in vector:
        assert same([result.metadata for result in results], vector["expect_metadata"], vector.get("approx"))


def test_no_processor_is_forgotten():
    assert {vector["processor"] for vector in VECTORS} - BUILT <= NOT_BUILT_YET
