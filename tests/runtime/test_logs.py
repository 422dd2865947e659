import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.runtime.logs import MESSAGE_CHARACTERS_MAX, configure
from penstock.testing import run_processor

SECRET = 4111222233334444


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, penstock = logging.getLogger(), logging.getLogger("penstock")
    handlers, levels = list(root.handlers), (root.level, penstock.level)
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    penstock.setLevel(levels[1])


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_has_a_longest_length(stream: io.StringIO, form: str) -> None:
    configure(form, stream=stream)
    log = logging.getLogger("penstock.here")
    log.warning("%s", "x" * 100_000)
    log.warning("y" * MESSAGE_CHARACTERS_MAX)
    long, fits = stream.getvalue().splitlines()
    assert len(long) < MESSAGE_CHARACTERS_MAX + 300
    assert f"({100_000 - MESSAGE_CHARACTERS_MAX} characters more)" in long
    assert fits.count("y") == MESSAGE_CHARACTERS_MAX
    if form == "json":
        assert json.loads(long)["level"] == "WARN"


def test_a_line_that_repeats_is_shown_a_few_times(stream: io.StringIO) -> None:
    configure(stream=stream)
    for number in range(1000):
        logging.getLogger("penstock.here").warning("refused %d", number)
    assert len(stream.getvalue().splitlines()) == 5


FAILING: list[tuple[str, dict[str, Any]]] = [
    ("add_entries", {"entries": [{"key": "a", "value_expression": 'substringAfter(/card, "4")'}]}),
    ("add_entries", {"entries": [{"key": "a", "value": 1, "add_when": "/card"}]}),
    ("add_entries", {"entries": [{"key": "a", "format": '${substringAfter(/card, "4")}'}]}),
    ("add_entries", {"entries": [{"key": "a", "value_expression": 'formatDateTime(/text, "yyyy")'}]}),
    ("convert_type", {"key": "text", "type": "integer"}),
    ("date", {"match": [{"key": "text", "patterns": ["yyyy"]}]}),
    ("drop_events", {"drop_when": "/card"}),
    ("grok", {"match": {"text": ["%{IP:ip}"]}, "grok_when": "/card"}),
    ("rename_keys", {"entries": [{"from_key": "card", "to_key": "text/b"}]}),
    ("parse_json", {"source": "text"}),
    ("parse_xml", {"source": "text"}),
    ("parse_ion", {"source": "text"}),
    ("parse_ion", {"source": "quoted"}),
    ("parse_ion", {"source": "digits"}),
    ("parse_json", {"source": "quoted"}),
    ("parse_json", {"source": "digits"}),
    ("parse_xml", {"source": "tag"}),
    ("csv", {"source": "quoted"}),
    ("decompress", {"keys": ["text"], "type": "gzip"}),
    ("list_to_map", {"source": "card", "key": "a"}),
    ("map_to_list", {"source": "card", "target": "a"}),
    (
        "translate",
        {
            "mappings": [
                {
                    "source": "text",
                    "targets": [
                        {"target": "a", "type": "integer", "regex": {"patterns": {"4": "7"}, "exact": False}},
                    ],
                }
            ]
        },
    ),
    ("python", {"module": "math", "function": "sqrt"}),
    (
        "aggregate",
        {"identification_keys": ["text"], "action": {"histogram": {"key": "text", "units": "s", "buckets": [1]}}},
    ),
]


@pytest.mark.parametrize(("name", "options"), FAILING)
def test_no_value_of_an_event_is_in_the_log(
    name: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    event = {
        "card": SECRET,
        "text": f"é{SECRET}{{<",
        "quoted": f'"{SECRET}',
        "digits": f"{SECRET}x",
        "tag": f"<a{SECRET}>",
    }
    with caplog.at_level(logging.INFO):
        run_processor(name, options, [event])
    assert caplog.records, "the failure is told"
    assert str(SECRET) not in caplog.text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("", True), ("1", False)])
def test_a_terminal_is_coloured_unless_it_is_not_wanted(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, no_color: str | None, coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    configure(stream=(terminal := Terminal()))
    logging.getLogger("penstock.here").warning("careful")
    assert ("\033[" in terminal.getvalue()) is coloured
