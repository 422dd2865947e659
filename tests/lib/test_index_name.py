import pytest

from penstock.core.batch import Meta
from penstock.core.dates import parse_iso
from penstock.core.errors import EventError
from penstock.lib.index_name import compile_index_name

NOW = parse_iso("2023-11-11T08:09:10Z")
HOUR_NS = 3_600_000_000_000


@pytest.mark.parametrize(
    ("pattern", "name", "prefix", "template_pattern"),
    [
        ("logs", "logs", "logs", "logs"),
        ("logs-%{yyyy.MM.dd}", "logs-2023.11.11", "logs", "logs-*"),
        ("%{yyyy}-logs", "2023-logs", "logs", "*-logs"),
        ("a-%{yyyy.MM.dd.HH}-b", "a-2023.11.11.08-b", "a-b", "a-*-b"),
    ],
)
def test_fixed_names(pattern, name, prefix, template_pattern):
    compiled = compile_index_name(pattern)
    assert not compiled.is_dynamic
    assert compiled.render({}, Meta(), NOW) == name
    assert (compiled.prefix, compiled.template_pattern) == (prefix, template_pattern)
    assert compiled.has_date == (name != pattern)


def test_the_date_turns_with_the_hour():
    name = compile_index_name("${kind}-%{HH}")
    assert [name.render({"kind": "a"}, Meta(), NOW + step * HOUR_NS) for step in (0, 1, 16, 0)] == [
        "a-08",
        "a-09",
        "a-00",
        "a-08",
    ]


def test_an_event_cannot_smuggle_in_a_date():
    assert compile_index_name("x-${k}").render({"k": "%{yyyy}"}, Meta(), NOW) == "x-%{yyyy}"


def test_what_an_event_lacks():
    with pytest.raises(EventError, match="The key id could not be found in the Event when formatting"):
        compile_index_name("test-${id}").render({}, Meta(), NOW)
    with pytest.raises(EventError, match="empty"):
        compile_index_name("${id}", normalize=True).render({"id": "_?"}, Meta(), NOW)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a%{yyyy}%{MM}", "An index only allows one date-time pattern."),
        ("a%{%{yyyy}}", "An index doesn't allow nested date-time patterns."),
        ("a%{yyyy:MM}", "Index time pattern contains one or multiple special characters: "),
        ("a%{yyyy.mm}", "Index time pattern contains time patterns that are less than one hour: "),
        ("a%{bbb}", "Unknown pattern letter: b"),
        ("a${b", "Format string is not properly formed"),
        ("", "Invalid characters in the index name"),
    ],
)
def test_refused_patterns(pattern, message):
    with pytest.raises(ValueError) as caught:
        compile_index_name(pattern)
    assert str(caught.value).startswith(message)
