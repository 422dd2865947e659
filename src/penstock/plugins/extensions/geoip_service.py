"""MaxMind databases for the `geoip` processor, read from local `.mmdb` files.

A file is opened when the first event needs it; at every `database_refresh_interval` one that has changed is opened
again. While a database cannot be opened, events get the tags of `tags_on_engine_failure`. Needs the extra `geoip`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from penstock import sdk
from penstock.lib import maxmind

REFRESH_INTERVAL_S_MIN, REFRESH_INTERVAL_S_MAX = 15 * 60.0, 30 * 86_400.0


def _within(seconds: float) -> float:
    if not REFRESH_INTERVAL_S_MIN <= seconds <= REFRESH_INTERVAL_S_MAX:
        raise ValueError("database_refresh_interval must be between PT15M and P30D")
    return seconds


class DatabasesConfig(sdk.PluginConfig):
    city: str | None = None
    """Path of a GeoLite2 City database."""
    country: str | None = None
    """Path of a GeoLite2 Country database."""
    asn: str | None = None
    """Path of a GeoLite2 ASN database."""
    enterprise: str | None = None
    """Path of a GeoIP2 Enterprise database, instead of the others."""

    @property
    def given(self) -> dict[str, str]:
        """Paths by kind."""
        named = {"country": self.country, "city": self.city, "asn": self.asn, "enterprise": self.enterprise}
        return {kind: path for kind, path in named.items() if path is not None}

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.enterprise is not None and len(self.given) > 1:
            raise ValueError("MaxMind GeoLite2 databases cannot be used along with enterprise database.")
        for path in self.given.values():
            if not path.strip() or (_scheme(path) and _scheme(path) not in ("s3", "http", "https")):
                raise ValueError("database_paths should be S3 URI or HTTP endpoint or local directory")
        return self


def _scheme(path: str) -> str:
    """`s3` of `s3://bucket/key`; empty for a path."""
    return urlsplit(path).scheme.lower() if "://" in path else ""


class MaxMindConfig(sdk.PluginConfig):
    databases: DatabasesConfig = Field(default_factory=DatabasesConfig)
    """Which databases there are. At least one is needed: downloads are not supported yet."""
    database_refresh_interval: Annotated[sdk.Duration, AfterValidator(_within)] = 7 * 86_400.0
    """Time between looks whether a file has changed, 15 minutes to 30 days."""
    cache_count: Annotated[int, Field(ge=100, le=100_000)] = 4096
    """Look-ups remembered by each entry of a processor."""
    aws: sdk.AwsOptions | None = None
    """Accepted; only downloads from S3 would use it."""
    insecure: bool = False
    """Accepted; only downloads would use it."""
    database_destination: str | None = None
    """Directory for the private copies that are read; below the data directory when left out."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        schemes = {kind: _scheme(path) for kind, path in self.databases.given.items()}
        if "s3" in schemes.values() and self.aws is None:
            raise ValueError("aws should be configured if any path in database_paths is S3 bucket path.")
        if "http" in schemes.values() and not self.insecure:
            raise ValueError("database_paths should be https endpoint if using URL and if insecure is set to false")
        for kind, scheme in schemes.items():
            if scheme:
                source = "S3" if scheme == "s3" else "the web"
                raise ValueError(f"databases.{kind}: downloading from {source} is not supported yet; name a local file")
        if not schemes:
            raise ValueError("databases: downloading the default databases is not supported yet; name local files")
        return self


class Config(sdk.PluginConfig):
    maxmind: MaxMindConfig = Field(default_factory=lambda: MaxMindConfig.model_validate({}))
    """The databases and how they are read."""


def build(config: Config, ctx: sdk.Context) -> maxmind.Databases:
    options = config.maxmind
    copies = (
        Path(options.database_destination) if options.database_destination else ctx.data_dir and ctx.data_dir / "geoip"
    )
    return maxmind.Databases(
        {kind: Path(path) for kind, path in options.databases.given.items()},
        refresh_interval_s=options.database_refresh_interval,
        copies=copies,
        cache_count=options.cache_count,
        monotonic=ctx.clock.monotonic,
    )


EXAMPLES = [
    sdk.Example(
        "Two databases on this machine",
        config="""
            maxmind:
              databases:
                city: /var/lib/geoip/GeoLite2-City.mmdb
                asn: /var/lib/geoip/GeoLite2-ASN.mmdb
        """,
    )
]
