"""Every request vector of the push sources, sent over a real connection.

The vectors are not part of this project. They are read from the folder that PENSTOCK_PEER_DATA names.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import ValidationError

from penstock import sdk
from penstock.core.errors import ConfigError
from penstock.plan.catalog import find
from penstock.plugins.buffers import bounded_blocking
from penstock.plugins.sources import http
from penstock.runtime.output import PipelineOutput

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("PENSTOCK_PEER_DATA", HERE.parents[2] / "shared/conformance/peer-data"))
VECTORS = FOLDER / "http.jsonl"
DIFFERENT = set(re.findall(r"^\| `?(http-[\w-]+)`? \|", (HERE / "differences.md").read_text(), re.MULTILINE))
BUILT = {"http": http}
NOT_BUILT_YET = {"otel_logs_source", "otel_metrics_source", "otel_trace_source"}
"""Their vectors are left out; a source that exists has to run them."""


def parameters() -> list[Any]:
    if not VECTORS.is_file():
        return [pytest.param({}, id="none", marks=pytest.mark.skip(f"no vectors at {VECTORS}: set PENSTOCK_PEER_DATA"))]
    params = []
    for vector in map(json.loads, VECTORS.read_text().splitlines()):
        if vector["source"] in NOT_BUILT_YET:
            continue
        marks = [pytest.mark.xfail(strict=True, reason="see differences.md")] if vector["id"] in DIFFERENT else []
        params.append(pytest.param(vector, id=vector["id"], marks=marks))
    return params


@pytest.mark.parametrize("name", sorted(NOT_BUILT_YET))
def test_a_source_whose_vectors_are_left_out_does_not_exist(name: str) -> None:
    with pytest.raises(ConfigError, match="not supported yet"):
        find("source", name)


def resolve(kind: str, value: Any) -> sdk.PluginUse:
    ((name, options),) = value.items()
    try:
        found = find(kind, name)
    except ConfigError as error:
        if "not supported yet" in str(error):
            pytest.skip(f"not built yet: {kind} {name}")
        raise
    config = found.config.model_validate(options or {}, context={"resolve": resolve})
    assert isinstance(config, sdk.PluginConfig)
    return sdk.PluginUse(kind, name, found.module, config)


FAILURES = {
    "timeout": sdk.BufferFull("no room"),
    "size_overflow": sdk.BufferTooSmall("too many"),
    "exception": RuntimeError("broken"),
}


class Output(PipelineOutput):
    """That of a pipeline whose buffer nobody reads until the request is answered."""

    def __init__(self, buffer: sdk.Buffer, failure: Exception | None) -> None:
        self.buffer = buffer
        self.ready = asyncio.Event()
        self._failure = failure
        super().__init__(buffer, self.ready.set)

    def write_now(self, batch: sdk.Batch, size_bytes: int, *, reserved: bool = False) -> bool:
        return self._failure is None and super().write_now(batch, size_bytes, reserved=reserved)

    async def write(
        self, batch: sdk.Batch, size_bytes: int, timeout_s: float | None = None, *, reserved: bool = False
    ) -> None:
        if self._failure is not None:
            raise self._failure
        await super().write(batch, size_bytes, timeout_s, reserved=reserved)

    async def events(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        self.buffer.close()
        read = []
        while (load := await self.buffer.read()) is not None:
            read += [(body, load.batch.peek(i).attributes) for i, body in enumerate(load.batch.bodies)]
        return read


async def exchange(port: int, request: dict[str, Any]) -> tuple[int | None, dict[str, str], bytes]:
    """Status (None: closed without an answer), headers, body."""
    body = base64.b64decode(request["body_b64"]) if "body_b64" in request else request.get("body", "").encode()
    lines = [f"{request['method']} {request['path']} HTTP/1.1", "host: localhost", "connection: close"]
    lines += [f"{name}: {value}" for name, value in request["headers"].items()]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
        answer = await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return None, {}, answer
    first, *rest = head.decode("latin-1").split("\r\n")
    return (
        int(first.split()[1]),
        {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)},
        content,
    )


def meets(status: int | None, expected: Any) -> bool:
    if isinstance(expected, str):  # an upper bound such as <500
        return status is not None and status < int(expected.removeprefix("<"))
    return status == expected


def options_of(vector: dict[str, Any], folder: Path) -> dict[str, Any]:
    options = dict(vector["source_config"])
    if "request" in vector and options.get("ssl") and "ssl_certificate_file" not in options:
        issued = trustme.CA().issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        options |= {"ssl_certificate_file": str(folder / "cert.pem"), "ssl_key_file": str(folder / "key.pem")}
    return options


@pytest.mark.parametrize("vector", parameters())
def test_vector(vector: dict[str, Any], tmp_path: Path) -> None:
    module = BUILT[vector["source"]]
    context = {"resolve": resolve}
    if vector.get("expect_config_error"):
        with pytest.raises((ValidationError, ConfigError)):
            module.Config.model_validate(vector["source_config"], context=context)
        return
    config = module.Config.model_validate(options_of(vector, tmp_path), context=context)
    for name, value in vector.get("expect_defaults", {}).items():
        assert getattr(config, name) == value, name
    if "request" in vector:
        asyncio.run(asyncio.wait_for(send(vector, config.model_copy(update={"port": 0})), 20))
    else:
        assert vector.get("valid") or "expect_defaults" in vector


async def send(vector: dict[str, Any], config: Any) -> None:
    request, expected = vector["request"], vector["expect"]
    ctx = sdk.Context(vector["pipeline_name"], vector["source"], kind="source")
    buffer_options = vector.get("buffer", {}).get("bounded_blocking", {})
    buffer = bounded_blocking.build(bounded_blocking.Config.model_validate(buffer_options), ctx)
    output = Output(buffer, FAILURES.get(vector.get("buffer_failure", "")))
    source = BUILT[vector["source"]].build(config, ctx)
    running = asyncio.create_task(source.run(output))
    await asyncio.wait_for(output.ready.wait(), 5)
    try:
        if "accepted once" in vector.get("precondition", ""):
            assert (await exchange(source.port, request))[0] == 200
        status, headers, body = await exchange(source.port, request)
    finally:
        await source.stop()
        await running
    assert meets(status, expected["status"]), (status, body)
    if expected.get("connection_closed"):
        assert body == b""
    assert not set(expected.get("absent_headers", ())) & set(headers)
    events = await output.events()
    if "events" in expected:
        assert [body for body, _ in events] == expected["events"]
    if "metadata" in expected:
        assert [attributes for _, attributes in events] == expected["metadata"]
    for path, value in expected.get("json", {}).items():
        found = json.loads(body)
        for step in path.split("."):
            found = found[int(step)] if isinstance(found, list) else found[step]
        assert found == value, path
