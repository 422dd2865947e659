"""Loops made of source: what is in them, which events they hand over as failed, and where they go on."""

import pytest

from penstock.core.batch import Batch, Meta
from penstock.core.errors import EventError
from penstock.core.inline import Inline
from penstock.core.timelimit import TimeLimitExceeded
from penstock.expr import compile_expression, compile_template
from penstock.lib.inline import PLACE, compile_limited_loop, compile_loop, compile_places


class Failures(list):
    def __call__(self, batch, place, error):
        self.append((place, str(error)))


def refuse_odd(body):
    if body["n"] % 2:
        raise EventError(f"{body['n']} is odd")
    body["even"] = True


@pytest.mark.parametrize("change", [refuse_odd, Inline("refuse(body)", refuse=refuse_odd)])
def test_an_event_that_fails_is_told_by_its_place_and_the_others_are_changed(change):
    failures = Failures()
    batch = Batch([{"n": n} for n in (1, 2, 3, 4, 5)])
    assert compile_loop(change, when=None, fail=failures)(batch) is batch
    assert failures == [(0, "1 is odd"), (2, "3 is odd"), (4, "5 is odd")]
    assert batch.bodies == [{"n": 1}, {"n": 2, "even": True}, {"n": 3}, {"n": 4, "even": True}, {"n": 5}]


def test_a_condition_that_gives_no_boolean_fails_its_event_alone():
    failures = Failures()
    when = compile_expression("/flag")
    batch = Batch([{"flag": True}, {"flag": 1}, {"flag": False}, {"flag": True}])
    compile_loop(Inline("body[name] = value", name="done", value=1), when=when, fail=failures)(batch)
    assert batch.bodies == [{"flag": True, "done": 1}, {"flag": 1}, {"flag": False}, {"flag": True, "done": 1}]
    assert [place for place, _ in failures] == [1]


@pytest.mark.parametrize("condition", ['getMetadata("level") == 3', 'getMetadata("level") == 3 and /a == null'])
def test_metadata_of_the_event_or_else_of_the_batch(condition):
    when = compile_expression(condition)
    own = Meta(attributes={"level": 3})
    batch = Batch([{}, {}], [None, own])
    compile_loop(Inline("body[name] = meta", name="meta"), when=when, fail=Failures())(batch)
    assert batch.bodies == [{}, {"meta": own}]
    batch = Batch([{}, {}], [None, Meta()], origin=own)
    compile_loop(Inline("body[name] = value", name="a", value=1), when=when, fail=Failures())(batch)
    assert batch.bodies == [{"a": 1}, {}]
    assert compile_places(when)(Batch([{}, {}, {}], [own, None, own])) == [0, 2]


def test_values_of_a_configuration_never_become_source():
    hostile = "']\nraise SystemExit  # {0} {{"
    when = compile_expression(f'/n == "{hostile}"')
    batch = Batch([{"n": hostile}, {"n": 2}])
    text = compile_template(hostile + "${n}" + hostile).inline("text", otherwise=print)
    change = Inline(f"body[name] = {text.source}", name=hostile, **text.names)
    compile_loop(change, when=when, fail=Failures())(batch)
    assert batch.bodies == [{"n": hostile, hostile: hostile * 3}, {"n": 2}]


def test_two_pieces_cannot_use_a_name_for_two_things():
    when = compile_expression("/n == 1")
    with pytest.raises(AssertionError):
        compile_loop(Inline("fail(body)", fail=print), when=None, fail=Failures())
    with pytest.raises(AssertionError):
        compile_loop(Inline("body[when_0] = 1", when_0="n"), when=when, fail=Failures())


def test_an_error_of_our_own_names_the_line_of_the_loop():
    loop = compile_loop(Inline("body[name] = 1 / zero", name="n", zero=0), when=None, fail=Failures())
    with pytest.raises(ZeroDivisionError) as caught:
        loop(Batch([{}]))
    assert "body[name] = 1 / zero" in str(caught.traceback[-1].statement)


def test_a_limited_loop_tells_where_it_stopped_and_goes_on_from_there():
    seen = []

    def change(batch, place):
        seen.append(place)
        if batch.bodies[place].pop("slow", False):
            raise TimeLimitExceeded
        if place == 3:
            raise EventError("no")

    failures = Failures()
    loop = compile_limited_loop(
        Inline(f"change(batch, {PLACE})", change=change), when=compile_expression("/skip != true"), fail=failures
    )
    batch = Batch([{}, {"slow": True}, {"skip": True}, {}, {}])
    assert loop(batch, 0) == 1
    assert loop(batch, 1) == 5
    assert seen == [0, 1, 1, 3, 4]
    assert failures == [(3, "no")]
