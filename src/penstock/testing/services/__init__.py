"""Real servers and emulators for tests, started from the package registries without containers.

    with OpenSearchServer() as opensearch, DynamoDbLocal() as dynamodb:
        run_pipeline(hosts=opensearch.url, endpoint=dynamodb.url)

| class              | what runs                                  | needs                    |
|--------------------|--------------------------------------------|--------------------------|
| `OpenSearchServer` | OpenSearch itself, one node                | a JDK 21 or newer, Maven |
| `DynamoDbLocal`    | DynamoDB Local, shard rollover on demand   | a JDK 17 or newer, Maven |
| `KafkaServer`      | Kafka itself, one broker                   | a JDK 17 or newer, Maven |
| `Moto`             | emulator: DynamoDB with PITR, S3, SQS, STS | nothing                  |
| `Ministack`        | emulator: DynamoDB, S3, SQS, STS, Kinesis  | nothing                  |
| `Osmem`            | OpenSearch look-alike in memory            | a wheel for the platform |

Each is a context manager, also an asynchronous one, that listens on a free loopback port and lives no longer than the
process that started it. What it needs is fetched once and kept in `cache_folder()`. A part that cannot run here raises
`ServiceUnavailable` with the reason; one that was started and does not answer raises `ServiceFailed` with its log.
"""

from penstock.testing.services.cache import cache_folder
from penstock.testing.services.dynamodb_local import DynamoDbLocal
from penstock.testing.services.emulators import Ministack, Moto, Osmem
from penstock.testing.services.kafka import KafkaServer
from penstock.testing.services.opensearch import OpenSearchServer
from penstock.testing.services.service import Service, ServiceFailed, ServiceUnavailable, free_port

__all__ = [
    "DynamoDbLocal",
    "KafkaServer",
    "Ministack",
    "Moto",
    "OpenSearchServer",
    "Osmem",
    "Service",
    "ServiceFailed",
    "ServiceUnavailable",
    "cache_folder",
    "free_port",
]
