"""Options of codecs that write events by an Avro schema: what they share is decided here once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from penstock.core.errors import ConfigError
from penstock.lib.avro import parse_schema
from penstock.sdk.context import SinkOptions
from penstock.sdk.options import PluginConfig

SCHEMA_AND_KEYS = (
    "Providing a user-defined schema and using sink include or exclude keys is not an allowed configuration."
)


class SchemaOptions(PluginConfig):
    """What such a codec is told."""

    format_name: ClassVar[str]
    """The name of the format in messages."""

    schema_text: str | None = Field(default=None, alias="schema")
    """Avro schema of the events, as JSON."""
    auto_schema: bool = False
    """Make the schema of the first event, instead of giving one."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.schema_text is not None) == self.auto_schema:
            raise ValueError(
                f"The {self.format_name} codec requires either defining a schema or setting auto_schema to true to "
                "automatically generate a schema."
            )
        if self.schema_text is not None:
            try:
                parse_schema(self.schema_text)
            except ValueError as error:
                raise ValueError(f"There is an error in the schema: {error}") from None
        return self

    def schema_for(self, sink: SinkOptions, check: Callable[[Any], object]) -> Any:
        """The schema that is given; None where it is made of the first event.

        `check` is what the format itself makes of the schema. Raises ConfigError where it refuses it, or where the sink
        chooses keys as well.
        """
        if self.schema_text is None:
            return None
        if sink.include_keys or sink.exclude_keys:
            raise ConfigError(SCHEMA_AND_KEYS)
        schema = parse_schema(self.schema_text)
        try:
            check(schema)
        except Exception as error:  # noqa: BLE001 (libraries have no error class of their own for all of this)
            raise ConfigError(f"There is an error in the schema: {error}") from None
        return schema
