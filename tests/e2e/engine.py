"""`penstock run` as a user starts it: a process of its own, its log, its admin endpoints, and its end.

    engine = start_engine(PIPELINES, environ={"PENSTOCK_OPENSEARCH_HOSTS": opensearch.url})
    engine.wait_ready()
    ...
    engine.stop()  # SIGTERM; the exit code must be 0

`start_engine` is a fixture: what it started is killed after the test, and a failed test shows the logs.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")

ON_HOST = """
import runpy, socket, sys
host = sys.argv.pop(1)
socket.gethostname = lambda: host
runpy.run_module("penstock.cli", run_name="__main__", alter_sys=True)
"""
"""`penstock` on a machine of another name, as far as it can tell."""
WAIT_S = 60.0
ADMIN_PORT = re.compile(r"Admin endpoints on port (\d+)")
BUGS = ("Traceback", "was never awaited", "was never retrieved", "Task was destroyed", "failed unexpectedly")
"""What a log never holds, however the surroundings behave."""


def wait_until(condition: Callable[[], _T], what: str, *, timeout_s: float = WAIT_S, step_s: float = 0.02) -> _T:
    """The first true result of `condition`. Raises `AssertionError` that names `what` was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(step_s)


class Engine:
    """One run of the engine. The folder outlives it, so that another run can go on where this one ended."""

    def __init__(
        self,
        folder: Path,
        pipelines: str | Mapping[str, str],
        *,
        config: str = "ssl: false\nserver_port: 0\n",
        environ: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        log_name: str = "engine.log",
        host: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = folder / "data"
        self.log_path = folder / log_name
        definition = folder / "pipelines.yaml"
        if isinstance(pipelines, str):
            definition.write_text(pipelines)
        else:
            definition = folder / "pipelines"
            definition.mkdir(exist_ok=True)
            for name, text in pipelines.items():
                (definition / name).write_text(text)
        settings = folder / "data-prepper-config.yaml"
        settings.write_text(config)
        self._argv = [
            *(sys.executable, *(("-m", "penstock.cli") if host is None else ("-c", ON_HOST, host))),
            *("run", str(definition)),
            *("--config", str(settings), "--data-dir", str(self.data_dir)),
            *arguments,
        ]
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PENSTOCK_"))},
            "AWS_ACCESS_KEY_ID": "123456789012",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PENSTOCK_BIND_HOST": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0

    def start(self) -> Engine:
        self.started_s = time.monotonic()
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ
            )
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # while it runs

    @property
    def admin_port(self) -> int:
        self.wait_log(ADMIN_PORT.pattern)
        found = ADMIN_PORT.search(self.log)
        assert found
        return int(found[1])

    def wait_log(self, pattern: str, *, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until the log holds `pattern` so many times."""
        wanted = re.compile(pattern)

        def there() -> bool:
            if len(wanted.findall(self.log)) >= count:
                return True
            assert self.process.poll() is None, f"it ended with {self.process.returncode} before {pattern!r}"
            return False

        wait_until(there, f"{pattern!r} in the log", timeout_s=timeout_s)

    def ask(self, method: str, path: str, *, timeout_s: float = WAIT_S) -> tuple[int, str]:
        """Status and body of a call to the admin endpoints."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=timeout_s)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def wait_ready(self) -> Engine:
        """Wait until every source takes data."""
        wait_until(lambda: self.ask("GET", "/ready")[0] == 200, "the engine to be ready")
        return self

    def status(self) -> dict[str, Any]:
        """State of each pipeline, by name."""
        pipelines = json.loads(self.ask("GET", "/status")[1])["pipelines"]
        return {pipeline["name"]: pipeline for pipeline in pipelines}

    def meter(self, name: str) -> float:
        """Value of a meter, as the Prometheus page names it; 0 while it is not there."""
        found = re.search(rf"^{re.escape(name)}{{[^}}]*}} (\S+)$", self.ask("GET", "/metrics/prometheus")[1], re.M)
        return float(found[1]) if found else 0.0

    def dead_letters(self, pipeline: str) -> list[dict[str, Any]]:
        file = self.data_dir / "dead-letters" / f"{pipeline}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    # its end

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, *, timeout_s: float = WAIT_S) -> int:
        """Exit code, once it has ended."""
        return self.process.wait(timeout_s)

    def stop(self, *, code: int = 0) -> None:
        """SIGTERM, the drain, the exit code; and nothing in the log that hints at a bug."""
        self.signal()
        assert self.wait() == code
        self.check_log()

    def kill(self) -> None:
        """Kill -9: no drain, no goodbye."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def check_log(self) -> None:
        found = [sign for sign in BUGS if sign in self.log]
        assert not found, f"the log tells of {found}"
