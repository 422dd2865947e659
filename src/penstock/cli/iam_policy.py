"""`penstock iam-policy`: the least rights that the role of a pipeline needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.core import start

if TYPE_CHECKING:
    from penstock.plan import PipelinePlan

PRINCIPAL = "osis-pipelines.amazonaws.com"
EXIT_CONFIG = 1
_DOMAIN = re.compile(r"https?://(?:search|vpc)-(?P<name>.+)-[a-z0-9]{26}\.(?P<region>[a-z0-9-]+)\.es\.amazonaws\.com")
_ACCOUNT = re.compile(r"arn:[^:]+:iam::(\d{12}):role/")


def iam_policy(
    pipelines: Annotated[Path, typer.Argument(help="A pipeline file, or a directory of them.")],
    master_user: Annotated[
        str, typer.Option(help="Master user of the domain, for the role mapping.")
    ] = "<master user>",
) -> None:
    """Print the least policy, the trust policy and the role mapping that pipelines need.

    Exit codes: 0 printed; 1 the pipelines are not valid; 2 wrong usage.
    """
    start.describe_options = False
    from penstock.config import read_pipelines
    from penstock.plan import make_plan

    plan = make_plan(read_pipelines(pipelines))
    if not plan.pipelines:
        for problem in plan.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(EXIT_CONFIG)
    for pipeline in plan.pipelines:
        print(json.dumps(described(pipeline, master_user), indent=2, ensure_ascii=False))


def described(pipeline: PipelinePlan, master_user: str) -> dict[str, Any]:
    """What is printed of one pipeline."""
    role = _role(pipeline)
    mapping = {"backend_roles": [role], "users": [master_user]}
    return {
        "pipeline": pipeline.name,
        "permissionPolicy": {"Version": "2012-10-17", "Statement": statements(pipeline)},
        "trustPolicy": {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": PRINCIPAL}, "Action": "sts:AssumeRole"}],
        },
        "roleMapping": f"PUT /_plugins/_security/api/rolesmapping/all_access {json.dumps(mapping, ensure_ascii=False)}",
    }


def statements(pipeline: PipelinePlan) -> list[dict[str, Any]]:
    """Statements for the tables a pipeline reads and the domains it writes to."""
    account = _account(pipeline)
    found: list[dict[str, Any]] = []
    if pipeline.source is not None and pipeline.source.name == "dynamodb":
        for table in pipeline.source.config.tables:
            found += _table(table)
            account = account or table.table_arn.split(":")[4]
    for sink in pipeline.sinks:
        if sink.plugin.name == "opensearch":
            found += _domains(getattr(sink.plugin.config, "hosts", None) or [], account or "{account}")
            found += _dead_letters(sink.plugin.definition)
    return _named_once(found)


def _table(table: Any) -> list[dict[str, Any]]:
    arn = table.table_arn
    found = [
        _allow(
            "allowRunExportJob",
            ["dynamodb:DescribeTable", "dynamodb:DescribeContinuousBackups", "dynamodb:ExportTableToPointInTime"],
            arn,
        ),
        _allow("allowCheckExportjob", ["dynamodb:DescribeExport"], f"{arn}/export/*"),
    ]
    if table.stream is not None:
        actions = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
        found.append(_allow("allowReadFromStream", actions, f"{arn}/stream/*"))
    if table.export is not None:
        partition = arn.split(":")[1]
        place = "/".join([table.export.s3_bucket, (table.export.s3_prefix or "").lstrip("/")])
        actions = ["s3:GetObject", "s3:AbortMultipartUpload", "s3:PutObject", "s3:PutObjectAcl"]
        found.append(_allow("allowReadAndWriteToS3ForExport", actions, f"arn:{partition}:s3:::{place}*"))
        key = table.export.s3_sse_kms_key_id
        if key and key.startswith("arn:"):
            found.append(_allow("allowUseOfKey", ["kms:Decrypt", "kms:GenerateDataKey"], key))
    return found


def _domains(hosts: Iterable[str], account: str) -> list[dict[str, Any]]:
    found = []
    for host in hosts:
        known = _DOMAIN.match(host)
        domain = f"arn:aws:es:{known['region']}:{account}:domain/{known['name']}" if known else None
        if domain is not None:
            found += [_allow("", ["es:DescribeDomain"], domain), _allow("", ["es:ESHttp*"], f"{domain}/*")]
    return found


def _dead_letters(definition: Any) -> list[dict[str, Any]]:
    queue = definition.get("dlq") if isinstance(definition, dict) else None
    s3 = queue.get("s3") if isinstance(queue, dict) else None
    if not isinstance(s3, dict) or not s3.get("bucket"):
        return []
    place = "/".join([str(s3["bucket"]), str(s3.get("key_path_prefix") or "").strip("/")]).rstrip("/")
    return [_allow("allowWriteDeadLetters", ["s3:PutObject"], f"arn:aws:s3:::{place}/*")]


def _allow(sid: str, actions: list[str], resource: str) -> dict[str, Any]:
    named = {"Sid": sid} if sid else {}
    return {**named, "Effect": "Allow", "Action": actions, "Resource": [resource]}


def _named_once(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each statement once; a `Sid` may stand only once in a policy."""
    result: list[dict[str, Any]] = []
    for statement in found:
        if statement in result:
            continue
        same = next((other for other in result if "Sid" in statement and other.get("Sid") == statement["Sid"]), None)
        if same is None:
            result.append(statement)
        else:
            same["Resource"] = [*same["Resource"], *statement["Resource"]]
    return result


def _role(pipeline: PipelinePlan) -> str:
    plugins = [pipeline.source, *(sink.plugin for sink in pipeline.sinks)]
    for plugin in plugins:
        access = getattr(getattr(plugin, "config", None), "aws", None)
        if access is not None and getattr(access, "sts_role_arn", None):
            role: str = access.sts_role_arn
            return role
    return "<role arn>"


def _account(pipeline: PipelinePlan) -> str | None:
    known = _ACCOUNT.match(_role(pipeline))
    return known[1] if known else None
