"""Ports that are taken twice, and plugins without their extension, are warned of before anything runs."""

from __future__ import annotations

import textwrap

from penstock.config import parse_pipelines, parse_server_config
from penstock.plan import Plan, make_plan

GEOIP = """
logs:
  source: {http: {port: 2500}}
  processor:
    - geoip: {entries: [{source: ip, include_fields: [ip]}]}
  sink: [{noop: {}}]
"""


def plan(text: str, server: str = "") -> Plan:
    documents = parse_pipelines([("pipelines.yaml", textwrap.dedent(text).encode())])
    made = make_plan(documents, server_config=parse_server_config(server.encode(), "config.yaml"))
    assert not made.problems
    return made


def test_two_sources_on_one_port() -> None:
    made = plan(
        """
        one:
          source: {http: {}}
          sink: [{noop: {}}]
        two:
          source:
            http: {path: /two}
          sink: [{noop: {}}]
        three:
          source: {http: {port: 0}}
          sink: [{noop: {}}]
        four:
          source: {http: {port: 0}}
          sink: [{noop: {}}]
        """
    )
    (problem,) = made.warnings
    assert problem.message == "Port 2021 is taken by the http source of pipeline one already."
    assert (problem.pipeline, problem.path, problem.line) == ("two", "two > source http", 7)
    assert [pipeline.name for pipeline in made.pipelines] == ["one", "two", "three", "four"]


def test_the_port_of_the_admin_endpoints_is_taken_too() -> None:
    text = "logs: {source: {http: {port: 4900}}, sink: [{noop: {}}]}"
    (problem,) = plan(text).warnings
    assert problem.message == "Port 4900 is taken by the admin endpoints already."
    assert not plan(text, "server_port: 4901").warnings
    assert not plan(text, "server_port: 0").warnings


def test_geoip_without_its_databases() -> None:
    (problem,) = plan(GEOIP).warnings
    assert problem.message == "geoip_service configuration is required when using geoip processor."
    assert (problem.line, problem.severity) == (5, "warning")
    assert not plan(GEOIP, "extensions: {geoip_service: {maxmind: {databases: {city: city.mmdb}}}}").warnings
