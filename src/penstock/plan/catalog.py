"""Which plugins there are: by module, by other names, by entry point, and those that are known but not built."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel

from penstock.config.closest import closest
from penstock.core.errors import ConfigError, Problem

_PLUGINS = "penstock.plugins"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin: the package of its modules and the class of its options."""

    package: str
    config: str = "Config"


KINDS: dict[str, Kind] = {
    "source": Kind("sources"),
    "buffer": Kind("buffers"),
    "processor": Kind("processors"),
    "sink": Kind("sinks"),
    "input_codec": Kind("codecs", "InputConfig"),
    "output_codec": Kind("codecs", "OutputConfig"),
    "extension": Kind("extensions"),
    "aggregate_action": Kind("actions"),
    "obfuscate_action": Kind("actions"),
    "action": Kind("actions"),
    "http_authentication": Kind("auth"),
    "grpc_authentication": Kind("auth"),
    "authentication": Kind("auth"),
    "store": Kind("stores"),
    "dlq": Kind("dlq"),
}
"""Kinds by the word that `sdk.Nested` and the plan use."""


def kind_of(name: str) -> Kind:
    """The kind of that name; an unlisted one has a package of its own, named with an s."""
    return KINDS.get(name) or Kind(name if name.endswith("s") else name + "s")


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin module and the names it goes by."""

    kind: str
    name: str
    written: str
    """The name as it stands in the pipeline; it is the name in metrics too."""
    module: ModuleType
    config: type[BaseModel]
    deprecation: str = ""
    """The warning for an outdated name."""


def find(kind: str, written: str) -> Found:
    """The plugin of that kind and name. Raises ConfigError in the words of Data Prepper."""
    table = _names()
    deprecated = table.DEPRECATED_NAMES.get(kind, {}).get(written)
    name: str = deprecated or table.ALTERNATE_NAMES.get(kind, {}).get(written, written)
    module = _module(kind, name)
    config = None if module is None else getattr(module, kind_of(kind).config, None)
    if module is None or config is None:
        raise ConfigError(_missing(kind, written, name))
    warning = ""
    if deprecated:
        warning = (
            f"Plugin name '{written}' is deprecated and will be removed in the next major release. "
            f"Consider using the updated plugin name '{name}'."
        )
    return Found(kind, name, written, module, config, warning)


def names(kind: str) -> list[str]:
    """Every plugin of a kind that can be used here, in order."""
    found = [name for name in _built_in(kind_of(kind).package) if _has_config(kind, name)]
    return sorted({*found, *(entry.name for entry in _entry_points(kind))})


def known_names(kind: str) -> list[str]:
    """Every name that means something: built, by another name, or not built yet."""
    table = _names()
    other = [*table.DEPRECATED_NAMES.get(kind, {}), *table.ALTERNATE_NAMES.get(kind, {})]
    built = [name for name in _built_in(kind_of(kind).package) if not _is_of_another_kind(kind, name)]
    return sorted({*built, *DATA_PREPPER_NAMES.get(kind, ()), *other})


def is_experimental(kind: str, name: str) -> bool:
    """Whether Data Prepper wants this plugin to be allowed first."""
    return name in EXPERIMENTAL.get(kind, ())


def _missing(kind: str, written: str, name: str) -> Problem:
    if name in DATA_PREPPER_NAMES.get(kind, ()):
        return Problem(f'Plugin "{written}" is not supported yet', plugin=written)
    near = closest(written, known_names(kind), distance_max=max(1, len(written) // 3))
    return Problem(
        f"Unable to find a plugin named '{written}'. Please ensure that plugin is annotated with appropriate values.",
        suggestion=f"did you mean {near}?" if near else "",
        plugin=written,
    )


def _module(kind: str, name: str) -> ModuleType | None:
    if not _NAME.match(name):
        return None
    package = kind_of(kind).package
    file = name.replace("-", "_")
    if (file not in _built_in(package) and name not in _built_in(package)) or _is_of_another_kind(kind, name):
        return _from_entry_point(kind, name)
    try:
        return importlib.import_module(f"{_PLUGINS}.{package}.{file}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("penstock"):
            raise
        raise ConfigError(
            Problem(
                f'Plugin "{name}" needs the Python package {error.name}.',
                suggestion='install it with: pip install "penstock[all]"',
                plugin=name,
            )
        ) from None


def _is_of_another_kind(kind: str, name: str) -> bool:
    """Whether the module of that name is of a kind that shares its package with this one: actions are."""
    package = kind_of(kind).package
    known = DATA_PREPPER_NAMES.get(kind)
    if known is None or name in known:
        return False
    return any(name in names for other, names in DATA_PREPPER_NAMES.items() if kind_of(other).package == package)


def _from_entry_point(kind: str, name: str) -> ModuleType | None:
    for entry in _entry_points(kind):
        if entry.name == name:
            try:
                module = entry.load()
            except Exception as error:  # somebody else's code may raise anything
                reason = f'Plugin "{name}" cannot be loaded from {entry.value}: {type(error).__name__}: {error}'
                raise ConfigError(Problem(reason, plugin=name)) from error
            assert isinstance(module, ModuleType), f"{entry.value} must be a module"
            return module
    return None


@cache
def _entry_points(kind: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"penstock.{kind_of(kind).package}"))


def _built_in(package: str) -> list[str]:
    """Names of the modules of a package. Not cached: reading a directory is cheap, and tests add to it."""
    try:
        spec = importlib.util.find_spec(f"{_PLUGINS}.{package}")
    except ModuleNotFoundError:
        return []
    places = [] if spec is None else spec.submodule_search_locations or []
    return sorted(name for place in places for name in _module_names(Path(place)))


def _module_names(place: Path) -> Iterator[str]:
    for item in place.iterdir():
        name = item.name.removesuffix(".py") if item.suffix == ".py" else item.name if _is_package(item) else ""
        if name and not name.startswith("_"):
            yield PUBLIC_NAMES.get(name, name)


def _is_package(item: Path) -> bool:
    return item.is_dir() and (item / "__init__.py").is_file()


def _has_config(kind: str, name: str) -> bool:
    """Codecs of one package may read, write or both; the others have their class for sure."""
    try:
        return find(kind, name).name == name
    except ConfigError:
        return False


def _names() -> ModuleType:
    return importlib.import_module(_PLUGINS)


def _names_in(text: str) -> frozenset[str]:
    return frozenset(text.split())


PUBLIC_NAMES = {"no_op": "no-op"}
"""Names in YAML that are no Python names."""

DATA_PREPPER_NAMES: dict[str, frozenset[str]] = {
    "source": _names_in(
        "cloudwatch confluence crowdstrike documentdb dynamodb file http iceberg jira kafka kinesis log_generator "
        "microsoft_office365 opensearch opensearch_api otlp otlp_logs otlp_metrics otlp_traces prometheus random rds "
        "rss s3 sqs stdin"
    ),
    "buffer": _names_in("bounded_blocking kafka zero"),
    "processor": _names_in(
        "add_entries aggregate anomaly_detector aws_lambda convert_type copy_values csv date decompress delay "
        "delete_entries detect_format dissect drop_events filter_list flatten geoip grok key_value list_to_map "
        "lowercase_string map_to_list ml_inference no-op obfuscate otel_apm_service_map otel_metrics otel_trace_group "
        "otel_traces parse_ion parse_json parse_xml rate_limiter rename_keys replace_string s3_enrich select_entries "
        "service_map split_event split_string string_converter substitute_string trace_peer_forwarder translate "
        "trim_string truncate uppercase_string user_agent wrap_entries write_json"
    ),
    "sink": _names_in(
        "aws_lambda aws_personalize cloudwatch_logs file http kafka noop opensearch otlp prometheus s3 sns sqs stdout"
    ),
    "input_codec": _names_in("avro csv event_json json multiline ndjson newline otel_logs otel_traces parquet"),
    "output_codec": _names_in("avro csv event_json json ndjson newline parquet"),
    "extension": _names_in("encryption geoip_service kafka_cluster_config kinesis"),
    "aggregate_action": _names_in(
        "append count histogram percent_sampler put_all rate_limiter remove_duplicates sum tail_sampler"
    ),
    "obfuscate_action": _names_in("hash mask"),
    "store": _names_in("dynamodb in_memory"),
    "dlq": _names_in("s3"),
}
"""Names that Data Prepper knows. Those without a module here are answered with `not supported yet`."""

EXPERIMENTAL: dict[str, frozenset[str]] = {
    "source": _names_in("crowdstrike iceberg prometheus"),
    "processor": _names_in("s3_enrich"),
    "sink": _names_in("cloudwatch_logs otlp prometheus"),
}
"""Plugins that have to be allowed in the server configuration."""

SINGLE_THREAD = _names_in("grok otel_apm_service_map service_map")
"""Processors of which Data Prepper has one instance per worker; its `zero` buffer refuses them."""
