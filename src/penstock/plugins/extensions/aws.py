"""Secrets of AWS Secrets Manager for `${{aws_secrets:<id>}}` and `${{aws_secrets:<id>:<key>}}`, and credential sets.

A secret is read when the process starts, and again every `refresh_interval`; with a key it must hold a JSON object.
When a value has changed, the `opensearch` sink goes on with its new credentials: what is under way is finished with the
old ones, nothing is lost or written twice. For any other plugin or option the log says that a restart is needed. A
secret that cannot be read again keeps its value until the next attempt. Every unit reads its secrets itself.
`configurations` stands in the server configuration only.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from penstock import sdk
from penstock.lib.aws import AwsSessions, sessions, verdict

REFRESH_INTERVAL_S_MIN = 3600.0
HEADERS_MAX = 5


def _length(low: int, high: int, message: str) -> AfterValidator:
    def check(value: str) -> str:
        if not low <= len(value) <= high:
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _headers(value: dict[str, str]) -> dict[str, str]:
    if len(value) > HEADERS_MAX:
        raise ValueError("sts_header_overrides supports a maximum of 5 headers to override")
    return value


class SecretConfig(sdk.PluginConfig):
    secret_id: Annotated[str, _length(1, 512, "awsSecretId length should be between 1 and 512 characters")]
    """Name or ARN of the secret."""
    region: Annotated[str, _length(1, 100, "Region cannot be empty string")] = "us-east-1"
    """Region of the secret."""
    sts_role_arn: (
        Annotated[str, _length(20, 2048, "awsStsRoleArn length should be between 1 and 2048 characters")] | None
    ) = None
    """Role to assume; without one the credentials of the process are used."""
    sts_header_overrides: Annotated[dict[str, str], AfterValidator(_headers)] | None = None
    """Further headers of the request that assumes the role."""
    refresh_interval: sdk.Duration = REFRESH_INTERVAL_S_MIN
    """Time after which a secret is read again, at least an hour."""
    disable_refresh: bool = False
    """Read the secret only when the process starts."""
    skip_validation_on_start: bool = False
    """Accepted; a secret that no reference names is never read."""

    @property
    def sts_external_id(self) -> str | None:
        return None

    @model_validator(mode="after")
    def _refresh(self) -> Self:
        if self.refresh_interval < REFRESH_INTERVAL_S_MIN:
            raise ValueError("Refresh interval must be at least 1 hour.")
        return self


class Credentials(sdk.PluginConfig):
    region: Annotated[str, _length(1, 100, "Region cannot be empty string")] | None = None
    """Region of the clients."""
    sts_role_arn: (
        Annotated[str, _length(20, 2048, "awsStsRoleArn length should be between 1 and 2048 characters")] | None
    ) = None
    """Role to assume."""
    sts_header_overrides: Annotated[dict[str, str], AfterValidator(_headers)] | None = None
    """Further headers of the request that assumes the role."""
    use_aws_sdk_default: bool = False
    """Use the credentials of the process."""


class Config(sdk.PluginConfig):
    secrets: dict[str, SecretConfig] = Field(default_factory=dict)
    """Secrets by the id that references use."""
    configurations: Annotated[dict[str, Credentials], sdk.NotYet({})] = Field(default_factory=dict)
    """Named credential sets for plugins that name none themselves; `default` is one of them."""


def build(config: Config, ctx: sdk.Context) -> Secrets:
    return Secrets(config)


EXAMPLES = [
    sdk.Example(
        "A user name and a password from one secret",
        config="secrets:\n  opensearch-account:\n    secret_id: my-opensearch-user\n    region: us-east-1",
    )
]


class Secrets:
    """Reads secrets, each at most once. Use it as a context manager."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._open = AsyncExitStack()
        self._sessions: AwsSessions | None = None
        self._texts: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._sessions = await self._open.enter_async_context(sessions())
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._open.aclose()

    async def read(self, name: str, key: str | None = None) -> str:
        """The secret with that id in the configuration, or one value of the JSON object it holds.

        Raises `Permanent`, or `Transient` where trying again may help; the message names the id, never the value.
        """
        if name not in self._config.secrets:
            raise sdk.Permanent(f"Unable to find secretId: {name}")
        if name not in self._texts:
            self._texts[name] = await self._fetch(self._config.secrets[name])
        return self._texts[name] if key is None else value_in(self._texts[name], name, key)

    async def _fetch(self, secret: SecretConfig) -> str:
        assert self._sessions is not None, "secrets are read inside the context manager"
        try:
            client = await self._sessions.client("secretsmanager", secret)
            reply = await client.get_secret_value(SecretId=secret.secret_id)
        except Exception as error:
            known = verdict(error)
            if known is None:
                raise
            raise type(known)(f"Unable to retrieve secret: {secret.secret_id} ({known})") from error
        text: str = reply.get("SecretString") or reply["SecretBinary"].decode("utf-8", "replace")
        return text


def value_in(text: str, name: str, key: str) -> str:
    """One value of a secret that is a JSON object, as text."""
    try:
        values: Any = sdk.decode(text.encode())
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise sdk.Permanent(f"The value under secretId: {name} is not a valid json.")
    if key not in values:
        raise sdk.Permanent(f"Unable to find the value of key: {key} under secretId: {name}")
    value = values[key]
    return value if isinstance(value, str) else sdk.encode(value).decode()
