"""The server configuration, `data-prepper-config.yaml`: every key of it is known.

A key either has its attribute here, or `warnings` says what replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, ValidationError, model_validator

from penstock import sdk
from penstock.config.documents import Located, bad_references
from penstock.config.nodes import MapNode, Node, YamlError, is_null, locate, read_nodes, scalars, value_of
from penstock.config.options import Subject, check_options, dotted
from penstock.config.references import References, parse_reference
from penstock.core.errors import Problem

TAGS_MAX = 3


def _rule(holds: Callable[[Any], bool], message: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _positive(message: str) -> AfterValidator:
    return _rule(lambda value: value > 0, message)


def _not_negative(message: str) -> BeforeValidator:
    """Durations cannot be written negative but in ISO 8601; the message of the key is clearer than theirs."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and "-" in value:
            raise ValueError(message)
        return value

    return BeforeValidator(check)


def _camel(name: str) -> Any:
    first, *rest = name.split("_")
    return Field(validation_alias=AliasChoices(name, first + "".join(word.capitalize() for word in rest)))


Registry = Literal["Prometheus", "CloudWatch", "EmbeddedMetricsFormat"]


def _prometheus() -> list[Registry]:
    return ["Prometheus"]


class HttpBasic(sdk.PluginConfig):
    username: str
    """Name that every request to the admin port must give."""
    password: sdk.Secret
    """Its password."""


class Authentication(sdk.PluginConfig):
    http_basic: HttpBasic | None = None
    """Name and password for every admin path."""
    unauthenticated: dict[str, Any] | None = None
    """Everybody may use the admin paths."""


class MetricTagFilter(sdk.PluginConfig):
    pattern: str
    """Ant-style pattern on dotted meter names."""
    tags: Annotated[
        dict[str, str],
        _rule(lambda tags: len(tags) <= TAGS_MAX, "Each metric tag filter may have no more than 3 tags."),
    ]
    """Tags of the meters that match, instead of the common ones."""


class EmfMetrics(sdk.PluginConfig):
    additional_properties: dict[str, str] = Field(default_factory=dict)
    """Extra properties of the embedded metric format."""


class HeapCircuitBreaker(sdk.PluginConfig):
    usage: Annotated[sdk.ByteSize, _positive("Bytes usage must be positive.")]
    """Used heap above which the breaker opens."""
    reset: sdk.Duration = 1.0
    """Shortest time the breaker stays open."""
    check_interval: sdk.Duration = 0.5
    """Time between looks at the heap."""


class CircuitBreakers(sdk.PluginConfig):
    heap: HeapCircuitBreaker | None = None
    """Breaker on the heap of the Java process."""


class DynamodbStoreOptions(sdk.PluginConfig):
    """Leases in a DynamoDB table, shared by units on several machines."""

    table_name: str
    """The table; it is made unless it is there."""
    region: str
    """Its region."""
    sts_role_arn: str | None = None
    """Role to assume; without it the credentials of the process."""
    sts_external_id: str | None = None
    """External id that the role's trust policy asks for."""
    sts_header_overrides: dict[str, str] | None = None
    """Further headers of the request that assumes the role."""
    skip_table_creation: bool = False
    """The table is there, and is not to be made."""
    provisioned_read_capacity_units: Annotated[int, Field(ge=1)] = 10
    """Read capacity of a table that is made."""
    provisioned_write_capacity_units: Annotated[int, Field(ge=1)] = 10
    """Write capacity of a table that is made."""
    ttl: sdk.Duration | None = None
    """How long finished items are kept, two days at least; without it for ever."""

    @model_validator(mode="before")
    @classmethod
    def _required(cls, value: Any) -> Any:
        for name in ("table_name", "region"):
            if isinstance(value, dict) and not value.get(name):
                raise ValueError(f"{name} is required for dynamo store settings")
        return value


class SourceCoordination(sdk.PluginConfig):
    store: dict[str, Any] = Field(default_factory=lambda: {"in_memory": None})
    """Where leases and checkpoints of pull sources are kept: a store by name with its options."""
    partition_prefix: str | None = None
    """Put before every coordination identifier."""

    @model_validator(mode="before")
    @classmethod
    def _has_store(cls, value: Any) -> Any:
        if isinstance(value, dict) and "store" in value and not value["store"]:
            raise ValueError("source_coordination store must not be null")
        return value

    @model_validator(mode="after")
    def _one_store(self) -> SourceCoordination:
        if len(self.store) != 1:
            raise ValueError("source_coordination store must name one store")
        (name,) = self.store
        if name not in ("in_memory", "dynamodb"):
            raise ValueError(f"source_coordination store {name} is not known: there are in_memory and dynamodb")
        try:
            self.dynamodb()
        except ValidationError as error:
            reasons = (": ".join([*map(str, found["loc"]), found["msg"]]) for found in error.errors())
            text = "; ".join(reason.removeprefix("Value error, ") for reason in reasons)
            raise ValueError(f"source_coordination store dynamodb: {text}") from None
        return self

    def dynamodb(self) -> DynamodbStoreOptions | None:
        """Options of the store in DynamoDB, None where leases are kept in the data directory."""
        if "dynamodb" not in self.store:
            return None
        return DynamodbStoreOptions.model_validate(self.store["dynamodb"] or {})


class EventSettings(sdk.PluginConfig):
    maximum_cached_keys: Annotated[int, Field(ge=0)] = 512
    """Size of a cache of parsed event keys."""


class Experimental(sdk.PluginConfig):
    enable_all: bool = False
    """Allow every experimental plugin."""
    enabled_plugins: dict[Literal["source", "buffer", "processor", "sink"], list[str]] = Field(default_factory=dict)
    """Experimental plugins that are allowed, by type."""

    def allows(self, kind: str, name: str) -> bool:
        return self.enable_all or name in dict(self.enabled_plugins).get(kind, ())  # type: ignore[call-overload]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class PeerForwarder(sdk.PluginConfig):
    port: Annotated[int, _rule(lambda port: 0 <= port <= 65535, "Server port should be between 0 and 65535.")] = 4994
    """Port peers send to."""
    request_timeout: Annotated[
        int, _rule(lambda ms: ms > 1, "Request timeout must be a positive integer greater than 1.")
    ] = 10000
    """Longest time a request takes in the server, ms."""
    client_timeout: Annotated[int, _positive("Client timeout must be a positive integer.")] = 60000
    """Longest time a request takes in the client, ms."""
    server_thread_count: Annotated[int, _positive("Server thread count must be a positive integer.")] = 200
    """Threads of the server."""
    client_thread_count: Annotated[int, _positive("Client thread count must be a positive integer.")] = 200
    """Threads of the client."""
    max_connection_count: Annotated[int, _positive("Maximum connection count must be a positive integer.")] = 500
    """Most open connections."""
    max_pending_requests: Annotated[int, _positive("Maximum pending requests must be a positive integer.")] = 1024
    """Most waiting requests."""
    ssl: bool = True
    """TLS between peers."""
    ssl_certificate_file: str = "config/default_certificate.pem"
    """Certificate chain."""
    ssl_key_file: str = "config/default_private_key.pem"
    """Private key."""
    ssl_insecure_disable_verification: bool = False
    """Trust any certificate."""
    ssl_fingerprint_verification_only: bool = False
    """Trust the certificate by its fingerprint."""
    authentication: dict[str, Any] | None = None
    """`mutual_tls` or `unauthenticated`."""
    use_acm_certificate_for_ssl: bool = False
    """Take the certificate from AWS Certificate Manager."""
    acm_certificate_arn: str | None = None
    """The certificate."""
    acm_private_key_password: sdk.Secret | None = None
    """Password of its key."""
    acm_certificate_timeout_millis: Annotated[int, _positive("ACM certificate timeout must be a positive integer")] = (
        120000
    )
    """Longest wait for it, ms."""
    discovery_mode: Annotated[Literal["static", "dns", "aws_cloud_map", "local_node"], BeforeValidator(_lower)] = (
        "local_node"
    )
    """How peers are found."""
    static_endpoints: list[str] = Field(default_factory=list)
    """Peers of mode static."""
    domain_name: str | None = None
    """Name to look up for mode dns."""
    aws_cloud_map_namespace_name: str | None = None
    """Namespace for mode aws_cloud_map."""
    aws_cloud_map_service_name: str | None = None
    """Service for mode aws_cloud_map."""
    aws_cloud_map_query_parameters: dict[str, str] = Field(default_factory=dict)
    """Filter for mode aws_cloud_map."""
    aws_region: str | None = None
    """Region of AWS services."""
    batch_size: Annotated[int, _positive("Batch size must be a positive integer.")] = 48
    """Records read at once."""
    batch_delay: Annotated[int, _rule(lambda ms: ms >= 0, "Batch delay must be a non-negative integer.")] = 3000
    """Longest wait for a batch, ms."""
    buffer_size: Annotated[int, _positive("Buffer size must be a positive integer.")] = 512
    """Records received and not yet read."""
    drain_timeout: Annotated[sdk.Duration, _not_negative("Peer forwarder drain timeout must be non-negative.")] = 10.0
    """Longest time of draining at the end."""
    failed_forwarding_requests_local_write_timeout: Annotated[
        int, _positive("Failed forwarding requests local write timeout must be a positive integer.")
    ] = 500
    """Longest wait to keep a record that could not be forwarded, ms."""
    forwarding_batch_size: Annotated[
        int,
        _rule(lambda size: 1 <= size <= 15000, "Forwarding batch size must be between 1 and 3000 inclusive."),
    ] = 1500
    """Records in one request."""
    forwarding_batch_queue_depth: Annotated[
        int, _positive("Forwarding batch queue depth must be a positive integer.")
    ] = 1
    """Batches waiting for one peer."""
    forwarding_batch_timeout: Annotated[
        sdk.Duration, _not_negative("Forwarding batch timeout must be non-negative.")
    ] = 3.0
    """Longest wait for a full request."""
    binary_codec: bool = True
    """Java serialisation instead of JSON."""
    exclude_identification_keys: list[list[str]] | None = None
    """Key sets whose records stay where they are."""

    @model_validator(mode="after")
    def _rules(self) -> PeerForwarder:
        for broken, message in (
            (self.discovery_mode == "dns" and self.domain_name is None,
             "Domain name cannot be null if discover mode is DNS."),
            (self.discovery_mode == "aws_cloud_map" and self.aws_cloud_map_namespace_name is None,
             "Cloud Map namespace cannot be null if discover mode is AWS Cloud Map."),
            (self.discovery_mode == "aws_cloud_map" and self.aws_cloud_map_service_name is None,
             "Cloud Map service name cannot be null if discover mode is AWS Cloud Map."),
            (self.use_acm_certificate_for_ssl and not self.acm_certificate_arn,
             "ACM certificate ARN cannot be empty if ACM certificate is ued for SSL."),
            ((self.discovery_mode == "aws_cloud_map" or self.use_acm_certificate_for_ssl) and self.aws_region is None,
             "AWS region cannot be null if discover mode is AWS Cloud Map or if ACM certificate for SLL is enabled."),
        ):  # fmt: skip
            if broken:
                raise ValueError(message)
        self._check_authentication()
        return self

    def _check_authentication(self) -> None:
        if self.authentication is None:
            return
        if len(self.authentication) != 1:
            raise ValueError("Invalid authentication configuration.")
        (name,) = self.authentication
        if name not in ("mutual_tls", "unauthenticated"):
            raise ValueError(f"Unrecognized ForwardingAuthentication: {name}")
        if name == "mutual_tls" and not self.ssl:
            raise ValueError("Mutual TLS is only available when SSL is enabled.")


class ServerConfig(sdk.PluginConfig):
    """What holds for the whole process."""

    ssl: bool = True
    """TLS on the admin port, where a key store is given."""
    key_store_file_path: Annotated[str, _camel("key_store_file_path")] = ""
    """JKS or PKCS12 key store of the admin port."""
    key_store_password: Annotated[sdk.Secret, _camel("key_store_password")] = sdk.Secret("")
    """Password of the key store."""
    private_key_password: Annotated[sdk.Secret, _camel("private_key_password")] = sdk.Secret("")
    """Password of the key in it."""
    server_port: Annotated[
        int,
        _camel("server_port"),
        _rule(lambda port: port >= 0, "Server port must be a positive integer"),
        _rule(lambda port: port <= 65535, "Server port should be between 0 and 65535."),
    ] = 4900
    """Port of the admin endpoints and of the metrics; 0 takes a free one, which the log names."""
    authentication: Authentication | None = None
    """Guard of every admin path."""
    metric_registries: Annotated[list[Registry], _camel("metric_registries")] = Field(default_factory=_prometheus)
    """Where meters are shown."""
    metric_tags: Annotated[
        dict[str, str],
        _camel("metric_tags"),
        _rule(lambda tags: len(tags) <= TAGS_MAX, "metricTags cannot be more than 3"),
    ] = Field(default_factory=dict)
    """Tags of every meter."""
    metric_tag_filters: list[MetricTagFilter] = Field(default_factory=list)
    """Tags of some meters instead of the common ones; the first pattern that matches decides."""
    disabled_metrics: list[str] = Field(default_factory=list)
    """Ant-style patterns of meters that are not wanted."""
    emf_metrics: EmfMetrics | None = None
    """Settings of the embedded metric format."""
    processor_shutdown_timeout: Annotated[
        sdk.Duration,
        _camel("processor_shutdown_timeout"),
        _not_negative("processorShutdownTimeout must be non-negative."),
    ] = 30.0
    """Longest time processors get to finish."""
    sink_shutdown_timeout: Annotated[
        sdk.Duration, _camel("sink_shutdown_timeout"), _not_negative("sinkShutdownTimeout must be non-negative.")
    ] = 30.0
    """Longest time sinks get to finish."""
    pipeline_shutdown: Literal["on-any-pipeline-failure", "on-all-pipeline-failures"] = "on-any-pipeline-failure"
    """When the whole process stops after pipelines have ended."""
    circuit_breakers: CircuitBreakers | None = None
    """Breakers of the Java process."""
    source_coordination: SourceCoordination = SourceCoordination()
    """Leases and checkpoints of pull sources."""
    event: EventSettings | None = None
    """Settings of events."""
    experimental: Experimental = Experimental()
    """Experimental plugins that may be used."""
    extensions: dict[str, Any] = Field(default_factory=dict)
    """Extensions of all pipelines; a pipeline file may replace some of them."""
    peer_forwarder: PeerForwarder | None = None
    """Hand-over of events between peers."""

    @model_validator(mode="after")
    def _tls_has_keys(self) -> ServerConfig:
        if self.ssl and "ssl" in self.model_fields_set and not self.key_store_file_path:
            raise ValueError("key_store_file_path must be given when ssl is enabled")
        return self

    @property
    def admin_tls(self) -> bool:
        """Whether the admin port speaks TLS: only where there is a key store."""
        return self.ssl and bool(self.key_store_file_path)


REPLACED = {
    "peer_forwarder": "events of one key meet inside the process; between machines use one Kafka topic keyed by the "
    "identification keys",
    "circuit_breakers": "memory is bounded by `buffer_bytes_max` of each pipeline (64mb unless set)",
    "emf_metrics": "read the Prometheus meters at /metrics/prometheus",
    "event": "event keys are compiled once when the pipeline is built, there is no cache to size",
}
"""Keys without a counterpart, and what is there instead."""


@dataclass(frozen=True, slots=True)
class ServerDocument:
    """A server configuration that was read: its model, and what is to be said about it."""

    config: ServerConfig
    extensions: Located | None = None
    root: Located | None = None
    """The whole file; None where there is none."""
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def read_server_config(path: str | Path | None, references: References | None = None) -> ServerDocument:
    """Read the file; without one everything has its default."""
    if path is None:
        return ServerDocument(ServerConfig())
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        problem = Problem(f"Invalid DataPrepper configuration file. {error.strerror or ''}".rstrip(), file=str(path))
        return ServerDocument(ServerConfig(), problems=(problem,))
    return parse_server_config(data, str(path), references)


def parse_server_config(data: bytes, file: str, references: References | None = None) -> ServerDocument:
    """The server configuration in a text."""
    references = references or References()
    try:
        root, _, duplicates = read_nodes(data)
    except YamlError as error:
        return ServerDocument(ServerConfig(), problems=(_unreadable(error, file),))
    if root is None or is_null(root):
        return ServerDocument(ServerConfig())
    if not isinstance(root, MapNode):
        problem = Problem("Invalid DataPrepper configuration file. Expected a map.", file=file, line=root.line)
        return ServerDocument(ServerConfig(), problems=(problem,))
    document = _check(root, file, references)
    return replace(document, problems=(*(_unreadable(error, file) for error in duplicates), *document.problems))


def _unreadable(error: YamlError, file: str) -> Problem:
    message = f"Invalid DataPrepper configuration file. {error}"
    return Problem(message, file=file, line=error.line, suggestion=error.suggestion)


def _check(root: MapNode, file: str, references: References) -> ServerDocument:
    def problem(path: tuple[str | int, ...], message: str, suggestion: str = "", severity: str = "error") -> Problem:
        return Problem(references.mask(message), dotted(path), file, locate(root, path), suggestion, severity)

    config, faults = check_options(ServerConfig, value_of(root, references.read), Subject())
    problems = [problem(fault.path, fault.message, fault.suggestion, fault.severity) for fault in faults]
    problems += [problem(path, reason) for path, reason in bad_references(Located("", root, file, 1))]
    problems += [problem(path, reason) for path, reason in _unresolved(root, references)]
    warnings = [
        problem((key,), f"{key} has no effect here.", replacement, "warning")
        for key, replacement in REPLACED.items()
        if key in root.entries and not is_null(root.entries[key].node)
    ]
    if config is not None and set(config.metric_registries) - {"Prometheus"}:
        text = "Only the Prometheus registry is served; CloudWatch and EmbeddedMetricsFormat have no effect here."
        path = next(key for key in ("metric_registries", "metricRegistries") if key in root.entries)
        warnings.append(problem((path,), text, "read the meters at /metrics/prometheus", "warning"))
    extensions = root.entries.get("extensions")
    located = None if extensions is None else Located("extensions", extensions.node, file, extensions.line)
    errors = tuple(found for found in problems if found.severity == "error")
    warnings += [found for found in problems if found.severity != "error"]
    return ServerDocument(config or ServerConfig(), located, Located("", root, file, 1), errors, tuple(warnings))


def _unresolved(root: Node, references: References) -> list[tuple[tuple[str | int, ...], str]]:
    found = []
    for path, scalar in scalars(root):
        try:
            reference = parse_reference(scalar.text)
        except ValueError:
            continue
        reason = references.problem(reference) if reference is not None else None
        if reason is not None:
            found.append((path, reason))
    return found
