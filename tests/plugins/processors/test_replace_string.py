"""Fixed texts."""

import pytest
from hypothesis import given

from penstock import ConfigError
from penstock.testing import build_processor, run_processor
from penstock.testing.strategies import events, keys, texts


@given(events, keys, texts, texts)
def test_any_event_survives(run_unharmed, before, source, old, new):
    run_unharmed("replace_string", {"entries": [{"source": source, "from": old, "to": new}]}, before)


def test_signs_of_regular_expressions_mean_nothing():
    config = {"entries": [{"source": "a", "from": "$1.*", "to": "\\$"}, {"source": "a", "from": "", "to": "-"}]}
    (result,) = run_processor("replace_string", config, [{"a": "$1.*x"}])
    assert result.body == {"a": "-\\-$-x-"}


def test_an_entry_that_lacks_something_changes_nothing(caplog):
    config = {"entries": [{"source": "a", "from": "b"}, {"from": "b", "to": "c"}, {"source": "a", "to": "c"}]}
    (result,) = run_processor("replace_string", config, [{"a": "b"}])
    assert result.body == {"a": "b"}
    assert len(caplog.records) == 3
    (result,) = run_processor("replace_string", {}, [{"a": "b"}])
    assert result.body == {"a": "b"}


def test_a_condition_that_is_none():
    with pytest.raises(ConfigError, match="is not a valid expression statement"):
        build_processor("replace_string", {"entries": [{"source": "a", "from": "a", "to": "b", "replace_when": "=="}]})
