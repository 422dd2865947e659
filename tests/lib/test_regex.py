"""Java's regular expressions: what they match, what is refused, and that the fast ways find what the slow one finds."""

from __future__ import annotations

import re
import signal
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import timelimit
from penstock.lib.regex import (
    RegexError,
    Search,
    TimeLimit,
    TimeLimitExceeded,
    compile_java,
    group_names,
    interruptible,
    parse,
    to_python,
)

MATCHES = [
    # possessive and atomic
    (r"(?:ab|a)*+c", "ababc", "ababc"),
    (r"(?:a|ab)++c", "abc", None),
    (r"(?>a|ab)c", "abc", None),
    (r"a++ab", "aaab", None),
    # classes
    (r"[a-z&&[^b]]+", "bacb", "ac"),
    (r"[a-z&&[def]&&[^e]]+", "xedfe", "df"),
    (r"[a-d[m-p]]+", "zam!", "am"),
    (r"[^a[bc]]+", "abcxyz", "xyz"),
    (r"[]a]+", "x]a", "]a"),
    (r"[\w.-]+", "a b-c.d", "a"),
    (r"[\Q.-]\E]+", "a.-]b", ".-]"),
    (r"\p{Alpha}+\p{Punct}\P{Digit}", "1ab!c", "ab!c"),
    (r"\p{Lu}\p{Ll}+", "aÉté", "Été"),
    (r"\p{IsAlphabetic}+\p{XDigit}", "--日f", "日f"),
    (r"(?i)[^a]", "Ab", "b"),
    # ASCII classes, Unicode boundaries
    (r"\w+", "éab", "ab"),
    (r"\d+", "٣7", "7"),
    (r"(?U)\d+", "٣7", "٣7"),
    (r"\b\w+\b", "über", None),
    (r"\s+", "\xa0 \x0b", " \x0b"),
    (r"\h+", "a\xa0\t", "\xa0\t"),
    (r"a\Rb", "a\r\nb", "a\r\nb"),
    # letter case
    (r"(?i)straße", "STRAßE", "STRAßE"),
    (r"(?i)é", "É", None),
    (r"(?iu)é", "É", "É"),
    (r"a(?i)b|c", "C", "C"),
    (r"(?i:A)b", "aB", None),
    # ends of lines
    (r"a.b", "a\rb a\u2028b axb", "axb"),
    (r"(?s)a.b", "a\rb", "a\rb"),
    (r"(?d)a.b", "a\rb", "a\rb"),
    (r"b$", "b\r\n", "b"),
    (r"b\Z", "b\u2028", "b"),
    (r"b\z", "b\n", None),
    (r"\n$", "\r\n", "\n"),
    (r"(?m)^b$", "a\rb\rc", "b"),
    (r"(?m)^", "", None),
    # literals and escapes
    (r"\Qa.b\E+", "a.bbb", "a.bbb"),
    (r"\x41\u0042\x{43}\0104", "ABCD", "ABCD"),
    (r"\uD83D\uDE00", "😀", "😀"),
    ("(?x) a b # comment\n c", "abc", "abc"),
    (r"a]b}", "a]b}", "a]b}"),
    # looking behind, referring back
    (r"(?<=a|bc)d", "xd bcd", "d"),
    (r"(?<=\d{1,3})x", "x1x", "x"),
    (r"(?<!a|bc)d", "ad bcd xd", "d"),
    (r"(?<q>['\"]).*?\k<q>", "a'b\"c'", "'b\"c'"),
    (r"(a)(b)?\2", "a", None),
    (r"(?i)(a)\1", "aA", "aA"),
    # lazy and greedy steps
    (r'".*?" \d', '"a" b "c" 1', '"a" b "c" 1'),
    (r'\S+"', 'a"b"c', 'a"b"'),
    (r".{2,}?b", "abbb", "abb"),
]


@pytest.mark.parametrize(("pattern", "text", "expected"), MATCHES)
def test_matches_what_java_matches(pattern: str, text: str, expected: str | None) -> None:
    match = compile_java(pattern).search(text)
    assert (match and match[0]) == expected
    row = Search(parse(f"{pattern}(?<end>)"), lambda group: group.name == "end").find()(text)
    assert row == (None if expected is None else ("",))


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{", "Illegal repetition"),
        ("a{,3}", "Illegal repetition"),
        ("a{3,1}", "Illegal repetition range"),
        ("*a", "Dangling meta character '*'"),
        ("a**", "Dangling meta character '*'"),
        ("(a", "Unclosed group"),
        ("a)", "Unmatched closing"),
        ("[a", "Unclosed character class"),
        ("[b-a]", "Illegal character range"),
        ("\\", "Unexpected end"),
        (r"\y", "unsupported escape"),
        (r"\p{Foo}", "Unknown character property"),
        ("(?<1a>x)", "group name"),
        (r"(?<=a+)b", "maximum length"),
        (r"\X", "not supported"),
        (r"a\G", "only supported at the start"),
        ("(" * 500 + ")" * 500, "nested"),
    ],
)
def test_refuses_before_any_text_is_seen(pattern: str, reason: str) -> None:
    with pytest.raises(RegexError, match=re.escape(reason)):
        compile_java(pattern)


def test_groups_keep_their_numbers_and_tell_their_names() -> None:
    pattern = r"(a)(?<day>b)(?:c)(?<hour>d)"
    assert group_names(pattern) == {"day": 2, "hour": 3}
    match = compile_java(pattern).search("abcd")
    assert match is not None
    assert match.groups() == ("a", "b", "d")


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        (r'\S+ \[\d+\] "x', '] "x'),
        (r"(?:a|b)c+", "c"),
        (r" +\S", ""),
        (r"(?:foo: )+bar", "foo: "),
        (r"(?:foo: )*bar", "bar"),
        (r"(?i)error: x", ": "),
        (r"(?:foo)?\d", ""),
        (r"a|foo", ""),
    ],
)
def test_finds_a_text_that_every_match_contains(pattern: str, literal: str) -> None:
    assert Search(parse(pattern)).literal == literal


CHARS = st.sampled_from([*'ab1 "[', r"\d", r"\w", r"\S", "[ab]", '[^"]', "[^a]", ".", r"\[", "] "])
ANCHORS = st.sampled_from([r"\b", "^", "$", "(?=a)", "(?!1)", "(?<=a)", "(?<!b)"])
COUNTS = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "*?", "+?", "??", "*+", "?+"])
PATTERNS = st.recursive(
    st.one_of(CHARS.map(lambda text: text.replace("[", r"\[") if text == "[" else text), ANCHORS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=5).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        inner.map(lambda part: f"({part})"),
        inner.map(lambda part: f"(?>{part})"),
        st.tuples(CHARS.filter(lambda text: len(text) != 2 or text[0] == "\\"), COUNTS).map("".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}"])).map(lambda pair: f"(?:x{pair[0]}){pair[1]}"),
    ),
    max_leaves=12,
)


@given(PATTERNS, st.lists(st.text('ab1x "[]\n', max_size=14), min_size=1, max_size=8))
def test_every_way_of_searching_finds_the_same(pattern: str, texts: list[str]) -> None:
    try:
        expected = re.compile(pattern.replace("[", r"\[") if pattern == "[" else pattern, re.ASCII)
        tree = parse(pattern)
    except (re.error, RegexError):
        return
    search = Search(tree)
    find, find_later = search.find(), search.find(from_start=False)
    plain = re.compile(to_python(tree, plain=True))
    for text in texts:
        match = expected.search(text)
        row = match and match.groups()
        assert find(text) == row
        assert find_later(text) == row
        for compiled in (search.exact, plain, search.anywhere):
            found = compiled.search(text)
            assert (found and found.groups()) == row
        if match is not None:
            assert search.literal in text
            assert search.possible(text)


LARGE = "(?:" + "|".join(first + second for first in "ab1" for second in "abx1") + ")"
OPEN = rf"(?:{LARGE}|\w+%.+)"
SAMPLES = {
    LARGE: ["ab", "1x", "b1"],
    OPEN: ["a1", "1% é", "11%b: "],
    r"\w+": ["a", "b1", "x_"],
    r"\b[ab]+": ["a", "ba"],
    "(?:x )?": ["", "x "],
    r"(?:\[\d+\])?": ["", "[1]"],
    "(?:a:1-|b/1:[ab]?)": ["a:1-", "b/1:", "b/1:a"],
    "(?>a|ab)": ["a", "ab"],
    "(?<!b)1b?+": ["1", "1b"],
    "(.*?)": ["", "a: b", "é"],
    r'(?:"[^"\\]*+(?:\\.[^"\\]*+)*"|`[^`]*`)': ['"a"', '""', "`b`"],
    "[+-]?+[1-9]{1,3}": ["1", "-111"],
    "$": ["", "\n", "\r\n"],
}
SIGNS = [": ", '] "', " [", '"', '" ', "-", "/", ":", " "]
NOISE = st.sampled_from([*SIGNS, "a", "b1", "%", "é", "\n", "\r", "\u2028", "x ", '"b" ', "1: a"])


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A pattern like that of a line of a log, and texts that it matches or nearly matches."""
    first = draw(st.sampled_from([r"\w+", OPEN, *SAMPLES]))
    parts = [first, *draw(st.lists(st.sampled_from(sorted(SAMPLES)), min_size=1, max_size=5))]
    signs = draw(st.lists(st.sampled_from(SIGNS), min_size=len(parts) - 1, max_size=len(parts) - 1))
    texts = []
    for _ in range(draw(st.integers(1, 6))):
        pieces = [draw(st.sampled_from(SAMPLES[part])) for part in parts]
        text = "".join(part for pair in zip(pieces, [*signs, ""], strict=True) for part in pair)
        if draw(st.booleans()):
            start = draw(st.integers(0, len(text)))
            text = text[:start] + draw(NOISE) + text[start + draw(st.integers(0, 3)) :]
        before, after = draw(st.lists(NOISE, max_size=3)), draw(st.lists(NOISE, max_size=3))
        texts.append("".join([*before, text, *after]))
    pattern = "".join(
        part + re.escape(sign).replace("\\ ", " ") for part, sign in zip(parts, [*signs, ""], strict=True)
    )
    return pattern, texts


@given(lines())
def test_no_text_that_matches_is_refused(line: tuple[str, list[str]]) -> None:
    pattern, texts = line
    search = Search(parse(pattern))
    find, find_later = search.find(), search.find(from_start=False)
    for text in texts:
        match = search.exact.search(text)
        row = match and match.groups()
        assert find(text) == row
        assert find_later(text) == row
        assert match is None or search.possible_odd(text)


def test_an_end_that_may_run_away_is_not_tried_where_the_pattern_does_not_lead() -> None:
    find = Search(parse(r'(\w+) \[\d\] "(?:\w+ ?)*z')).find()
    with TimeLimit(10):
        assert find(f'"{"a" * 60}! y [1] "bz') == ("y",)


def test_what_is_refused_without_a_search() -> None:
    pattern = rf'(\w+) {LARGE} \[([1-9]/[ab]{{3}}:\d\d:\d\d) \d+\] "(.*?)" (\d+) ("[^"]*"|`[^`]*`)'
    search = Search(parse(pattern))
    text = 'x ab [1/aba:12:34 7] "a b" 200 "-"'
    assert search.possible(f"x {text}")
    wrong = [
        ("/aba", "/abc"),
        ('" 2', '" x2'),
        ("x ab", "ab"),
        ("ab", "ac"),
        ("12", "1"),
        ('"-"', '"-'),
        (" 7]", "]"),
        (" [", "["),
    ]
    for old, new in wrong:
        assert not search.possible(text.replace(old, new)), new


@interruptible
def _run_away(pattern: re.Pattern[str], text: str) -> object:
    return pattern.match(text)


RUNAWAY = re.compile(r"(?:a|a)*b")


def test_a_match_that_runs_away_is_interrupted_and_the_next_one_is_not() -> None:
    limit = TimeLimit(0.02)
    with pytest.raises(TimeLimitExceeded), limit:
        _run_away(RUNAWAY, "a" * 60)
    with limit:
        assert _run_away(RUNAWAY, "aab")


def test_a_match_that_takes_too_much_memory_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_bytes = 48 * 1024 * 1024
    monkeypatch.setattr(timelimit, "BYTES_MAX", limit_bytes)
    text = "a" * 5_000_000
    tracemalloc.start()
    try:
        with pytest.raises(TimeLimitExceeded), TimeLimit(60):
            _run_away(RUNAWAY, text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert limit_bytes / 2 < peak_bytes < 16 * limit_bytes, "it is looked at now and then, and would take gigabytes"
    with TimeLimit(60):
        assert _run_away(RUNAWAY, "aab")


def test_code_that_is_not_marked_is_not_interrupted() -> None:
    effects = []
    with TimeLimit(0.005):
        for step in range(200):
            effects.append(sum(range(2_000)) and step)  # noqa: PERF401 (a comprehension has no steps)
    assert effects == list(range(200))


def test_outside_the_main_thread_there_is_no_limit() -> None:
    found = []

    def match() -> None:
        with TimeLimit(0.001):
            found.append(_run_away(RUNAWAY, "a" * 1_000 + "b"))

    thread = threading.Thread(target=match)
    thread.start()
    thread.join()
    assert found[0]


def test_a_limit_inside_of_a_limit_suspends_it() -> None:
    endless = "a" * 60
    with pytest.raises(TimeLimitExceeded), TimeLimit(0.02):
        with TimeLimit(10):
            assert _run_away(RUNAWAY, "aab")
        _run_away(RUNAWAY, endless)
    with TimeLimit(10):
        with pytest.raises(TimeLimitExceeded), TimeLimit(0.001):
            _run_away(RUNAWAY, endless)
        assert _run_away(RUNAWAY, "a" * 1_000 + "b")
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
