"""What runs where with several units."""

from __future__ import annotations

from penstock.config import parse_pipelines
from penstock.plan import Plan, make_plan
from penstock.plan.units import can_share, plan_of_unit

AGGREGATE = "{aggregate: {identification_keys: [a], action: {count: }%s}}"


def plan(text: str, units: int = 2) -> Plan:
    return make_plan(parse_pipelines([("p.yaml", text.encode())]), units=units)


def names(found: Plan) -> list[str]:
    return [pipeline.name for pipeline in found.pipelines]


FIRST = f"""
logs:
  source: {{http: {{port: 0}}}}
  sink: [{{pipeline: {{name: behind}}}}, {{noop: }}]
lines:
  source: {{stdin: }}
  sink: [{{pipeline: {{name: counts}}}}]
counts:
  source: lines
  processor: [{AGGREGATE % ""}]
  sink: [{{file: {{path: /tmp/x}}}}]
behind:
  source: logs
  sink: [{{noop: }}]
"""


def test_sources_that_cannot_be_shared_run_in_the_first_unit_with_what_is_behind_them() -> None:
    found = plan(FIRST)
    assert not found.problems, "all events of the aggregate are those of the first unit"
    assert can_share(found)
    assert plan_of_unit(found, 1) is found
    assert names(plan_of_unit(found, 2)) == ["logs", "behind"]


def test_without_a_source_that_can_be_shared_there_is_nothing_for_a_second_unit() -> None:
    found = plan("lines:\n  source: {stdin: }\n  sink: [{noop: }]\n")
    assert not can_share(found)


def test_a_pipeline_that_units_cannot_share_is_refused_with_those_connected_to_it() -> None:
    text = f"""
logs:
  source: {{http: {{port: 0}}}}
  sink: [{{pipeline: {{name: counts}}}}]
counts:
  source: logs
  processor: [{AGGREGATE % ""}]
  sink: [{{noop: }}]
other:
  source: {{http: {{port: 0}}}}
  processor: [{AGGREGATE % ", local_mode: true"}]
  sink: [{{file: {{path: /tmp/x, append: true}}}}]
files:
  source: {{http: {{port: 0}}}}
  sink: [{{file: {{path: /tmp/x}}}}, {{stdout: }}]
"""
    found = plan(text)
    first, second, third = found.problems
    assert (first.path, first.line, first.pipeline) == ("counts > processor 1 aggregate", 7, "counts")
    assert first.message.startswith("aggregate is not supported yet with more than one unit: each unit would")
    assert "local_mode: true" in first.suggestion
    assert (second.path, second.pipeline) == ("files > sink 1 file", "files")
    assert "append: true" in second.suggestion
    assert third.path == "files > sink 2 stdout"
    assert names(found) == ["other"]
    assert not plan(text, units=1).problems


def test_a_failure_pipeline_runs_in_every_unit() -> None:
    found = plan(
        "logs:\n  source: {http: {port: 0}}\n  sink: [{noop: }]\n"
        "lines:\n  source: {stdin: }\n  sink: [{noop: }]\n"
        "dlq_pipeline:\n  sink: [{noop: }]\n"
    )
    assert not found.problems
    assert names(plan_of_unit(found, 2)) == ["logs", "dlq_pipeline"]
