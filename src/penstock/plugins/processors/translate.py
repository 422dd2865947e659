"""Translates values by tables: exact values, ranges of numbers, regular expressions, and a default.

The first of them that knows a value decides, in that order; expressions are tried in the order they are written in. A
source like `list/name` is looked up in every object of the list, and the result is written beside it. Ranges are
compared exactly, not in single precision. An event that cannot be translated, or for which matching takes too long,
stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from penstock import sdk
from penstock.lib.event_keys import Key, compile_key
from penstock.lib.limited_loop import each_limited
from penstock.lib.regex import RegexError, compile_java, interruptible
from penstock.lib.target_types import TargetType, compile_conversion, java_text
from penstock.lib.text_values import JAVA_WHITESPACE, ReplacementError, compile_replace

FILE_BYTES_MAX = 64 * 1024 * 1024
PATHS_CACHED_MAX = 512
VALUES_REMEMBERED_MAX = 4096
"""Values whose result is remembered beside those of the map."""
INTEGER_DIGITS_MAX = 19
"""Longer numbers are compared as decimals, which takes no more time for more digits."""

_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)", re.ASCII)
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
"""Numbers whose text is the one they were written as."""
_RANGE = re.compile(r" *([0-9]+) *- *([0-9]+) *", re.ASCII)
_NO_MATCH = object()
_ELEMENT_META = sdk.Meta("event")

_Table = dict[str, Any]
"""Texts to values."""


def _text_keys(value: Any) -> Any:
    """Keys of a table are texts, also where YAML reads a number or a truth value."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else java_text(key): item for key, item in value.items()}
    return value


class Regex(sdk.PluginConfig):
    patterns: Annotated[dict[str, Any] | None, BeforeValidator(_text_keys)] = None
    """Values by regular expression."""
    exact: bool = True
    """Expressions match the value as a whole; `false`: what matches inside of it is replaced by their value."""


class Target(sdk.PluginConfig):
    target: sdk.NonEmpty[str]
    """Key that receives the result; beside the source when that is inside an object. May hold `${...}`."""
    map: Annotated[dict[str, Any] | None, BeforeValidator(_text_keys)] = None
    """Results by value. A key may list several values (`a,b`) and ranges of whole numbers (`1-5`)."""
    translate_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are translated; inside an object, only such objects."""
    regex: Regex | None = None
    """Results by regular expression, for values that the map does not know."""
    default: str | None = None
    """Result when nothing matches; no result when left out."""
    type: TargetType = "string"
    """Type of the result."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        problems = []
        if self.regex is not None and self.regex.patterns is None:
            problems.append("pattern option is mandatory while configuring regex option")
        if self.map is None and self.regex is None:
            problems.append("Either map or patterns option needs to be configured under targets.")
        if not _convertible(self.map, self.type):
            problems.append("The mapped values do not match the target type provided")
        if self.regex is not None and not _convertible(self.regex.patterns, self.type):
            problems.append("The pattern values do not match the target type provided")
        if not problems:
            try:
                _lookup(self)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError(" ".join(problems))
        return self


def _convertible(table: _Table | None, kind: TargetType) -> bool:
    convert = compile_conversion(kind)
    try:
        for value in (table or {}).values():
            convert(value)
    except ValueError:
        return False
    return True


class Mapping(sdk.PluginConfig):
    source: Any = None
    """Key of the value to translate, or a list of keys below one parent: then the result is a list."""
    targets: list[Target] = Field(default_factory=list)
    """What the value is translated to."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        problems = []
        if self.source is None:
            problems.append("source option not configured")
        elif not self._has_valid_source():
            problems.append(
                'The "source" field should either be a string or a list of strings sharing the same parent path.'
            )
        if not self.targets:
            problems.append("targets option not configured")
        if not problems:
            problems += _wrong_targets(self)
        if problems:
            raise ValueError(" ".join(problems))
        return self

    def _has_valid_source(self) -> bool:
        if isinstance(self.source, str):
            return True
        return (
            isinstance(self.source, list)
            and bool(self.source)
            and all(isinstance(text, str) for text in self.source)
            and len({_path(text)[0] for text in self.source}) == 1
        )

    @property
    def sources(self) -> list[str]:
        """The keys of the source."""
        return [self.source] if isinstance(self.source, str) else self.source


def _wrong_targets(mapping: Mapping) -> Iterator[str]:
    """What is wrong with targets that are keys of the event, not names inside an object."""
    if _path(mapping.sources[0])[0]:
        return
    for target in mapping.targets:
        try:
            compile_key(target.target)
        except ValueError as error:
            yield str(error)


class Tables(sdk.PluginConfig):
    """What a file of mappings holds."""

    mappings: list[Mapping]
    """Translations, in order."""


class Aws(sdk.PluginConfig):
    bucket: str
    """Bucket of the file."""
    region: str
    """AWS region of the bucket."""
    sts_role_arn: str
    """Role to assume."""


class File(sdk.PluginConfig):
    name: str
    """Path of a YAML file with `mappings`."""
    aws: Annotated[Aws | None, sdk.NotYet()] = None
    """Reads the file from S3."""


class Config(sdk.PluginConfig):
    file: File | None = None
    """Further mappings in a file. For the same source and target those in the pipeline win."""
    mappings: list[Mapping] | None = Field(default_factory=list)
    """Translations, in order."""

    _combined: list[Mapping] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        problems = []
        if self.mappings is None:
            problems.append('"mappings" option should not be empty.')
        from_file: list[Mapping] | None = None
        if self.file is not None:
            try:
                from_file = _read(Path(self.file.name))
            except (OSError, ValueError) as error:
                problems.append(
                    f'The file specified in the "file_path" option is not properly configured. ({_reason(error)})'
                )
        self._combined = _combine(self.mappings or [], from_file or [])
        if not self._combined:
            problems.append(
                'Please ensure that at least one of the options, either "mappings" or "file_path", '
                "is properly configured."
            )
        if problems:
            raise ValueError(" ".join(problems))
        return self

    @property
    def combined(self) -> list[Mapping]:
        """The mappings of pipeline and file."""
        return self._combined


def _read(path: Path) -> list[Mapping]:
    """The mappings in a file. Raises OSError and ValueError."""
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"the file has more than {FILE_BYTES_MAX} bytes")
    try:
        return Tables.model_validate(yaml.safe_load(data)).mappings
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            ".".join(map(str, (*entry["loc"], ""))) + " " + entry["msg"] for entry in error.errors(include_url=False)
        )
    return str(error)


def _combine(inline: list[Mapping], from_file: list[Mapping]) -> list[Mapping]:
    combined = list(inline)
    for mapping in from_file:
        same = [place for place, known in enumerate(combined) if known.source == mapping.source]
        for place in same:
            known = {target.target for target in combined[place].targets}
            targets = [*combined[place].targets, *(one for one in mapping.targets if one.target not in known)]
            combined[place] = combined[place].model_copy(update={"targets": targets})
        if not same:
            combined.append(mapping)
    return combined


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    return ctx.chain(_step(mapping, target, ctx) for mapping in config.combined for target in mapping.targets)


def _step(mapping: Mapping, target: Target, ctx: sdk.Context) -> sdk.BatchFn:
    change, when = _plain(mapping, target), target.translate_when
    if change is None:
        change, when = sdk.Inline("translate(body, meta)", translate=_translation(mapping, target)), None
    if target.regex is None:
        return ctx.each(change, when=when)
    return each_limited(change, when=when, fail=ctx.failure())


_Change = Callable[[sdk.Body, sdk.Meta], None]


def _translation(mapping: Mapping, target: Target) -> _Change:
    value_of, many = _lookup(target), not isinstance(mapping.source, str)
    test = None if target.translate_when is None else target.translate_when.test
    result_of = _results(value_of, many=many)
    if any("${" in text for text in mapping.sources):
        return _dynamic(mapping.sources, target.target, test, result_of)
    paths = [_path(text) for text in mapping.sources]
    parents = paths[0][0]
    if parents:
        return _nested(parents, [leaf for _, leaf in paths], target.target, test, result_of)
    keys = [Key(leaf) for _, leaf in paths]
    return _top(keys, target.target, test, result_of)


_Results = Callable[[list[Any]], Any]
"""From the values of the sources to what is written; MISSING for nothing. Raises EventError."""
_Test = Callable[[sdk.Body, sdk.Meta], bool] | None


_TRANSLATE = """
value = body.get(source)
if type(value) in simple:
    result = known.get(value, otherwise)
    if result is missing:
        continue
    if result is unknown:
        result = find(value)
elif value is None:
    continue
else:
    result = find(value)
if result is not missing:
    body[target] = result
"""


def _plain(mapping: Mapping, target: Target) -> sdk.Inline | None:
    """The most common mapping: from one name at the top to another."""
    if not isinstance(mapping.source, str) or "${" in mapping.source or "${" in target.target:
        return None
    parents, leaf = _path(mapping.source)
    source = Key(leaf)
    if parents or source.top is None:
        return None
    written = compile_key(target.target)({}, _ELEMENT_META)
    if written.top is None:
        return None
    value_of, (known, otherwise) = _lookup(target), _known(target)

    def find(value: Any) -> Any:
        result = value_of(value if type(value) is str else _scalar_text(value))
        if len(known) < VALUES_REMEMBERED_MAX and (type(value) is int or (type(value) is str and len(value) <= 64)):
            known[value] = result
        return result

    return sdk.Inline(
        _TRANSLATE,
        source=source.top,
        target=written.top,
        known=known,
        otherwise=otherwise,
        find=find,
        unknown=_NO_MATCH,
        missing=sdk.MISSING,
        simple=frozenset((str, int)),  # without booleans and fractions, which can be equal to integers
    )


def _known(target: Target) -> tuple[dict[Any, Any], Any]:
    """Results by value, and the result of all other values; `_NO_MATCH` where those differ or fail."""
    convert = compile_conversion(target.type)
    singles, ranges = _parsed(target.map or {}, convert)
    numbers: dict[Any, Any] = {int(text): value for text, value in singles.items() if _WHOLE.fullmatch(text)}
    known = numbers | singles
    if ranges or target.regex is not None:
        return known, _NO_MATCH
    if target.default is None:
        return known, sdk.MISSING
    try:
        return known, convert(target.default)
    except ValueError:
        return known, _NO_MATCH


def _top(keys: list[Key], target: str, test: _Test, result_of: _Results) -> _Change:
    getters, target_of = [key.get for key in keys], compile_key(target)

    def translate(body: sdk.Body, meta: sdk.Meta) -> None:
        if test is None or test(body, meta):
            result = result_of([get(body) for get in getters])
            if result is not sdk.MISSING:
                target_of(body, meta).put(body, result)

    return translate


def _nested(parents: tuple[str, ...], leaves: list[str], target: str, test: _Test, result_of: _Results) -> _Change:
    def translate(body: sdk.Body, meta: sdk.Meta) -> None:
        results = []
        for holder in _objects(body, parents):
            if test is None or test(holder, _ELEMENT_META):
                result = result_of([_as_text(holder.get(leaf)) for leaf in leaves])
                if result is not sdk.MISSING:
                    results.append((holder, result))
        for holder, result in results:  # only now: an event that fails half-way stays as it was
            holder[target] = result

    return translate


def _dynamic(sources: list[str], target: str, test: _Test, result_of: _Results) -> _Change:
    """For sources whose keys are made of the event."""
    source_keys, target_of = [compile_key(text) for text in sources], compile_key(target)

    def translate(body: sdk.Body, meta: sdk.Meta) -> None:
        try:
            keys = [key_of(body, meta) for key_of in source_keys]
            paths = [_path(key.text) for key in keys]
        except sdk.EventError:
            return  # a key that this event does not have
        parents = paths[0][0]
        if parents:
            _nested(parents, [leaf for _, leaf in paths], target, test, result_of)(body, meta)
        elif test is None or test(body, meta):
            result = result_of([key.get(body) for key in keys])
            if result is not sdk.MISSING:
                target_of(body, meta).put(body, result)

    return translate


def _as_text(value: Any) -> Any:
    """An object or list inside of an object is looked up as its text."""
    if type(value) is not dict and type(value) is not list:
        return value
    try:
        return java_text(value)
    except RecursionError:
        raise sdk.EventError("A source is nested too deeply", cause="type") from None


@lru_cache(maxsize=PATHS_CACHED_MAX)
def _path(text: str) -> tuple[tuple[str, ...], str]:
    """The names above a value, and its own."""
    *parents, leaf = [part for part in text.strip(JAVA_WHITESPACE).split("/") if part] or [""]
    return tuple(parents), leaf.strip(JAVA_WHITESPACE)


def _objects(body: sdk.Body, parents: tuple[str, ...]) -> Iterator[sdk.Body]:
    """The objects under a path; lists on the way stand for all their elements."""
    pending: list[tuple[Any, int]] = [(body, 0)]
    while pending:
        node, depth = pending.pop()
        if type(node) is list:
            pending += [(item, depth) for item in reversed(node)]
        elif type(node) is dict:
            if depth == len(parents):
                yield node
            else:
                pending.append((node.get(parents[depth]), depth + 1))


def _results(value_of: Callable[[str], Any], *, many: bool) -> _Results:
    def one(values: list[Any]) -> Any:
        (value,) = values
        if value is None or value is sdk.MISSING:
            return sdk.MISSING
        if type(value) is not str:
            value = _scalar_text(value)
        return value_of(value)

    def all_of(values: list[Any]) -> Any:
        found = [one([value]) for value in values]
        return [value for value in found if value is not sdk.MISSING] or sdk.MISSING

    return all_of if many else one


def _scalar_text(value: Any) -> str:
    if type(value) is dict or type(value) is list:
        raise sdk.EventError("A source is no text", cause="type")
    return java_text(value)


def _lookup(target: Target) -> Callable[[str], Any]:
    """The table of a target as a function; MISSING for a text without a result. Raises ValueError for a wrong table."""
    convert = compile_conversion(target.type)
    singles, ranges = _parsed(target.map or {}, convert)
    match = _matcher(target.regex) if target.regex is not None and target.regex.patterns else None
    default = target.default

    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except ValueError as error:
            wrong = f"The result cannot be converted to {target.type}"
            raise sdk.EventError(f"{wrong}: {value}", cause="convert", logged=wrong) from error

    def lookup(text: str) -> Any:
        result = singles.get(text, _NO_MATCH)
        if result is not _NO_MATCH:
            return result
        if ranges and _NUMBER.fullmatch(text):
            number = int(text) if len(text) < INTEGER_DIGITS_MAX and "." not in text else Decimal(text)
            for low, high, value in ranges:
                if low <= number <= high:
                    return value
        if match is not None:
            result = match(text)
            if result is not _NO_MATCH:
                return converted(result)
        return sdk.MISSING if default is None else converted(default)

    return lookup


_Ranges = list[tuple[int, int, Any]]


def _parsed(table: _Table, convert: Callable[[Any], Any]) -> tuple[_Table, _Ranges]:
    """A map as single values and ranges."""
    singles: _Table = {}
    ranges: _Ranges = []
    for keys, value in table.items():
        result = convert(value)
        for key in keys.rstrip(",").split(","):
            found = _RANGE.fullmatch(key)
            if found is None:
                if key in singles:
                    raise ValueError(f"map option contains duplicate entries of {key}")
                singles[key.strip(JAVA_WHITESPACE)] = result
                continue
            low, high = sorted((int(found[1]), int(found[2])))
            if any(low <= end and begin <= high for begin, end, _ in ranges):
                raise ValueError(f"map option contains key {key} that overlaps with other range entries")
            ranges.append((low, high, result))
    for key in singles:
        if _NUMBER.fullmatch(key) and any(low <= Decimal(key) <= high for low, high, _ in ranges):
            raise ValueError(f"map option contains key {key} that overlaps with other range entries")
    return singles, ranges


def _matcher(options: Regex) -> Callable[[str], Any]:
    """A function that tries the expressions in order."""
    patterns = []
    for expression, value in (options.patterns or {}).items():
        try:
            patterns.append((compile_java(expression), value, _replacer(expression, value, exact=options.exact)))
        except RegexError as error:
            raise ValueError(f'patterns contains "{expression}", which is not a valid regex string: {error}') from None

    @interruptible
    def match(text: str) -> Any:
        for pattern, value, replace in patterns:
            if pattern.fullmatch(text):
                return value
            if replace is not None and pattern.search(text):
                return replace(text)
        return _NO_MATCH

    return match


def _replacer(expression: str, value: Any, *, exact: bool) -> Callable[[str], str] | None:
    if exact:
        return None
    try:
        return compile_replace(expression, java_text(value))
    except ReplacementError as error:
        reason = f"The value {value} cannot replace a part of a text: {error}"

    def refuse(text: str) -> str:
        raise sdk.EventError(reason, cause="replacement")

    return refuse


EXAMPLES = [
    sdk.Example(
        "Values, ranges and a default",
        config="""
            mappings:
              - source: status
                targets:
                  - target: result
                    map: {"200-299": success, "404,410": gone}
                    default: other
        """,
        before=[{"status": 204}, {"status": "404"}, {"status": 500}, {"none": 1}],
        after=[
            {"status": 204, "result": "success"},
            {"status": "404", "result": "gone"},
            {"status": 500, "result": "other"},
            {"none": 1},
        ],
    ),
    sdk.Example(
        "In every object of a list, by regular expression",
        config="""
            mappings:
              - source: disks/name
                targets:
                  - target: kind
                    regex: {patterns: {"nvme.*": flash, "sd[a-z]": disk}}
        """,
        before=[{"disks": [{"name": "nvme0"}, {"name": "sda"}, {"name": "md0"}]}],
        after=[{"disks": [{"name": "nvme0", "kind": "flash"}, {"name": "sda", "kind": "disk"}, {"name": "md0"}]}],
    ),
    sdk.Example(
        "Replace a part, and give another type",
        config="""
            mappings:
              - source: host
                targets:
                  - {target: site, regex: {exact: false, patterns: {"^ber-": "berlin-"}}}
                  - {target: weight, type: integer, map: {ber-1: 10}}
        """,
        before=[{"host": "ber-1"}],
        after=[{"host": "ber-1", "site": "berlin-1", "weight": 10}],
    ),
]
