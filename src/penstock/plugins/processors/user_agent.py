"""Reads browser, operating system and device out of the text of a user agent.

Writes `name`, `version`, `os` (`name`, `version`, `full`), `device` (`name`) and the text itself as `original`. What is
not recognised is named `Other`. Only the first 8192 characters of a text are looked at. Needs the extra `useragent`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from penstock import sdk
from penstock.lib.event_keys import Key
from penstock.lib.java_values import java_text

CHARACTERS_MAX = 8192
CACHED_CHARACTERS_MAX = 1024
"""Longer texts are read each time: what is cached stays small whatever is sent."""
CACHE_SIZE_MAX = 1_000_000

_Agent = tuple[str, str, str, str, str, str]
"""Name, version; name, version and both of the system; name of the device."""


def _not_empty(key: Key) -> Key:
    if not key.text:
        raise ValueError("source must not be empty")
    return key


class Config(sdk.PluginConfig):
    source: Annotated[sdk.ReadKey, AfterValidator(_not_empty)]
    """Field with the text of the user agent."""
    target: sdk.Key = Field(default="user_agent", validate_default=True)
    """Field for the result."""
    exclude_original: bool = False
    """Leave the text itself out of the result."""
    cache_size: Annotated[int, Field(ge=0, le=CACHE_SIZE_MAX)] = 1000
    """Texts whose result is remembered."""
    tags_on_parse_failure: list[str] | None = None
    """Tags for events without the field, or with something in it that is no text."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    _import_parser()
    get, put, source = config.source.get, config.target.put, config.source
    with_original = not config.exclude_original
    cached = lru_cache(config.cache_size)(_agent)
    fail = ctx.failure(config.tags_on_parse_failure or ())

    def parse(batch: sdk.Batch) -> sdk.Batch:
        for index, body in enumerate(batch.bodies):
            try:
                text = get(body)
                if type(text) is not str:
                    text = _text(text, source)
                name, version, os_name, os_version, os_full, device = (
                    cached(text) if len(text) <= CACHED_CHARACTERS_MAX else _agent(text[:CHARACTERS_MAX])
                )
                result = {
                    "name": name,
                    "version": version,
                    "os": {"name": os_name, "version": os_version, "full": os_full},
                    "device": {"name": device},
                }
                if with_original:
                    result["original"] = text
                put(body, result)
            except sdk.EventError as error:
                fail(batch, index, error)
        return batch

    return parse


def _text(value: Any, source: Key) -> str:
    if value is None or value is sdk.MISSING:
        raise sdk.EventError(f"There is no {source} to read a user agent from", cause="missing")
    if isinstance(value, dict | list):
        raise sdk.EventError(f"{source} is no text", cause="type")
    return java_text(value)


def _import_parser() -> Any:
    try:
        import ua_parser.loaders
        import ua_parser.regex
    except ImportError:
        raise sdk.ConfigError("user_agent needs ua-parser: pip install 'penstock[useragent]'") from None
    return ua_parser


@cache
def _parser() -> Callable[[str], Any]:
    """The parser of this process, made on first use: its patterns take 25 MB and a third of a second."""
    ua_parser = _import_parser()
    parse: Callable[[str], Any] = ua_parser.Parser(ua_parser.regex.Resolver(ua_parser.loaders.load_builtins())).parse
    return parse


def _agent(text: str) -> _Agent:
    try:
        found = _parser()(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        found = _parser()(text.encode(errors="replace").decode())
    agent, system, device = found.user_agent, found.os, found.device
    os_name = "Other" if system is None else system.family
    os_version = _version(system)
    return (
        "Other" if agent is None else agent.family,
        _version(agent),
        os_name,
        os_version,
        f"{os_name} {os_version}" if os_version else os_name,
        "Other" if device is None else device.family,
    )


def _version(part: Any) -> str:
    """`major.minor.patch` as far as it is known."""
    if part is None or part.major is None:
        return ""
    if part.minor is None:
        return str(part.major)
    if part.patch is None:
        return f"{part.major}.{part.minor}"
    return f"{part.major}.{part.minor}.{part.patch}"


EXAMPLES = [
    sdk.Example(
        "Which browser was it",
        config="{source: agent, exclude_original: true, tags_on_parse_failure: [no_agent]}",
        before=[
            {"agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 12.6; rv:42.0) Gecko/20100101 Firefox/42.0"},
            {"other": 1},
        ],
        after=[
            {
                "agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 12.6; rv:42.0) Gecko/20100101 Firefox/42.0",
                "user_agent": {
                    "name": "Firefox",
                    "version": "42.0",
                    "os": {"name": "Mac OS X", "version": "12.6", "full": "Mac OS X 12.6"},
                    "device": {"name": "Mac"},
                },
            },
            {"other": 1},
        ],
        tags=[[], ["no_agent"]],
    ),
]
