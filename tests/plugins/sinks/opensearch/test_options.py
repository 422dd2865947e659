"""Rules of the options, in Data Prepper's words."""

import pytest

from penstock.core.errors import ConfigError
from penstock.testing.plugins import checked

MINIMAL = {"hosts": ["https://localhost:9200"], "index": "logs"}
ARN = "arn:aws:iam::123456789012:role/Example-Role"
AWS = {"sts_role_arn": ARN, "region": "us-east-1"}
SEMANTIC = {"semantic_enrichment": {"fields": [{"name": "title", "language": "english"}]}}
PULL = {"engine": {"kafka": {"bootstrap_servers": ["localhost:9092"]}}}
PREFERRED = "It is preferred to only use aws option as"


def problems(options):
    with pytest.raises(ConfigError) as refused:
        checked("sink", "opensearch", options)
    return str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hosts": None}, "hosts cannot be null"),
        ({"hosts": []}, "hosts cannot be empty list"),
        ({"hosts": ["ftp://x"]}, "not a valid host: ftp://x"),
        ({"index": None}, "Missing required properties:indexAlias"),
        (
            {"index_type": "odd"},
            "Value of the parameter, index_type, must be from the list: [trace-analytics-raw, "
            "trace-analytics-plain-raw, trace-analytics-service-map, otel-v2-apm-service-map, log-analytics, "
            "log-analytics-plain, metric-analytics, metric-analytics-plain, tsdb, custom, management_disabled]",
        ),
        ({"index": "a-%{yyyy}-%{MM}"}, "An index only allows one date-time pattern."),
        ({"index": "a-%{yyyy.MM.dd.mm}"}, "Index time pattern contains time patterns that are less than one hour"),
        ({"index": "a-${b"}, "Format string is not properly formed"),
        (
            {"authentication": {"client_certificate": "x.pem"}},
            "client_certificate and client_key must both be provided when using client certificate authentication.",
        ),
        (
            {"username": "u", "authentication": {"username": "u"}},
            "username and password should not be set when authentication is configured.",
        ),
        ({"proxy": "proxy.example"}, "Invalid or missing proxy port."),
        ({"proxy": "proxy.example:99999"}, "Invalid or missing proxy port."),
        ({"distribution_version": "es7"}, "Invalid distribution_version value: es7"),
        ({"max_retries": 0}, "max_retries must be > 1"),
        (
            {"action": "put"},
            'action "put" is invalid. action must be one of the following: [create, upsert, update, delete, index]',
        ),
        (
            {"actions": [{"type": "put"}]},
            'action "put". action must be one of the following: [create, upsert, update, delete, index]',
        ),
        (
            {"document_version": "1"},
            'document_version 1 is invalid. It must be in the format of "${/key}" or "${expression}"',
        ),
        ({"document_version": "${a"}, 'document_version "${a" is not a valid format expression.'),
        ({"document_version_type": "newer"}, "version_type newer is invalid. version_type must be one of: "),
        ({"document_root_key": ""}, "documentRootKey cannot be empty string"),
        ({"template_content": "{"}, "template_content is invalid: "),
        ({"template_content": "[]"}, "template_content is invalid: "),
        ({"template_file": "s3://bucket"}, "s3://bucket is no address of an object: s3://bucket/key"),
        ({"script": {"source": "x"}}, "script can only be used with update or upsert actions."),
        (
            {"script": {"source": "x"}, "action": "upsert", "document_version_type": "external"},
            "document_version_type 'external' is incompatible with script configuration. OpenSearch does not support "
            "external versioning with scripted upserts.",
        ),
        (
            {"document_id": "${a}", "document_id_field": "a"},
            "Both document_id_field and document_id cannot be used at the same time. It is preferred to only use "
            "document_id as document_id_field is deprecated.",
        ),
        (
            {"aws": AWS, "aws_sigv4": True},
            f"aws_sigv4 option cannot be used along with aws option. {PREFERRED} aws_sigv4 is deprecated.",
        ),
        (
            {"aws": AWS, "aws_sts_role_arn": ARN},
            f"aws_sts_role_arn cannot be used along with aws option. {PREFERRED} aws_sts_role_arn is deprecated.",
        ),
        (
            {"aws": AWS, "aws_sts_external_id": "abc"},
            f"aws_sts_external_id cannot be used along with aws option. {PREFERRED} aws_sts_external_id is deprecated.",
        ),
        (
            {"aws": AWS, "aws_sts_header_overrides": {"a": "b"}},
            "aws_sts_header_overrides cannot be used along with aws option. "
            f"{PREFERRED} aws_sts_header_overrides is deprecated.",
        ),
        (
            {"aws": AWS, "serverless": True},
            f"serverless cannot be used along with aws option. {PREFERRED} serverless is deprecated.",
        ),
        (
            {"aws": AWS, "serverless_options": {"collection_name": "logs"}},
            f"serverless_options cannot be used along with aws option.  {PREFERRED} serverless_options is deprecated.",
        ),
        ({"aws": {**AWS, "region": ""}}, "Region cannot be empty string"),
        ({"aws": {"sts_role_arn": "short"}}, "awsStsRoleArn length should be between 1 and 2048 characters"),
        ({"aws": {"sts_role_arn": "arn:aws:s3::123456789012:role/x"}}, "sts_role_arn must be an IAM Role"),
        (
            {"aws": {"sts_role_arn": "not-an-arn-at-all-but-long"}},
            "Invalid ARN format for awsStsRoleArn. Check the format of not-an-arn-at-all-but-long",
        ),
        (
            {"aws": {"sts_header_overrides": {str(n): "x" for n in range(6)}}},
            "sts_header_overrides supports a maximum of 5 headers to override",
        ),
        ({"dlq": {"s3": {"bucket": "b"}}}, "bucket length should be at least 3 characters"),
        ({"query_lookup": {"query_when": "true"}}, "query_term"),
        (
            {"aws": {"serverless_options": {"collection_name": "ab"}}},
            "collection_name should have minimum length of 3 and maximum length of 32",
        ),
        ({"pull_indexing": {"engine": {"kafka": {}}}}, "bootstrap_servers"),
        ({"pull_indexing": {"engine": {"kinesis": {}}}}, "kinesis"),
        ({"pull_indexing": PULL, "document_version": "${/v}"}, "document_id is required for pull-based ingestion"),
        ({"pull_indexing": PULL, "document_id": "${/id}"}, "document_version is required for pull-based ingestion"),
        (
            {"pull_indexing": PULL, "action": "upsert"},
            "pull_indexing does not support update or upsert actions. Only index, create, and delete are supported.",
        ),
        (
            {"pull_indexing": PULL, "actions": [{"type": "update"}]},
            "pull_indexing does not support update or upsert actions. Only index, create, and delete are supported.",
        ),
        (
            {"pull_indexing": PULL, "index": "a-${/b}"},
            "pull_indexing does not support dynamic index expressions. The index must be a static name.",
        ),
        ({"index": ""}, "indexAlias cannot be empty"),
        ({"bulk_sise": 5}, "bulk_size"),
        (
            {"aws": {"semantic_enrichment": {"fields": [{"name": "title", "language": "latin"}]}}},
            "Invalid semantic enrichment language: latin. Valid values are: english, multilingual",
        ),
        (
            {"aws": {"semantic_enrichment": {"fields": [{"name": "title", "language": "English"}]}}},
            "Unable to extract domain name from host: localhost. Please set aws.resource_name",
        ),
        (
            {"index_type": "log-analytics", "aws": {"resource_name": "d", **SEMANTIC}},
            "semantic_enrichment needs index_type custom or management_disabled",
        ),
    ],
)
def test_what_is_refused(options, message):
    merged = {key: value for key, value in {**MINIMAL, **options}.items() if value is not None}
    assert message in problems(merged)


def test_several_broken_rules_are_told_at_once():
    text = problems({**MINIMAL, "aws": AWS, "aws_sigv4": True, "serverless": True})
    assert "aws_sigv4 option cannot" in text and "serverless cannot" in text


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": 1},
        {"action": "UPSERT"},
        {"action": "${/op}"},
        {"document_version_type": "EXTERNAL_GTE"},
        {"proxy": "http://proxy:3128"},
        {"bulk_size": "20", "flush_timeout": -1, "insecure": "true"},
        {"index_type": "log-analytics"},
        {"aws": AWS, "index_type": "management_disabled"},
    ],
)
def test_what_is_accepted(options):
    checked("sink", "opensearch", {**MINIMAL, **options})


def test_serverless_decides_the_index_type_and_the_kind_of_template():
    _, config = checked("sink", "opensearch", {**MINIMAL, "aws": {**AWS, "serverless": True}})
    assert (config.kind, config.composable_template) == ("management_disabled", True)
    _, config = checked("sink", "opensearch", MINIMAL)
    assert (config.kind, config.composable_template, config.compresses) == ("custom", False, True)
    _, config = checked("sink", "opensearch", {**MINIMAL, "distribution_version": "es6"})
    assert not config.compresses


def test_secrets_are_not_shown():
    _, config = checked("sink", "opensearch", {**MINIMAL, "username": "u", "password": "s3cret"})
    assert "s3cret" not in repr(config)
