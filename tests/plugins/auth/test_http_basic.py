from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock import sdk
from penstock.plugins.auth import http_basic

CTX = sdk.Context("p", "http", kind="source")


def allows(username: str, password: str, header: bytes) -> bool:
    config = http_basic.Config.model_validate({"username": username, "password": password})
    return http_basic.build(config, CTX)(header)


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_the_right_password_and_only_that(password: str) -> None:
    right = b64encode(f"me:{password}".encode())
    assert allows("me", password, b"Basic " + right)
    assert allows("me", password, b"basic  " + right)
    assert not allows("me", password + "x", b"Basic " + right)
    assert not allows("you", password, b"Basic " + right)
    assert not allows("me", password, b"Bearer " + right)


@given(st.binary(max_size=50))
def test_garbage_opens_nothing(header: bytes) -> None:
    assert not allows("me", "secret", header)
    assert not allows("me", "secret", b"Basic " + header)


@pytest.mark.parametrize("options", [{}, {"username": "a"}, {"password": "b"}, {"username": "", "password": "b"}])
def test_both_are_needed(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        http_basic.Config.model_validate(options)


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(http_basic.Config.model_validate({"username": "a", "password": "secret"}))
