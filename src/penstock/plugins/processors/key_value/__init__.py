"""Splits a text into keys and values: `user=ada&role=admin`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from penstock import sdk
from penstock.lib.event_keys import compile_spread, replace_invalid_characters_in
from penstock.lib.java_values import java_text
from penstock.lib.limited_loop import each_limited
from penstock.lib.regex import RegexError, compile_java, interruptible
from penstock.plugins.processors.key_value.split import (
    BRACKETS,
    Pairs,
    compile_split,
    delimiter_units,
    single_delimiter,
)
from penstock.plugins.processors.key_value.tidy import compile_tidy

TransformKey = Literal["none", "lowercase", "uppercase", "capitalize"]


def _regex(name: str) -> AfterValidator:
    def check(value: str | None) -> str | None:
        try:
            compile_java(value or "")
        except RegexError:
            raise PydanticCustomError(
                "value_error", "{error}", {"error": f"The value of {name} is not a valid regex string"}
            ) from None
        return value

    return AfterValidator(check)


class Config(sdk.PluginConfig):
    source: sdk.ReadKey = Field(default="message", validate_default=True)
    """Field to split. Events without it are left alone."""
    destination: sdk.Key | None = Field(default="parsed_message", validate_default=True)
    """Key that receives the object of keys and values; null: they go to the top of the event."""
    field_split_characters: str | None = "&"
    """Characters between the pairs; a backslash makes the next one literal. An empty text is the default."""
    field_delimiter_regex: Annotated[str | None, _regex("field_delimiter_regex")] = None
    """Regular expression between the pairs, instead of `field_split_characters`."""
    value_split_characters: str | None = "="
    """Characters between key and value; a backslash makes the next one literal. An empty text is the default."""
    key_value_delimiter_regex: Annotated[str | None, _regex("key_value_delimiter_regex")] = None
    """Regular expression between key and value, instead of `value_split_characters`."""
    default_values: dict[str, Any] = Field(default_factory=dict)
    """Values of keys that were not found."""
    non_match_value: Any = None
    """Value of a part that has no delimiter."""
    normalize_keys: bool = False
    """Replace characters that no event key can hold by `_`."""
    include_keys: list[str] = Field(default_factory=list)
    """Only these keys are kept."""
    exclude_keys: list[str] = Field(default_factory=list)
    """These keys are left out."""
    prefix: str | None = None
    """Put before every key."""
    delete_key_regex: Annotated[str | None, _regex("delete_key_regex")] = None
    """What matches is removed from keys."""
    delete_value_regex: Annotated[str | None, _regex("delete_value_regex")] = None
    """What matches is removed from values."""
    transform_key: TransformKey = "none"
    """Letter case of keys."""
    whitespace: Literal["lenient", "strict"] = "lenient"
    """`strict` removes blanks around the delimiter of key and value."""
    skip_duplicate_values: bool = False
    """Keep equal values of one key only once."""
    remove_brackets: bool = False
    """Remove `()`, `[]` and `<>` from values."""
    value_grouping: bool = False
    """Do not split where a value is in quotes or brackets (`""`, `''`, `()`, `[]`, `<>`, `{}`) nor inside of a URL."""
    recursive: bool = False
    """Split values in brackets (`[]`, `()`, `<>`) into objects of their own."""
    overwrite_if_destination_exists: bool = True
    """Replace values that are there already."""
    drop_keys_with_no_value: bool = False
    """Leave out keys whose value is null."""
    strict_grouping: bool = False
    """A value whose quote or bracket is not closed is a failure; else it reaches to the end of the text."""
    string_literal_character: str | None = None
    """With `value_grouping`: text between two of these quotes is not split; it is a key without a value."""
    tags_on_failure: list[str] | None = None
    """Tags for events whose text cannot be split."""
    key_value_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        unused = {
            characters
            for characters, regex in (
                ("field_split_characters", "field_delimiter_regex"),
                ("value_split_characters", "key_value_delimiter_regex"),
            )
            if values.get(characters) == "" and not values.get(regex)
        }
        return {name: value for name, value in values.items() if name not in unused}

    @model_validator(mode="after")
    def _rules(self) -> Self:
        problems = [message for message, is_broken in self._broken().items() if is_broken]
        if problems:
            raise ValueError(" ".join(problems))
        return self

    def _broken(self) -> dict[str, bool]:
        literal = self.string_literal_character
        return {
            "Invalid Configuration. value_grouping option and field_delimiter_regex are mutually exclusive": (
                self.value_grouping and bool(self.field_delimiter_regex)
            ),
            "string_literal_character may only have one character": literal is not None and len(literal) > 1,
            "Invalid Configuration. String literal character config is valid only when value_grouping is enabled, "
            "and only double quote (\") and single quote are (') are valid string literal characters.": (
                literal is not None and not (self.value_grouping and literal in ('"', "'"))
            ),
            "field_delimiter_regex and field_split_characters cannot both be defined.": (
                bool(self.field_delimiter_regex) and bool(self.field_split_characters)
            ),
            "key_value_delimiter_regex and value_split_characters cannot both be defined.": (
                bool(self.key_value_delimiter_regex) and bool(self.value_split_characters)
            ),
            "One of field_delimiter_regex and field_split_characters must be defined.": not (
                self.field_delimiter_regex or self.field_split_characters is not None
            ),
            "One of key_value_delimiter_regex and value_split_characters must be defined.": not (
                self.key_value_delimiter_regex or self.value_split_characters is not None
            ),
            "source must not be empty": not str(self.source),
            "Include keys and exclude keys set cannot have any overlap": (
                not set(self.include_keys).isdisjoint(self.exclude_keys)
            ),
            "Cannot exclude a default key!": not set(self.default_values).isdisjoint(self.exclude_keys),
            **(self._broken_when_recursive() if self.recursive else {}),
        }

    def _broken_when_recursive(self) -> dict[str, bool]:
        start = "While recursive is true, the set"
        field, value = self.field_split_characters or "", self.value_split_characters or ""
        return {
            f"{start} field delimiter regex cannot contain brackets while you are trying to recurse.": (
                _has_bracket(self.field_delimiter_regex or "")
            ),
            f"{start} field split characters is limited to one character only.": len(delimiter_units(field)) != 1,
            f"{start} field delimiter cannot contain brackets while you are trying to recurse.": _has_bracket(field),
            f"{start} key value delimiter regex cannot contain brackets while you are trying to recurse.": (
                _has_bracket(self.key_value_delimiter_regex or "")
            ),
            f"{start} value split characters is limited to one character only.": len(delimiter_units(value)) != 1,
            f"{start} value split characters cannot contain brackets while you are trying to recurse.": (
                _has_bracket(value)
            ),
            "Cannot remove brackets needed for determining levels of recursion": self.remove_brackets,
        }


def _has_bracket(text: str) -> bool:
    return any(sign in text for pair in BRACKETS.items() for sign in pair)


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    change, when, tags = _change(config), config.key_value_when, config.tags_on_failure or ()
    expressions = (
        config.field_delimiter_regex,
        config.key_value_delimiter_regex,
        config.delete_key_regex,
        config.delete_value_regex,
    )
    if not any(expressions):
        return ctx.each(_inline_change(config, change) or change, when=when, tags=tags)
    return each_limited(lambda batch, index: change(batch.bodies[index]), when=when, fail=ctx.failure(tags))


_SPLIT = """
text = body.get(source)
if type(text) is str:
    members = {}
    for part in text.split(fields):
        if part:
            key, found, value = part.partition(sign)
            if not key or key in members:
                break
            members[key] = value if found else non_match_value
    else:
        body[destination] = members
        continue
change(body)
"""


def _inline_change(config: Config, change: sdk.EventFn) -> sdk.Inline | None:
    """Statements for texts in which no key comes twice and whose pairs stay as they are; None for other options."""
    source, destination = config.source.top, config.destination and config.destination.top
    fields = single_delimiter(config.field_split_characters or "")
    sign = single_delimiter(config.value_split_characters or "")
    tidies = any(getattr(config, name) not in _NOTHING for name in _TIDYING)
    if source is None or destination is None or fields is None or sign is None:
        return None
    if tidies or not config.overwrite_if_destination_exists:
        return None
    return sdk.Inline(
        _SPLIT,
        source=source,
        destination=destination,
        fields=fields,
        sign=sign,
        non_match_value=config.non_match_value,
        change=change,
    )


_TIDYING = (
    *("normalize_keys", "include_keys", "exclude_keys", "prefix", "default_values", "transform_key", "whitespace"),
    *("remove_brackets", "value_grouping", "recursive", "drop_keys_with_no_value", "string_literal_character"),
)
"""Options that do more than splitting; `skip_duplicate_values` only counts where a key comes twice."""
_NOTHING: tuple[Any, ...] = (None, False, "", [], {}, "none", "lenient")
"""Their values where they do nothing."""


def _change(config: Config) -> sdk.EventFn:
    get, source, destination = config.source.get, config.source, config.destination
    overwrite, normalize = config.overwrite_if_destination_exists, config.normalize_keys
    split: Callable[[str], Pairs] = compile_split(
        fields=config.field_split_characters or None,
        field_regex=config.field_delimiter_regex or None,
        values=config.value_split_characters or None,
        value_regex=config.key_value_delimiter_regex or None,
        non_match_value=config.non_match_value,
        grouping=config.value_grouping,
        strict=config.strict_grouping,
        literal=config.string_literal_character,
        recursive=config.recursive,
    )
    tidy = compile_tidy(
        include=frozenset(config.include_keys),
        exclude=frozenset(config.exclude_keys),
        delete_key=config.delete_key_regex,
        prefix=config.prefix or "",
        delete_value=config.delete_value_regex,
        strict_blanks=config.whitespace == "strict",
        transform=config.transform_key,
        remove_brackets=config.remove_brackets,
        unique=config.skip_duplicate_values,
        drop_null=config.drop_keys_with_no_value,
        defaults=config.default_values,
    )
    split, tidy = interruptible(split), interruptible(tidy)
    spread = compile_spread(overwrite=overwrite, normalize=normalize, lenient=True)

    def change(body: sdk.Body) -> None:
        text = get(body)
        if type(text) is not str:
            if text is sdk.MISSING or text is None:
                return
            if isinstance(text, dict | list):
                raise sdk.EventError(f"{source} is no text", cause="type")
            text = java_text(text)
        members = tidy(split(text))  # both may be left at any point
        if destination is None:
            spread(body, members)
        elif overwrite or not destination.exists(body):
            destination.put(body, replace_invalid_characters_in(members) if normalize else members)

    return change


EXAMPLES = [
    sdk.Example(
        "Split a query",
        config="source: query",
        before=[{"query": "user=ada&role=admin&role=dev&debug"}],
        after=[
            {
                "query": "user=ada&role=admin&role=dev&debug",
                "parsed_message": {"user": "ada", "role": ["admin", "dev"], "debug": None},
            }
        ],
    ),
    sdk.Example(
        "Split a log line with quoted values into the event",
        config="""
            destination: null
            field_split_characters: " "
            value_grouping: true
            drop_keys_with_no_value: true
        """,
        before=[{"message": 'INFO took=12 agent="curl/8 (x86)" path=/'}],
        after=[
            {
                "message": 'INFO took=12 agent="curl/8 (x86)" path=/',
                "took": "12",
                "agent": '"curl/8 (x86)"',
                "path": "/",
            }
        ],
    ),
    sdk.Example(
        "Split values in brackets too",
        config="{recursive: true, destination: parsed}",
        before=[{"message": "item=[id=1&size=(x=2&y=3)]&ok=yes"}],
        after=[
            {
                "message": "item=[id=1&size=(x=2&y=3)]&ok=yes",
                "parsed": {"item": {"id": "1", "size": {"x": "2", "y": "3"}}, "ok": "yes"},
            }
        ],
    ),
]
