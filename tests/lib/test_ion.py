"""Ion text: what JSON cannot show."""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.lib.ion import NESTING_MAX, IonError, read_ion


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: 1, 'b c': x, \"d\": [y, 'z z', $ion],}", {"a": 1, "b c": "x", "d": ["y", "z z", "$ion"]}),
        ("$ion_1_0 {Item: {n: 12.}}", {"Item": {"n": 12}}),
        ("unit::other::{x: 'c d'::1}", {"x": 1}),
        ("(a + (b) 'q' -1 <= 'r'::2)", ["a", "+", ["b"], "q", -1, "<=", 2]),
        ("'''one \n''' /* and */ '''it's \\\n two''' // end", "one \nit's  two"),
        (r'"\x41é\U0001F600\?\/\0 \ud83d\ude00 \ud83d!"', "Aé😀?/\0 😀 �!"),
        ("[null.int, null.struct, null, true, false]", [None, None, None, True, False]),
        ("[0x1F, 0b101, 1_000, -0x1_0]", [31, 5, 1000, -16]),
        ("[12.50, 1e3, 5d3, 1.2345678901234567890123, 1e400]", None),
        ("[+inf, -inf]", [math.inf, -math.inf]),
        ("{{ aGV sbG8= }}", "aGVsbG8="),
        ('{{ "he\\x6clo" }}', "aGVsbG8="),
        ("$4", "name"),
        ("{a /* :: */ : /* } */ 1}", {"a": 1}),
        ("{a: 1, a: 2}", {"a": 2}),
        ("1 2 3", 1),
    ],
)
def test_values(text, value):
    if value is None:
        value = [12.5, 1000.0, 5000.0, Decimal("1.2345678901234567890123"), Decimal("1E+400")]
    found = read_ion(text)
    assert found == value
    assert repr(found) == repr(value)  # the types too


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2007T", "2007T"),
        ("2007-02T", "2007-02T"),
        ("2007-02-03", "2007-02-03"),
        ("2007-02-03T", "2007-02-03"),
        ("2007-02-03T00:30+01:00", "2007-02-02T23:30Z"),
        ("2007-02-03T23:59:58.123456789012-00:01", "2007-02-04T00:00:58.123456789012Z"),
        ("2007-02-03T12:00:00-00:00", "2007-02-03T12:00:00Z"),
    ],
)
def test_timestamps_are_written_in_utc_with_their_own_precision(text, written):
    assert read_ion(text) == written


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "{",
            "[",
            "(",
            '"',
            "'",
            "'''a",
            "{a",
            "{a:",
            "{a:1",
            "{a:1 b:2}",
            "{,}",
            "[1,,2]",
            "{a:007}",
            "{null:1}",
        ),
        *("{bare Key: 1}", "{a::1}", "{a:(}", "[(1]", "1.5.5", "1e", "0x", "$99", "$0", "null.what", "/* a", r'"\q"'),
        *(
            r'"\U00110000"',
            "2007-13-01",
            "2007-02-30",
            "2007-02-03T24:00Z",
            "0001-01-01T00:00+01:00",
            "2007-02-03T10:00",
        ),
        *("{{ a }}", "{{ abc", '{{ "a" }', "1d99999999999999999999", "1" * 5000, "0x" + "1" * 5000, "'a\nb'", "\ud800"),
    ],
)
def test_what_is_no_ion(text):
    with pytest.raises(IonError):
        read_ion(text)


@pytest.mark.parametrize("opening", ["[", "{a:", "(", "[{a:(", '{"a":['])
def test_nesting_has_a_limit(opening):
    with pytest.raises(IonError, match="nested"):
        read_ion(opening * 10_000)
    assert read_ion("[" * NESTING_MAX + "]" * NESTING_MAX)
    with pytest.raises(IonError, match="nested"):
        read_ion("[" * (NESTING_MAX + 1) + "]" * (NESTING_MAX + 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_is_ion_on_both_ways(value):
    text = json.dumps(value)
    assert read_ion(text) == value
    assert read_ion("a::" + text) == value  # an annotation is no JSON
    assert read_ion(f"[{json.dumps(value, ensure_ascii=False)}, x]")[0] == value


names = st.sampled_from(["a", "b", "_c1", "null", '"a"', '""', '"x y"', "'q r'", "$4", "$9", "é"])
written = st.sampled_from(
    [
        *(
            '""',
            '"x"',
            '"\\n"',
            "INFO",
            "true",
            "null",
            "nan",
            "null.int",
            "-7",
            "0",
            "07",
            "1_0",
            "12.",
            "0.50",
            "-1.5e2",
        ),
        *("1.2345678901234567890123", "9" * 18, "9" * 30, "a::1", "'s'", "[1, x]", "{n: {m: 1}, o: 2}", "(a + b)", ""),
        *("2026-01-15T10:30:05Z", "2026-02-29T10:30:05Z", "2024-02-29T10:30:05.5Z", "2026-04-31T00:00:00Z", "2026T"),
        *("2026-12-31T23:59:59.999Z", "2026-12-30T24:00:00Z", "2026-12-30T23:59:59+01:00", "{{ aGV sbG8= }}"),
    ]
)
blanks = st.sampled_from(["", "", "", " ", "\n", " // c\n"])
members = st.tuples(blanks, names, blanks, written, blanks).map(
    lambda part: f"{part[0]}{part[1]}{part[2]}:{part[4]}{part[3]}{part[2]}"
)


@given(st.lists(members, max_size=6), st.sampled_from(["}", " }", ",}", ", }", "} x", ""]))
def test_a_struct_is_read_alike_alone_and_in_a_list(parts, end):
    text = "{" + ",".join(parts) + end
    try:
        (listed, *_) = read_ion(f"[{text}, 1]")
    except IonError:
        if end != "} x":  # of a text that is no list only the first value counts
            with pytest.raises(IonError):
                read_ion(text)
        return
    assert repr(read_ion(text)) == repr(listed)


@given(st.text(alphabet="{}[]()'\"\\:,./*-+_$ \n0123456789eadnulTZx"))
@example("'" * 9)
@example("{{'''a'''}}")
def test_any_text_is_read_or_refused(text):
    try:
        read_ion(text)
    except IonError:
        return
