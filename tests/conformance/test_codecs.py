"""The codec vectors: bytes to events and events to bytes as Data Prepper has them."""

import base64
import io
import json
import re
from pathlib import Path

import fastavro
import pytest

from penstock.core.errors import ConfigError, EventError
from penstock.testing import decode, encode

HERE = Path(__file__).parent
VECTORS = [json.loads(line) for line in (HERE / "codecs.jsonl").read_text().splitlines()]
DIFFERENT = set(re.findall(r"^\| `?(codec-[\w-]+)`? \|", (HERE / "differences.md").read_text(), re.MULTILINE))
NOT_BUILT_YET: set[str] = set()
"""Codecs of which this release has none; building one takes it out of here."""


def parameters():
    for vector in VECTORS:
        marks = [pytest.mark.xfail(strict=True, reason="see differences.md")] if vector["id"] in DIFFERENT else []
        if vector["codec"] in NOT_BUILT_YET:
            marks.append(pytest.mark.xfail(strict=True, raises=ConfigError, reason="the codec is not built yet"))
        yield pytest.param(vector, id=vector["id"], marks=marks)


def run(vector):
    if vector.get("direction") == "output":
        return encode(
            vector["codec"],
            vector["config"],
            vector["events"],
            tags=vector.get("tags"),
            context=vector.get("context"),
        )
    data = base64.b64decode(vector["input_b64"]) if "input_b64" in vector else vector.get("input", "").encode()
    return decode(vector["codec"], vector["config"], data)


@pytest.mark.parametrize("vector", list(parameters()))
def test_vector(vector):
    if vector["codec"] in NOT_BUILT_YET:
        run(vector)
        pytest.fail("this codec exists: take it out of NOT_BUILT_YET")
    if vector.get("expect_config_error") or vector.get("expect_error"):
        with pytest.raises((ConfigError, EventError)):
            run(vector)
        return
    if vector.get("direction") == "output":
        data, extension = run(vector)
        if "expect_avro" in vector:
            reader = fastavro.reader(io.BytesIO(data))
            assert {"schema": reader.writer_schema, "records": list(reader)} == vector["expect_avro"]
            assert extension == vector["expect_extension"]
            return
        read = bytes.splitlines if vector["codec"] == "csv" else lines
        assert read(data) == read(vector["expect_output"].encode())
        assert extension == vector["expect_extension"]
        return
    results = run(vector)
    assert [result.body for result in results] == vector["expect"]
    if "expect_metadata" in vector:
        assert [result.metadata for result in results] == vector["expect_metadata"]
    if "expect_event_type" in vector:
        assert all(result.event_type == vector["expect_event_type"] for result in results)
    if "expect_tags" in vector:
        assert [result.tags for result in results] == vector["expect_tags"]


def lines(data):
    """The JSON texts of an output: the order of keys is not judged."""
    return [json.loads(line) for line in data.splitlines()]
