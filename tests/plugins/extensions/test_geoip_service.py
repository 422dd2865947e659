"""Where databases may come from."""

import pytest

from penstock.plugins.extensions.geoip_service import Config


def maxmind(databases, **options):
    return {"maxmind": {"databases": databases, **options}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "downloading the default databases is not supported yet"),
        (maxmind({}), "downloading the default databases is not supported yet"),
        (
            maxmind({"city": "a.mmdb", "enterprise": "b.mmdb"}),
            "MaxMind GeoLite2 databases cannot be used along with enterprise database.",
        ),
        (maxmind({"city": "ftp://x/y"}), "database_paths should be S3 URI or HTTP endpoint or local directory"),
        (maxmind({"city": " "}), "database_paths should be S3 URI or HTTP endpoint or local directory"),
        (maxmind({"city": "s3://b/k"}), "aws should be configured if any path in database_paths is S3 bucket path."),
        (
            maxmind({"city": "s3://b/k"}, aws={"region": "x"}),
            "databases.city: downloading from S3 is not supported yet",
        ),
        (
            maxmind({"asn": "http://download.maxmind.com/x"}),
            "database_paths should be https endpoint if using URL and if insecure is set to false",
        ),
        (maxmind({"asn": "http://h/x"}, insecure=True), "databases.asn: downloading from the web is not supported yet"),
        (maxmind({"asn": "https://h/manifest.json"}), "databases.asn: downloading from the web is not supported yet"),
        (maxmind({"city": "a"}, database_refresh_interval="PT14M"), "between PT15M and P30D"),
        (maxmind({"city": "a"}, database_refresh_interval="P31D"), "between PT15M and P30D"),
        (maxmind({"city": "a"}, cache_count=99), "cache_count"),
        (maxmind({"city": "a"}, cache_count=100_001), "cache_count"),
    ],
)
def test_rules(config, message):
    with pytest.raises(ValueError, match=message):
        Config.model_validate(config)


def test_defaults():
    options = Config.model_validate(maxmind({"city": "a.mmdb", "asn": "b.mmdb"})).maxmind
    assert options.databases.given == {"city": "a.mmdb", "asn": "b.mmdb"}
    assert (options.cache_count, options.database_refresh_interval, options.insecure) == (4096, 604_800, False)
