"""The `aws` block that plugins share."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Annotated, TypeVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from penstock.sdk.options import PluginConfig

T = TypeVar("T", bound=Sized)


def _sized(low: int, high: int | None, message: str) -> AfterValidator:
    def check(value: T) -> T:
        if len(value) < low or (high is not None and len(value) > high):
            raise PydanticCustomError("size", "{reason}", {"reason": message})
        return value

    checked: Callable[[T], T] = check
    return AfterValidator(checked)


class AwsOptions(PluginConfig):
    """How a plugin reaches AWS."""

    region: Annotated[str, _sized(1, None, "Region cannot be empty string")] | None = None
    """AWS region; without it the region of the environment or of the profile."""
    sts_role_arn: (
        Annotated[str, _sized(20, 2048, "awsStsRoleArn length should be between 1 and 2048 characters")] | None
    ) = None
    """Role to assume; without it the credentials of the process are used (environment, profile, instance role)."""
    sts_external_id: (
        Annotated[str, _sized(2, 1224, "awsStsExternalId length should be between 2 and 1224 characters")] | None
    ) = None
    """External id that the role's trust policy asks for."""
    sts_header_overrides: (
        Annotated[dict[str, str], _sized(0, 5, "sts_header_overrides supports a maximum of 5 headers to override")]
        | None
    ) = None
    """Further headers of the request that assumes the role."""
