"""A function of the user's between two processors: whatever it does, no event is lost, doubled or half changed."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.documents import parse_pipelines
from penstock.core.batch import Batch, Meta, copy_value
from penstock.core.errors import ConfigError
from penstock.core.handle import Handle
from penstock.core.metrics import Registry
from penstock.plan import make_plan
from penstock.sdk import Context
from penstock.testing.plugins import checked

ROOT = Path(__file__).parents[3]
EVENTS = [{"n": n, "inner": {"list": [n]}} for n in range(6)]


class Rules:
    """A file of rules, and what its function makes of events."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rules.py"
        self.registry = Registry()

    def build(self, code: str, **config: Any) -> Any:
        self.file.write_text(dedent(code))
        found, options = checked("processor", "python", {"path": str(self.file), "function": "rule", **config})
        return found.module.build(options, Context("p", "python", registry=self.registry))

    def run(self, code: str, events: list[dict[str, Any]] | None = None, **config: Any) -> Batch:
        """The batch that comes out; every promise of the events that went in is kept exactly once."""
        function = self.build(code, **config)
        batch, outcomes = Batch(copy_value(EVENTS if events is None else events)), []
        handles = [Handle(outcomes.append) for _ in batch.bodies]
        batch.handles = list(handles)
        for handle in handles:
            handle.add(1)
            handle.seal()
        result = function(batch)
        if not isinstance(result, Batch):

            async def wait(awaitable: Any = result) -> Batch:
                return await awaitable

            result = asyncio.run(wait())
        counts = [result.handles.count(handle) for handle in handles]
        assert [0 if handle.done else handle.pending for handle in handles] == counts
        result.copy().release_all(ok=True)
        result.release_all(ok=True)
        assert len(outcomes) == len(handles)
        self.outcomes = outcomes
        return result

    def failures(self, cause: str = "") -> float:
        if cause:
            return self.registry.value("p.python.processingErrorsByCause", cause=cause)
        return self.registry.value("p.python.processingErrors")


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(tmp_path)


def tags(batch: Batch) -> list[list[str]]:
    return [sorted(batch.peek(index).tags) for index in range(len(batch))]


@pytest.mark.parametrize("word", ["def", "async def"])
def test_drop_replace_split_and_fail_side_by_side(rules: Rules, word: str) -> None:
    batch = rules.run(
        f"""
        {word} rule(event):
            match event["n"]:
                case 0: return None
                case 1: return {{"new": True}}
                case 2: return [event, {{**event, "part": 2}}, {{}}]
                case 3:
                    event["inner"]["list"].append("half done")
                    raise KeyError("x")
                case 4: return []
            event["changed"] = 1
            return event
        """
    )
    assert batch.bodies == [
        {"new": True},
        EVENTS[2],
        {**EVENTS[2], "part": 2},
        {},
        EVENTS[3],
        {**EVENTS[5], "changed": 1},
    ]
    assert tags(batch) == [[], [], [], [], ["_python_failure"], []]
    assert rules.failures() == rules.failures("KeyError") == 1
    assert rules.registry.value("p.python.eventsDropped") == 2


def test_nothing_is_shared_between_events(rules: Rules) -> None:
    code = """
        CACHE = {"owner": ["ada"]}

        def rule(event):
            return [{**event, "cached": CACHE}, {**event, "cached": CACHE}]
    """
    batch = rules.run(code)
    batch.bodies[0]["cached"]["owner"].append("changed")
    batch.bodies[0]["inner"]["list"].append("changed")
    assert batch.bodies[1] == {**EVENTS[0], "cached": {"owner": ["ada"]}}
    assert all(body["cached"] == {"owner": ["ada"]} for body in batch.bodies[1:])


def test_without_copies_the_function_gets_the_event_itself(rules: Rules) -> None:
    batch = rules.run("def rule(event):\n    event['half'] = 1\n    return 1 / event['n'] and event", copy=False)
    assert [body.get("half") for body in batch.bodies] == [1] * len(EVENTS)
    assert tags(batch)[0] == ["_python_failure"]
    assert rules.failures("ZeroDivisionError") == 1


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(
    "result",
    [
        "7",
        "'text'",
        "[1]",
        "{1: 2}",
        "{'a': {None: 1}}",
        "{'a': object()}",
        "{'a': {1, 2}}",
        "{'a': b'bytes'}",
        "{'a': __import__('datetime').datetime(2026, 1, 1)}",
        "endless()",
        "loop",
        "deep",
        "other()",
        "__import__('sys').exit(1)",
        "quarrel(quarrel)",
    ],
)
def test_a_result_that_is_no_event_is_a_failure(rules: Rules, result: str, copy: bool) -> None:
    batch = rules.run(
        f"""
        loop = {{}}
        loop["me"] = [loop]
        deep = {{}}
        for _ in range(100_000):
            deep = {{"deep": deep}}

        def quarrel(again):
            return again(again)

        def endless():
            while True:
                yield {{}}

        async def other():
            return {{}}

        def rule(event):
            return {result}
        """,
        copy=copy,
        tags_on_failure=["bad"],
    )
    assert batch.bodies == EVENTS
    assert tags(batch) == [["bad"]] * len(EVENTS)
    assert rules.failures() == len(EVENTS)


@pytest.mark.parametrize("copy", [True, False])
def test_special_kinds_of_plain_values_become_plain(rules: Rules, copy: bool) -> None:
    batch = rules.run(
        """
        from collections import Counter, OrderedDict
        from decimal import Decimal
        from enum import IntEnum, StrEnum

        class Colour(StrEnum):
            RED = "red"

        class Number(IntEnum):
            ONE = 1

        def rule(event):
            return OrderedDict(a=(1, Colour.RED), b=Counter("aab"), c=Number.ONE, d=Decimal("1.5"), e={"f": (True,)})
        """,
        [{}],
        copy=copy,
    )
    (body,) = batch.bodies
    assert repr(body) == "{'a': [1, 'red'], 'b': {'a': 2, 'b': 1}, 'c': 1, 'd': Decimal('1.5'), 'e': {'f': [True]}}"


@pytest.mark.parametrize("signature", ["event, meta", "event, about", "event, *, meta", "event, /, meta=None"])
def test_metadata_is_changed_only_where_the_function_succeeds(rules: Rules, signature: str) -> None:
    name = re.findall(r"meta|about", signature)[0]
    batch = rules.run(
        f"""
        def rule({signature}):
            {name}.tags.add("seen")
            {name}.attributes["index"] = event["n"]
            if event["n"] == 1:
                raise ValueError
            if event["n"] == 2:
                {name}.attributes["index"] = object()
            if event["n"] == 3:
                return [event, event]
            return event
        """
    )
    assert tags(batch) == [["seen"], ["_python_failure"], ["_python_failure"], *[["seen"]] * 4]
    assert [batch.peek(index).attributes.get("index") for index in range(7)] == [0, None, None, 3, 3, 4, 5]
    assert batch.peek(3) is not batch.peek(4)


def test_the_log_tells_the_line(rules: Rules, caplog: pytest.LogCaptureFixture) -> None:
    rules.run("import json\n\ndef rule(event):\n    return json.loads('{')", EVENTS[:1])
    assert f"{rules.file}:4: JSONDecodeError" in caplog.text


def test_what_an_exception_says_is_no_matter_for_the_log_but_for_those_who_debug(
    rules: Rules, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        rules.run("def rule(event):\n    return int(event['card'])", [{"card": "4111-1111"}])
    levels = {record.levelno for record in caplog.records if "4111" in record.getMessage()}
    assert levels == {logging.DEBUG}
    assert f"{rules.file}:2: ValueError" in next(r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)


def test_causes_can_be_chosen(rules: Rules) -> None:
    rules.run("from penstock.sdk import EventError\ndef rule(event):\n    raise EventError('no', cause='mine')")
    assert rules.failures("mine") == len(EVENTS)


def test_options_and_conditions(rules: Rules) -> None:
    code = "def rule(event, *, options):\n    return {**event, 'got': options['a']}"
    batch = rules.run(code, options={"a": [1]}, python_when="/n < 2")
    assert [body.get("got") for body in batch.bodies] == [[1], [1], None, None, None, None]


@pytest.mark.parametrize("word", ["def", "async def"])
def test_batches(rules: Rules, word: str) -> None:
    code = f"""
        from penstock import sdk

        {word} rule(events: "sdk.Batch"):
            for index, body in enumerate(events.bodies):
                body["place"] = index
                events.tag(index, ["seen"])
            rest = events.drop([1])
            rest.release([1], ok=False)
            return rest.select([2, 0])
    """
    batch = rules.run(code, python_when="/n > 0")
    assert [(body["n"], body.get("place")) for body in batch.bodies] == [(0, None), (1, 0), (4, 3)]
    assert tags(batch) == [[], ["seen"], ["seen"]]
    assert rules.outcomes.count(False) == 1
    assert rules.registry.value("p.python.eventsDropped") == 3


@pytest.mark.parametrize(
    "end",
    [
        "raise ValueError",
        "return 7",
        "return Batch([{}])",
        "return Batch(batch.bodies, None, batch.handles)",
        "batch.bodies[0]['bad'] = object()",
        "batch.bodies[0] = None",
    ],
)
def test_a_batch_that_fails_goes_on_as_it_was(rules: Rules, end: str) -> None:
    batch = rules.run(
        f"""
        from penstock.sdk import Batch

        def rule(batch):
            for body in batch.bodies:
                body.clear()
            batch.meta(0).tags.add("lost")
            {end}
        """
    )
    assert batch.bodies == EVENTS
    assert tags(batch) == [["_python_failure"]] * len(EVENTS)
    assert rules.failures() == len(EVENTS)


def test_events_ended_before_a_batch_failed_have_ended(rules: Rules) -> None:
    batch = rules.run("def rule(batch):\n    batch.drop([0, 2])\n    raise ValueError")
    assert batch.bodies == [EVENTS[1], *EVENTS[3:]]


def test_asynchronous_calls_run_side_by_side_and_end_in_time(rules: Rules) -> None:
    code = """
        import asyncio

        running = most = 0

        async def rule(event):
            global running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01 / (event["n"] + 1))
            running -= 1
            if event["n"] == 1:
                await asyncio.sleep(3600)
            if event["n"] == 2:
                raise TimeoutError
            if event["n"] == 3:
                raise asyncio.CancelledError
            return {"n": event["n"], "most": most}
    """
    batch = rules.run(code, timeout="200ms", concurrency=3)
    assert [body["n"] for body in batch.bodies] == list(range(6))
    assert max(body.get("most", 0) for body in batch.bodies) == 3
    assert rules.failures("timeout") == rules.failures("TimeoutError") == rules.failures("CancelledError") == 1


def test_a_cancelled_pipeline_is_no_failure(rules: Rules) -> None:
    function = rules.build("import asyncio\nasync def rule(event):\n    await asyncio.sleep(3600)\n    return event")

    async def cancel() -> None:
        task = asyncio.ensure_future(function(Batch([{}, {}])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert rules.failures() == 0


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def other(event): return event", "no function rule is defined"),
        ("x = 1\ndef rule(event) return event", "rules.py:2: SyntaxError"),
        ("def rule(): return 1", "rules.py:1: rule takes no event"),
        ("def rule(event, meta, more): return 1", "rules.py:1: rule asks for more beside an event and its metadata"),
        ("def rule(event, *, more): return 1", "rules.py:1: rule asks for more beside"),
        ("def rule(batch, meta): return 1", "rules.py:1: rule asks for more than beside a batch"),
        ("\ndef rule(event):\n    event['a'] = 1", "rules.py:2: rule returns nothing, which would drop every event"),
        ("def rule(event):\n    def inner(): return 1", "rule returns nothing"),
    ],
)
def test_code_is_judged_without_running_it(rules: Rules, code: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        rules.build(code)


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    from json import loads as rule\nexcept ImportError:\n    pass",
        "from json import *\nrule = loads",
        "import functools\nrule = functools.partial(dict, a=1)",
        "class Rule:\n    def __call__(self, event):\n        return event\nrule = Rule()",
        "if True:\n    def rule(event):\n        yield event",
    ],
)
def test_functions_come_from_anywhere(rules: Rules, code: str) -> None:
    assert callable(rules.build(code))


def test_what_fails_on_loading_is_told_with_its_line(rules: Rules) -> None:
    for code, message in [
        ("x = 1\ny = x / 0\ndef rule(event): return event", "rules.py:2: ZeroDivisionError: division by zero"),
        ("import nowhere_at_all\ndef rule(event): return event", "rules.py:1: ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\ndef rule(event): return event", "rules.py:2: SystemExit: 3"),
        ("rule = 5", "rule is no function"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(message)):
            rules.build(code)


def test_options_nobody_takes_are_refused(rules: Rules) -> None:
    with pytest.raises(ConfigError, match="rule takes no argument named options"):
        rules.build("def rule(event): return event", options={"a": 1})
    with pytest.raises(ConfigError, match="is no async def, which is what timeout is for"):
        rules.build("def rule(event): return event", timeout="1s")


def test_modules_are_found_without_importing_what_is_around_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "penstock_rules_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "good.py").write_text("def rule(event):\n    return event")
    monkeypatch.syspath_prepend(tmp_path)
    found, config = checked("processor", "python", {"module": f"{package.name}.good", "function": "rule"})
    assert package.name not in sys.modules
    with pytest.raises(ConfigError, match=r"__init__.py:1: RuntimeError: imported"):
        found.module.build(config, Context("p", "python"))
    for module in (f"{package.name}.bad", "no_such_module_here", "", "..", "__main__.x"):
        with pytest.raises(ConfigError, match="there is no module"):
            checked("processor", "python", {"module": module, "function": "rule"})


def test_the_plan_names_the_line_of_the_pipeline_file() -> None:
    text = """
    p:
      source: {http: }
      processor:
        - python:
            path: nowhere/rules.py
            function: rule
      sink: [{stdout: }]
    """
    (problem,) = make_plan(parse_pipelines([("p.yaml", dedent(text).encode())])).problems
    assert "there is no file nowhere/rules.py" in problem.message
    assert (problem.file, problem.line) == ("p.yaml", 5)


def test_the_page_shows_the_file_it_names() -> None:
    page = (ROOT / "docs" / "guide" / "python-processor.md").read_text()
    assert (ROOT / "docs" / "guide" / "python" / "enrich.py").read_text() in page


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=3), json_values, max_size=4), max_size=4), st.booleans())
def test_a_function_that_returns_its_argument_changes_nothing(events: list[dict[str, Any]], copy: bool) -> None:
    found, config = checked("processor", "python", {"module": "copy", "function": "copy", "copy": copy})
    batch = Batch(copy_value(events), origin=Meta(received_ms=1))
    assert repr(found.module.build(config, Context("p", "python"))(batch).bodies) == repr(events)
