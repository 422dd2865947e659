"""The least rights of a pipeline, statement by statement."""

from __future__ import annotations

import json
from pathlib import Path

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


def printed(text: str, folder: Path) -> dict[str, object]:
    file = folder / "pipelines.yaml"
    file.write_text(text)
    result = CliRunner().invoke(application(["iam-policy"], {}), ["iam-policy", str(file), "--master-user", "admin"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
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
    statements = found["permissionPolicy"]["Statement"]  # type: ignore[index]
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
