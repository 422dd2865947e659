import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.expr.java_regex import whole_match


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
