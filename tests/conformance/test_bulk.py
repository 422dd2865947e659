"""Every bulk vector: action line and document of one event as Data Prepper writes them."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from penstock.core.errors import ConfigError, EventError
from penstock.testing.bulk import render_bulk

HERE = Path(__file__).parent
VECTORS = [json.loads(line) for line in (HERE / "bulk.jsonl").read_text().splitlines()]
DIFFERENT = set(re.findall(r"^\| `?(bulk-[\w-]+)`? \|", (HERE / "differences.md").read_text(), re.MULTILINE))


def parameters():
    for vector in VECTORS:
        marks = [pytest.mark.xfail(strict=True, reason="see differences.md")] if vector["id"] in DIFFERENT else []
        yield pytest.param(vector, id=vector["id"], marks=marks)


def render(vector):
    received = vector.get("event_received")
    return render_bulk(
        vector["sink_config"],
        vector["event"],
        metadata=vector.get("metadata"),
        tags=vector.get("tags"),
        received=None if received is None else datetime.fromisoformat(received),
        data_stream=vector.get("index_is_data_stream", False),
    )


@pytest.mark.parametrize("vector", list(parameters()))
def test_vector(vector):
    if vector.get("expect_config_error"):
        with pytest.raises(ConfigError):
            render(vector)
        return
    if "expect_dlq" in vector:
        with pytest.raises(EventError) as raised:
            render(vector)
        assert str(raised.value).startswith(vector["expect_dlq"]["message_starts_with"])
        return
    line, document = render(vector)
    assert line == vector["expect_action_line"]
    assert document == vector["expect_doc"]
