"""Sessions, roles and signatures against a small HTTP server that plays DynamoDB and STS."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ReadTimeoutError,
)

from penstock.core.errors import Permanent, Transient, Unreachable
from penstock.lib import aws
from penstock.sdk import AwsOptions

ROLE = "arn:aws:iam::123456789012:role/pipeline-role"


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDOWN",
        "AWS_SECRET_ACCESS_KEY": "own-secret",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


class Server:
    """Answers DynamoDB Streams calls with `reply`, AssumeRole with numbered credentials."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], str]] = []
        self.reply: tuple[int, Any] = (200, {"Records": []})
        self.roles: list[tuple[dict[str, str], dict[str, str]]] = []
        self.role_life_s = 3600.0
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "Action=AssumeRole" not in body:
            self.requests.append((headers, body))
            status, reply = self.reply
            text = reply if isinstance(reply, str) else json.dumps(reply)
            return web.Response(status=status, text=text, content_type="application/x-amz-json-1.0")
        self.roles.append((headers, {name: value[0] for name, value in parse_qs(body).items()}))
        number = len(self.roles)
        end = datetime.now(UTC) + timedelta(seconds=self.role_life_s)
        return web.Response(
            content_type="text/xml",
            text=f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
              <Credentials><AccessKeyId>AKIDROLE{number}</AccessKeyId><SecretAccessKey>secret{number}</SecretAccessKey>
              <SessionToken>token{number}</SessionToken><Expiration>{end.isoformat()}</Expiration></Credentials>
              <AssumedRoleUser><Arn>{ROLE}</Arn><AssumedRoleId>x</AssumedRoleId></AssumedRoleUser>
              </AssumeRoleResult></AssumeRoleResponse>""",
        )


@asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch, *services: str) -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for service in services:
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", server.url)
    try:
        yield server
    finally:
        await runner.cleanup()


@asynchronous
async def test_clients_are_shared_speak_to_the_given_endpoint_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch, "DYNAMODB_STREAMS") as server:
        server.reply = (
            200,
            {"Records": [{"dynamodb": {"Keys": {"k": {"B": "AAH/"}}, "ApproximateCreationDateTime": 5}}]},
        )
        access = AwsOptions(region="eu-west-1")
        async with aws.sessions() as outer, aws.sessions() as inner:
            assert outer is inner
            first, second = await asyncio.gather(
                outer.client("dynamodbstreams", access, wire=True), inner.client("dynamodbstreams", access, wire=True)
            )
            assert first is second
            reply = await first.get_records(ShardIterator="x")
        assert reply["Records"] == server.reply[1]["Records"]  # as on the wire: no dates, no bytes
        ((headers, body),) = server.requests
        assert headers["x-amz-target"] == "DynamoDBStreams_20120810.GetRecords"
        assert "Credential=AKIDOWN/" in headers["authorization"]
        assert "/eu-west-1/dynamodb/aws4_request" in headers["authorization"]
        assert "penstock" in headers["user-agent"]
        assert json.loads(body) == {"ShardIterator": "x"}
        async with aws.sessions() as later:
            assert later is not outer


@asynchronous
async def test_a_failing_call_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch, "DYNAMODB_STREAMS") as server, aws.sessions() as sessions:
        client = await sessions.client("dynamodbstreams", AwsOptions(region="eu-west-1"), wire=True)
        for status, reply, kind, code in (
            (500, {"__type": "com.amazonaws#InternalServerError", "message": "m"}, Transient, "InternalServerError"),
            (400, {"__type": "x#LimitExceededException", "message": "m"}, Transient, "LimitExceededException"),
            (400, {"__type": "x#AccessDeniedException", "message": "m"}, Transient, "AccessDeniedException"),
            (400, {"__type": "x#ValidationException", "message": "m"}, Permanent, "ValidationException"),
            (200, "<html>a proxy</html>", Transient, ""),
        ):
            server.reply = (status, reply)
            with pytest.raises(Exception) as caught:
                await client.get_records(ShardIterator="x")
            assert type(aws.verdict(caught.value)) is kind, reply
            assert aws.code_of(caught.value) == code
        assert len(server.requests) == 5


@asynchronous
async def test_a_server_that_is_away_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    async with aws.sessions() as sessions:
        client = await sessions.client("dynamodb", AwsOptions(region="eu-west-1"), wire=True)
        with pytest.raises(EndpointConnectionError) as caught:
            await client.describe_table(TableName="t")
        assert type(aws.verdict(caught.value)) is Unreachable


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EndpointConnectionError(endpoint_url="u"), Unreachable),
        (ConnectTimeoutError(endpoint_url="u"), Unreachable),
        (ReadTimeoutError(endpoint_url="u"), Unreachable),
        (ConnectionResetError(), Unreachable),
        (NoCredentialsError(), Transient),
        (NoRegionError(), Permanent),
        (ClientError({"Error": {"Code": "ExpiredToken"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "o"), Transient),
        (ClientError({"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "o"), Transient),
        (ClientError({"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "o"), Permanent),
        (ValueError("ours"), type(None)),
    ],
)
def test_verdicts(error: Exception, kind: type) -> None:
    assert type(aws.verdict(error)) is kind


@asynchronous
async def test_a_role_is_assumed_once_for_all_clients_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    access = AwsOptions(
        region="eu-west-1",
        sts_role_arn=ROLE,
        sts_external_id="ext-1",
        sts_header_overrides={"x-amz-source-account": "42"},
    )
    async with serving(monkeypatch, "DYNAMODB_STREAMS", "STS") as server, aws.sessions() as sessions:
        client = await sessions.client("dynamodbstreams", access, wire=True)
        await client.get_records(ShardIterator="x")
        await client.get_records(ShardIterator="y")
        ((headers, form),) = server.roles
        assert (form["RoleArn"], form["ExternalId"]) == (ROLE, "ext-1")
        assert form["RoleSessionName"].startswith("penstock-")
        assert headers["x-amz-source-account"] == "42"
        assert "x-amz-source-account" in headers["authorization"]  # signed with the rest
        assert "Credential=AKIDOWN/" in headers["authorization"]
        assert "/eu-west-1/sts/aws4_request" in headers["authorization"]
        for sent, _ in server.requests:
            assert "Credential=AKIDROLE1/" in sent["authorization"]
            assert sent["x-amz-security-token"] == "token1"
        named = await sessions.client("dynamodbstreams", access, wire=True, session_prefix="s3-dlq")
        await named.get_records(ShardIterator="x")
        assert re.fullmatch("s3-dlq-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", server.roles[1][1]["RoleSessionName"])
        assert "Credential=AKIDROLE2/" in server.requests[-1][0]["authorization"]
        other = await sessions.client("dynamodbstreams", AwsOptions(region="eu-west-1"), wire=True)
        await other.get_records(ShardIterator="z")
        assert "Credential=AKIDOWN/" in server.requests[-1][0]["authorization"]


@asynchronous
async def test_a_role_session_is_renewed_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch, "DYNAMODB_STREAMS", "STS") as server, aws.sessions() as sessions:
        server.role_life_s = 300  # within the margin before the end
        client = await sessions.client("dynamodbstreams", AwsOptions(region="eu-west-1", sts_role_arn=ROLE), wire=True)
        await client.get_records(ShardIterator="x")
        await client.get_records(ShardIterator="y")
        assert len(server.roles) == 2
        assert "Credential=AKIDROLE2/" in server.requests[-1][0]["authorization"]


def expected_signature(method: str, path: str, query: str, sent: dict[str, str], secret: str, service: str) -> str:
    """Signature Version 4, written down from its specification."""
    fields = dict(part.strip().split("=", 1) for part in sent["authorization"].partition(" ")[2].split(","))
    names = fields["SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            method,
            path,
            query,
            *(f"{name}:{' '.join(sent[name].split())}" for name in names),
            "",
            ";".join(names),
            sent["x-amz-content-sha256"],
        ]
    )
    scope = fields["Credential"].split("/", 1)[1]
    day, region, _, _ = scope.split("/")
    text = "\n".join(["AWS4-HMAC-SHA256", sent["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret.encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize("service", ["es", "aoss"])
@pytest.mark.parametrize("role", [False, True])
def test_requests_are_signed(monkeypatch: pytest.MonkeyPatch, service: str, role: bool) -> None:
    async def scenario() -> None:
        async with serving(monkeypatch, "STS"):
            access = AwsOptions(region="eu-west-1", sts_role_arn=ROLE if role else None)
            sign = aws.signer(service, None, access)
            body = '{"index":{}}\n{"a":"ü"}\n'.encode()
            url = "https://search-x.eu-west-1.es.amazonaws.com/my%2Bindex/_bulk?filter_path=errors&a=b%20c"
            given = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
            headers = await sign("POST", url, given, body)
            again = await sign("POST", url, given, body)
            await sign.close()
            await sign.close()
        assert given.items() <= headers.items()
        sent = {name.lower(): value for name, value in headers.items()}
        sent["host"] = "search-x.eu-west-1.es.amazonaws.com"
        assert sent["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
        assert ("x-amz-security-token" in sent) is role
        assert "content-encoding" in sent["authorization"] and "host" in sent["authorization"]
        signature = sent["authorization"].rpartition("Signature=")[2]
        # Services other than S3 encode the path once more.
        expected = expected_signature(
            "POST",
            "/my%252Bindex/_bulk",
            "a=b%20c&filter_path=errors",
            sent,
            "secret1" if role else "own-secret",
            service,
        )
        assert signature == expected
        assert "Authorization" in again

    asyncio.run(scenario())


@asynchronous
async def test_signing_without_credentials_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    sign = aws.signer("es", "eu-west-1", AwsOptions())
    with pytest.raises(Transient, match="no AWS credentials were found"):
        await sign("GET", "https://x/", {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDLATE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert "AKIDLATE" in (await sign("GET", "https://x/", {}))["Authorization"]
    await sign.close()


@asynchronous
async def test_signing_needs_a_region() -> None:
    with pytest.raises(Permanent, match="region"):
        await aws.signer("es", None, AwsOptions())("GET", "https://x/", {})


@asynchronous
async def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore.config", None)
    async with aws.sessions() as sessions:
        with pytest.raises(Permanent, match=r"pip install 'penstock\[aws\]'"):
            await sessions.client("dynamodb", AwsOptions(region="eu-west-1"))


def test_importing_the_package_loads_no_client() -> None:
    script = "import sys, penstock.lib.aws; sys.exit(any(name in sys.modules for name in ('botocore', 'aiohttp')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
