"""`penstock schema`: the JSON Schema of a pipeline file."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of pipeline files, for completion and checks in an editor."""
    import json

    from penstock.plan.schema import pipeline_schema

    print(json.dumps(pipeline_schema(), indent=2, ensure_ascii=False))
