"""OpenSearch itself: one node, started from its jars with the modules of the default distribution."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from penstock.testing.services.jvm import Artifact, class_path, find_jdk, java_program
from penstock.testing.services.service import Command, Service, free_port

VERSION = "3.8.0"
"""The newest version of which every module is published."""

_MODULES = (
    "transport-netty4-client",
    "analysis-common",
    "ingest-common",
    "ingest-user-agent",
    "mapper-extras-client",
    "lang-painless",
    "lang-expression",
    "lang-mustache-client",
    "reindex-client",
    "parent-join-client",
    "percolator-client",
    "geo",
    "aggs-matrix-stats-client",
)
_ARTIFACTS = (
    Artifact("org.opensearch", "opensearch", VERSION),
    Artifact("org.opensearch", "opensearch-plugin-classloader", VERSION),
    *(Artifact("org.opensearch.plugin", module, VERSION) for module in _MODULES),
    # The node needs these and none of the above asks for them.
    Artifact("org.apache.logging.log4j", "log4j-core", "2.25.4"),
    Artifact("org.locationtech.spatial4j", "spatial4j", "0.7"),
    Artifact("org.locationtech.jts", "jts-core", "1.15.0"),
)


class OpenSearchServer(Service):
    """A real OpenSearch node without security, index management, SQL and k-NN, which are not published as jars."""

    name: ClassVar[str] = "opensearch"

    def __init__(
        self, *, heap_mb: int = 512, progress: Callable[[str], None] | None = None, ready_timeout_s: float = 180.0
    ) -> None:
        super().__init__(progress=progress, ready_timeout_s=ready_timeout_s)
        self._heap_mb = heap_mb
        self._java = ""
        self._program = Path()

    def resolve(self) -> None:
        jdk = find_jdk(at_least=21)
        self._java = jdk.java
        self._program = java_program(
            f"opensearch-{VERSION}",
            "OpenSearchNode",
            _ARTIFACTS,
            jdk,
            lambda: self.progress(f"fetching OpenSearch {VERSION} (about 70 MB, once) …"),
        )

    def command(self, port: int, work: Path) -> Command:
        return Command(
            [
                self._java,
                f"-Xms{self._heap_mb}m",
                f"-Xmx{self._heap_mb}m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",  # tests are short: quick code now beats fast code later
                "-Xshare:auto",
                "--add-modules=jdk.incubator.vector",
                "--enable-native-access=ALL-UNNAMED",
                "-Dlog4j2.level=INFO",
                f"-Djava.io.tmpdir={work}",
                "-cp",
                class_path(self._program),
                "OpenSearchNode",
                str(work),
                str(port),
                str(free_port()),
            ]
        )

    def is_ready(self) -> bool:
        status, body = self._request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")
        return status == 200 and json.loads(body)["status"] != "red"
