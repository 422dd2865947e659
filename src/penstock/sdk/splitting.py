"""Options of processors that split texts: where to, by a character or by a regular expression."""

from __future__ import annotations

from pydantic import field_validator

from penstock.lib.regex import RegexError, compile_java
from penstock.sdk.options import PluginConfig


class SplitOptions(PluginConfig):
    """What such a processor is told. Which of the two may be left out is its own rule."""

    delimiter: str | None = None
    """Character to split at."""
    delimiter_regex: str | None = None
    """Regular expression to split at, instead of `delimiter`."""

    @field_validator("delimiter")
    @classmethod
    def _is_character(cls, value: str | None) -> str | None:
        if value is not None and len(value) != 1:
            raise ValueError("delimiter size must be between 1 and 1")
        return value

    @field_validator("delimiter_regex")
    @classmethod
    def _is_regex(cls, value: str | None) -> str | None:
        try:
            compile_java(value or "")
        except RegexError:
            raise ValueError("The value of delimiter_regex is not a valid regex string") from None
        return value
