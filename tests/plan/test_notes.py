"""Warnings on a pipeline as a whole, with the line they are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config.documents import read_pipelines
from penstock.core.errors import Problem
from penstock.plan import make_plan

GOOD = """version: "2"
shop:
  source:
    dynamodb:
      tables:
        - table_arn: "arn:aws:dynamodb:us-east-1:123456789012:table/orders"
          export: {s3_bucket: exports}
          stream: {start_position: LATEST}
      aws: {region: us-east-1}
  sink:
    - opensearch:
        hosts: ["https://localhost:9200"]
        index: "orders"
        document_id: '${getMetadata("primary_key")}'
        action: '${getMetadata("opensearch_action")}'
        document_version: '${getMetadata("document_version")}'
        document_version_type: external
"""
SECOND = '        - {table_arn: "arn:aws:dynamodb:us-east-1:123456789012:table/two", stream: {}}\n      aws:'


def warnings(folder: Path, text: str) -> list[Problem]:
    file = folder / "pipelines.yaml"
    file.write_text(text)
    plan = make_plan(read_pipelines(file))
    assert not plan.problems, plan.problems
    return list(plan.warnings)


def test_the_pipeline_of_the_guide_gives_no_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "part"),
    [
        ("""        document_id: '${getMetadata("primary_key")}'\n""", "", 11, "makes another document"),
        ("'${getMetadata(\"opensearch_action\")}'", "index", 15, "removed from the table stay in the index"),
        ("        action: '${getMetadata(\"opensearch_action\")}'\n", "", 11, "with the action index"),
        ("type: external", "type: internal", 11, "a change that is read again, or late, may overwrite a newer one"),
        ("external", "internal\n        max_retries: 3", 11, "may overwrite a newer one"),
        ('index: "orders"', 'index: "orders-${/kind}"', 13, "index reads the item"),
        ('index: "orders"', 'index: "orders-%{yyyy}"', 13, "The name of the index has a date"),
        ('${getMetadata("primary_key")}', "${/id}", 14, "document_id reads the item"),
        ("aws: {region: us-east-1}", "aws: {region: eu-west-1}", 9, "The table is in us-east-1"),
        ("      aws:", SECOND, 13, "Items of several tables"),
        (
            "{s3_bucket: exports}",
            '{s3_bucket: exports, export_arn: "arn:aws:dynamodb:us-east-1:123456789012:table/orders/export/'
            '01693291918297-bfeccbea"}',
            7,
            "The export was made at 2023-08-29 06:51 UTC",
        ),
    ],
)
def test_where_the_index_would_not_become_the_table(tmp_path: Path, old: str, new: str, line: int, part: str) -> None:
    assert GOOD.count(old) >= 1
    shift = new.count("\n") - old.count("\n") if old == "      aws:" else 0
    (found,) = warnings(tmp_path, GOOD.replace(old, new))
    assert part in found.message
    assert (found.line, found.severity, found.pipeline) == (line + shift, "warning", "shop")
    assert found.suggestion


def test_changes_during_the_export_are_named_where_versions_are_missing(tmp_path: Path) -> None:
    text = GOOD.replace("LATEST", "LATEST, during_export: true").replace("type: external", "type: internal")
    (found,) = warnings(tmp_path, text)
    assert "with during_export an item of the export may overwrite a newer one" in found.message


def test_removals_with_old_images_may_read_the_item(tmp_path: Path) -> None:
    text = GOOD.replace("LATEST", "LATEST, view_on_remove: OLD_IMAGE").replace('"orders"', '"orders-${/kind}"')
    assert warnings(tmp_path, text) == []


def test_an_export_alone_needs_no_actions_and_no_versions(tmp_path: Path) -> None:
    text = GOOD.replace("          stream: {start_position: LATEST}\n", "").split("        action:")[0]
    assert warnings(tmp_path, text) == []


def test_sinks_of_other_pipelines_are_told_in_their_place(tmp_path: Path) -> None:
    source, _, sink = GOOD.partition("  sink:\n")
    text = f"{source}  sink:\n    - pipeline: {{name: behind}}\nbehind:\n  source: shop\n  sink:\n" + sink.replace(
        "'${getMetadata(\"opensearch_action\")}'", "index"
    )
    (found,) = warnings(tmp_path, text)
    assert (found.pipeline, found.line) == ("behind", 19)


def test_three_readers_of_one_stream_are_too_many(tmp_path: Path) -> None:
    body = GOOD.partition("\n")[2]
    text = GOOD + body.replace("shop:", "second:")
    assert warnings(tmp_path, text) == []
    found = warnings(tmp_path, text + body.replace("shop:", "third:"))
    assert [problem.pipeline for problem in found] == ["shop", "second", "third"]
    assert "3 pipelines read the stream" in found[0].message
