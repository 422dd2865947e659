"""Splitting texts: what the examples do not say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigError
from penstock.testing import run_processor
from penstock.testing.processors import build_processor

STRICT = {"field_split_characters": " ,", "value_grouping": True, "strict_grouping": True, "tags_on_failure": ["bad"]}


def split(text, **config):
    return run_processor("key_value", config, [{"message": text}])[0].body.get("parsed_message")


@pytest.mark.parametrize(
    ("text", "config", "expected"),
    [
        ("a=1&&b=2&", {}, {"a": "1", "b": "2"}),
        ("a=1=2", {}, {"a": "1=2"}),
        ("a=1|b=2", {"field_split_characters": "\\|"}, {"a": "1", "b": "2"}),
        ("a=1|b=2", {"field_split_characters": "|"}, {"a": "1", "b": "2"}),
        ("a:1;b=2", {"field_split_characters": ";,", "value_split_characters": ":="}, {"a": "1", "b": "2"}),
        ("a=1  b=2", {"field_split_characters": "", "field_delimiter_regex": r"\s+"}, {"a": "1", "b": "2"}),
        ("a => 1", {"value_split_characters": "", "key_value_delimiter_regex": r"\s*=>\s*"}, {"a": "1"}),
        ("xa=1y", {"delete_key_regex": "^x", "delete_value_regex": "y$", "prefix": "p_"}, {"p_a": "1"}),
        ("a=1&A=2", {"transform_key": "lowercase"}, {"a": ["1", "2"]}),
        ("a&b=", {"drop_keys_with_no_value": True}, {"b": ""}),
        ("a=(x)&a=[x]", {"remove_brackets": True, "skip_duplicate_values": True}, {"a": "x"}),
        ("a= 1 & b", {"whitespace": "strict", "non_match_value": 0}, {"a": "1 ", " b": 0}),
        (
            "k=(a,(b,c),d) j=1",
            {"field_split_characters": " ,", "value_grouping": True},
            {"k": "(a,(b,c)", "d)": None, "j": "1"},
        ),
        ("a=[b=1&c", {"recursive": True}, {"a": "[b=1&c"}),
        ("a=<b=(c=1)>&d", {"recursive": True}, {"a": {"b": {"c": "1"}}, "d": None}),
        (
            'x "k=v" y=1',
            {"field_split_characters": " ", "value_grouping": True, "string_literal_character": '"'},
            {"x": None, '"k=v"': None, "y": "1"},
        ),
        (
            "a=b (c d)e f=g",
            {"field_split_characters": " ", "value_grouping": True},
            {"a": "b", "(c": None, "d)e": None, "f": "g"},
        ),
        ("a=b(c d)(e f)g", {"field_split_characters": " ", "value_grouping": True}, {"a": "b(c d)(e f)g"}),
        ("a=It's b=c", {"field_split_characters": " ", "value_grouping": True}, {"a": "It's b=c"}),
        ("a = b & c", {"value_grouping": True}, {"a ": " b", "c": None}),
        ("a=(b c)d=e", {"field_split_characters": " )", "value_grouping": True}, {"a": "(b c)", "d": "e"}),
        ("=1&a=2&x=3", {"delete_key_regex": "x"}, {"a": "2"}),
        ("a", {"default_values": {"b": None, "": 1}, "drop_keys_with_no_value": True}, {}),
        ("a=1", {"field_split_characters": "", "value_split_characters": ""}, {"a": "1"}),
        ("a = [b  = 1]", {"recursive": True}, {"a": {"b": "1"}}),
    ],
)
def test_texts(text, config, expected):
    assert split(text, **config) == expected


def test_groups_that_do_not_end():
    before = [{"message": "a=1 b=[2 c=3"}, {"message": "a=1 b=[2] c=3"}]
    first, second = run_processor("key_value", STRICT, before)
    assert (first.body, first.tags) == (before[0], ["bad"])
    assert (second.body["parsed_message"], second.tags) == ({"a": "1", "b": "[2]", "c": "3"}, [])


def test_a_deeply_nested_text_is_split_up_to_a_limit():
    value = split("a=" + "[a=" * 500 + "1" + "]" * 500, recursive=True)
    depth = 0
    while isinstance(value, dict):
        value, depth = value["a"], depth + 1
    assert 50 < depth < 100
    assert value.endswith("]")


def test_an_existing_destination_may_stay():
    event = {"message": "a=1", "parsed_message": 0, "a": 0}
    config = {"overwrite_if_destination_exists": False}
    assert run_processor("key_value", config, [event])[0].body == event
    assert run_processor("key_value", {**config, "destination": None}, [event])[0].body == event


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"field_delimiter_regex": ";"},
            "field_delimiter_regex and field_split_characters cannot both be defined.",
        ),
        (
            {"key_value_delimiter_regex": ":"},
            "key_value_delimiter_regex and value_split_characters cannot both be defined.",
        ),
        (
            {"value_grouping": True, "field_delimiter_regex": ";", "field_split_characters": ""},
            "Invalid Configuration. value_grouping option and field_delimiter_regex are mutually exclusive",
        ),
        ({"string_literal_character": "'"}, "Invalid Configuration. String literal character config is valid only"),
        ({"string_literal_character": "''"}, "string_literal_character may only have one character"),
        ({"delete_key_regex": "["}, "The value of delete_key_regex is not a valid regex string"),
        ({"recursive": True, "remove_brackets": True}, "Cannot remove brackets needed for determining levels"),
        (
            {"recursive": True, "field_split_characters": "&;"},
            "While recursive is true, the set field split characters is limited to one character only.",
        ),
        (
            {"recursive": True, "value_split_characters": "<"},
            "While recursive is true, the set value split characters cannot contain brackets",
        ),
        ({"include_keys": ["a"], "exclude_keys": ["a"]}, "Include keys and exclude keys set cannot have any overlap"),
        ({"default_values": {"a": 1}, "exclude_keys": ["a"]}, "Cannot exclude a default key!"),
    ],
)
def test_refused_options(config, message):
    with pytest.raises(ConfigError) as caught:
        build_processor("key_value", config)
    assert message in str(caught.value)


texts = st.text(alphabet="ab=& ,[]()<>{}\"'\\|:/https", max_size=40)
CONFIGS = [
    {},
    {"recursive": True},
    {"field_split_characters": " ,&", "value_grouping": True},
    {"field_split_characters": " ,&", "value_grouping": True, "string_literal_character": "'"},
    {"field_split_characters": "", "field_delimiter_regex": "[&,]?"},
    STRICT | {"tags_on_failure": ["failed"]},
]


@given(st.lists(st.fixed_dictionaries({"message": texts | st.integers() | st.none()})), st.sampled_from(CONFIGS))
def test_any_text_survives(run_unharmed, before, config):
    run_unharmed("key_value", config, before)
    at_the_top = {**config, "destination": None, "tags_on_failure": ["failed"]}
    run_unharmed("key_value", at_the_top, before)


words = st.text(alphabet="abc123", min_size=1, max_size=4)


@given(st.dictionaries(words, words))
def test_what_was_joined_is_split_again(pairs):
    text = "&".join(f"{key}={value}" for key, value in pairs.items())
    for config in ({}, {"recursive": True}, {"value_grouping": True}):
        assert split(text, **config) == pairs


def test_names_that_cannot_be_written_are_left_out():
    [event] = run_processor("key_value", {"destination": None}, [{"message": "a%=1&b=2&c/d=3", "c": 4}])
    assert event.body == {"message": "a%=1&b=2&c/d=3", "b": "2", "c": 4}


def test_numbers_are_texts():
    assert split(15) == {"15": None}


def test_an_empty_source_is_refused():
    with pytest.raises(ConfigError, match="source must not be empty"):
        run_processor("key_value", {"source": ""}, [])
