"""The least rights of a pipeline, statement by statement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from penstock.cli import application

TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/music"
DOMAIN = "arn:aws:es:us-east-1:123456789012:domain/mydomain"
ROLE = "arn:aws:iam::123456789012:role/pipeline-role"
PIPELINE = f"""
version: "2"
music:
  source:
    dynamodb:
      tables:
        - table_arn: "{TABLE}"
          stream: {{start_position: LATEST}}
      aws: {{region: us-east-1, sts_role_arn: "{ROLE}"}}
  sink:
    - opensearch:
        hosts: ["https://search-mydomain-1a2a3a4a5a6a7a8a9a0a9a8a7a.us-east-1.es.amazonaws.com"]
        index: table-index
        aws: {{region: us-east-1, sts_role_arn: "{ROLE}"}}
"""
STREAM_ONLY = [
    {
        "Sid": "allowRunExportJob",
        "Effect": "Allow",
        "Action": [
            "dynamodb:DescribeTable",
            "dynamodb:DescribeContinuousBackups",
            "dynamodb:ExportTableToPointInTime",
        ],
        "Resource": [TABLE],
    },
    {
        "Sid": "allowCheckExportjob",
        "Effect": "Allow",
        "Action": ["dynamodb:DescribeExport"],
        "Resource": [f"{TABLE}/export/*"],
    },
    {
        "Sid": "allowReadFromStream",
        "Effect": "Allow",
        "Action": ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"],
        "Resource": [f"{TABLE}/stream/*"],
    },
    {"Effect": "Allow", "Action": ["es:DescribeDomain"], "Resource": [DOMAIN]},
    {"Effect": "Allow", "Action": ["es:ESHttp*"], "Resource": [f"{DOMAIN}/*"]},
]


def printed(text: str, folder: Path, *options: str) -> dict[str, Any]:
    file = folder / "pipelines.yaml"
    file.write_text(text)
    arguments = ["iam-policy", str(file), "--master-user", "admin", *options]
    result = CliRunner().invoke(application(["iam-policy"], {}), arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_stream_alone_needs_no_rights_on_s3(tmp_path: Path) -> None:
    found = printed(PIPELINE, tmp_path)
    assert found["permissionPolicy"] == {"Version": "2012-10-17", "Statement": STREAM_ONLY}
    assert found["trustPolicy"] == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "osis-pipelines.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    assert found["roleMapping"] == (
        f'PUT /_plugins/_security/api/rolesmapping/all_access {{"backend_roles": ["{ROLE}"], "users": ["admin"]}}'
    )


def test_an_export_needs_its_bucket(tmp_path: Path) -> None:
    export = "export: {s3_bucket: exports, s3_prefix: music/}"
    found = printed(PIPELINE.replace("stream: {start_position: LATEST}", export), tmp_path)
    statements = found["permissionPolicy"]["Statement"]
    assert [statement.get("Sid") for statement in statements] == [
        "allowRunExportJob",
        "allowCheckExportjob",
        "allowReadAndWriteToS3ForExport",
        None,
        None,
    ]
    assert statements[2]["Resource"] == ["arn:aws:s3:::exports/music/*"]
    assert statements[2]["Action"] == ["s3:GetObject", "s3:AbortMultipartUpload", "s3:PutObject", "s3:PutObjectAcl"]


def test_pipelines_that_are_not_valid_are_named(tmp_path: Path) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(PIPELINE.replace("table_arn", "table_arm"))
    result = CliRunner().invoke(application(["iam-policy"], {}), ["iam-policy", str(file)])
    assert result.exit_code == 1
    assert "table_arm" in result.output


def test_the_status_of_a_pipeline_that_never_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(application(["dynamodb"], {}), ["dynamodb", "status", str(file)])
    assert result.exit_code == 1
    assert "no pipeline has started here yet" in result.output


KEY = "arn:aws:kms:us-east-1:123456789012:key/"
LEASES = """
source_coordination:
  store:
    dynamodb: {table_name: leases, region: eu-west-1, ttl: P7D}
"""


def allowed(found: dict[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
    """Actions and resources by the name of the statement."""
    return {
        statement.get("Sid", statement["Action"][0]): (statement["Action"], statement["Resource"])
        for statement in found["permissionPolicy"]["Statement"]
    }


def test_a_serverless_collection(tmp_path: Path) -> None:
    sink = """        aws:
          region: us-east-1
          serverless: true
          serverless_options: {network_policy_name: pipes, collection_name: music, vpce_id: vpce-1}"""
    text = PIPELINE.replace(f'        aws: {{region: us-east-1, sts_role_arn: "{ROLE}"}}\n', sink, 1)
    assert text != PIPELINE, "the sink is the one with this block"
    text = text.replace(
        "https://search-mydomain-1a2a3a4a5a6a7a8a9a0a9a8a7a.us-east-1.es.amazonaws.com",
        "https://a1b2c3.us-east-1.aoss.amazonaws.com",
    )
    found = printed(text, tmp_path)
    statements = found["permissionPolicy"]["Statement"]
    assert statements[:3] == STREAM_ONLY[:3]
    assert statements[3:] == [
        {
            "Sid": "allowCollections",
            "Effect": "Allow",
            "Action": ["aoss:APIAccessAll", "aoss:BatchGetCollection"],
            "Resource": ["arn:aws:aoss:us-east-1:123456789012:collection/a1b2c3"],
        },
        {
            "Sid": "allowNetworkPolicy",
            "Effect": "Allow",
            "Action": ["aoss:CreateSecurityPolicy", "aoss:GetSecurityPolicy", "aoss:UpdateSecurityPolicy"],
            "Resource": ["*"],
            "Condition": {"StringEquals": {"aoss:collection": "music"}},
        },
    ]
    assert "roleMapping" not in found
    (policy,) = found["dataAccessPolicy"]
    assert policy["Principal"] == [ROLE]
    assert [rule["Resource"] for rule in policy["Rules"]] == [["index/music/*"], ["collection/music"]]
    assert "aoss:WriteDocument" in policy["Rules"][0]["Permission"]


@pytest.mark.parametrize(
    ("key", "resource", "condition"),
    [
        (f"{KEY}1234", f"{KEY}1234", None),
        ("12345678-1234-1234-1234-123456789012", f"{KEY}12345678-1234-1234-1234-123456789012", None),
        ("alias/exports", f"{KEY}*", {"StringEquals": {"kms:RequestAlias": "alias/exports"}}),
    ],
)
def test_the_key_of_an_export(tmp_path: Path, key: str, resource: str, condition: object) -> None:
    export = f"export: {{s3_bucket: exports, s3_sse_kms_key_id: '{key}'}}"
    found = printed(PIPELINE.replace("stream: {start_position: LATEST}", export), tmp_path)
    (statement,) = [entry for entry in found["permissionPolicy"]["Statement"] if entry.get("Sid") == "allowUseOfKey"]
    assert (statement["Resource"], statement.get("Condition")) == ([resource], condition)
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert "hints" not in found


def test_dead_letters_leases_and_roles(tmp_path: Path) -> None:
    other = ROLE.replace("pipeline-role", "letters-role")
    letters = f"dlq: {{s3: {{bucket: letters, key_path_prefix: music/dlq, sts_role_arn: '{other}'}}}}"
    text = PIPELINE.replace("        index: table-index", f"        index: table-index\n        {letters}")
    text = text.replace(f'sts_role_arn: "{ROLE}"', f'sts_role_arn: "{ROLE}", sts_external_id: secret-1', 1)
    config = tmp_path / "data-prepper-config.yaml"
    config.write_text(LEASES)
    found = printed(text, tmp_path, "--config", str(config))
    rights = allowed(found)
    table = "arn:aws:dynamodb:eu-west-1:123456789012:table/leases"
    assert rights["allowWriteDeadLetters"] == (["s3:PutObject"], ["arn:aws:s3:::letters/music/dlq/*"])
    assert rights["allowLeases"][1] == [table, f"{table}/index/source-status"]
    assert rights["allowMakeLeaseTable"] == (
        [f"dynamodb:{name}" for name in ("DescribeTable", "CreateTable", "DescribeTimeToLive", "UpdateTimeToLive")],
        [table],
    )
    (assume,) = found["selfHosted"]["permissionPolicy"]["Statement"]
    assert (assume["Action"], assume["Resource"]) == (["sts:AssumeRole"], [ROLE, other])
    trusts = {entry["role"]: entry["trustPolicy"]["Statement"][0] for entry in found["selfHosted"]["roles"]}
    assert trusts[ROLE]["Condition"] == {"StringEquals": {"sts:ExternalId": "secret-1"}}
    assert "Condition" not in trusts[other]
    assert found["hints"] == [
        "If a KMS key encrypts the bucket of dead letters, allow kms:GenerateDataKey and kms:Decrypt on that key, here "
        "and in the policy of the key."
    ]


def test_names_of_statements_stand_once(tmp_path: Path) -> None:
    one = f'        - table_arn: "{TABLE}"\n          stream: {{start_position: LATEST}}\n'
    tables = "".join(
        one.replace("music", name).replace("stream: {start_position: LATEST}", export)
        for name, export in (
            ("a", "export: {s3_bucket: new}"),
            ("b", "export: {s3_bucket: old, export_prefix: AWSDynamoDB/01}"),
            ("c", "export: {s3_bucket: new}"),
        )
    )
    rights = allowed(printed(PIPELINE.replace(one, tables), tmp_path))
    assert rights["allowReadAndWriteToS3ForExport"][1] == ["arn:aws:s3:::new/*"]
    assert rights["allowReadAndWriteToS3ForExport2"] == (["s3:GetObject"], ["arn:aws:s3:::old/*"])
    assert rights["allowRunExportJob"][1] == [TABLE.replace("music", name) for name in "abc"]
