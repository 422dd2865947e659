"""Starts the engine and the stub as processes of their own and reads what they cost from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


@dataclass
class Stub:
    process: subprocess.Popen[str]
    port: int

    def documents(self) -> int:
        return int(json.loads(get(self.port, "/_stats")[1])["documents"])

    def requests(self) -> int:
        return int(json.loads(get(self.port, "/_stats")[1])["requests"])

    def stats(self) -> dict[str, int]:
        return dict(json.loads(get(self.port, "/_stats")[1]))

    def marks(self) -> dict[str, Any]:
        """How the marked documents ended."""
        return dict(json.loads(get(self.port, "/_marks")[1]))

    def arrivals(self) -> dict[str, int]:
        return dict(json.loads(get(self.port, "/_arrivals")[1]))


@dataclass
class Engine:
    process: subprocess.Popen[bytes]
    port: int
    admin_port: int
    ready_s: float
    log: Path

    def cpu_s(self) -> float:
        whole = psutil.Process(self.process.pid)
        times = [whole.cpu_times(), *(child.cpu_times() for child in whole.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    def rss_mb(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


@contextlib.contextmanager
def stub(*options: str) -> Iterator[Stub]:
    """The endpoint of `bench.stub` in a process of its own, with its options."""
    command = [sys.executable, "-m", "bench.stub", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield Stub(process, int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@contextlib.contextmanager
def engine(
    processors: str,
    sink_port: int,
    sink_options: dict[str, Any] | None = None,
    *,
    units: int = 1,
    buffer_size: int = 12_800,
) -> Iterator[Engine]:
    """The engine with an http source, `processors` and an opensearch sink, ready to be posted to.

    `sink_options` come on top of those that name the server.
    """
    port, admin_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Path(folder) / "pipeline.yaml"
        sink = {"hosts": [f"http://127.0.0.1:{sink_port}"], "index": "logs", **(sink_options or {})}
        pipeline.write_text(
            f"bench:\n  source:\n    http:\n      port: {port}\n"
            f"  buffer: {{bounded_blocking: {{buffer_size: {buffer_size}}}}}\n  processor: {processors}\n"
            f"  sink:\n    - opensearch: {json.dumps(sink)}\n"
        )
        config = Path(folder) / "config.yaml"
        config.write_text(f"ssl: false\nserver_port: {admin_port}\n")
        log = Path(folder) / "log.txt"
        command = [sys.executable, "-m", "penstock.cli", "run", str(pipeline), "--config", str(config)]
        begin = time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--units", str(units), "--data-dir", str(Path(folder) / "data")],
                stdout=out,
                stderr=out,
                env={**os.environ, "PENSTOCK_BIND_HOST": "127.0.0.1"},
            )
            try:
                while True:
                    assert process.poll() is None, f"the engine ended:\n{log.read_text()}"
                    try:
                        if get(admin_port, "/ready")[0] == 200:
                            break
                    except OSError:
                        pass
                    assert time.monotonic() - begin < 30, f"the engine is not ready:\n{log.read_text()}"
                    time.sleep(0.005)
                yield Engine(process, port, admin_port, time.monotonic() - begin, log)
            finally:
                process.terminate()
                process.wait(30)


def post_all(port: int, bodies: list[bytes], connections: int = 2) -> None:
    """Replay prebuilt requests over raw sockets, one in flight per connection."""
    requests = [
        b"POST /log/ingest HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (len(body), body)
        for body in bodies
    ]
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(connections)]
    try:
        for link in sockets:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(requests), connections):
            group = requests[start : start + connections]
            for link, request in zip(sockets, group, strict=False):
                link.sendall(request)
            for link, _ in zip(sockets, group, strict=False):
                reply = link.recv(4096)
                assert reply.startswith(b"HTTP/1.1 200"), reply[:200]
    finally:
        for link in sockets:
            link.close()
