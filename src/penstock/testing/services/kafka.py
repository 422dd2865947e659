"""Kafka itself: one broker that is its own controller."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from penstock.testing.services.jvm import Artifact, class_path, find_jdk, java_program
from penstock.testing.services.service import Command, Service, free_port, run_quietly

VERSION = "4.3.1"
"""The newest version whose dependencies are all published."""
_CLUSTER_ID = "cGVuc3RvY2stdGVzdHMtMQ"
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}
offsets.topic.num.partitions=5
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


class KafkaServer(Service):
    """A real broker without TLS and passwords. `address` is what clients are given."""

    name: ClassVar[str] = "kafka"

    def __init__(self, *, progress: Callable[[str], None] | None = None, ready_timeout_s: float = 120.0) -> None:
        super().__init__(progress=progress, ready_timeout_s=ready_timeout_s)
        self._java = ""
        self._program = Path()

    @property
    def address(self) -> str:
        """`127.0.0.1:<port>`."""
        return self.url.removeprefix("http://")

    def resolve(self) -> None:
        jdk = find_jdk(at_least=17)
        self._java = jdk.java
        self._program = java_program(
            f"kafka-{VERSION}",
            "KafkaBroker",
            [Artifact("org.apache.kafka", "kafka_2.13", VERSION)],
            jdk,
            lambda: self.progress(f"fetching Kafka {VERSION} (about 45 MB, once) …"),
        )

    def command(self, port: int, work: Path) -> Command:
        properties, data = work / "server.properties", work / "data"
        java = [self._java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", class_path(self._program)]
        properties.write_text(_PROPERTIES.format(port=port, controller=free_port(), folder=data))
        if not data.exists():
            tool = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(properties)]
            run_quietly([*java, *tool], cwd=work, what="formatting the folder of Kafka", timeout_s=120)
        return Command([*java, "KafkaBroker", str(properties)])

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
