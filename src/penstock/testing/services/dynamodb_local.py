"""DynamoDB Local: tables, and streams whose shards roll over when a test says so."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from penstock.testing.services.jvm import Artifact, class_path, find_jdk, java_program
from penstock.testing.services.service import Command, Service, ServiceFailed, ServiceUnavailable, free_port

VERSION = "3.1.0"
"""The newest version whose dependencies are all published."""

REGION = "ddblocal"
"""The region in its ARNs and stream records, whatever the client says."""

_MACHINE = platform.machine().lower()


class DynamoDbLocal(Service):
    """The local edition of DynamoDB with one database for all access keys and regions.

    Good to know: the time in stream records is cut to the whole minute; expired items leave a record without
    `userIdentity`; there are no backups, exports and imports; ARNs carry the region `ddblocal`, account 000000000000.
    """

    name: ClassVar[str] = "dynamodb-local"

    def __init__(
        self,
        *,
        data_folder: Path | None = None,
        progress: Callable[[str], None] | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        """`data_folder` keeps tables and streams over a restart; without it they live in memory."""
        super().__init__(progress=progress, ready_timeout_s=ready_timeout_s)
        self._data_folder = data_folder
        self._java = ""
        self._program = Path()
        self._control_port = 0

    def roll_shards_over(self) -> None:
        """Close every open stream shard; each gets one child."""
        self._control("/rollover")

    def age_stream_events(self, hours: int) -> None:
        """Move all stream events that many hours into the past, so that their shards close and records expire."""
        self._control(f"/age?{int(hours)}")

    def resolve(self) -> None:
        jdk = find_jdk(at_least=17)
        self._java = jdk.java
        self._program = java_program(
            f"dynamodb-local-{VERSION}",
            "DynamoDbLocalServer",
            _artifacts(),
            jdk,
            lambda: self.progress(f"fetching DynamoDB Local {VERSION} (about 50 MB, once) …"),
        )

    def command(self, port: int, work: Path) -> Command:
        self._control_port = free_port()
        if self._data_folder:
            self._data_folder.mkdir(parents=True, exist_ok=True)
        return Command(
            [
                self._java,
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "--enable-native-access=ALL-UNNAMED",
                f"-Dsqlite4java.library.path={self._program / 'native'}",
                "-cp",
                class_path(self._program),
                "DynamoDbLocalServer",
                str(port),
                str(self._control_port),
                str(self._data_folder.absolute()) if self._data_folder else "memory",
            ]
        )

    def is_ready(self) -> bool:
        # Both ports must listen; the control port answers an unknown path, DynamoDB an unsigned request.
        return self._request("GET", "/")[0] == 400 and self._request("GET", "/", port=self._control_port)[0] == 404

    def _control(self, path: str) -> None:
        if self.pid is None:
            raise ServiceFailed(f"{self.name} is not running")
        status, body = self._request("POST", path, port=self._control_port)
        if status != 200:
            raise ServiceFailed(f"{self.name} answered {status} to {path}: {body.decode(errors='replace')}")


def _artifacts() -> list[Artifact]:
    artifacts = [Artifact("software.amazon.dynamodb", "DynamoDBLocal", VERSION)]
    if _MACHINE in ("arm64", "aarch64"):
        if sys.platform != "darwin":
            raise ServiceUnavailable(f"no SQLite library for Java is published for {sys.platform} on {_MACHINE}")
        native = "libsqlite4java-osx-aarch64"
        artifacts.append(Artifact("io.github.ganadist.sqlite4java", native, "1.0.392", "dylib"))
    return artifacts
