from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SINK = "bucket: {size: 1b}"


def messages(made):
    return [problem.message for problem in made.problems]


def test_both_ends_of_a_link_must_agree(plan):
    made = plan(
        f"""
        a: {{source: {{trickle: }}, sink: [pipeline: {{name: b}}]}}
        b: {{source: {{trickle: }}, sink: [{SINK}]}}
        c: {{source: a, sink: [{SINK}]}}
        d: {{source: {{trickle: }}, sink: [pipeline: {{name: none}}, pipeline: ]}}
        e: {{source: {{pipeline: }}, sink: [{SINK}]}}
        """
    )
    assert sorted(messages(made)) == [
        "Invalid configuration, expected sink c for pipeline a is missing",
        "Invalid configuration, expected source a for pipeline b is missing",
        "Invalid configuration, no pipeline is defined with name none",
        "name is a required attribute for sink pipeline plugin, check pipeline: d",
        "name is a required attribute for source pipeline plugin, check pipeline: e",
    ]
    assert made.pipelines == ()
    assert made.skipped == ("a", "b", "c", "d", "e")


def test_a_pipeline_of_its_own_is_a_loop(plan):
    made = plan("a: {source: a, sink: [pipeline: {name: a}]}")
    assert messages(made) == ["Provided configuration results in a loop, check pipeline: a"]


def test_forwarding_is_an_edge(plan):
    made = plan(
        f"""
        late: {{sink: [{SINK}]}}
        early: {{source: {{trickle: }}, sink: [bucket: {{size: 1b, forward_to: {{pipelines: [late]}}}}]}}
        """
    )
    assert not made.problems
    assert [(p.name, p.upstreams) for p in made.pipelines] == [("early", ()), ("late", ("early",))]
    assert made.pipelines[0].sinks[0].forward_to == "late"
    loop = plan(
        f"""
        a: {{source: {{trickle: }}, sink: [bucket: {{size: 1b, forward_to: {{pipelines: [b]}}}}]}}
        b: {{sink: [bucket: {{size: 1b, forward_to: {{pipelines: [c]}}}}, {SINK}]}}
        c: {{sink: [bucket: {{size: 1b, forward_to: {{pipelines: [b]}}}}]}}
        """
    )
    assert messages(loop) == ["Provided configuration results in a loop, check pipeline: b"]
    taken = plan(
        f"""
        a: {{source: {{trickle: }}, sink: [bucket: {{size: 1b, forward_to: {{pipelines: [b]}}}}]}}
        b: {{source: {{trickle: }}, sink: [{SINK}]}}
        """
    )
    assert messages(taken) == ["forwarding pipeline b has a source of its own"]


def test_failures_go_to_the_failure_pipeline_but_never_in_a_circle(plan):
    made = plan(
        f"""
        dlq_pipeline: {{sink: [pipeline: {{name: parked}}]}}
        parked: {{source: dlq_pipeline, sink: [{SINK}]}}
        a: {{source: {{trickle: }}, sink: [pipeline: {{name: b}}]}}
        b: {{source: a, sink: [{SINK}]}}
        """
    )
    assert not made.problems
    assert [(p.name, p.failure_pipeline) for p in made.pipelines] == [
        ("a", "dlq_pipeline"),
        ("b", "dlq_pipeline"),
        ("dlq_pipeline", None),
        ("parked", None),
    ]


def test_a_broken_failure_pipeline_stops_nobody_else(plan):
    made = plan(f"dlq_pipeline: {{sink: [bucket: ]}}\na: {{source: {{trickle: }}, sink: [{SINK}]}}")
    assert [(p.name, p.failure_pipeline) for p in made.pipelines] == [("a", None)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.randoms())
def test_any_tree_runs_sources_first_and_any_link_back_is_a_loop(plan, parents, chance):
    """Pipeline n takes from a random earlier one; the order in the file says nothing."""
    parent = {0: None} | {n: value % n for n, value in enumerate(parents, 1)}
    children = {n: [m for m, p in parent.items() if p == n] for n in parent}

    def text(numbers, extra=()):
        lines = []
        for n in numbers:
            source = "{trickle: }" if parent[n] is None else f"p{parent[n]}"
            targets = [*children[n], *extra] if n == max(numbers) else children[n]
            sinks = ", ".join([SINK, *(f"pipeline: {{name: p{m}}}" for m in targets)])
            lines.append(f"p{n}: {{source: {source}, sink: [{sinks}]}}")
        return "\n".join(lines)

    numbers = list(parent)
    chance.shuffle(numbers)
    made = plan(text(numbers))
    assert not made.problems
    order = [pipeline.name for pipeline in made.pipelines]
    assert sorted(order) == sorted(f"p{n}" for n in parent)
    assert all(order.index(f"p{parent[n]}") < order.index(f"p{n}") for n in parent if n)
    assert plan(text(numbers).replace("{trickle: }", f"p{max(numbers)}")).problems
