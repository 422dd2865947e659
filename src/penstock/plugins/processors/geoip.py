"""Adds what MaxMind databases know of an IP address: country, city, location, network.

The databases are those of the extension `geoip_service`. Each entry writes an object with the fields that are known; an
event of which any entry finds nothing gets the tags for the reason, and keeps what the other entries found. Addresses
of private networks and of the machine itself are no valid ones unless `lookup_private_addresses` is set. Country fields
come from a city database too where there is no country database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from penstock import sdk
from penstock.lib.event_keys import Key
from penstock.lib.java_values import java_text
from penstock.lib.maxmind import DatabaseFailure, Databases, check

ADDRESS_CHARACTERS_MAX = 64
_PRIVATE = [IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8")]

_COUNTRY_FIELDS = {
    "continent_code": ("continent", "code"),
    "continent_name": ("continent", "names", "en"),
    "country_name": ("country", "names", "en"),
    "is_country_in_european_union": ("country", "is_in_european_union"),
    "country_iso_code": ("country", "iso_code"),
    "country_confidence": ("country", "confidence"),
    "registered_country_name": ("registered_country", "names", "en"),
    "registered_country_iso_code": ("registered_country", "iso_code"),
    "represented_country_name": ("represented_country", "names", "en"),
    "represented_country_iso_code": ("represented_country", "iso_code"),
    "represented_country_type": ("represented_country", "type"),
}
_CITY_FIELDS = {
    "city_name": ("city", "names", "en"),
    "city_confidence": ("city", "confidence"),
    "location": ("location",),
    "latitude": ("location", "latitude"),
    "longitude": ("location", "longitude"),
    "location_accuracy_radius": ("location", "accuracy_radius"),
    "metro_code": ("location", "metro_code"),
    "time_zone": ("location", "time_zone"),
    "postal_code": ("postal", "code"),
    "postal_code_confidence": ("postal", "confidence"),
    "most_specified_subdivision_name": ("subdivisions", -1, "names", "en"),
    "most_specified_subdivision_iso_code": ("subdivisions", -1, "iso_code"),
    "most_specified_subdivision_confidence": ("subdivisions", -1, "confidence"),
    "least_specified_subdivision_name": ("subdivisions", 0, "names", "en"),
    "least_specified_subdivision_iso_code": ("subdivisions", 0, "iso_code"),
    "least_specified_subdivision_confidence": ("subdivisions", 0, "confidence"),
}
_ASN_FIELDS = {
    "asn": ("autonomous_system_number",),
    "asn_organization": ("autonomous_system_organization",),
    "network": (),
    "ip": (),
}
_PATHS: dict[str, tuple[str | int, ...]] = {**_COUNTRY_FIELDS, **_CITY_FIELDS, **_ASN_FIELDS}


def _not_empty(key: Key) -> Key:
    if not key.text:
        raise ValueError("source must not be empty")
    return key


class Entry(sdk.PluginConfig):
    source: Annotated[sdk.ReadKey, AfterValidator(_not_empty)]
    """Field with the address."""
    target: sdk.Key = Field(default="geo", validate_default=True)
    """Field for the result."""
    include_fields: list[str] | None = None
    """Fields to add; an empty list stands for all. Names that no database has are left out."""
    exclude_fields: list[str] | None = None
    """Add all fields but these."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.include_fields is None) == (self.exclude_fields is None):
            raise ValueError(
                "include_fields and exclude_fields are mutually exclusive. "
                "include_fields or exclude_fields is required."
            )
        return self

    @property
    def fields(self) -> list[str]:
        """The fields to add."""
        included = {name.lower() for name in self.include_fields or ()} or set(_PATHS)
        excluded = {name.lower() for name in self.exclude_fields or ()}
        return [name for name in _PATHS if name in included and name not in excluded]


NEEDS_EXTENSION = "geoip_service"
"""The databases come from there."""


class Config(sdk.PluginConfig):
    entries: sdk.NonEmpty[list[Entry]]
    """Which addresses to look up."""
    tags_on_engine_failure: list[str] | None = None
    """Tags for events that came while a database could not be read."""
    tags_on_ip_not_found: list[str] | None = None
    """Tags for events with an address that no database knows."""
    tags_on_no_valid_ip: list[str] | None = None
    """Tags for events whose address is missing, malformed, or private."""
    geoip_when: sdk.When = sdk.ALWAYS
    """Only events that match this expression are changed."""
    lookup_private_addresses: bool = False
    """Look up addresses of private networks too."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    databases = ctx.extensions.get(NEEDS_EXTENSION)
    if databases is None:
        raise sdk.ConfigError(f"{NEEDS_EXTENSION} configuration is required when using geoip processor.")
    check()
    return _GeoIp(config, ctx, databases).run


class _GeoIp:
    """The processor."""

    def __init__(self, config: Config, ctx: sdk.Context, databases: Databases) -> None:
        self._config = config
        self._ctx = ctx
        self._databases = databases
        self._entries = [
            (entry.source.top, entry.source.get, entry.target.top, entry.target.put, _finder(entry, config, databases))
            for entry in config.entries
        ]
        self._version = databases.version
        counter = ctx.metrics.counter
        self._processed, self._succeeded = counter("eventsProcessed"), counter("eventsSucceeded")
        self._failed = counter("eventsFailed")
        self._failed_by_cause: dict[str, sdk.Counter] = {}
        self._not_found = counter("eventsFailedLocationNotFound")
        self._engine_failed = counter("eventsFailedEngineException")
        self._fail_condition = ctx.failure(failures="processingErrors")

    def run(self, batch: sdk.Batch) -> sdk.Batch:
        chosen = self._chosen(batch)
        self._processed.add(len(chosen))
        readable = self._databases.refresh()
        if self._databases.version != self._version:
            self._version = self._databases.version
            for *_, find in self._entries:
                find.cache_clear()
        if not readable:
            for index in chosen:
                self._end(batch, index, {"engine"}, looked_up=False)
            return batch
        failed = self._enrich(batch.bodies, chosen)
        self._succeeded.add(len(chosen) - len(failed))
        for index, causes in failed.items():
            self._end(batch, index, causes)
        return batch

    def _chosen(self, batch: sdk.Batch) -> Sequence[int]:
        when = self._config.geoip_when
        if when is None:
            return range(len(batch))
        chosen = []
        for index, body in enumerate(batch.bodies):
            try:
                if when.test(body, batch.peek(index)):
                    chosen.append(index)
            except sdk.EventError as error:
                self._fail_condition(batch, index, error)
        return chosen

    def _enrich(self, bodies: Sequence[sdk.Body], chosen: Sequence[int]) -> dict[int, set[str]]:
        """Write what is known of the addresses of events; returns where something went wrong, and what."""
        failed: dict[int, set[str]] = {}
        entries = self._entries
        for index in chosen:
            body = bodies[index]
            for source, get, target, put, find in entries:
                text = get(body) if source is None else body.get(source)
                try:
                    if type(text) is not str:
                        text = _text(text)
                    found = find(text) if text is not None and len(text) <= ADDRESS_CHARACTERS_MAX else None
                    if found:  # what is remembered belongs to no event
                        fields, location = found
                        copied = fields.copy()
                        if location is not None:
                            copied["location"] = location.copy()
                        if target is None:
                            put(body, copied)
                        else:
                            body[target] = copied
                        continue
                    cause = "no_valid_ip" if found is None else "ip_not_found"
                except DatabaseFailure as error:
                    cause = "engine"
                    self._ctx.log.error("Pipeline %s: %s", self._ctx.pipeline, error)
                except sdk.EventError as error:  # the target is below a value that is no object
                    cause = error.cause
                    self._ctx.log.warning(
                        "An event of pipeline %s was not changed: %s", self._ctx.pipeline, error.logged
                    )
                failed.setdefault(index, set()).add(cause)
        return failed

    def _end(self, batch: sdk.Batch, index: int, causes: set[str], *, looked_up: bool = True) -> None:
        """Tag and count an event by what went wrong."""
        self._failed.add()
        config = self._config
        tags: list[str] = []
        for cause in causes:
            if cause not in self._failed_by_cause:
                self._failed_by_cause[cause] = self._ctx.metrics.counter("eventsFailedByCause", cause=cause)
            self._failed_by_cause[cause].add()
            if cause == "ip_not_found":
                self._not_found.add()
                tags += config.tags_on_ip_not_found or ()
            elif cause == "no_valid_ip":
                tags += config.tags_on_no_valid_ip or ()
            else:
                self._engine_failed.add(cause == "engine" and looked_up)
                tags += config.tags_on_engine_failure or ()
        if tags:
            batch.tag(index, tags)


def _text(value: Any) -> str | None:
    return None if value is None or value is sdk.MISSING or isinstance(value, dict | list) else java_text(value)


def _finder(entry: Entry, config: Config, databases: Databases) -> Any:
    """A function with a memory for what is known of the text of an address: its fields, and the one that is an object.

    It gives nothing for an unknown address, None for what is no valid one, and raises `DatabaseFailure`.
    """
    plan = list(_plan(entry.fields, databases.paths))
    look_up, private = databases.look_up, config.lookup_private_addresses

    def find(text: str) -> tuple[dict[str, Any], dict[str, Any] | None] | tuple[()] | None:
        address = _address(text)
        if address is None or not (private or _is_public(address)):
            return None
        fields: dict[str, Any] = {}
        for kind, read in plan:
            answer = look_up(kind, address)
            if answer is not None:
                read(*answer, address, fields)
        return (fields, fields.get("location")) if fields else ()

    return lru_cache(databases.cache_count)(find)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        return not address.is_site_local and not address.is_loopback
    return not any(address in network for network in _PRIVATE)


_Read = Callable[[dict[str, Any], int, IPv4Address | IPv6Address, dict[str, Any]], None]
"""Adds what a record says to the fields that are not known yet."""


def _plan(fields: Iterable[str], available: Iterable[str]) -> Iterable[tuple[str, _Read]]:
    """Which databases to ask for which fields, in order."""
    kinds = set(available)
    country = [name for name in fields if name in _COUNTRY_FIELDS]
    city = [name for name in fields if name in _CITY_FIELDS]
    asn = [name for name in fields if name in _ASN_FIELDS]
    if "enterprise" in kinds:
        if country or city:
            yield "enterprise", _reader([*country, *city])
        if asn:
            yield "enterprise", _network_reader(asn, inside="traits")
        return
    if "city" in kinds and (city or (country and "country" not in kinds)):
        yield "city", _reader([*country, *city])
    if "country" in kinds and country:
        yield "country", _reader(country)
    if "asn" in kinds and asn:
        yield "asn", _network_reader(asn)


def _reader(names: Sequence[str]) -> _Read:
    paths = [(name, _PATHS[name]) for name in names]

    def read(record: dict[str, Any], prefix: int, address: object, fields: dict[str, Any]) -> None:
        for name, path in paths:
            if name in fields:
                continue
            value: Any
            if name == "location":
                value = _location(record)
            elif name == "is_country_in_european_union":
                country = record.get("country")
                value = bool(country.get("is_in_european_union")) if isinstance(country, dict) else None
            else:
                value = _scalar(record, path)
            if value is not None:
                fields[name] = value

    return read


def _network_reader(names: Sequence[str], inside: str | None = None) -> _Read:
    def read(record: dict[str, Any], prefix: int, address: Any, fields: dict[str, Any]) -> None:
        told = record if inside is None else record.get(inside)
        if not isinstance(told, dict) or "autonomous_system_number" not in told:
            return
        values = {
            "asn": _scalar(told, _PATHS["asn"]),
            "asn_organization": _scalar(told, _PATHS["asn_organization"]),
            "network": str(ip_network((address, max(0, prefix)), strict=False)),
            "ip": str(address),
        }
        fields.update((name, values[name]) for name in names if values[name] is not None)

    return read


def _location(record: dict[str, Any]) -> dict[str, Any] | None:
    lat, lon = _scalar(record, ("location", "latitude")), _scalar(record, ("location", "longitude"))
    return None if lat is None or lon is None else {"lat": lat, "lon": lon}


def _scalar(record: Any, path: Iterable[str | int]) -> Any:
    """The value at a path of a record; None when there is none or it is not a text, number or boolean."""
    for part in path:
        if isinstance(part, int):
            if not isinstance(record, list) or not record:
                return None
            record = record[part]
        elif isinstance(record, dict):
            record = record.get(part)
        else:
            return None
    return record if isinstance(record, str | int | float) else None


EXAMPLES = [
    sdk.Example(
        "Where a request came from",
        config="""
            entries:
              - source: clientip
                target: client/geo
                include_fields: [country_iso_code, city_name, location]
            tags_on_ip_not_found: [somewhere]
            tags_on_no_valid_ip: [no_ip]
        """,
    )
]
