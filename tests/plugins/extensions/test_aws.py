import asyncio
import json

import pytest
from aiohttp import web

from penstock.core.errors import Permanent, Transient
from penstock.plugins.extensions.aws import Config, build
from penstock.sdk import Context

pytest.importorskip("aiobotocore")

SECRETS = {"my-secret": '{"user": "admin", "pin": 12345678901234567890}'}


def read(monkeypatch, wanted, status=None):
    """Read `wanted` (id, key) from a stand-in for Secrets Manager; what came back, and the requests it got."""
    requests = []

    async def answer(request):
        body = json.loads(await request.text())
        requests.append((request.headers["X-Amz-Target"], body["SecretId"]))
        if status is not None or body["SecretId"] not in SECRETS:
            kind = "InternalServiceError" if status else "ResourceNotFoundException"
            return web.json_response({"__type": kind, "message": "no"}, status=status or 400)
        return web.json_response({"Name": body["SecretId"], "SecretString": SECRETS[body["SecretId"]]})

    async def main():
        app = web.Application()
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://127.0.0.1:{port}")
        config = Config.model_validate({"secrets": {"a": {"secret_id": "my-secret"}, "b": {"secret_id": "other"}}})
        try:
            async with build(config, Context("extensions", "aws", kind="extension")) as secrets:
                return [await secrets.read(*each) for each in wanted]
        finally:
            await runner.cleanup()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    return asyncio.run(main()), requests


def test_a_secret_is_read_once_for_all_its_keys(monkeypatch):
    values, requests = read(monkeypatch, [("a", "user"), ("a", "pin"), ("a", None)])
    assert values == ["admin", "12345678901234567890", SECRETS["my-secret"]]
    assert requests == [("secretsmanager.GetSecretValue", "my-secret")]


def test_a_secret_that_is_not_there(monkeypatch):
    with pytest.raises(Permanent, match=r"^Unable to retrieve secret: other \("):
        read(monkeypatch, [("b", None)])
    with pytest.raises(Permanent, match=r"^Unable to find secretId: c$"):
        read(monkeypatch, [("c", None)])


def test_a_service_that_is_down_may_be_asked_again(monkeypatch):
    with pytest.raises(Transient, match=r"^Unable to retrieve secret: my-secret"):
        read(monkeypatch, [("a", None)], status=500)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"secret_id": ""}, "awsSecretId length should be between 1 and 512 characters"),
        ({"secret_id": "x", "region": ""}, "Region cannot be empty string"),
        ({"secret_id": "x", "sts_role_arn": "short"}, "awsStsRoleArn length should be between 1 and 2048 characters"),
        ({"secret_id": "x", "refresh_interval": "PT30M"}, "Refresh interval must be at least 1 hour."),
        (
            {"secret_id": "x", "sts_header_overrides": {str(n): "v" for n in range(6)}},
            "sts_header_overrides supports a maximum of 5 headers to override",
        ),
    ],
)
def test_the_rules_of_a_secret(options, message):
    with pytest.raises(ValueError, match=message):
        Config.model_validate({"secrets": {"a": options}})
