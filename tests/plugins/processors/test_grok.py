"""The grok processor: captures, types, keys, failures, limits; and that its fast forms equal the plain ones."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock import ConfigError
from penstock.core.batch import Batch
from penstock.plan import catalog
from penstock.plugins.processors.grok import Config, apache, build
from penstock.plugins.processors.grok.compile import Pattern, compile_pattern, unquote
from penstock.plugins.processors.grok.files import expand_braces
from penstock.plugins.processors.grok.patterns import PATTERNS
from penstock.sdk import Context
from penstock.testing import build_processor, run_processor

LINE = '10.0.0.7 - ann [10/Oct/2024:13:55:36 -0700] "GET /a?b=1 HTTP/1.1" 200 2326 "-" "curl/8.1"'
FIELDS = {
    "clientip": "10.0.0.7",
    "ident": "-",
    "auth": "ann",
    "timestamp": "10/Oct/2024:13:55:36 -0700",
    "verb": "GET",
    "request": "/a?b=1",
    "httpversion": "1.1",
    "response": "200",
    "bytes": "2326",
    "referrer": "-",
    "agent": "curl/8.1",
}


def grok(pattern: str | list[str], text: Any, **options: Any) -> dict[str, Any]:
    """What is captured from one text: the event without the key `m` that holds it."""
    patterns = [pattern] if isinstance(pattern, str) else pattern
    (result,) = run_processor("grok", {"match": {"m": patterns}, **options}, [{"m": text}])
    assert result.body.pop("m") == text
    return result.body


def counted(config: dict[str, Any], bodies: list[dict[str, Any]]) -> tuple[Batch, dict[str, float]]:
    """The batch afterwards and the counters by their short names."""
    ctx = Context("p", "grok")
    batch = build(Config.model_validate(config), ctx)(Batch(bodies))
    assert isinstance(batch, Batch)
    names = ("Match", "Mismatch", "Errors", "Timeouts", "Time")
    return batch, {name: ctx.registry.value(f"p.grok.grokProcessing{name}") for name in names}


class TestCaptures:
    def test_access_logs(self) -> None:
        assert grok("%{COMBINEDAPACHELOG}", LINE) == FIELDS

    def test_a_pattern_matches_anywhere_unless_it_is_anchored(self) -> None:
        assert grok("%{INT:n}ms", "took 12ms") == {"n": "12"}
        assert grok("^%{INT:n}ms", "took 12ms") == {}

    def test_quotes_come_off_unless_one_is_left_inside(self) -> None:
        captured = grok("%{QS:a} %{QS:b} %{QS:c} %{NOTSPACE:d} %{NOTSPACE:e}", r""" "x" 'y' "a\"b" "q" '""")
        assert captured == {"a": "x", "b": "y", "c": r'"a\"b"', "d": "q", "e": ""}

    def test_captures_that_took_no_part_are_left_out_or_null(self) -> None:
        pattern = "%{WORD:a}(?: %{INT:b})?(?<rest>;.*)?"
        assert grok(pattern, "x") == {"a": "x"}
        assert grok(pattern, "x", keep_empty_captures=True) == {"a": "x", "b": None, "rest": None}
        assert grok(pattern, "x 1;", keep_empty_captures=True) == {"a": "x", "b": "1", "rest": ";"}

    def test_several_values_of_one_name_are_a_list(self) -> None:
        assert grok("%{WORD:w} %{WORD:w} %{WORD:w}", "a b c") == {"w": ["a", "b", "c"]}
        assert grok("(?<w>a)|(?<w>b)", "b") == {"w": "b"}

    def test_without_named_captures_only_patterns_name_their_captures(self) -> None:
        captured = grok("%{HTTPDATE} %{USER}", "10/Oct/2024:13:55:36 -0700 ann", named_captures_only=False)
        assert captured == {
            "HTTPDATE": "10/Oct/2024:13:55:36 -0700",
            "MONTHDAY": "10",
            "MONTH": "Oct",
            "YEAR": "2024",
            "TIME": "13:55:36",
            "HOUR": "13",
            "MINUTE": "55",
            "SECOND": "36",
            "INT": "-0700",
            "USER": "ann",
        }

    def test_groups_of_the_regular_expression(self) -> None:
        pattern = r"(?<user_name>\w+) (?<geo.city>\w+) (?<x-y>\w+) (?<@z>\w+) (\w+)"
        assert grok(pattern, "a b c d e") == {"user_name": "a", "geo.city": "b", "x-y": "c", "@z": "d"}

    def test_groups_are_referred_to_by_name_and_number(self) -> None:
        assert grok(r"(?<q>['\"])(?<text>.*?)\k<q>", "say 'a \"b\"'", target_key="t") == {
            "t": {"q": "", "text": 'a "b"'}
        }
        assert grok(r"(\w)(?<w>\w+)\1", "abca") == {"w": "bc"}

    def test_an_inline_definition(self) -> None:
        assert grok("%{ID=[A-Z]+-[0-9]+} %{ID:id}", "AB-1 CD-22") == {"id": "CD-22"}

    def test_own_definitions_win_over_the_library_also_inside_it(self) -> None:
        line = LINE.replace(" ann ", " a!b ")
        assert grok("%{COMBINEDAPACHELOG}", line) == {}
        captured = grok("%{COMBINEDAPACHELOG}", line, pattern_definitions={"USERNAME": "[a-z!-]+"})
        assert captured == {**FIELDS, "auth": "a!b"}

    def test_line_ends_are_those_of_java(self) -> None:
        assert grok("%{GREEDYDATA:line}$", "first\rlast\r\n") == {"line": "last"}
        assert grok("^%{GREEDYDATA:line}", "first\u2028last") == {"line": "first"}

    def test_syslog(self) -> None:
        text = "Oct 11 22:14:15 mymachine su[123]: 'su root' failed"
        assert grok("%{SYSLOGLINE}", text) == {
            "timestamp": "Oct 11 22:14:15",
            "logsource": "mymachine",
            "program": "su",
            "pid": "123",
            "message": "'su root' failed",
        }


class TestTypes:
    @pytest.mark.parametrize(
        ("kind", "text", "value"),
        [
            ("int", "+42", 42),
            ("integer", "-2147483648", -(2**31)),
            ("long", "9223372036854775807", 2**63 - 1),
            ("short", "-32768", -32768),
            ("byte", "127", 127),
            ("float", "0.1", 0.1),
            ("float", "0.123456789", 0.12345679),
            ("double", "0.123456789012", 0.123456789012),
            ("double", ".5e3", 500.0),
            ("boolean", "TRUE", True),
            ("boolean", "yes", False),
            ("string", "7", "7"),
            ("text", "'7'", "7"),
            ("date", "2024-01-15T10:20:30Z", 1_705_314_030),
            ("datetime", "2024-01-15T10:20:30", 1_705_314_030),
            ("date:dd/MMM/yyyy:HH:mm:ss Z", "10/Oct/2000:13:55:36 -0700", 971_211_336),
        ],
    )
    def test_conversion(self, kind: str, text: str, value: Any) -> None:
        for separator in ":;":
            options = {} if ":" not in kind else {"pattern_definitions": {"ALL": ".*"}}
            name = kind.replace(":", separator, 1)
            captured = grok(f"^%{{{'ALL' if options else 'GREEDYDATA'}:v{separator}{name}}}", text, **options)["v"]
            assert captured == value
            assert type(captured) is type(value)

    @pytest.mark.parametrize(
        ("kind", "text", "failure"),
        [
            ("int", "2147483648", 'java.lang.NumberFormatException: For input string: "2147483648"'),
            ("int", "1_0", 'java.lang.NumberFormatException: For input string: "1_0"'),
            ("long", "", 'java.lang.NumberFormatException: For input string: ""'),
            ("byte", "128", 'java.lang.NumberFormatException: Value out of range. Value:"128" Radix:10'),
            ("double", "1_0", 'java.lang.NumberFormatException: For input string: "1_0"'),
            ("float", "", "java.lang.NumberFormatException: empty String"),
        ],
    )
    def test_a_text_that_is_no_such_value_stays_and_says_why(self, kind: str, text: str, failure: str) -> None:
        assert grok(f"^x%{{GREEDYDATA:v:{kind}}}", "x" + text) == {"v": text, "v_grokfailure": failure}

    def test_quotes_count_for_the_conversion(self) -> None:
        captured = grok("%{QS:n:int}", '"7"')
        assert captured["n"] == "7"
        assert "v_grokfailure" not in captured
        assert captured["n_grokfailure"].endswith('For input string: ""7""')


class TestKeys:
    def test_old_and_new_values_become_a_list(self) -> None:
        config = {"match": {"m": ["%{WORD:a} %{WORD:b} %{INT:n:int}"]}, "keys_to_overwrite": ["b"]}
        events: list[dict[str, Any]] = [{"m": "x y 2", "a": "w", "b": "w", "n": [0, 1]}, {"m": "x y 2", "a": None}]
        first, second = run_processor("grok", config, events)
        assert first.body == {"m": "x y 2", "a": ["w", "x"], "b": "y", "n": [0, 1, 2]}
        assert second.body == {"m": "x y 2", "a": [None, "x"], "b": "y", "n": 2}

    def test_slashes_lead_into_objects_and_brackets_do_not(self) -> None:
        assert grok("%{WORD:a/b} %{WORD:[c][d]}", "x y") == {"a": {"b": "x"}, "[c][d]": "y"}

    def test_under_a_target_key_names_are_taken_as_they_are(self) -> None:
        assert grok("%{WORD:a/b}", "x", target_key="t/u") == {"t": {"u": {"a/b": "x"}}}
        assert grok("%{INT:n}", "x", target_key="t") == {"t": {}}

    def test_a_nested_source(self) -> None:
        (result,) = run_processor("grok", {"match": {"/log/line": ["%{INT:n}"]}}, [{"log": {"line": "1"}}])
        assert result.body == {"log": {"line": "1"}, "n": "1"}

    @pytest.mark.parametrize("name", ["a,b", "7", "m/x"])
    def test_an_event_that_cannot_take_a_capture_stays_as_it_was(self, name: str) -> None:
        config = {"match": {"m": [f"%{{WORD:first/x}} %{{WORD:{name}}}"]}, "tags_on_match_failure": ["bad"]}
        batch, counters = counted(config, [{"m": "x y"}])
        assert batch.bodies == [{"m": "x y"}]
        assert batch.peek(0).tags == {"bad"}
        assert counters == {"Match": 0, "Mismatch": 0, "Errors": 1, "Timeouts": 0, "Time": 1}


class TestSeveralPatterns:
    def test_the_first_match_of_all_keys_ends_it(self) -> None:
        config = {"match": {"a": ["%{INT:n}", "%{WORD:w}"], "b": ["%{WORD:other}"]}}
        events = [{"a": "1 x", "b": "y"}, {"a": "x", "b": "y"}, {"a": "-", "b": "y"}, {"b": "y"}, {"a": "", "b": "y"}]
        added = [
            {key: value for key, value in result.body.items() if key not in "ab"}
            for result in run_processor("grok", config, events)
        ]
        assert added == [{"n": "1"}, {"w": "x"}, {"other": "y"}, {"other": "y"}, {"other": "y"}]

    def test_all_are_tried_where_that_is_wanted(self) -> None:
        config = {"match": {"a": ["%{INT:n}", "%{NOTSPACE:n}"], "b": ["%{WORD:n}"]}, "break_on_match": False}
        (result,) = run_processor("grok", config, [{"a": "1", "b": "y"}])
        assert result.body["n"] == ["1", "1", "y"]
        (result,) = run_processor("grok", {**config, "keys_to_overwrite": ["n"]}, [{"a": "1", "b": "y"}])
        assert result.body["n"] == "y"

    def test_a_match_without_captures_is_none(self) -> None:
        assert grok(["%{INT}", "(?<a>z)?", "%{WORD:w}"], "1") == {"w": "1"}


class TestTexts:
    def test_numbers_and_booleans_are_matched_as_text(self) -> None:
        for value, text in ((20, "20"), (1.5, "1.5"), (True, "true"), (1e10, "1.0E10")):
            assert grok("^%{GREEDYDATA:t}$", value) == {"t": text}

    def test_what_is_missing_null_or_empty_does_not_match_and_objects_fail(self) -> None:
        config = {"match": {"m": ["%{GREEDYDATA:t}"]}, "tags_on_match_failure": ["f"]}
        batch, counters = counted(config, [{}, {"m": None}, {"m": ""}, {"m": {}}, {"m": ["x"]}, {"m": "x"}])
        assert [meta and meta.tags for meta in batch.metas] == [{"f"}] * 5 + [None]
        assert counters == {"Match": 1, "Mismatch": 3, "Errors": 2, "Timeouts": 0, "Time": 6}

    def test_a_condition_chooses_events(self) -> None:
        config = {"match": {"m": ["%{WORD:w}"]}, "grok_when": "/n > 1", "tags_on_match_failure": ["f"]}
        batch, counters = counted(config, [{"m": "a", "n": 1}, {"m": "b", "n": 2}, {"m": "-", "n": 3}])
        assert [body.get("w") for body in batch.bodies] == [None, "b", None]
        assert [meta and meta.tags for meta in batch.metas] == [None, None, {"f"}]
        assert (counters["Match"], counters["Mismatch"]) == (1, 1)


class TestLimits:
    RUNAWAY = r"^(?:a|a)*b(?<w>\w+)"

    @pytest.mark.parametrize("more", [{}, {"break_on_match": False}, {"tags_on_timeout": ["slow"]}])
    def test_only_the_event_that_runs_away_is_given_up(self, more: dict[str, Any]) -> None:
        config = {"match": {"m": [self.RUNAWAY]}, "timeout_millis": 20, "tags_on_match_failure": ["f"], **more}
        stuck = "a" * 60 + "!b"
        batch, counters = counted(config, [{"m": text} for text in ("aabx", stuck, "aaby", "-", stuck, "bz")])
        assert [body.get("w") for body in batch.bodies] == ["x", None, "y", None, None, "z"]
        late = set(more.get("tags_on_timeout", ["f"]))
        assert [meta and meta.tags for meta in batch.metas] == [None, late, None, {"f"}, late, None]
        assert counters == {"Match": 3, "Mismatch": 1, "Errors": 0, "Timeouts": 2, "Time": 6}

    def test_no_limit(self) -> None:
        assert grok(self.RUNAWAY, "aabx", timeout_millis=0) == {"w": "x"}

    def test_what_it_took_adds_up_in_the_metadata(self) -> None:
        config = {"match": {"m": ["%{INT:n}", "%{WORD:w}"]}, "performance_metadata": True}
        (result,) = run_processor("grok", config, [{"m": "x"}], metadata={"_total_grok_patterns_attempted": 3})
        assert result.metadata["_total_grok_patterns_attempted"] == 5
        assert result.metadata["_total_grok_processing_time"] >= 0
        assert result.body["w"] == "x"


class TestConfiguration:
    @pytest.mark.parametrize(
        ("pattern", "why"),
        [
            ("%{NOPE:a}", "No definition for key 'NOPE' found"),
            ("%{WORD:a:colour}", "Invalid data type :colour"),
            ("%{WORD:a:date:QQQQQQQ}", ""),
            ("%{WORD:a", "Illegal repetition"),
            ("(?<a>x", "Unclosed group"),
            (" ", "empty"),
            ("%{LOOP:a}", "Deep recursion"),
            ("%{BOMB5}", "characters"),
        ],
    )
    def test_a_wrong_pattern_is_named_by_its_key(self, pattern: str, why: str) -> None:
        bombs = {f"BOMB{n}": f"%{{BOMB{n - 1}}}" * 30 for n in range(1, 6)} | {"BOMB0": "x"}
        definitions = {"LOOP": "a%{POOL}", "POOL": "%{LOOP}", **bombs}
        config = {"match": {"m": [pattern], "n": ["%{WORD:a}"]}, "pattern_definitions": definitions}
        with pytest.raises(ConfigError) as caught:
            build_processor("grok", config)
        (problem,) = caught.value.problems
        assert "Invalid regular expression pattern in match: m (" in problem.message
        assert why in problem.message

    def test_every_wrong_key_is_named(self) -> None:
        with pytest.raises(ConfigError) as caught:
            build_processor("grok", {"match": {"m": ["%{A:a}"], "n": ["("]}})
        assert str(caught.value).count("Invalid regular expression pattern in match: ") == 2

    def test_a_wrong_pattern_is_found_without_building_anything(self) -> None:
        with pytest.raises(ValidationError, match="No definition for key 'NOPE' found"):
            Config.model_validate({"match": {"m": ["%{NOPE:a}"]}})

    def test_pattern_files_are_read_with_the_options(self, tmp_path: Path) -> None:
        (tmp_path / "a.grok").write_text("# ids\nID   [A-Z]+-%{INT}\n\nLEVEL x\n")
        (tmp_path / "b.pat").write_text("LEVEL (?:LOW|HIGH)\n")
        (tmp_path / "c.txt").write_text("ID nothing\n")
        options = {"patterns_directories": [str(tmp_path)], "patterns_files_glob": "*.{grok,pat}"}
        assert grok("%{ID:id} %{LEVEL:level}", "AB-7 HIGH", **options) == {"id": "AB-7", "level": "HIGH"}

    def test_a_directory_that_cannot_be_read_is_logged_at_start(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        missing = str(tmp_path / "missing")
        assert grok("%{INT:n}", "7", patterns_directories=[missing]) == {"n": "7"}
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert record.getMessage().startswith(f"The pattern directory {missing} cannot be read: ")

    @pytest.mark.parametrize(
        ("definition", "why"),
        [("", "No definition for key 'ID' found"), ("ID (", "Unclosed group"), ("ID %{ID}", "Deep recursion")],
    )
    def test_what_is_wrong_with_pattern_files_is_found_without_building(
        self, tmp_path: Path, definition: str, why: str
    ) -> None:
        (tmp_path / "ids").write_text(f"{definition}\n")
        directories = [str(tmp_path), str(tmp_path / "missing")]
        with pytest.raises(ValidationError) as caught:
            Config.model_validate({"match": {"m": ["%{ID:id}"]}, "patterns_directories": directories})
        message = str(caught.value)
        assert "Invalid regular expression pattern in match: m (" in message
        assert why in message
        assert f"The pattern directory {directories[1]} cannot be read" in message

    def test_braces_in_globs(self) -> None:
        assert expand_braces("{a,b}*.{c,d}") == ["a*.c", "a*.d", "b*.c", "b*.d"]
        with pytest.raises(ValueError, match="more than 1000 globs"):
            expand_braces("{a,b}" * 20)

    def test_a_key_without_patterns_matches_nothing(self) -> None:
        assert grok([], "x", tags_on_match_failure=["f"]) == {}

    def test_it_is_found_by_its_name(self) -> None:
        assert catalog.find("processor", "grok").config is Config


@cache
def _compiled(pattern: str) -> Pattern:
    return compile_pattern(pattern, {}, named_only=True)


@cache
def _plain(name: str) -> re.Pattern[str]:
    """A library pattern as `re` takes it without any translation; right for ASCII texts."""
    text = f"%{{{name}:all}}"
    count = 0
    while found := re.search(r"%\{(\w+)(?::([^}]+))?\}", text):
        opening = "(?:" if found[2] is None or found[2] == "UNWANTED" else f"(?P<g{count}>"
        count += 1
        text = text[: found.start()] + opening + PATTERNS[found[1]] + ")" + text[found.end() :]
    return re.compile(re.sub(r"\(\?<([a-z])", r"(?P<\1", text), re.ASCII)


SAMPLES = [
    LINE,
    r'::1 - - [1/Jan/24:1:02:60 +0000] "GET "a" HTTP/2" 404 - "\"x\"" ' + "'agent'",
    "Oct 11 22:14:15 <13.7> host.example.org. app/x-1[12]: started; next",
    "2024-02-29T23:59:60,123+01:00 WARN [main] http://u:p@example.org:8080/a/b?c=d&e - done",
    "Mon, 15 Jan 24 10:20:30 Z /dev/pts/3 C:\\dir\\file 00-1B-2c-3D-4e-5F fe80::1%eth0 0xAF.8",
    "2024-01-15 10:20:30 123 eni-1 10.0.0.1 10.0.0.2 443 50000 6 10 840 1 2 ACCEPT OK",
]
PIECES = sorted({piece for sample in SAMPLES for piece in re.findall(r"\w+|\W", sample)})
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
    st.tuples(st.sampled_from(SAMPLES), st.integers(0, 130), st.integers(0, 4), st.sampled_from(["", *PIECES])).map(
        lambda cut: cut[0][: cut[1]] + cut[3] + cut[0][cut[1] + cut[2] :]
    ),
)


@given(st.sampled_from(sorted(PATTERNS)), st.lists(TEXTS, min_size=1, max_size=6))
def test_a_compiled_pattern_finds_what_its_definition_says(name: str, texts: list[str]) -> None:
    plain, compiled = _plain(name), _compiled(f"%{{{name}:all}}")
    for text in texts:
        expected, row = plain.search(text), compiled.find(text)
        assert (row is None) == (expected is None)
        if row is not None and expected is not None:
            clean = [
                value and unquote(value) if field.convert is None else value
                for field, value in zip(compiled.fields, expected.groups(), strict=True)
            ]
            assert list(row) == clean


NEAR = {
    "%{COMBINEDAPACHELOG}": [LINE, SAMPLES[1], f"x: {LINE}", LINE[:60] + LINE],
    "%{COMMONAPACHELOG}": [LINE, SAMPLES[1], LINE[:30] + LINE],
    "%{SYSLOGLINE}": [SAMPLES[2], "2024-02-29T23:59:60,123+01:00 db-1 su: a: b", SAMPLES[2][:30] + " x: " + SAMPLES[2]],
}


@pytest.mark.parametrize("pattern", sorted(NEAR))
@given(data=st.data())
def test_lines_that_nearly_match_are_told_from_those_that_do(pattern: str, data: st.DataObject) -> None:
    plain, compiled = _plain(pattern[2:-1]), _compiled(pattern)
    text = data.draw(st.sampled_from(NEAR[pattern]))
    for _ in range(data.draw(st.integers(1, 3))):
        start, end = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 3))
        text = text[:start] + data.draw(st.sampled_from(["", *PIECES])) + text[start + end :]
    expected, row = plain.search(text), compiled.find(text)
    assert (row is None) == (expected is None)
    if row is not None and expected is not None:
        clean = [value and unquote(value) for value in expected.groups()[1:]]
        assert list(row) == clean


HOSTS = st.sampled_from(["1.2.3.4", "a.example.org.", "x-", "-x", "a..b", "a.-b", "fe80::1", "1:2", "::", "h" * 64])
DAYS = st.sampled_from(
    ["10/Oct/2024:13:55", "1/May/2024:1:02", "32/Jan/2024:00:00", "31/Jun/99:24:00", "01/Foo/2024:0:0"]
)
REQUESTS = st.sampled_from(
    ["GET /a HTTP/1.1", "GET /", "-", "P\u00dcT /a HTTP/1.0", 'GET "a" HTTP/1.1', 'A b" c HTTP/1.1', ""]
)
SIZES = st.sampled_from(["-", "12", "1.5", "-5", "12.", "x"])
QUOTED = st.sampled_from(['"-"', '""', r'"a\"b"', r'"a\\"', "'x'", '"a" ', r'"\""', '"a\r"', '"a', "`b`"])
LINES = st.builds(
    '{}{} - {} [{}:{} +0100] "{}" {} {} {} {}{}'.format,
    st.sampled_from(["", "", "x ", ":", "é"]),
    HOSTS,
    st.sampled_from(["-", "ann", "a b", "a!b"]),
    DAYS,
    st.sampled_from(["36", "60", "6", "61", "36.5"]),
    REQUESTS,
    st.sampled_from(["200", "2.5", "-1", "x"]),
    SIZES,
    QUOTED,
    QUOTED,
    st.sampled_from(["", " x", '"', "9"]),
)


@pytest.mark.parametrize("name", sorted(apache.COMMON_FORMS))
@given(line=LINES)
def test_the_common_form_finds_what_the_full_pattern_finds(name: str, line: str) -> None:
    fast, full = _compiled(name), _compiled(f"{name}(?:)")
    assert fast.fields == full.fields
    assert fast.find(line) == full.find(line)
