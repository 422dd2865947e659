"""Servers from the Python package index, each in a virtual environment of its own.

They pin versions of the AWS libraries that Penstock does not want to be held to.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from penstock.testing.services.cache import made_once
from penstock.testing.services.service import Command, Service, ServiceUnavailable, run_quietly

_LAUNCHER = Path(__file__).with_name("run_until_stdin_closes.py")


class PythonServer(Service):
    """A server that `pip` installs."""

    requirement: ClassVar[str]
    """What is installed, pinned."""
    download: ClassVar[str]
    """Size of the download, as told to the user."""

    def __init__(self, *, progress: Callable[[str], None] | None = None, ready_timeout_s: float = 60.0) -> None:
        super().__init__(progress=progress, ready_timeout_s=ready_timeout_s)
        self._environment = Path()

    def resolve(self) -> None:
        def make(folder: Path) -> None:
            self.progress(f"fetching {self.requirement} ({self.download}, once) …")
            run_quietly([sys.executable, "-m", "venv", str(folder)], cwd=folder, what="making a virtual environment")
            pip = [_python(folder), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]
            run_quietly(
                [*pip, "--only-binary", ":all:", self.requirement], cwd=folder, what=f"installing {self.requirement}"
            )

        recipe = "\n".join([self.requirement, sys.executable, sys.version, platform.machine()])
        self._environment = made_once(
            self.name, recipe, make, still_good=lambda folder: os.access(_python(folder), os.X_OK)
        )

    def _run_main(self, entry: str, *arguments: str) -> list[str]:
        # -P keeps the launcher's own folder out of the module search.
        return [_python(self._environment), "-P", str(_LAUNCHER), entry, *arguments]


class Moto(PythonServer):
    """Emulates DynamoDB with point-in-time recovery, S3, SQS, STS and more, for account 123456789012.

    Good to know: a put that changes nothing still makes a stream record; times in records have milliseconds; a stream
    has one shard for ever.
    """

    name: ClassVar[str] = "moto"
    requirement: ClassVar[str] = "moto[server]==5.2.5"
    download: ClassVar[str] = "about 60 MB"

    def command(self, port: int, work: Path) -> Command:
        arguments = self._run_main("moto.server:main", "-H", "127.0.0.1", "-p", str(port))
        return Command(arguments, {"PYTHONUNBUFFERED": "1"})

    def is_ready(self) -> bool:
        return self._request("GET", "/moto-api/data.json")[0] == 200

    def reset(self) -> None:
        """Forget all tables, buckets and queues."""
        self._request("POST", "/moto-api/reset")


class Ministack(PythonServer):
    """Emulates DynamoDB, S3, SQS, STS, Kinesis and more.

    An access key of twelve digits chooses the account; with any other key it is 000000000000. Roles assumed through
    its STS belong to the account in their ARN. Times in stream records are whole seconds, as in the service.
    """

    name: ClassVar[str] = "ministack"
    requirement: ClassVar[str] = "ministack==1.5.33"
    download: ClassVar[str] = "about 40 MB"

    def command(self, port: int, work: Path) -> Command:
        environment = {
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "0",  # else it also opens 8883 on all interfaces
            "PYTHONUNBUFFERED": "1",
        }
        return Command(self._run_main("ministack.app:main"), environment)

    def is_ready(self) -> bool:
        return self._request("GET", "/_ministack/health")[0] == 200


class Osmem(PythonServer):
    """An OpenSearch look-alike that keeps everything in memory and answers in milliseconds.

    It has bulk requests with external versions, templates, aliases, search and aggregations; it has no scripts, data
    streams, rollover, ingest pipelines nor security.
    """

    name: ClassVar[str] = "osmem"
    requirement: ClassVar[str] = "osmem-server==0.1.6"
    download: ClassVar[str] = "about 20 MB"

    def resolve(self) -> None:
        super().resolve()
        if self._program() is None:
            raise ServiceUnavailable(f"{self.requirement} brings no program for {sys.platform} on {platform.machine()}")

    def command(self, port: int, work: Path) -> Command:
        program = self._program()
        assert program is not None
        # Without -no-ja the first index loads a Japanese dictionary: 0.8 s and 170 MB.
        return Command([program, "-addr", f"127.0.0.1:{port}", "-no-ja"])

    def is_ready(self) -> bool:
        return self._request("GET", "/")[0] == 200

    def _program(self) -> str | None:
        for package in self._environment.glob("lib/python*/site-packages/osmem_server/bin"):
            return shutil.which("osmem-server", path=str(package))
        return None


def _python(environment: Path) -> str:
    return str(environment / "bin" / "python")
