import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Meta
from penstock.expr import compile_expression
from penstock.expr.java_regex import is_limited, whole_match


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("a|ab", ["a", "ab"], ["abc", ""]),
        (r"(?<name>a+)-\k<name>", ["aa-aa"], ["aa-a"]),
        (r"\p{Alpha}+\p{Digit}", ["ab1"], ["1a"]),
        (r"[\p{Upper}_]+", ["A_B"], ["a"]),
        (r"\P{Digit}+", ["ab"], ["a1"]),
        (r"\p{L}+", ["Ärger"], ["a1"]),
        (r"\Q.*[\E.", [".*[x"], ["ab"]),
        (r"\w+", ["abc_1"], ["ä"]),
        (r"\d+", ["12"], ["١٢"]),
        (r"[a[b-c]]+", ["abc"], ["["]),
        (r"a++b", ["aab"], ["b"]),
        (r"(?i)AB", ["aB"], ["ac"]),
        (r"\h\x{1F600}", ["\t😀"], ["a"]),
        (r"a&&b", ["a&&b"], ["a"]),
    ],
)
def test_patterns_mean_what_they_mean_in_java(pattern, matching, other):
    matches = whole_match(pattern)
    assert [text for text in matching if not matches(text)] == []
    assert [text for text in other if matches(text)] == []


@pytest.mark.parametrize("pattern", ["(", "[a-z&&[^b]]", r"\p{Nonsense}", "*", "a{2,1}", "[a[^b]]", "(?<a>x)(?<a>y)"])
def test_bad_patterns(pattern):
    with pytest.raises(ValueError):
        whole_match(pattern)


@given(st.text(r"ab\pPLQEkx{}()[]^<>?&*+.|$09", max_size=15))
def test_any_pattern_compiles_or_is_a_value_error(pattern):
    try:
        whole_match(pattern)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+b", "a" * 50),
        ("(a|a)*b", "a" * 50),
        (r"(.*a){12}b", "a" * 60),
        ("a?" * 40 + "a" * 40, "a" * 60 + "b"),
        (".*x.*y.*z.*", "xyx" * 4000),
        (".*foo.*", "foo" * 100_000 + "\n"),
    ],
)
def test_a_match_that_runs_away_is_false_both_ways(pattern, text, caplog):
    event, meta = {"text": text}, Meta()
    for name in ("=~", "!~"):
        compiled = compile_expression(f'/text {name} "{pattern}"'.replace("\\", "\\\\"))
        assert compiled.evaluate(event, meta) is False
    assert compile_expression("/text =~ /pattern").evaluate({**event, "pattern": pattern}, meta) is False
    assert "took longer" in caplog.text


@pytest.mark.parametrize("pattern", ["abc", r"\d{4}-\d{2}", "[a+*]+x", r"\*\+\?.*", "(?:a|b)c", "(?<n>ab)c*"])
def test_patterns_that_cannot_run_away_are_not_timed(pattern):
    assert not is_limited(pattern)
    assert is_limited(pattern + r"(?<word>.)+\k<word>")
