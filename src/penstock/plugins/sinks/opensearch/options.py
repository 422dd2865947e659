"""Options of the `opensearch` sink, with Data Prepper's names, defaults, rules and messages."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from penstock import sdk
from penstock.lib.aws import ObjectAddress
from penstock.lib.http_client import HttpClient
from penstock.lib.index_name import compile_index_name
from penstock.plugins.sinks.opensearch.index_types import INDEX_TYPES

ACTIONS = ("create", "upsert", "update", "delete", "index")
LANGUAGES = ("english", "multilingual")
VERSION_TYPES = ("internal", "external", "external_gte")
_PROXY = re.compile(r"(?:(?P<scheme>[a-z]+)://)?(?P<host>\[[0-9a-fA-F:]+\]|[^:/\[\]]+):(?P<port>\d{1,5})/?")


_TEMPLATE: TypeAdapter[Any] = TypeAdapter(sdk.Template, config=ConfigDict(arbitrary_types_allowed=True))


def compile_template(text: str) -> Any:
    """The compiled form of a text with `${…}` parts. Raises ValueError when it is malformed."""
    try:
        return _TEMPLATE.validate_python(text)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None


def _length(low: int, high: int | None, message: str) -> Any:
    """A text of `low` to `high` characters, else the error is `message`."""

    def check(value: str | None) -> str | None:
        if value is not None and (len(value) < low or (high is not None and len(value) > high)):
            raise ValueError(message)
        return value

    return check


class Authentication(sdk.PluginConfig):
    username: str | None = None
    """User name for basic authentication."""
    password: sdk.Secret | None = None
    """Its password."""
    api_token: sdk.Secret | None = None
    """Token sent as `Authorization: bearer <token>`."""
    client_certificate: str | None = None
    """Client certificate for mutual TLS: PEM text, or the path of a PEM file."""
    client_key: sdk.Secret | None = None
    """Its private key: PEM text, or the path of a PEM file."""

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Authentication:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError(
                "client_certificate and client_key must both be provided when using client certificate authentication."
            )
        return self


class ServerlessOptions(sdk.PluginConfig):
    network_policy_name: str | None = None
    """Network policy to create or extend. Nothing is done unless all three are given."""
    collection_name: str | None = None
    """Collection the policy applies to."""
    vpce_id: str | None = None
    """VPC endpoint to allow."""

    _name = field_validator("network_policy_name")(
        _length(3, 32, "network_policy_name should have minimum length of 3 and maximum length of 32")
    )
    _collection = field_validator("collection_name")(
        _length(3, 32, "collection_name should have minimum length of 3 and maximum length of 32")
    )
    _endpoint = field_validator("vpce_id")(_length(1, None, "vpce_id cannot be empty"))


class QueryLookup(sdk.PluginConfig):
    query_when: sdk.ValueExpression
    """Documents to search for before they are written."""
    query_term: sdk.ReadKey
    """Key whose value tells whether two documents are the same; a keyword or number in the mapping."""
    query_duration: sdk.Duration = 180.0
    """How long to search, every 20 s, before a document that was not found is written."""
    query_on_bulk_errors: bool = False
    """Search also for the documents of requests that failed in a way which may hide a success."""
    async_limit: Annotated[int, Field(ge=1)] = 5000
    """Documents searched for at once."""


class SemanticField(sdk.PluginConfig):
    name: sdk.NonEmpty[str]
    """Field whose text is to be found by its meaning."""
    language: str
    """Language of its text: `english` or `multilingual`."""

    @field_validator("language")
    @classmethod
    def _known(cls, value: str) -> str:
        if value.lower() not in LANGUAGES:
            raise ValueError(f"Invalid semantic enrichment language: {value}. Valid values are: {', '.join(LANGUAGES)}")
        return value.lower()


class SemanticEnrichment(sdk.PluginConfig):
    fields: sdk.NonEmpty[list[SemanticField]]
    """Fields of the index that become semantic ones."""


class KafkaEngine(sdk.PluginConfig):
    bootstrap_servers: sdk.NonEmpty[list[sdk.NonEmpty[str]]]
    """Addresses of brokers, such as `localhost:9092`."""


class PullEngine(sdk.PluginConfig):
    kafka: KafkaEngine
    """Write to the Kafka topic that the index reads from."""


class PullIndexing(sdk.PluginConfig):
    engine: PullEngine
    """Where the cluster pulls from."""


class Aws(sdk.PluginConfig):
    region: str = "us-east-1"
    """Region that requests are signed for."""
    sts_role_arn: str | None = None
    """Role to assume; without it the default chain of credentials is used."""
    sts_external_id: str | None = None
    """External id given when the role is assumed."""
    sts_header_overrides: dict[str, str] | None = None
    """Further headers of the request that assumes the role."""
    serverless: bool = False
    """The target is an OpenSearch Serverless collection."""
    resource_name: str | None = None
    """Name of the domain, or id of the collection, for `semantic_enrichment`; read from the first host if left out."""
    serverless_options: ServerlessOptions | None = None
    """Network policy of a serverless collection to create or extend at the start."""
    semantic_enrichment: SemanticEnrichment | None = None
    """Have the service create the index with semantic fields, if it does not exist. Not for indexes that roll over."""

    _region = field_validator("region")(_length(1, None, "Region cannot be empty string"))
    _role = field_validator("sts_role_arn")(
        _length(20, 2048, "awsStsRoleArn length should be between 1 and 2048 characters")
    )
    _external_id = field_validator("sts_external_id")(
        _length(2, 1224, "awsStsExternalId length should be between 2 and 1224 characters")
    )

    @field_validator("sts_header_overrides")
    @classmethod
    def _few_headers(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        return _header_overrides(value)

    @field_validator("sts_role_arn")
    @classmethod
    def _is_role(cls, value: str | None) -> str | None:
        return _role_arn(value)


class Action(sdk.PluginConfig):
    type: sdk.NonEmpty[str]
    """`create`, `upsert`, `update`, `delete`, `index`, or a text with `${…}` that gives one of them."""
    when: sdk.When = sdk.ALWAYS
    """Events this entry is for; all when left out."""

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        return _action(value, f'action "{value}". action must be one of the following: [{", ".join(ACTIONS)}]')


class Script(sdk.PluginConfig):
    source: sdk.NonEmpty[str]
    """Painless source. The document is its parameter `doc`. Blank lines and lines that are comments are left out."""
    params: dict[str, Any] | None = None
    """Further parameters; a text with `${…}` is filled per event."""


class Config(sdk.PluginConfig):
    hosts: list[str]
    """Addresses such as `https://search.example:9200`. Requests go to each in turn."""
    index: str | None = None
    """Index or alias. `${key}` and `${expression}` are filled per event, one `%{date pattern}` with the time in UTC."""
    index_type: str | None = None
    """What the sink sets up: `custom` (default: its template and the index), `management_disabled` (nothing; default
    for serverless collections), or one of the built-in types with their own alias, template and rollover policy."""
    username: str | None = None
    """User name for basic authentication."""
    password: sdk.Secret | None = None
    """Its password."""
    api_token: sdk.Secret | None = None
    """Token sent as `Authorization: bearer <token>`."""
    authentication: Authentication | None = None
    """Credentials as a block; not together with `username` and `password`."""
    aws: Aws | None = None
    """Sign requests with SigV4, for Amazon OpenSearch Service domains and serverless collections."""
    cert: str | None = None
    """Path of the CA certificates that the servers are checked against."""
    insecure: bool = False
    """Do not check the certificates of the servers."""
    proxy: str | None = None
    """Forward proxy as `host:port` or `http://host:port`."""
    path_prefix: str | None = None
    """Put before the path of every request."""
    socket_timeout: Annotated[int | None, Field(gt=0)] = None
    """Milliseconds to wait for an answer; 60000 when left out."""
    connect_timeout: Annotated[int | None, Field(gt=0)] = None
    """Milliseconds to wait for a connection; 10000 when left out."""
    distribution_version: str = "default"
    """`es6` for Elasticsearch 6: bulk requests with a document type, v1 templates, no request compression."""
    enable_request_compression: bool | None = None
    """Send bodies as gzip. Default true, false with `distribution_version: es6`."""
    template_type: Literal["v1", "index-template"] = "v1"
    """`v1` for `_template`, `index-template` for `_index_template` (always used for serverless collections)."""
    template_file: str | None = None
    """Path or `s3://bucket/key` of a JSON file with the index template. S3 is read with the role under `aws`."""
    template_content: str | None = None
    """The index template as JSON text; wins over `template_file`."""
    number_of_shards: int = 0
    """Put into the settings of the template where it has none; 0 leaves it to the server."""
    number_of_replicas: int = 0
    """Put into the settings of the template where it has none; 0 leaves it to the server."""
    ism_policy_file: str | None = None
    """Path or `s3://bucket/key` of a JSON file with an index-state-management policy, for `index_type: custom`. The
    index becomes a write alias whose first index ends in `-000001`."""
    bulk_size: int = 5
    """Size of a bulk request in MiB. 0: one document each. Negative: no limit but the 100 MiB that servers take."""
    estimate_bulk_size_using_compression: bool = False
    """Let `bulk_size` mean the compressed size."""
    max_local_compressions_for_estimation: Annotated[int, Field(ge=0)] = 2
    """Accepted; the compressed size is learned from the requests sent."""
    flush_timeout: int = 60_000
    """Longest wait for a fuller request in milliseconds; -1 sends at once. An idle sink never waits."""
    action: str = "index"
    """`create`, `upsert`, `update`, `delete`, `index`, or a text with `${…}` that gives one of them."""
    actions: list[Action] | None = None
    """Actions with conditions: the first that matches is used, `action` where none does. (Data Prepper uses the last
    entry where none matches.)"""
    document_id: sdk.Template | None = None
    """Id of the document. Where it cannot be filled, OpenSearch makes an id."""
    document_id_field: sdk.ReadKey | None = None
    """Deprecated, use `document_id`: key of the value that is the id."""
    routing: sdk.Template | None = None
    """Routing of the document."""
    routing_field: sdk.ReadKey | None = None
    """Deprecated, use `routing`: key of the value that is the routing."""
    document_version: str | None = None
    """Version of the document, filled per event; must give a whole number."""
    document_version_type: str | None = None
    """`internal`, `external` or `external_gte`. With an external type, late and repeated events never overwrite newer
    documents: the server refuses them, which counts as success (`documentsVersionConflictErrors`)."""
    document_root_key: sdk.ReadKey | None = None
    """Only this part of the event is written; the whole event where it is missing. A value that is no object is written
    as `{"data": value}`."""
    normalize_index: bool = False
    """Make filled index names legal: lower case, without forbidden characters and leading `_` and `-`."""
    script: Script | None = None
    """Update documents by a script; only with the actions `update` and `upsert`."""
    max_retries: int | None = None
    """Attempts for a document before it is a dead letter; unlimited when left out."""
    dlq_file: str | None = None
    """File that receives dead letters, for each a line `{"Document": [record], "failure": reason}`; with its older
    parts `.1` … `.15` at most 1 GiB."""
    dlq: sdk.DeadLetterQueue = None
    """Where documents go that were refused: `s3` with its options. Without it, and without `dlq_file`, they go to the
    pipeline `dlq_pipeline` where there is one, else to a file in the data directory."""
    query_lookup: QueryLookup | None = None
    """Search for documents that may be there already before writing them; for targets without ids of their own."""
    pull_indexing: PullIndexing | None = None
    """Write to the stream that the index reads from, instead of bulk requests. The index must exist; `document_id` and
    `document_version` are needed."""
    aws_sigv4: bool = False
    """Deprecated, use `aws`."""
    aws_region: str = "us-east-1"
    """Deprecated, use `aws.region`."""
    aws_sts_role_arn: str | None = None
    """Deprecated, use `aws.sts_role_arn`."""
    aws_sts_external_id: str | None = None
    """Deprecated, use `aws.sts_external_id`."""
    aws_sts_header_overrides: dict[str, str] | None = None
    """Deprecated, use `aws.sts_header_overrides`."""
    serverless: bool = False
    """Deprecated, use `aws.serverless`."""
    serverless_options: ServerlessOptions | None = None
    """Deprecated, use `aws.serverless_options`."""

    _region = field_validator("aws_region")(_length(1, None, "Region cannot be empty string"))
    _role = field_validator("aws_sts_role_arn")(
        _length(20, 2048, "awsStsRoleArn length should be between 1 and 2048 characters")
    )
    _external_id = field_validator("aws_sts_external_id")(
        _length(2, 1224, "awsStsExternalId length should be between 2 and 1224 characters")
    )

    @field_validator("aws_sts_header_overrides")
    @classmethod
    def _few_headers(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        return _header_overrides(value)

    @field_validator("aws_sts_role_arn")
    @classmethod
    def _is_role(cls, value: str | None) -> str | None:
        return _role_arn(value)

    @model_validator(mode="before")
    @classmethod
    def _hosts_given(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("hosts") is None:
            raise ValueError("hosts cannot be null")
        return data

    @field_validator("hosts")
    @classmethod
    def _some_hosts(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("hosts cannot be empty list")
        try:
            HttpClient(value)
        except sdk.ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("template_file", "ism_policy_file")
    @classmethod
    def _file_address(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("s3://"):
            ObjectAddress.parse(value)
        return value

    @field_validator("index_type")
    @classmethod
    def _known_index_type(cls, value: str | None) -> str | None:
        if value is not None and value not in INDEX_TYPES:
            raise ValueError(f"Value of the parameter, index_type, must be from the list: [{', '.join(INDEX_TYPES)}]")
        return value

    @field_validator("distribution_version")
    @classmethod
    def _known_distribution(cls, value: str) -> str:
        if value not in ("default", "es6"):
            raise ValueError(f"Invalid distribution_version value: {value}")
        return value

    @field_validator("proxy")
    @classmethod
    def _proxy_has_port(cls, value: str | None) -> str | None:
        if value is not None:
            found = _PROXY.fullmatch(value)
            if found is None or not 0 < int(found["port"]) <= 65535:
                raise ValueError("Invalid or missing proxy port.")
        return value

    @field_validator("template_content")
    @classmethod
    def _template_is_object(cls, value: str | None) -> str | None:
        if value is not None:
            parse_template(value)
        return value

    @field_validator("action")
    @classmethod
    def _known_action(cls, value: str) -> str:
        names = ", ".join(ACTIONS)
        return _action(value, f'action "{value}" is invalid. action must be one of the following: [{names}]')

    @field_validator("document_root_key", mode="before")
    @classmethod
    def _root_key_given(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("documentRootKey cannot be empty string")
        return value

    @field_validator("document_version")
    @classmethod
    def _version_is_format(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "${" not in value:
            raise ValueError(
                f'document_version {value} is invalid. It must be in the format of "${{/key}}" or "${{expression}}"'
            )
        if not sdk.valid_format(value):
            raise ValueError(f'document_version "{value}" is not a valid format expression.')
        return value

    @field_validator("document_version_type")
    @classmethod
    def _known_version_type(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value.lower() not in VERSION_TYPES:
            raise ValueError(
                f"version_type {value} is invalid. version_type must be one of: [{', '.join(VERSION_TYPES)}]"
            )
        return value.lower()

    @field_validator("max_retries")
    @classmethod
    def _some_retries(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("max_retries must be > 1")
        return value

    @model_validator(mode="after")
    def _rules(self) -> Config:
        broken = [message for broken, message in self._broken_rules() if broken]
        if broken:
            raise ValueError(" ".join(broken))
        if self.alias is None:
            raise ValueError("Missing required properties:indexAlias")
        if not self.alias:
            raise ValueError("indexAlias cannot be empty")
        compile_index_name(self.alias, normalize=self.normalize_index)
        if self.aws is not None and self.aws.semantic_enrichment is not None:
            self._check_semantic_enrichment(self.aws)
        return self

    def _check_semantic_enrichment(self, aws: Aws) -> None:
        if self.kind not in ("custom", "management_disabled") or self.ism_policy_file is not None:
            raise ValueError(
                "semantic_enrichment needs index_type custom or management_disabled, without ism_policy_file: the "
                "service creates plain indexes only"
            )
        resource_name(aws, self.hosts[0])

    def _broken_rules(self) -> list[tuple[bool, str]]:
        aws = self.aws is not None
        pull = self.pull_indexing is not None
        types = [self.action, *(entry.type for entry in self.actions or ())]
        index = self.alias or ""
        preferred = "It is preferred to only use aws option as"
        return [
            (
                self.authentication is not None and (self.username is not None or self.password is not None),
                "username and password should not be set when authentication is configured.",
            ),
            (
                self.script is not None and "${" not in self.action and self.action not in ("update", "upsert"),
                "script can only be used with update or upsert actions.",
            ),
            (
                self.script is not None and self.document_version_type in ("external", "external_gte"),
                f"document_version_type '{self.document_version_type}' is incompatible with script configuration. "
                "OpenSearch does not support external versioning with scripted upserts.",
            ),
            (
                pull and ("update" in types or "upsert" in types),
                "pull_indexing does not support update or upsert actions. Only index, create, and delete are "
                "supported.",
            ),
            (
                pull and ("${" in index or "%{" in index),
                "pull_indexing does not support dynamic index expressions. The index must be a static name.",
            ),
            (
                pull and self.document_id is None and self.document_id_field is None,
                "document_id is required for pull-based ingestion",
            ),
            (pull and self.document_version is None, "document_version is required for pull-based ingestion"),
            (pull and self.query_lookup is not None, "query_lookup has no effect on pull_indexing"),
            (
                self.dlq is not None and self.dlq_file is not None,
                "dlq_file option cannot be used along with dlq option",
            ),
            (
                aws and self.aws_sigv4,
                f"aws_sigv4 option cannot be used along with aws option. {preferred} aws_sigv4 is deprecated.",
            ),
            (
                aws and self.aws_sts_role_arn is not None,
                f"aws_sts_role_arn cannot be used along with aws option. {preferred} aws_sts_role_arn is deprecated.",
            ),
            (
                aws and self.aws_sts_external_id is not None,
                f"aws_sts_external_id cannot be used along with aws option. {preferred} aws_sts_external_id is "
                "deprecated.",
            ),
            (
                aws and self.aws_sts_header_overrides is not None,
                f"aws_sts_header_overrides cannot be used along with aws option. {preferred} aws_sts_header_overrides "
                "is deprecated.",
            ),
            (
                aws and self.serverless,
                f"serverless cannot be used along with aws option. {preferred} serverless is deprecated.",
            ),
            (
                aws and self.serverless_options is not None,
                f"serverless_options cannot be used along with aws option.  {preferred} serverless_options is "
                "deprecated.",
            ),
            (
                self.document_id is not None and self.document_id_field is not None,
                "Both document_id_field and document_id cannot be used at the same time. It is preferred to only use "
                "document_id as document_id_field is deprecated.",
            ),
        ]

    @property
    def is_serverless(self) -> bool:
        return self.aws.serverless if self.aws is not None else self.serverless and self.aws_sigv4

    @property
    def kind(self) -> str:
        """The index type in force."""
        if self.index_type is not None:
            return self.index_type
        return "management_disabled" if self.is_serverless else "custom"

    @property
    def alias(self) -> str | None:
        """The index or alias written to, as configured; built-in types have their own."""
        return INDEX_TYPES[self.kind].alias or self.index

    @property
    def is_es6(self) -> bool:
        return self.distribution_version == "es6"

    @property
    def compresses(self) -> bool:
        if self.enable_request_compression is None:
            return not self.is_es6
        return self.enable_request_compression

    @property
    def composable_template(self) -> bool:
        """Whether templates are put as `_index_template`."""
        return self.is_serverless or (not self.is_es6 and self.template_type == "index-template")

    @property
    def signing(self) -> Aws | None:
        """How requests are signed; None when they are not."""
        if self.aws is not None:
            return self.aws
        if not self.aws_sigv4:
            return None
        return Aws(
            region=self.aws_region,
            sts_role_arn=self.aws_sts_role_arn,
            sts_external_id=self.aws_sts_external_id,
            sts_header_overrides=self.aws_sts_header_overrides,
            serverless=self.serverless,
            serverless_options=self.serverless_options,
        )


def resource_name(aws: Aws, host: str) -> str:
    """The domain or collection that the control plane knows. Raises ValueError where the address does not tell it."""
    if aws.resource_name:
        return aws.resource_name
    hostname = urlsplit(host).hostname or ""
    label = hostname.partition(".")[0]
    if aws.serverless:
        return label
    domain, hyphen, _ = re.sub("^(search|vpc)-", "", label).rpartition("-")
    if not (domain and hyphen):
        raise ValueError(f"Unable to extract domain name from host: {hostname}. Please set aws.resource_name")
    return domain


def parse_template(text: str) -> dict[str, Any]:
    """The template in `template_content`. Raises ValueError with Data Prepper's message."""
    try:
        template = json.loads(text)
    except ValueError as error:
        raise ValueError(f"template_content is invalid: {error}") from None
    if not isinstance(template, dict):
        raise ValueError("template_content is invalid: it is no JSON object")
    return template


def _action(value: str, message: str) -> str:
    if "${" in value:
        if not sdk.valid_format(value):
            raise ValueError(message)
        return value
    if value.lower() not in ACTIONS:
        raise ValueError(message)
    return value.lower()


def _header_overrides(value: dict[str, str] | None) -> dict[str, str] | None:
    if value is not None and len(value) > 5:
        raise ValueError("sts_header_overrides supports a maximum of 5 headers to override")
    return value


def _role_arn(value: str | None) -> str | None:
    if value is None or len(value) < 20:
        return value
    parts = value.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn" or not all((parts[1], parts[2], parts[5])):
        raise ValueError(f"Invalid ARN format for awsStsRoleArn. Check the format of {value}")
    if parts[2] != "iam" or not parts[5].startswith("role/"):
        raise ValueError("sts_role_arn must be an IAM Role")
    return value
