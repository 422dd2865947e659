"""Types of plugin options: each parses, validates, documents and compiles itself once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from penstock.core import key as _key
from penstock.core import start
from penstock.core.errors import ConfigError, ExpressionSyntaxError
from penstock.core.units import parse_bytes, parse_duration
from penstock.expr import Expression, compile_expression, compile_template
from penstock.expr import Template as _Template

T = TypeVar("T")


class PluginConfig(BaseModel):
    """Options of a plugin. Unknown options are refused; the docstring under an option is its documentation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=start.describe_options,
        arbitrary_types_allowed=True,
        coerce_numbers_to_str=True,
        populate_by_name=True,
        validate_default=False,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


NonEmpty = Annotated[T, Field(min_length=1)]
"""A list, map or text that holds something."""

_TEXT = PlainSerializer(lambda value: getattr(value, "text", value), return_type=str, when_used="unless-none")


def _key_of(action: str) -> Callable[[Any], Any]:
    def parse(value: Any) -> _key.Key:
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, int):  # YAML reads the name 404 as a number
            value = str(value)
        if not isinstance(value, str):
            raise PydanticCustomError("event_key", "an event key is a text such as a/b")
        try:
            return _key.Key.parse(value, action=action)
        except ValueError as error:
            raise PydanticCustomError("event_key", "{reason}", {"reason": str(error)}) from None

    return parse


_KEY_SCHEMA = WithJsonSchema({"type": "string", "format": "event-key"})
Key = Annotated[_key.Key, PlainValidator(_key_of("all")), _KEY_SCHEMA, _TEXT]
"""Path of a value in an event, `a/b` or `/a/b`, that is read and written."""
ReadKey = Annotated[_key.Key, PlainValidator(_key_of("get")), _KEY_SCHEMA, _TEXT]
"""Path of a value that is only read; the empty path is the whole event."""
DeleteKey = Annotated[_key.Key, PlainValidator(_key_of("delete")), _KEY_SCHEMA, _TEXT]
"""Path of a value that is only deleted."""


def _condition(value: Any) -> Expression | None:
    if value is None or isinstance(value, Expression):
        return value
    if not isinstance(value, str):
        value = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        return compile_expression(value)
    except ExpressionSyntaxError as error:
        raise PydanticCustomError(
            "condition",
            '"{expression}" is not a valid expression statement. See https://opensearch.org/docs/latest/'
            "data-prepper/pipelines/expression-syntax/ for valid expression syntax",
            {"expression": value, "why": str(error)},
        ) from None


When = Annotated[
    Expression | None,
    PlainValidator(_condition),
    WithJsonSchema({"type": "string", "format": "expression"}),
    _TEXT,
]
"""A condition: only events for which it is true are handled. `ALWAYS` where none is given."""
ALWAYS: Expression | None = None
ValueExpression = Annotated[
    Expression, PlainValidator(_condition), WithJsonSchema({"type": "string", "format": "expression"}), _TEXT
]
"""An expression that gives a value of any type."""


def _template(value: Any) -> _Template:
    if not isinstance(value, str):
        value = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        return compile_template(value)
    except (ValueError, ExpressionSyntaxError) as error:
        raise PydanticCustomError("template", "{reason}", {"reason": str(error)}) from None


Template = Annotated[
    _Template, PlainValidator(_template), WithJsonSchema({"type": "string", "format": "template"}), _TEXT
]
"""A text with `${key}` and `${expression}` parts, filled per event."""


def _parsed(parse: Callable[[Any], Any], kind: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise PydanticCustomError(kind, "{reason}", {"reason": str(error)}) from None

    return BeforeValidator(check)


Duration = Annotated[
    float, _parsed(parse_duration, "duration"), WithJsonSchema({"type": "string", "format": "duration"})
]
"""A span in seconds, written `60s`, `100ms` or ISO 8601 (`PT15M`)."""
ByteSize = Annotated[int, _parsed(parse_bytes, "bytesize"), WithJsonSchema({"type": "string", "format": "bytesize"})]
"""A number of bytes, written with its unit: `10mb`."""
Secret = SecretStr
"""A value that is never shown."""


class NotYet:
    """Marks an option of the original that this release has not built: any value but a neutral one is refused by name.

    `Annotated[bool, NotYet(False)] = False` takes `false` and refuses `true`.
    """

    def __init__(self, *neutral: object) -> None:
        self.neutral = neutral

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> Any:
            if value is None or value in self.neutral:
                return value
            raise PydanticCustomError("not_yet", "not supported yet")

        return core_schema.no_info_before_validator_function(
            check,
            core_schema.nullable_schema(handler(source)),
            metadata={"pydantic_js_updates": {"x-not-yet": True}},
        )


@dataclass(frozen=True, slots=True)
class PluginUse:
    """A plugin named inside the options of another: a codec, an action, an authentication."""

    kind: str
    name: str
    module: ModuleType
    config: PluginConfig


def _shown(use: PluginUse | None) -> dict[str, Any] | None:
    return None if use is None else {use.name: use.config.model_dump(mode="json", exclude_unset=True, fallback=str)}


class Nested:
    """Marks an option that holds a plugin: `codec: Annotated[PluginUse | None, Nested("input_codec")] = None`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def resolve(value: Any, info: ValidationInfo) -> PluginUse | None:
            if value is None or isinstance(value, PluginUse):
                return value
            assert info.context is not None, "nested plugins are resolved by the plan"
            try:
                use: PluginUse = info.context["resolve"](self.kind, value)
            except ConfigError as error:
                raise PydanticCustomError(
                    "nested_plugin",
                    "{reason}",
                    {"reason": "; ".join(problem.message for problem in error.problems), "problems": error.problems},
                ) from None
            return use

        return core_schema.with_info_plain_validator_function(
            resolve,
            serialization=core_schema.plain_serializer_function_ser_schema(_shown),
            metadata={"pydantic_js_functions": [lambda _schema, _handler: {"type": "object", "x-plugin": self.kind}]},
        )
