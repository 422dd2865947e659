import pytest
from pydantic import ValidationError

from penstock import sdk
from penstock.plugins.auth import unauthenticated


def test_everybody_is_let_in() -> None:
    allows = unauthenticated.build(unauthenticated.Config(), sdk.Context("p", "http", kind="source"))
    assert allows(b"")
    assert allows(b"Basic bWU6c2VjcmV0")


def test_there_is_nothing_to_configure() -> None:
    with pytest.raises(ValidationError):
        unauthenticated.Config.model_validate({"username": "a"})
