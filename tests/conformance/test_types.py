"""Every vector of durations, byte counts and versions of pipeline files."""

import json
from pathlib import Path

import pytest

from penstock.core.units import parse_bytes, parse_duration, parse_version, version_compatible

VECTORS = [json.loads(line) for line in (Path(__file__).parent / "types.jsonl").read_text().splitlines()]


def run(vector):
    text = vector["input"]
    match vector["type"]:
        case "duration":
            return round(parse_duration(text) * 1000)
        case "bytes":
            return parse_bytes(text)
        case "version":
            major, minor = parse_version(text)
            return {"major": major, "minor": minor}
        case "version_compatible":
            return version_compatible(parse_version(text), parse_version(vector["current"]))
    raise AssertionError(f"unknown type {vector['type']}")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_types(vector):
    if vector.get("expect_error"):
        with pytest.raises(ValueError, match=r"."):
            run(vector)
    else:
        assert run(vector) == vector.get("expect", vector.get("expect_millis"))
