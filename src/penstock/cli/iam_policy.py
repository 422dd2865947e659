"""`penstock iam-policy`: the least rights that the role of a pipeline needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.core import start

if TYPE_CHECKING:
    from penstock.config.server import ServerConfig
    from penstock.plan import PipelinePlan, Plan

PRINCIPAL = "osis-pipelines.amazonaws.com"
EXIT_CONFIG = 1
_DOMAIN = re.compile(
    r"https?://(?:search|vpc)-(?P<name>.+)-[a-z0-9]{26}\."
    r"(?:(?P<region>[a-z0-9-]+)\.es\.amazonaws\.com|aos\.(?P<newer>[a-z0-9-]+)\.on\.aws)"
)
_COLLECTION = re.compile(r"https?://(?P<id>[a-z0-9]+)\.(?P<region>[a-z0-9-]+)\.aoss\.amazonaws\.com")
_ACCOUNT = re.compile(r"arn:[^:]+:iam::(\d{12}):role/")


def iam_policy(
    pipelines: Annotated[Path, typer.Argument(help="A pipeline file, or a directory of them.")],
    master_user: Annotated[
        str, typer.Option(help="Master user of the domain, for the role mapping.")
    ] = "<master user>",
    config: Annotated[Path | None, typer.Option("--config", "-c", help="data-prepper-config.yaml")] = None,
) -> None:
    """Print the least policy, the trust policy and the role mapping that pipelines need.

    Exit codes: 0 printed; 1 the pipelines are not valid; 2 wrong usage.
    """
    start.describe_options = False
    from penstock.config import read_pipelines, read_server_config
    from penstock.plan import make_plan

    plan = make_plan(read_pipelines(pipelines), server_config=read_server_config(config))
    if not plan.pipelines:
        for problem in plan.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(EXIT_CONFIG)
    for pipeline in plan.pipelines:
        print(json.dumps(described(pipeline, master_user, plan), indent=2, ensure_ascii=False))


def described(pipeline: PipelinePlan, master_user: str, plan: Plan) -> dict[str, Any]:
    """What is printed of one pipeline."""
    role = _role(pipeline)
    found: dict[str, Any] = {
        "pipeline": pipeline.name,
        "permissionPolicy": _policy(statements(pipeline, plan)),
        "trustPolicy": _policy([{"Effect": "Allow", "Principal": {"Service": PRINCIPAL}, "Action": "sts:AssumeRole"}]),
    }
    sinks = [sink.plugin.config for sink in pipeline.sinks if sink.plugin.name == "opensearch"]
    if not sinks or not all(sink.is_serverless for sink in sinks):
        mapping = json.dumps({"backend_roles": [role], "users": [master_user]}, ensure_ascii=False)
        found["roleMapping"] = f"PUT /_plugins/_security/api/rolesmapping/all_access {mapping}"
    collections = [_collection_name(sink) for sink in sinks if sink.is_serverless]
    if collections:
        found["dataAccessPolicy"] = _data_access(list(dict.fromkeys(collections)), role)
    assumed = _assumed(pipeline, plan)
    if assumed:
        found["selfHosted"] = _self_hosted(assumed)
    hints = _hints(pipeline)
    if hints:
        found["hints"] = hints
    return found


def statements(pipeline: PipelinePlan, plan: Plan) -> list[dict[str, Any]]:
    """Statements for all that a pipeline reads, writes and keeps its leases and secrets in."""
    account = _account(pipeline)
    found: list[dict[str, Any]] = []
    if pipeline.source is not None and pipeline.source.name == "dynamodb":
        for table in pipeline.source.config.tables:
            account = account or table.table_arn.split(":")[4]
            found += _table(table)
        found += _coordination(plan.server, account or "{account}")
    for sink in pipeline.sinks:
        if sink.plugin.name == "opensearch":
            config = sink.plugin.config
            to = _collections if config.is_serverless else _domains
            found += to(config, account or "{account}")
            found += _files(config)
            found += _dead_letters(sink.plugin.definition)
    for extension in plan.extensions:
        if extension.name == "aws":
            found += _secrets(extension.config, account or "{account}")
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
        if table.export.exists:
            actions = actions[:1]
        found.append(_allow("allowReadAndWriteToS3ForExport", actions, f"arn:{partition}:s3:::{place}*"))
        if table.export.s3_sse_kms_key_id:
            found.append(_key(table.export.s3_sse_kms_key_id, arn))
    return found


def _key(key: str, table_arn: str) -> dict[str, Any]:
    """A policy cannot name a key by its alias: then any key of the account that is asked for by that alias."""
    _, partition, _, region, account, _ = table_arn.split(":", 5)
    home = f"arn:{partition}:kms:{region}:{account}:key/"
    actions = ["kms:Decrypt", "kms:GenerateDataKey"]
    alias = key.rpartition(":")[2]
    if alias.startswith("alias/"):
        condition = {"StringEquals": {"kms:RequestAlias": alias}}
        return {**_allow("allowUseOfKey", actions, home + "*"), "Condition": condition}
    return _allow("allowUseOfKey", actions, key if key.startswith("arn:") else home + key)


def _coordination(server: ServerConfig, account: str) -> list[dict[str, Any]]:
    """The table of leases, where there is one."""
    options = server.source_coordination.dynamodb()
    if options is None:
        return []
    table = f"arn:{_partition(options.region)}:dynamodb:{options.region}:{account}:table/{options.table_name}"
    items = ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"]
    found = [_allow("allowLeases", [f"dynamodb:{name}" for name in items], table)]
    found[0]["Resource"].append(f"{table}/index/source-status")
    if not options.skip_table_creation:
        making = ["DescribeTable", "CreateTable"]
        making += ["DescribeTimeToLive", "UpdateTimeToLive"] if options.ttl is not None else []
        found.append(_allow("allowMakeLeaseTable", [f"dynamodb:{name}" for name in making], table))
    return found


def _domains(config: Any, account: str) -> list[dict[str, Any]]:
    found = []
    for host in config.hosts:
        known = _DOMAIN.match(host)
        signing = config.signing
        if known is None and signing is None:
            continue  # no domain of the service
        region = (known["region"] or known["newer"]) if known else signing.region
        name = known["name"] if known else signing.resource_name or "{domain}"
        domain = f"arn:{_partition(region)}:es:{region}:{account}:domain/{name}"
        found += [_allow("", ["es:DescribeDomain"], domain), _allow("", ["es:ESHttp*"], f"{domain}/*")]
        if signing is not None and signing.semantic_enrichment is not None:
            found.append(_allow("allowMakeSemanticIndex", ["es:CreateIndex"], domain))
    return found


def _collections(config: Any, account: str) -> list[dict[str, Any]]:
    """Calls that make a network policy know no resource; the collection is a condition."""
    signing, found = config.signing, []
    for host in config.hosts:
        known = _COLLECTION.match(host)
        region, name = (known["region"], known["id"]) if known else (signing.region, "{collection-id}")
        collection = f"arn:{_partition(region)}:aoss:{region}:{account}:collection/{name}"
        actions = ["aoss:APIAccessAll", "aoss:BatchGetCollection"]
        if signing.semantic_enrichment is not None:
            actions.append("aoss:CreateIndex")
        found.append(_allow("allowCollections", actions, collection))
    network = signing.serverless_options
    if network is not None and network.network_policy_name and network.collection_name and network.vpce_id:
        actions = ["aoss:CreateSecurityPolicy", "aoss:GetSecurityPolicy", "aoss:UpdateSecurityPolicy"]
        condition = {"StringEquals": {"aoss:collection": network.collection_name}}
        found.append({**_allow("allowNetworkPolicy", actions, "*"), "Condition": condition})
    return found


def _collection_name(config: Any) -> str:
    options = config.signing.serverless_options
    return (options.collection_name if options is not None else None) or "{collection-name}"


def _data_access(collections: list[str], role: str) -> list[dict[str, Any]]:
    """For `aws opensearchserverless create-access-policy --type data`: what the sink does in a collection."""
    permissions = ["aoss:CreateIndex", "aoss:UpdateIndex", "aoss:DescribeIndex", "aoss:WriteDocument"]
    items = ["aoss:CreateCollectionItems", "aoss:UpdateCollectionItems", "aoss:DescribeCollectionItems"]
    rules = [
        {"ResourceType": "index", "Resource": [f"index/{name}/*" for name in collections], "Permission": permissions},
        {"ResourceType": "collection", "Resource": [f"collection/{name}" for name in collections], "Permission": items},
    ]
    return [{"Rules": rules, "Principal": [role]}]


def _files(config: Any) -> list[dict[str, Any]]:
    """Templates and policies that lie in S3."""
    paths = [path for path in (config.template_file, config.ism_policy_file) if path and path.startswith("s3://")]
    partition = _partition(config.signing.region if config.signing is not None else "")
    return [
        _allow("allowReadFiles", ["s3:GetObject"], f"arn:{partition}:s3:::{path.removeprefix('s3://')}")
        for path in paths
    ]


def _secrets(config: Any, account: str) -> list[dict[str, Any]]:
    found = []
    for secret in config.secrets.values():
        arn = secret.secret_id
        if not arn.startswith("arn:"):  # the service adds six characters to the name
            place = f"arn:{_partition(secret.region)}:secretsmanager:{secret.region}:{account}:secret"
            arn = f"{place}:{secret.secret_id}-??????"
        found.append(_allow("allowReadSecrets", ["secretsmanager:GetSecretValue"], arn))
    return found


def _dead_letters(definition: Any) -> list[dict[str, Any]]:
    queue = definition.get("dlq") if isinstance(definition, dict) else None
    s3 = queue.get("s3") if isinstance(queue, dict) else None
    if not isinstance(s3, dict) or not s3.get("bucket"):
        return []
    place = "/".join([str(s3["bucket"]), str(s3.get("key_path_prefix") or "").strip("/")]).rstrip("/")
    partition = _partition(str(s3.get("region") or ""))
    return [_allow("allowWriteDeadLetters", ["s3:PutObject"], f"arn:{partition}:s3:::{place}/*")]


def _assumed(pipeline: PipelinePlan, plan: Plan) -> dict[str, str | None]:
    """External id by role, of all roles that a pipeline names, in order."""
    lease_options = plan.server.source_coordination.dynamodb()
    places: list[Any] = [pipeline.source.config.aws] if _is_dynamodb(pipeline) and pipeline.source else []
    for sink in pipeline.sinks:
        if sink.plugin.name == "opensearch":
            use = getattr(sink.plugin.config, "dlq", None)
            places += [sink.plugin.config.signing, use.config if use is not None else None]
    if _is_dynamodb(pipeline):
        places.append(lease_options)
    found: dict[str, str | None] = {}
    for place in places:
        role = getattr(place, "sts_role_arn", None)
        if role:
            found[role] = found.get(role) or getattr(place, "sts_external_id", None)
    return found


def _self_hosted(assumed: dict[str, str | None]) -> dict[str, Any]:
    """What it takes where Penstock itself runs: its own identity assumes the roles of the pipelines."""
    trust = []
    for role, external_id in assumed.items():
        condition = {"Condition": {"StringEquals": {"sts:ExternalId": external_id}}} if external_id else {}
        principal = {"AWS": "<arn of the identity that penstock runs as>"}
        trust.append(
            {
                "role": role,
                "trustPolicy": _policy(
                    [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **condition}]
                ),
            }
        )
    allow = {**_allow("allowAssumeRoles", ["sts:AssumeRole"], ""), "Resource": list(assumed)}
    return {"permissionPolicy": _policy([allow]), "roles": trust}


def _hints(pipeline: PipelinePlan) -> list[str]:
    """What depends on things that the pipeline does not say."""
    hints = []
    export = (
        _is_dynamodb(pipeline)
        and pipeline.source is not None
        and any(
            table.export is not None and table.export.s3_sse_kms_key_id is None
            for table in pipeline.source.config.tables
        )
    )
    letters = [sink for sink in pipeline.sinks if _dead_letters(sink.plugin.definition)]
    keyed = [*(["the export"] if export else []), *(["dead letters"] if letters else [])]
    if keyed:
        hints.append(
            f"If a KMS key encrypts the bucket of {' and '.join(keyed)}, allow kms:GenerateDataKey and kms:Decrypt on "
            "that key, here and in the policy of the key."
        )
    if pipeline.source is not None and _is_dynamodb(pipeline):
        accounts = {table.table_arn.split(":")[4] for table in pipeline.source.config.tables}
        account = _account(pipeline)
        if account is not None and accounts - {account}:
            hints.append("A table of another account needs a resource policy that allows the role the same actions.")
    return hints


def _is_dynamodb(pipeline: PipelinePlan) -> bool:
    return pipeline.source is not None and pipeline.source.name == "dynamodb"


def _partition(region: str) -> str:
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"


def _policy(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": found}


def _allow(sid: str, actions: list[str], resource: str) -> dict[str, Any]:
    named = {"Sid": sid} if sid else {}
    return {**named, "Effect": "Allow", "Action": actions, "Resource": [resource]}


def _named_once(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each statement once; a `Sid` may stand only once in a policy."""
    result: list[dict[str, Any]] = []
    for statement in found:
        if statement in result:
            continue
        same = next((other for other in result if _differ_in_resource_alone(statement, other)), None)
        if same is not None:
            same["Resource"] = list(dict.fromkeys([*same["Resource"], *statement["Resource"]]))
            continue
        taken = {other.get("Sid") for other in result}
        if "Sid" in statement and statement["Sid"] in taken:
            name = statement["Sid"]
            statement = {**statement, "Sid": next(f"{name}{n}" for n in range(2, 1000) if f"{name}{n}" not in taken)}
        result.append(statement)
    return result


def _differ_in_resource_alone(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return "Sid" in one and all(
        one.get(key) == other.get(key) for key in one.keys() | other.keys() if key != "Resource"
    )


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
