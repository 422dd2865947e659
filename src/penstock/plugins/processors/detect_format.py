"""Guesses the format of a text: `json`, `xml`, `csv` or `keyvalue`. A text of no such format gets no name.

It looks at the first and last characters, at the commas of the first ten lines, then at the first key of the first
line. Every event is judged by itself: where Data Prepper gives a text it does not know the name of the text before it,
it gets none here.
"""

from collections.abc import Callable
from typing import Self

from pydantic import Field, model_validator

from penstock import sdk
from penstock.lib.limited_loop import each_limited
from penstock.lib.regex import RegexError
from penstock.lib.text_values import JAVA_BLANKS, compile_split

LINES_MAX = 10
_HasPairs = Callable[[str], bool]


class Config(sdk.PluginConfig):
    source: sdk.Key
    """Key of the text. Other values are left alone."""
    target_key: sdk.Key | None = None
    """Key that receives the name of the format."""
    target_metadata_key: str | None = None
    """Metadata attribute that receives the name of the format."""
    key_value_delimiter: str = "="
    """Text between a key and its value."""
    key_value_separator_list: list[str] = Field(default_factory=lambda: [" ", ",", "&"])
    """Characters between the pairs, or regular expressions of more than one character."""
    detect_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.target_key is None and self.target_metadata_key is None:
            raise ValueError("At least one of target_key and target_metadata_key must be specified")
        try:
            _pair_tests(self)
        except RegexError as error:
            raise ValueError(f"key_value_separator_list holds a wrong regular expression: {error}") from None
        return self


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    get, target, attribute = config.source.get, config.target_key, config.target_metadata_key
    delimiter, pair_tests = config.key_value_delimiter, _pair_tests(config)

    def format_of(text: str) -> str | None:
        return _format(text.strip(JAVA_BLANKS), delimiter, pair_tests)

    def detect(batch: sdk.Batch, index: int) -> None:
        text = get(batch.bodies[index])
        if type(text) is not str:
            return
        found = format_of(text)
        if found is None:
            return
        if target is not None:
            target.put(batch.bodies[index], found)
        if attribute is not None:
            batch.meta(index).attributes[attribute] = found

    if config.source.top is not None and target is not None and target.top is not None and attribute is None:
        quick = sdk.Inline(_DETECT, source=config.source.top, target=target.top, format_of=format_of)
        return each_limited(quick, when=config.detect_when, fail=ctx.failure())
    return each_limited(detect, when=config.detect_when, fail=ctx.failure())


_DETECT = """
value = body.get(source)
if type(value) is str:
    found = format_of(value)
    if found is not None:
        body[target] = found
"""


def _format(text: str, delimiter: str, pair_tests: list[_HasPairs]) -> str | None:
    if text.startswith("{") and text.endswith("}"):
        return "json"
    if text.startswith("<?xml") or (text.startswith("<") and text.endswith(">")):
        return "xml"
    if "\n" in text:
        lines = [line.removesuffix("\r") for line in text.split("\n", LINES_MAX)[:LINES_MAX]]
        commas = [line.count(",") for line in lines]
        if commas[1:].count(commas[0]) >= len(lines) // 2:
            return "csv"
        text = lines[0]
    if delimiter not in text:
        return None
    for has_pairs in pair_tests:
        if has_pairs(text):
            return "keyvalue"
    return None


def _pair_tests(config: Config) -> list[_HasPairs]:
    return [
        _pair_test(separator, config.key_value_delimiter) for separator in config.key_value_separator_list if separator
    ]


def _pair_test(separator: str, delimiter: str) -> _HasPairs:
    """Whether a line has several parts of which the first has a delimiter."""
    if len(separator) == 1:

        def has_pairs(line: str) -> bool:
            first, _, rest = line.partition(separator)
            return delimiter in first and bool(rest.strip(separator))

        return has_pairs
    split = compile_split(None, separator)

    def splits_into_pairs(line: str) -> bool:
        parts = split(line)
        return len(parts) > 1 and delimiter in parts[0]

    return splits_into_pairs


EXAMPLES = [
    sdk.Example(
        "Four formats and none",
        config="{source: message, target_key: format}",
        before=[
            {"message": '{"a": 1}'},
            {"message": "<a>1</a>"},
            {"message": "a,b\n1,2\n3,4"},
            {"message": "a=1 b=2"},
            {"message": "disk full"},
        ],
        after=[
            {"message": '{"a": 1}', "format": "json"},
            {"message": "<a>1</a>", "format": "xml"},
            {"message": "a,b\n1,2\n3,4", "format": "csv"},
            {"message": "a=1 b=2", "format": "keyvalue"},
            {"message": "disk full"},
        ],
    ),
]
