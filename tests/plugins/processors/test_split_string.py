"""Texts to lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys

DELIMITERS = st.sampled_from(
    [{"delimiter": ","}, {"delimiter": " "}, {"delimiter_regex": "[,;]+"}, {"delimiter_regex": ".?"}]
)


@given(events, keys, DELIMITERS)
def test_any_event_survives(run_unharmed, before, source, delimiter):
    run_unharmed("split_string", {"entries": [{"source": source, **delimiter}]}, before)


def test_only_delimiters_give_an_empty_list():
    config = {"entries": [{"source": "m", "delimiter": ","}]}
    results = run_processor("split_string", config, [{"m": ",,"}, {"m": ""}, {"m": "," * 1_000_000 + "x"}])
    assert [result.body["m"] for result in results[:2]] == [[], [""]]
    assert len(results[2].body["m"]) == 1_000_001


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"source": "m"}, "delimiter or delimiter_regex needs to be defined"),
        ({"source": "m", "delimiter_regex": ""}, "delimiter or delimiter_regex needs to be defined"),
        (
            {"source": "m", "delimiter": ",", "delimiter_regex": ","},
            "delimiter and delimiter_regex cannot be defined at the same time",
        ),
        ({"source": "m", "delimiter_regex": "("}, "The value of delimiter_regex is not a valid regex string"),
        ({"source": "m", "delimiter": ",,"}, "delimiter size must be between 1 and 1"),
        ({"delimiter": ","}, "entries.0.source must not be null"),
    ],
)
def test_refused_options(entry, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("split_string", {"entries": [entry]})
    assert message in str(caught.value)
