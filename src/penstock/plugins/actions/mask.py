"""Replaces what is to be hidden by mask characters, always the same number of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field

from penstock import sdk
from penstock.lib.regex import interruptible

MASK_CHARACTERS = "*#!%&@"


def _is_mask(value: str) -> str:
    if len(value) != 1 or value not in MASK_CHARACTERS:
        raise ValueError("Valid characters are *, #, $, %, &, ! and @")
    return value


class Config(sdk.PluginConfig):
    mask_character: Annotated[str, AfterValidator(_is_mask)] = "*"
    """One of `*`, `#`, `!`, `%`, `&` and `@`."""
    mask_character_length: Annotated[int, Field(ge=1, le=10)] = 3
    """How many of them stand for one match."""


def build(config: Config, ctx: sdk.Context) -> Callable[[re.Pattern[str] | None], Callable[[str, sdk.Body], str]]:
    """What is built takes a pattern and gives a function that hides its matches; without one it hides all the text."""
    mask = config.mask_character * config.mask_character_length

    def compile_mask(pattern: re.Pattern[str] | None) -> Callable[[str, sdk.Body], str]:
        if pattern is None:
            return lambda text, body: mask
        replace = pattern.sub

        @interruptible
        def hide(text: str, body: sdk.Body) -> str:
            return replace(mask, text)

        return hide

    return compile_mask


EXAMPLES = [sdk.Example("Five number signs for each match", config='{mask_character: "#", mask_character_length: 5}')]
