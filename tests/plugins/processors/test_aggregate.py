"""Groups of events: when they are concluded, what they hold, and that no promise is lost or kept twice."""

import asyncio
import random
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch
from penstock.core.clock import ManualClock
from penstock.core.errors import ConfigError
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.plugins.processors.aggregate import Aggregate
from penstock.sdk import Context
from penstock.testing import run_pipeline, run_processor
from penstock.testing.plugins import checked

PREFIX = "test-pipeline.aggregate."


class Bench:
    """A processor in manual time, fed with batches that each have a promise."""

    def __init__(self, action, *, groups_max=100, state_bytes_max=1_000_000, **options):
        self.clock = ManualClock()
        self.registry = Registry()
        config = {"identification_keys": ["id"], "group_duration": "10s", "action": action, **options}
        _, checked_config = checked("processor", "aggregate", config)
        ctx = Context("test-pipeline", "aggregate", clock=self.clock, registry=self.registry, chance=random.Random(1))
        self.run = Aggregate(checked_config, ctx, groups_max=groups_max, state_bytes_max=state_bytes_max)
        self.heard = []
        self.handles = []

    def send(self, *bodies):
        place = len(self.heard)
        self.heard.append([])
        handle = Handle(self.heard[place].append)
        self.handles.append(handle)
        batch = Batch([deepcopy(body) for body in bodies])
        batch.promise(handle)
        handle.seal()
        return self.run(batch)

    def after(self, seconds):
        self.clock.advance(seconds)
        return self.run(Batch([]))

    def count(self, name):
        return self.registry.value(PREFIX + name)


def test_a_group_lives_from_its_first_event_on():
    bench = Bench({"put_all": {}})
    assert len(bench.send({"id": 1, "a": 1})) == 0
    assert len(bench.after(9)) == 0
    assert len(bench.send({"id": 1, "b": 2})) == 0
    assert bench.count("currentAggregateGroups") == 1
    out = bench.after(1)
    assert out.bodies == [{"id": 1, "a": 1, "b": 2}]
    assert out.peek(0).event_type == "event"
    assert bench.count("currentAggregateGroups") == 0
    assert bench.count("aggregateStateBytes") == 0
    assert len(bench.after(100)) == 0


def test_results_go_before_the_events_that_pass():
    bench = Bench({"put_all": {}})
    bench.send({"id": 1})
    bench.clock.advance(10)
    out = bench.send({"id": 2, "bad": {1}})  # cannot be written as JSON: the action refuses it
    assert out.bodies == [{"id": 1}, {"id": 2, "bad": {1}}]
    assert bench.count("actionHandleEventsProcessingErrors") == 1
    assert bench.count("actionConcludeGroupEventsOut") == 1


def test_draining_concludes_every_group():
    bench = Bench({"append": {"keys_to_append": ["n"]}})
    bench.send({"id": 1, "n": 1}, {"id": 2, "n": 1}, {"id": 1, "n": 2})
    out = bench.run.drain()
    assert out.bodies == [{"id": 1, "n": [1, 2]}, {"id": 2, "n": 1}]
    out.release_all(ok=True)
    assert bench.heard == [[True]]
    assert len(bench.run.drain()) == 0


def test_a_source_hears_when_the_result_it_is_part_of_is_delivered():
    bench = Bench({"put_all": {}})
    bench.send({"id": 1})
    bench.send({"id": 1}, {"id": 2})
    out = bench.after(10)
    assert bench.heard == [[], []]
    out.release([0], ok=True)
    assert bench.heard == [[True], []]
    out.release([1], ok=False)
    assert bench.heard == [[True], [False]]


def test_without_group_acknowledgments_events_end_with_the_merge():
    bench = Bench({"put_all": {}}, disable_group_acknowledgments=True)
    bench.send({"id": 1})
    assert bench.heard == [[True]]
    bench.after(10).release_all(ok=False)
    assert bench.heard == [[True]]


def test_acknowledging_at_the_conclusion():
    bench = Bench({"put_all": {}}, acknowledge_on_conclude=True)
    bench.send({"id": 1})
    assert bench.heard == [[]]
    out = bench.after(10)
    assert bench.heard == [[True]]
    out.release_all(ok=False)
    assert bench.heard == [[True]]


def test_events_that_do_not_meet_the_condition_end():
    bench = Bench({"put_all": {}}, aggregate_when="/id < 5")
    out = bench.send({"id": 9})
    assert len(out) == 0
    assert bench.heard == [[True]]
    assert bench.count("actionHandleEventsDropped") == 1
    assert bench.count("currentAggregateGroups") == 0


def test_a_condition_that_gives_no_boolean_lets_the_event_go_on():
    bench = Bench({"put_all": {}}, aggregate_when="/id")
    out = bench.send({"id": 1})
    assert out.bodies == [{"id": 1}]
    assert bench.count("actionHandleEventsProcessingErrors") == 1


def test_values_of_different_types_are_different_groups():
    bench = Bench({"remove_duplicates": {}})
    bodies = [{"id": value} for value in (1, 1.0, True, "1", None, [1], ["1"], {"a": 1, "b": 2})]
    assert bench.send(*bodies).bodies == bodies
    again = [*bodies, {}, {"id": {"b": 2, "a": 1}}]
    assert bench.send(*again).bodies == []


def test_several_keys_one_of_them_nested():
    bench = Bench({"remove_duplicates": {}}, identification_keys=["id", "/user/name"])
    bodies = [{"id": 1, "user": {"name": "a"}}, {"id": 1, "user": {"name": "b"}}, {"id": 1}, {"user": {"name": "a"}}]
    assert bench.send(*bodies, *bodies).bodies == bodies


def test_tags_are_on_results_only():
    bench = Bench({"remove_duplicates": {}}, aggregated_events_tag="sum")
    assert bench.send({"id": 1}).peek(0).tags == {"sum"}
    bench = Bench({"put_all": {}}, aggregated_events_tag="sum", output_unaggregated_events=True)
    out = bench.send({"id": 1, "list": [1]})
    assert out.peek(0).tags == set()
    out.bodies[0]["list"].append(2)  # what goes on may be changed; the group has its own
    assert bench.heard == [[]]
    out.release_all(ok=True)
    assert bench.heard == [[]]
    out = bench.after(10)
    assert out.bodies == [{"id": 1, "list": [1]}]
    assert out.peek(0).tags == {"sum"}
    out.release_all(ok=True)
    assert bench.heard == [[True]]


def test_a_tag_is_needed_to_tell_results_from_events():
    with pytest.raises(ConfigError, match="Aggregated Events Tag must be set when output_unaggregated_events is set"):
        Bench({"put_all": {}}, output_unaggregated_events=True)


def test_too_many_groups_conclude_the_oldest_early():
    bench = Bench({"put_all": {}}, groups_max=2)
    out = bench.send(*({"id": n} for n in range(5)))
    assert out.bodies == [{"id": 0}, {"id": 1}, {"id": 2}]
    assert bench.count("groupsConcludedEarly") == 3
    assert bench.after(10).bodies == [{"id": 3}, {"id": 4}]


def test_too_large_a_state_concludes_the_oldest_early():
    bench = Bench({"append": {}}, state_bytes_max=5_000)
    sent = []
    for n in range(20):
        sent += bench.send({"id": n, "text": "x" * 1_000}).bodies
        assert bench.count("aggregateStateBytes") <= 5_000
    assert bench.count("groupsConcludedEarly") == len(sent) > 10
    assert [body["id"] for body in sent] == list(range(len(sent)))


def test_replaced_values_do_not_add_up():
    bench = Bench({"put_all": {}}, state_bytes_max=500_000)
    for n in range(2_000):
        bench.send({"id": 1, "n": n, "text": "x" * 1_000})
        assert bench.count("aggregateStateBytes") <= 500_000
    assert bench.count("groupsConcludedEarly") <= 2  # 2 MB of texts, but only the 2 000 promises take room


def test_when_the_rate_limit_blocks_the_call_waits_and_the_process_does_not():
    bench = Bench({"rate_limiter": {"events_per_second": 20}})

    async def others_run():
        waiting = asyncio.ensure_future(bench.send({"id": 1}, {"id": 2}, {"id": 3}))
        await asyncio.sleep(0)
        assert not waiting.done()
        return await waiting

    assert asyncio.run(others_run()).bodies == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_in_a_pipeline_groups_conclude_by_time_and_at_the_end():
    text = """
first:
  source: {http: {}}
  processor:
    - aggregate: {identification_keys: [id], group_duration: 5s, action: {put_all: {}}}
    - add_entries: {entries: [{key: done, value: true}]}
  sink: [{stdout: {}}]
"""
    out = run_pipeline(text, [{"id": 1, "a": 1}, {"id": 2}, {"id": 1, "b": 2}])
    assert [result.body for result in out["first/0"]] == [
        {"id": 1, "a": 1, "b": 2, "done": True},
        {"id": 2, "done": True},
    ]


ACTIONS = [
    {"append": {}},
    {"count": {}},
    {"count": {"output_format": "raw", "unique_keys": ["n"]}},
    {"histogram": {"key": "n", "units": "s", "buckets": [1, 2], "record_minmax": True}},
    {"percent_sampler": {"percent": 40}},
    {"put_all": {}},
    {"rate_limiter": {"events_per_second": 3, "when_exceeds": "drop"}},
    {"remove_duplicates": {}},
    {"sum": {"key": "n", "output_format": "raw"}},
    {"tail_sampler": {"wait_period": "2s", "percent": 50, "condition": "/n == 3"}},
]
EVENTS = st.fixed_dictionaries(
    {"id": st.integers(0, 3)},
    optional={"n": st.one_of(st.integers(0, 4), st.sampled_from(["1.5", "x", None, [1], {"a": 1}]))},
)
STEPS = st.one_of(st.lists(EVENTS, min_size=1, max_size=5), st.integers(0, 6))


@given(
    action=st.sampled_from(ACTIONS),
    steps=st.lists(STEPS, max_size=12),
    copies=st.booleans(),
    how=st.sampled_from(["", "acknowledge_on_conclude", "disable_group_acknowledgments"]),
    when=st.sampled_from([None, "/n != 2"]),
    groups_max=st.integers(1, 4),
    lost=st.data(),
)
def test_every_promise_is_kept_once_whatever_becomes_of_the_events(action, steps, copies, how, when, groups_max, lost):
    options = {"output_unaggregated_events": copies, "aggregated_events_tag": "sum"}
    if how:
        options[how] = True
    if when:
        options["aggregate_when"] = when
    bench = Bench(action, groups_max=groups_max, **options)
    outs = []
    for step in steps:
        outs.append(bench.after(step) if isinstance(step, int) else bench.send(*step))
        assert len(outs[-1].bodies) == len(outs[-1].held()), "what goes on has a promise"
    outs.append(bench.run.drain())
    assert bench.count("currentAggregateGroups") == 0
    assert bench.count("aggregateStateBytes") == 0
    oks = [lost.draw(st.booleans()) for _ in outs]
    for out, ok in zip(outs, oks, strict=True):
        out.release_all(ok=ok)
    assert all(len(heard) == 1 for heard in bench.heard)
    assert all(handle.pending == 0 and handle.late == 0 for handle in bench.handles)
    if all(oks):
        assert all(heard == [True] for heard in bench.heard)


@given(st.lists(EVENTS, min_size=1, max_size=20), st.lists(st.integers(1, 6), max_size=5))
def test_how_events_are_cut_into_batches_does_not_matter(events, cuts):
    whole, parts = Bench({"append": {}}), Bench({"append": {}})
    whole.send(*events)
    rest = list(events)
    for cut in cuts:
        if rest:
            parts.send(*rest[:cut])
            rest = rest[cut:]
    if rest:
        parts.send(*rest)
    assert parts.run.drain().bodies == whole.run.drain().bodies


def test_an_action_is_needed():
    with pytest.raises(ConfigError, match="action must not be null"):
        run_processor("aggregate", {"identification_keys": ["a"], "action": None}, [])


@pytest.mark.parametrize("options", [True, 1, []])
def test_options_of_an_action_are_a_map(options):
    with pytest.raises(ConfigError, match="expected an object, null, or no value"):
        run_processor("aggregate", {"identification_keys": ["a"], "action": {"append": options}}, [])
