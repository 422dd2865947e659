"""Formats of texts."""

import pytest
from hypothesis import given

from penstock import ConfigError
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys


@given(events, keys, keys)
def test_any_event_survives(run_unharmed, before, source, target):
    run_unharmed("detect_format", {"source": source, "target_key": target}, before)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("  {\n}  ", "json"),
        ("{", None),
        ("[1]", None),
        ("<?xml", "xml"),
        ("<a>", "xml"),
        ("a,b\r\n1,2", "csv"),
        ("a,b\n1\n2\n3,4", None),
        ("a,b\n1\n2,3\n4,5", "csv"),
        ("\n".join(["a,b"] * 6 + ["x"] * 50), "csv"),
        ("a=1", None),
        ("a=1&b=2", "keyvalue"),
        ("a=1&&&", None),
        ("a b=2", None),
        ("", None),
        (7, None),
    ],
)
def test_formats(text, name):
    (result,) = run_processor("detect_format", {"source": "m", "target_key": "f"}, [{"m": text}])
    assert result.body == ({"m": text} if name is None else {"m": text, "f": name})


def test_each_event_is_judged_by_itself():
    config = {"source": "m", "target_metadata_key": "f", "detect_when": "/go == true"}
    events = [{"m": "{}", "go": True}, {"m": "x", "go": True}, {"m": "{}"}]
    assert [result.metadata for result in run_processor("detect_format", config, events)] == [{"f": "json"}, {}, {}]


def test_separators_and_delimiter():
    config = {"source": "m", "target_key": "f", "key_value_delimiter": ":"}
    texts = ["a:1|b:2", "a:1 ;; b:2", "a=1|b=2"]
    (one, two, three) = run_processor(
        "detect_format", {**config, "key_value_separator_list": ["|", r"\s*;+"]}, [{"m": text} for text in texts]
    )
    assert [result.body.get("f") for result in (one, two, three)] == ["keyvalue", "keyvalue", None]


def test_a_target_that_cannot_be_written():
    config = {"source": "m", "target_key": "x/f", "target_metadata_key": "f"}
    (result,) = run_processor("detect_format", config, [{"m": "{}", "x": 1}])
    assert (result.body, result.metadata) == ({"m": "{}", "x": 1}, {})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": "m"}, "At least one of target_key and target_metadata_key must be specified"),
        ({"source": "m", "target_key": "f", "key_value_separator_list": ["(("]}, "key_value_separator_list"),
        ({"target_key": "f"}, "source must not be null"),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("detect_format", config)
    assert message in str(caught.value)
