"""Converts values to another type, or guesses the types of all texts of an event."""

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from penstock import sdk
from penstock.lib.dates import compile_reader, validate_pattern
from penstock.lib.event_keys import Key
from penstock.lib.java_values import integer_reader, java_text, read_boolean, read_double
from penstock.lib.target_types import DECIMAL_EXPONENT_MAX

TargetType = Literal["integer", "string", "double", "boolean", "long", "big_decimal"]
_Convert = Callable[[Any], Any]

SCALE_MAX = 400
_INT_END, _LONG_END = 2**31, 2**63
_INT_DIGITS, _LONG_DIGITS = 9, 18
"""Digits of which every number is in range."""
_DEFAULT_TIME_FORMATS = [
    "MMM d HH:mm:ss",
    "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "yyyy-MM-dd'T'HH:mm:ss.SSSSSSX",
    "dd/MMM/yyyy:HH:mm:ss Z",
]


class CoerceStrings(sdk.PluginConfig):
    time_formats: list[str] = _DEFAULT_TIME_FORMATS
    """Date patterns; a text that matches one, read in UTC, becomes milliseconds since the epoch."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for pattern in self.time_formats:
            validate_pattern(pattern)
        return self


class Config(sdk.PluginConfig):
    key: sdk.Key | None = None
    """Value to convert; the elements of a list are converted one by one."""
    keys: list[sdk.Key] | None = None
    """Values to convert."""
    type: TargetType = "integer"
    """Type to convert to. `integer` has 32 bits and takes no fractions, `long` has 64 bits, `big_decimal` is exact."""
    null_conversion_values: Annotated[
        list[str] | None, Field(validation_alias=AliasChoices("null_conversion_values", "null_values"))
    ] = None
    """Texts that mean null: such a value is removed."""
    coerce_strings: CoerceStrings | None = None
    """Guess the types of all texts of the event; an empty value switches it on."""
    scale: Annotated[int, Field(ge=-SCALE_MAX, le=SCALE_MAX)] = 0
    """Decimal places of `big_decimal`, rounded half to even; 0 leaves them as they are."""
    iterate_on: sdk.ReadKey | None = None
    """List of objects; the value is converted in each of them."""
    tags_on_failure: list[str] | None = None
    """Tags for events with a value that cannot be converted; the value stays."""
    convert_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.key is not None and self.keys is not None:
            raise ValueError("key and keys cannot both be defined.")
        if self.key is None and not self.keys and not self.coerces:
            raise ValueError("key, keys, and coerceStrings all cannot be null. One must be provided.")
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_empty_key(cls, values: Any) -> Any:
        if isinstance(values, dict):
            keys = values.get("keys")
            if values.get("key") == "" or (isinstance(keys, list) and "" in keys):
                raise ValueError("key cannot be empty.")
        return values

    @property
    def coerces(self) -> bool:
        """Whether the texts of the event are to be guessed."""
        return "coerce_strings" in self.model_fields_set


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    when, tags = config.convert_when, config.tags_on_failure or ()
    keys = [config.key] if config.key is not None else config.keys or []
    convert = _converter(config)
    coerce: list[sdk.EventFn] = []
    if config.coerces:  # first, so that the types that are named stay
        coerce.append(_coercion((config.coerce_strings or CoerceStrings()).time_formats, ctx))
    if when is not sdk.ALWAYS and len(coerce) + len(keys) > 1:
        changes = [*coerce, *(_general_conversion(key, convert, config) for key in keys)]
        return ctx.each_of(changes, when=when, tags=tags)
    steps = [*coerce, *(_conversion(key, convert, config) for key in keys)]
    return ctx.chain(ctx.each(step, when=when, tags=tags) for step in steps)


def _conversion(key: Key, convert: _Convert, config: Config) -> sdk.EventFn | sdk.Inline:
    change, quickly = _general_conversion(key, convert, config), _QUICKLY.get(config.type)
    if quickly is None or key.top is None or config.iterate_on is not None or config.null_conversion_values:
        return change
    end, digits = (_INT_END, _INT_DIGITS) if config.type == "integer" else (_LONG_END, _LONG_DIGITS)
    return sdk.Inline(quickly, name=key.top, change=change, low=-end, end=end, digits=digits)


_INTEGER = """
value = body.get(name)
if type(value) is str and len(value) <= digits and value.isdecimal():
    body[name] = int(value)
elif value is not None and not (type(value) is int and low <= value < end):
    change(body)
"""
_DOUBLE = """
value = body.get(name)
if type(value) is str and value.isascii() and value.replace(".", "", 1).isdecimal():
    body[name] = float(value)
elif value is not None and type(value) is not float:
    change(body)
"""
_BOOLEAN = """
value = body.get(name)
if type(value) is str:
    body[name] = value.lower() == "true"
elif value is not None and type(value) is not bool:
    change(body)
"""
_STRING = """
value = body.get(name)
if type(value) is int and low <= value < end:
    body[name] = str(value)
elif value is not None and type(value) is not str:
    change(body)
"""
_QUICKLY: dict[TargetType, str] = {
    "integer": _INTEGER,
    "long": _INTEGER,
    "double": _DOUBLE,
    "boolean": _BOOLEAN,
    "string": _STRING,
}
"""What most values are converted by; the others are left to `change`."""


def _general_conversion(key: Key, convert: _Convert, config: Config) -> sdk.EventFn:
    nulls = frozenset(config.null_conversion_values or ())
    get, put, delete = key.get, key.put, key.delete
    unable = f"Unable to convert key: {key} to {config.type}"  # without the value: logs are no place for it

    def change(body: sdk.Body) -> None:
        value = get(body)
        if value is sdk.MISSING or value is None:
            return
        if nulls and type(value) is not dict and type(value) is not list and java_text(value) in nulls:
            delete(body)
            return
        try:
            put(body, [convert(item) for item in value] if type(value) is list else convert(value))
        except (ValueError, ArithmeticError) as error:
            raise sdk.EventError(unable, cause="convert") from error

    if config.iterate_on is None:
        return change
    get_list, list_key = config.iterate_on.get, config.iterate_on

    def change_elements(body: sdk.Body) -> None:
        elements = get_list(body)
        if elements is sdk.MISSING or elements is None:
            return
        if type(elements) is not list or any(type(element) is not dict for element in elements):
            raise sdk.EventError(f"The value of '{list_key}' must be a List of Map<String, Object>", cause="type")
        failure: sdk.EventError | None = None
        for element in elements:  # one bad element does not keep the others from being converted
            try:
                change(element)
            except sdk.EventError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    return change_elements


def _converter(config: Config) -> _Convert:
    if config.type == "big_decimal":
        scale = config.scale
        return lambda value: _to_decimal(value, scale)
    return {
        "integer": _to_integer,
        "long": _to_long,
        "double": _to_double,
        "boolean": _to_boolean,
        "string": _to_string,
    }[config.type]


_read_int, _read_long = integer_reader(32), integer_reader(64)


def _to_integer(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return _read_int(value)
    if kind is bool:
        return int(value)
    if kind is int and -_INT_END <= value < _INT_END:
        return int(value)
    if kind is Decimal and value.is_finite():
        return _wrapped(_whole(value), _INT_END)
    raise _unsupported(value)


def _to_long(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return _read_long(value)
    if kind is bool or (kind is int and -_LONG_END <= value < _LONG_END):
        return int(value)
    if kind is float and value == value:
        return int(min(max(value, -_LONG_END), _LONG_END - 1)) if abs(value) < _LONG_END else _saturated(value)
    if kind is Decimal and value.is_finite():
        return _wrapped(_whole(value), _LONG_END)
    raise _unsupported(value)


def _to_double(value: Any) -> float:
    if type(value) is str:
        return read_double(value)
    if isinstance(value, int | float | Decimal):
        return float(value)
    raise _unsupported(value)


def _to_boolean(value: Any) -> bool:
    if type(value) is str:
        return read_boolean(value)
    if isinstance(value, int | float | Decimal):
        return value != 0
    raise _unsupported(value)


def _to_string(value: Any) -> str:
    if isinstance(value, str | int | float | Decimal):
        return java_text(value)
    raise _unsupported(value)


def _to_decimal(value: Any, scale: int) -> Decimal:
    if type(value) is str:
        number = _read_decimal(value)
    elif isinstance(value, int | Decimal):
        number = Decimal(value)
    elif type(value) is float:
        number = Decimal(repr(value))
    else:
        raise _unsupported(value)
    if not number.is_finite():
        raise ValueError(f"{number} is no decimal number")
    if scale == 0:
        return number
    if number.adjusted() > DECIMAL_EXPONENT_MAX:
        raise ValueError("the number has too many digits to be written out")
    with localcontext() as context:
        context.prec = max(context.prec, number.adjusted() + scale + 2, 1)
        return number.quantize(Decimal(1).scaleb(-scale), rounding=ROUND_HALF_EVEN)


def _read_decimal(text: str) -> Decimal:
    try:
        if "_" not in text and text == text.strip():  # Python would take both
            return Decimal(text)
    except InvalidOperation:
        pass
    raise ValueError(f'"{text[:200]}" is no decimal number')


def _whole(value: Decimal) -> int:
    """The integer part as far as the lower 64 bits tell it: `1E+999999999` need not be written out for that."""
    exponent = value.as_tuple().exponent
    return 0 if isinstance(exponent, int) and exponent >= 64 else int(value)


def _wrapped(value: int, end: int) -> int:
    """The value of the lower bits, as Java's narrowing gives it."""
    return (value + end) % (2 * end) - end


def _saturated(value: float) -> int:
    return _LONG_END - 1 if value > 0 else -_LONG_END


def _unsupported(value: Any) -> ValueError:
    return ValueError(f"Unsupported type conversion. Source class: {type(value).__name__}")


def _coercion(time_formats: list[str], ctx: sdk.Context) -> sdk.EventFn:
    read_instant = compile_reader(time_formats, "UTC", None, ctx.clock.now_ns)

    def coerced(text: str) -> Any:
        lowered = text.lower() if len(text) <= 5 else text
        if lowered in ("true", "false"):
            return lowered == "true"
        instant = read_instant(text)
        return _number(text) if instant is None else instant // 1_000_000

    def coerce(body: sdk.Body) -> None:
        pending: list[Any] = [body]  # objects may be nested deeper than calls
        while pending:
            holder = pending.pop()
            for place, value in holder.items() if type(holder) is dict else enumerate(holder):
                kind = type(value)
                if kind is str:
                    holder[place] = coerced(value)
                elif kind is dict or kind is list:
                    pending.append(value)

    return coerce


def _number(text: str) -> Any:
    """The number that a text is, or the text."""
    if not text or not (text[-1].isdigit() or text[-1] == "."):
        return text
    for read in (_read_long, read_double):
        try:
            return read(text) if text == text.strip() else text
        except ValueError:
            if "." not in text and "e" not in text and "E" not in text:
                return text
    return text


EXAMPLES = [
    sdk.Example(
        "A number out of a text",
        config="""
            key: status
            type: integer
            tags_on_failure: [no_status]
        """,
        before=[{"status": "200"}, {"status": "n/a"}],
        after=[{"status": 200}, {"status": "n/a"}],
        tags=[[], ["no_status"]],
    ),
    sdk.Example(
        "Texts that mean nothing are removed",
        config="""
            keys: [bytes, took]
            type: double
            null_conversion_values: ["-"]
        """,
        before=[{"bytes": "-", "took": "0.25"}],
        after=[{"took": 0.25}],
    ),
    sdk.Example(
        "Guess all types",
        config="coerce_strings: {}",
        before=[{"ok": "true", "n": "12", "load": "0.5", "name": "web-1", "at": "15/Jan/2024:10:20:30 +0000"}],
        after=[{"ok": True, "n": 12, "load": 0.5, "name": "web-1", "at": 1705314030000}],
    ),
]
