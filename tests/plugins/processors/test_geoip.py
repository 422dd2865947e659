"""Addresses looked up in small databases that the tests write themselves."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from penstock.core.clock import ManualClock
from penstock.core.errors import ConfigError
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.plugins.extensions import geoip_service
from penstock.plugins.processors import geoip
from penstock.sdk import Batch, Context, copy_value
from penstock.testing.strategies import events, keys

GERMANY = {
    "continent": {"code": "EU", "names": {"en": "Europe", "de": "Europa"}},
    "country": {"iso_code": "DE", "is_in_european_union": True, "names": {"en": "Germany"}},
    "registered_country": {"iso_code": "FR", "names": {"en": "France"}},
}
BERLIN = {
    **GERMANY,
    "city": {"names": {"en": "Berlin"}},
    "location": {"latitude": 52.5, "longitude": 13.4, "accuracy_radius": 10, "time_zone": "Europe/Berlin"},
    "postal": {"code": "10115"},
    "subdivisions": [{"iso_code": "BE", "names": {"en": "Land"}}, {"iso_code": "MI", "names": {"en": "Mitte"}}],
}
USA = {"country": {"iso_code": "US", "names": {"en": "United States"}}, "location": {"latitude": 1.0}}
NETWORK = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"}


def write(path, networks, ip_version=6):
    writer = MMDBWriter(ip_version, ipv4_compatible=ip_version == 6, database_type="Test", float_type="f64")
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return str(path)


@pytest.fixture(scope="session")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("geoip")
    city = {"81.2.69.0/24": BERLIN, "2001:db8:1::/48": BERLIN, "8.8.8.0/24": USA, "10.0.0.0/8": USA}
    return {
        "city": write(folder / "city.mmdb", city),
        "country": write(folder / "country.mmdb", {"81.2.69.0/24": GERMANY, "9.9.9.0/24": USA}),
        "asn": write(folder / "asn.mmdb", {"81.2.0.0/16": NETWORK}, ip_version=4),
        "enterprise": write(
            folder / "enterprise.mmdb",
            {"81.2.69.0/24": {**BERLIN, "country": {**GERMANY["country"], "confidence": 99}, "traits": NETWORK}},
        ),
    }


class Harness:
    def __init__(self, databases, folder, entries, **options):
        self.registry, self.clock = Registry(), ManualClock()
        maxmind = {"databases": databases, "database_destination": str(folder), "database_refresh_interval": "PT15M"}
        config = geoip_service.Config.model_validate({"maxmind": maxmind})
        service = geoip_service.build(config, Context("x", "geoip_service", kind="extension", clock=self.clock))
        options |= {"tags_on_engine_failure": ["engine"], "tags_on_ip_not_found": ["unknown"]}
        options |= {"tags_on_no_valid_ip": ["invalid"], "entries": entries}
        ctx = Context("p", "geoip", registry=self.registry, extensions={"geoip_service": service})
        self.run = geoip.build(geoip.Config.model_validate(options), ctx)

    def one(self, body):
        batch = Batch([body])
        batch.promise(Handle())
        result = self.run(batch)
        return result.bodies[0].get("geo"), sorted(result.peek(0).tags)

    def counts(self):
        names = ("Processed", "Succeeded", "Failed", "FailedLocationNotFound", "FailedEngineException")
        return [int(self.registry.value(f"p.geoip.events{name}")) for name in names]


def look_up(databases, folder, ip, **entry):
    return Harness(databases, folder, [{"source": "ip", **(entry or {"exclude_fields": []})}]).one({"ip": ip})


def test_all_fields(paths, tmp_path):
    databases = {kind: paths[kind] for kind in ("city", "country", "asn")}
    everything = {
        "continent_code": "EU",
        "continent_name": "Europe",
        "country_name": "Germany",
        "country_iso_code": "DE",
        "is_country_in_european_union": True,
        "registered_country_name": "France",
        "registered_country_iso_code": "FR",
        "city_name": "Berlin",
        "location": {"lat": 52.5, "lon": 13.4},
        "latitude": 52.5,
        "longitude": 13.4,
        "location_accuracy_radius": 10,
        "time_zone": "Europe/Berlin",
        "postal_code": "10115",
        "most_specified_subdivision_name": "Mitte",
        "most_specified_subdivision_iso_code": "MI",
        "least_specified_subdivision_name": "Land",
        "least_specified_subdivision_iso_code": "BE",
        "asn": 64500,
        "asn_organization": "Example",
        "network": "81.2.0.0/16",
        "ip": "81.2.69.142",
    }
    assert look_up(databases, tmp_path, "81.2.69.142") == (everything, [])
    enterprise, tags = look_up({"enterprise": paths["enterprise"]}, tmp_path, "81.2.69.142")
    assert enterprise == {**everything, "country_confidence": 99, "network": "81.2.69.0/24"}
    assert tags == []
    assert not list(tmp_path.iterdir())  # the copies are gone, what was read stays


def test_fields_and_databases_are_chosen(paths, tmp_path):
    city, country = {"city": paths["city"]}, {"country": paths["country"]}
    name = {"include_fields": ["COUNTRY_NAME", "nonsense"]}
    assert look_up(city, tmp_path, "8.8.8.8", **name) == ({"country_name": "United States"}, [])
    assert look_up(city | country, tmp_path, "9.9.9.9", include_fields=["city_name", "country_iso_code"]) == (
        {"country_iso_code": "US"},
        [],
    )
    assert look_up(country, tmp_path, "81.2.69.1", include_fields=["city_name"]) == (None, ["unknown"])
    assert look_up(city, tmp_path, "8.8.8.8", include_fields=["location"]) == (None, ["unknown"])
    most, _ = look_up(city, tmp_path, "81.2.69.1", exclude_fields=["location", "asn"])
    assert "location" not in most
    assert most["is_country_in_european_union"] is True


@pytest.mark.parametrize("ip", ["2001:db8:1::5", "::ffff:81.2.69.142", "2001:0DB8:0001::1"])
def test_addresses_of_both_kinds(paths, tmp_path, ip):
    city = {"city": paths["city"], "asn": paths["asn"]}
    assert look_up(city, tmp_path, ip, include_fields=["city_name"]) == ({"city_name": "Berlin"}, [])


@pytest.mark.parametrize(
    "ip",
    [
        *("", " ", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "example.org", "fe80::1%eth0", "x" * 5_000_000),
        *("10.1.2.3", "172.31.0.1", "192.168.0.1", "127.0.0.1", "::1", "fec0::1", "::ffff:10.0.0.1"),
        *("\ud800", "١.2.3.4", None, 5, 1e400, True, ["8.8.8.8"], {"a": 1}),
    ],
)
def test_no_valid_addresses(paths, tmp_path, ip):
    harness = Harness({"city": paths["city"]}, tmp_path, [{"source": "ip", "exclude_fields": []}])
    assert harness.one({"ip": ip}) == (None, ["invalid"])
    assert harness.counts() == [1, 0, 1, 0, 0]


def test_private_addresses_on_request(paths, tmp_path):
    entries = [{"source": "ip", "include_fields": ["country_iso_code"]}]
    harness = Harness({"city": paths["city"]}, tmp_path, entries, lookup_private_addresses=True)
    assert harness.one({"ip": "10.1.2.3"}) == ({"country_iso_code": "US"}, [])


def test_entries_are_independent_and_results_are_not_shared(paths, tmp_path):
    entries = [
        {"source": "a", "target": "x/geo", "include_fields": ["location"]},
        {"source": "b", "target": "geo", "include_fields": ["country_name"]},
    ]
    harness = Harness({"city": paths["city"]}, tmp_path, entries)
    batch = Batch(
        [{"a": "81.2.69.1", "b": "1.1.1.1"}, {"a": "81.2.69.1", "b": "127.0.0.1"}, {"a": "81.2.69.1", "x": 1}]
    )
    batch.promise(Handle())
    first, second, third = harness.run(batch).bodies
    assert first["x"]["geo"] == second["x"]["geo"] == {"location": {"lat": 52.5, "lon": 13.4}}
    assert first["x"]["geo"]["location"] is not second["x"]["geo"]["location"]
    assert third == {"a": "81.2.69.1", "x": 1}
    tags = [sorted(batch.peek(place).tags) for place in range(3)]
    assert tags == [["unknown"], ["invalid"], ["engine", "invalid"]]
    assert harness.counts() == [3, 0, 3, 1, 0]


def test_a_database_that_is_not_there_is_tried_again(paths, tmp_path):
    path = tmp_path / "later.mmdb"
    harness = Harness({"city": str(path)}, tmp_path, [{"source": "ip", "include_fields": ["city_name"]}])
    assert harness.one({"ip": "81.2.69.1"}) == (None, ["engine"])
    path.write_bytes(b"no database")
    harness.clock.advance(31)
    assert harness.one({"ip": "81.2.69.1"}) == (None, ["engine"])
    write(path, {"81.2.69.0/24": BERLIN})
    assert harness.one({"ip": "81.2.69.1"}) == (None, ["engine"])  # not yet due
    harness.clock.advance(31)
    assert harness.one({"ip": "81.2.69.1"}) == ({"city_name": "Berlin"}, [])
    assert harness.counts() == [4, 1, 3, 0, 0]

    write(path, {"81.2.69.0/24": {"city": {"names": {"en": "Potsdam"}}}})
    assert harness.one({"ip": "81.2.69.1"}) == ({"city_name": "Berlin"}, [])
    harness.clock.advance(901)
    assert harness.one({"ip": "81.2.69.1"}) == ({"city_name": "Potsdam"}, [])
    path.write_bytes(b"")
    os.utime(path, (1, 1))
    harness.clock.advance(901)
    assert harness.one({"ip": "81.2.69.1"}) == ({"city_name": "Potsdam"}, [])  # better than none


@given(st.floats(0, 1))
def test_databases_that_are_cut_off_are_refused(paths, tmp_path_factory, part):
    whole = Path(paths["city"]).read_bytes()
    path = tmp_path_factory.getbasetemp() / "cut.mmdb"
    path.write_bytes(whole[: int(part * (len(whole) - 1))])
    harness = Harness({"city": str(path)}, path.parent, [{"source": "ip", "exclude_fields": []}])
    assert harness.one({"ip": "81.2.69.1"}) == (None, ["engine"])


def test_damaged_records_are_engine_failures(paths, tmp_path):
    path = tmp_path / "damaged.mmdb"
    longer_than_the_file = b"\x5f\xff\xff\xffrli"
    path.write_bytes(Path(paths["city"]).read_bytes().replace(b"\x46Berlin", longer_than_the_file))
    harness = Harness({"city": str(path)}, tmp_path, [{"source": "ip", "include_fields": ["country_iso_code"]}])
    assert harness.one({"ip": "81.2.69.1"}) == (None, ["engine"])
    assert harness.one({"ip": "8.8.8.8"}) == ({"country_iso_code": "US"}, [])
    assert harness.counts() == [2, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"entries": []}, "entries"),
        ({"entries": [{"source": "a"}]}, "include_fields or exclude_fields is required."),
        ({"entries": [{"source": "a", "include_fields": [], "exclude_fields": []}]}, "mutually exclusive"),
        ({"entries": [{"source": "", "include_fields": []}]}, "source"),
        ({"entries": [{"source": "a", "include_fields": []}], "geoip_when": "== =="}, "not a valid expression"),
    ],
)
def test_rules(config, message):
    with pytest.raises(ValueError, match=message):
        geoip.Config.model_validate(config)


def test_the_extension_is_needed():
    config = geoip.Config.model_validate({"entries": [{"source": "a", "include_fields": []}]})
    with pytest.raises(ConfigError, match="geoip_service configuration is required when using geoip processor"):
        geoip.build(config, Context("p", "geoip"))


@pytest.fixture(scope="session")
def harness(paths, tmp_path_factory):
    return lambda entries: Harness(
        {"city": paths["city"], "asn": paths["asn"]}, tmp_path_factory.getbasetemp(), entries
    )


addresses = st.ip_addresses().map(str) | st.sampled_from(["81.2.69.5", "8.8.8.8", "2001:db8:1::1"])
geo_entries = st.lists(
    st.fixed_dictionaries({"source": keys, "target": keys, "exclude_fields": st.just([])}), min_size=1, max_size=2
)


@given(events, st.lists(addresses, min_size=4, max_size=4), keys, geo_entries)
def test_no_event_is_lost_or_confused(harness, events, addresses, name, entries):
    for event, address in zip(events, addresses, strict=False):
        event[name.strip("/").split("/")[0]] = address
    outcomes = []
    batch, handle = Batch(copy_value(events)), Handle(outcomes.append)
    batch.promise(handle)
    handle.seal()
    tested = harness(entries)
    result = tested.run(batch)
    assert handle.pending == len(result) == len(events)
    processed, succeeded, failed, *_ = tested.counts()
    assert processed == len(events) == succeeded + failed
    untouched = [place for place, body in enumerate(result.bodies) if repr(body) == repr(events[place])]
    assert all(result.peek(place).tags for place in untouched if place not in range(succeeded))
    result.release_all(ok=True)
    assert outcomes == [True]
