"""Java's splitting and replacing, against what Java gives."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.lib.regex import RegexError
from penstock.lib.text_values import ReplacementError, compile_replace, compile_split


@pytest.mark.parametrize(
    ("expression", "text", "parts"),
    [
        (",", "a,b,,", ["a", "b"]),
        (",", ",", []),
        (",", "", [""]),
        (",", ",a", ["", "a"]),
        ("(,)", "a,b,", ["a", "b"]),
        ("x*", "axb", ["a", "", "b"]),
        ("(?=[A-Z])", "AbcDef", ["Abc", "Def"]),
        ("^", "abc", ["abc"]),
        ("$", "abc", ["abc"]),
        ("b*?", "abbc", ["a", "b", "b", "c"]),
        ("|bb", "abbc", ["a", "b", "b", "c"]),
    ],
)
def test_split_by_regex(expression, text, parts):
    assert compile_split(None, expression)(text) == parts


@given(st.text("a,", max_size=12))
def test_a_character_and_its_expression_split_alike(text):
    parts = compile_split(",")(text)
    assert parts == compile_split(None, ",")(text) == compile_split(None, "(,)")(text)
    assert ",".join(parts) == (text.rstrip(",") or text if "," not in text else text.rstrip(","))
    assert not parts or parts == [text] or parts[-1]


@pytest.mark.parametrize(
    ("expression", "replacement", "text", "result"),
    [
        ("a*", "-", "baac", "-b--c-"),
        ("(a)(b)?", "[$1$2]", "aab", "[a][ab]"),
        ("(?<first>a)(b)", "$2${first}", "ab", "ba"),
        ("(a)", "$11", "a", "a1"),
        ("a", r"\$0\\", "a", "$0\\"),
        ("a", "$0$0", "a", "aa"),
        ("(?i)A", r"\g<0>", "a", "g<0>"),
        (".", "x", "a\nb", "x\nx"),
        ("\\d", "#", "1٣", "#٣"),
        ("a*?", "-", "ba", "-b-a-"),
        ("^|a", "<$0>", "aab", "<>a<a>b"),
        ("(|a)b*", "<$0$1>", "aab", "<>a<>a<b><>"),
        ("x?|ab", "-", "xab", "--a-b-"),
    ],
)
def test_replace(expression, replacement, text, result):
    assert compile_replace(expression, replacement)(text) == result


@pytest.mark.parametrize("replacement", ["$", "a\\", "$x", "$2", "${none}", "${}"])
def test_replacements_that_never_work(replacement):
    with pytest.raises(ReplacementError):
        compile_replace("(a)", replacement)


def test_wrong_expressions():
    with pytest.raises(RegexError):
        compile_replace("[", "")
    with pytest.raises(RegexError):
        compile_split(None, "(")


@given(st.text(max_size=8), st.text(max_size=12))
def test_a_replacement_without_signs_is_taken_as_it_is(replacement, text):
    escaped = re.sub(r"[\\$]", r"\\\g<0>", replacement)
    assert compile_replace("[a-m]", escaped)(text) == re.sub("[a-m]", lambda found: replacement, text)
