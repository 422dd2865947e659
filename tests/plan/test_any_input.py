"""Whatever stands in the file: a plan comes back, and every problem has a line and a message."""

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.config import parse_pipelines, parse_server_config
from penstock.plan import make_plan

WORDS = [
    "version", "extension", "aws", "secrets", "p", "q", "source", "buffer", "processor", "sink", "routes", "route",
    "workers", "delay", "pipeline", "name", "trickle", "shuffle", "bucket", "noop", "zero", "port", "codec", "lines",
    "json", "entries", "from_key", "to_key", "shuffle_when", "text", "size", "include_keys", "exclude_keys",
    "forward_to", "pipelines", "dlq_pipeline", "hosts", "region", "token", "<<", "peer_forwarder", "ssl",
    "authentication", "source_coordination", "store",
]  # fmt: skip
TEXTS = st.sampled_from([*WORDS, "1b", "/a == 1", "not /a", "${x", "${{env:A}}", "${{b:c}}", "<<x>>", "", "5s", "a//b"])
scalars = TEXTS | st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=15,
)
blocks = st.dictionaries(st.sampled_from(["trickle", "shuffle", "bucket", "pipeline", "http"]), values, max_size=2)
pipelines = st.fixed_dictionaries(
    {},
    optional={
        "source": blocks | values,
        "buffer": blocks | values,
        "processor": st.lists(blocks, max_size=3) | values,
        "routes": values,
        "sink": st.lists(blocks, max_size=3) | blocks | values,
        "workers": scalars,
    },
)
files = st.dictionaries(st.sampled_from(["p", "q", "dlq_pipeline"]), pipelines) | values


@settings(suppress_health_check=list(HealthCheck), max_examples=300, deadline=None)
@given(files, values)
def test_any_file_gives_a_plan(content, server):
    documents = parse_pipelines([("f", yaml.safe_dump(content).encode())])
    document = parse_server_config(yaml.safe_dump(server).encode(), "s")
    plan = make_plan(documents, server_config=document)
    assert str(plan) is not None
    for problem in (*plan.problems, *plan.warnings):
        assert problem.message
        assert problem.line or not documents.pipelines
    assert set(plan.skipped) | {pipeline.name for pipeline in plan.pipelines} == set(documents.pipelines)
    assert not set(plan.skipped) & {pipeline.name for pipeline in plan.pipelines}
    assert plan.problems or not plan.skipped
