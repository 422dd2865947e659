import pickle
from copy import deepcopy

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.core.errors import EventError
from penstock.core.key import MISSING, Key, valid_key

names = st.sampled_from(["a", "b", "c", "0", "1", "x~y", "m/n", " p", "$"])
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
bodies = st.dictionaries(names, values, max_size=4)


def escaped(parts):
    return "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)


keys = st.lists(names, min_size=1, max_size=4).map(lambda parts: Key.parse(escaped(parts)))


@given(bodies, keys, values)
def test_what_was_put_is_read_and_a_failed_put_changes_nothing(body, key, value):
    before = deepcopy(body)
    try:
        key.put(body, value)
    except EventError:
        assert body == before
    else:
        assert key.get(body) == value
        assert key.exists(body)


@given(bodies, keys)
def test_what_was_taken_can_be_put_back(body, key):
    before = deepcopy(body)
    try:
        value = key.take(body)
    except EventError:
        assert body == before
        return
    if value is MISSING:
        assert body == before
        assert not key.exists(before)
        return
    assert not key.exists(body)
    assume(not key.parts[-1].isdigit())  # a name made of digits can be read and taken, but not written
    key.put(body, value)
    assert body == before


@given(bodies, keys)
def test_delete_leaves_nothing_behind_or_says_why_not(body, key):
    before = deepcopy(body)
    try:
        key.delete(body)
    except EventError:
        assert body == before
    else:
        assert not key.exists(body)


@given(bodies, keys)
def test_reading_never_raises_and_agrees_with_walking_by_hand(body, key):
    node = body
    for part in key.parts:
        if isinstance(node, dict):
            node = node.get(part, MISSING)
        elif isinstance(node, list) and part in map(str, range(len(node))):
            node = node[int(part)]
        else:
            node = MISSING
    assert key.get(body) is node
    assert key.exists(body) is (node is not MISSING)


@given(st.text(max_size=20) | st.text("ab~01/[]() $-_.@", max_size=20))
def test_any_text_is_a_key_or_a_value_error(text):
    if not valid_key(text):
        with pytest.raises(ValueError, match="key"):
            Key.parse(text, "get")
        return
    key = Key.parse(text, "get")
    assert key.get({}) is MISSING or key.parts == ()
    assert pickle.loads(pickle.dumps(key)) == key == deepcopy(key)


@pytest.mark.parametrize("text", ["a/b", "/a/b", "a/b/", "/a//b/"])
def test_slashes_at_the_ends_and_empty_segments_do_not_matter(text):
    assert Key.parse(text) == Key.parse("a/b")
    assert hash(Key.parse(text)) == hash(Key.parse("a/b"))


@pytest.mark.parametrize(
    ("text", "action", "message"),
    [
        (None, "get", "Parameter key cannot be null for EventKey."),
        ("", "put", "Event key cannot be an empty string for PUT actions."),
        ("", "delete", "Event key cannot be an empty string for DELETE actions."),
        ("", "all", "Event key cannot be an empty string for ALL actions."),
        ("k" * 2049, "get", "key cannot be longer than 2048 characters"),
        (
            "a,b",
            "put",
            "key a,b must contain only alphanumeric chars with .-_@/ and must follow JsonPointer (ie. 'field/to/key').",
        ),
    ],
)
def test_messages_of_refused_keys(text, action, message):
    with pytest.raises(ValueError, match="key") as refused:
        Key.parse(text, action)
    assert str(refused.value) == message


def test_a_key_for_delete_is_not_checked():
    body = {"a,b" * 1000: 1}
    Key.parse("a,b" * 1000, "delete").delete(body)
    assert body == {}


def test_the_root_can_only_be_read():
    root, body = Key.parse("", "get"), {"a": 1}
    assert root.get(body) is body
    with pytest.raises(EventError, match="key cannot be an empty string for put method"):
        root.put(body, 1)
    for remove in (root.take, root.delete):
        with pytest.raises(EventError, match="key cannot be an empty string for delete method"):
            remove(body)
    assert body == {"a": 1}


@pytest.mark.parametrize(
    ("key", "body", "message"),
    [
        ("list/2/a", {"list": [1]}, "Cannot expand array past the limit of size 1 to reach index 2"),
        ("list/x/a", {"list": []}, "x is no index"),
        ("list/1", {"list": [1]}, "only 1 elements"),
        ("list/99999999999", {"list": [1]}, "99999999999 is no index"),
        ("list/name", {"list": [1]}, "its parent is no object"),
        ("a/0", {"a": {}}, "its parent is no array"),
        ("a/b/0", {}, "its parent is no array"),
        ("list/1/0", {"list": [1]}, "its parent is no array"),
        ("a/b/c", {"a": 5}, "below a value that is no object"),
        ("a/b", {"a": None}, "its parent is no object"),
        ("0", {}, "its parent is no array"),
    ],
)
def test_puts_that_cannot_be(key, body, message):
    before = deepcopy(body)
    with pytest.raises(EventError, match=message):
        Key.parse(key).put(body, "new")
    assert body == before


def test_elements_of_arrays():
    body = {"list": [{"a": 1}, 2]}
    Key.parse("list/1").put(body, "two")
    Key.parse("list/2/b/c").put(body, 3)
    assert body == {"list": [{"a": 1}, "two", {"b": {"c": 3}}]}
    assert Key.parse("list/01").get(body) is MISSING
    assert Key.parse("list/0/a").take(body) == 1
    with pytest.raises(EventError, match="cannot be removed"):
        Key.parse("list/1").take(body)
    assert Key.parse("list/7").take(body) is MISSING
    with pytest.raises(EventError, match="no object"):
        Key.parse("list/7").delete(body)
