"""Items that are joined from the start come apart as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.json_text import encode
from penstock.sdk import JoinedItems, objects_of, texts_of

HEAD = b'{"index":{"_index":"logs"}}\n'
TEXTS = st.text(st.sampled_from('aZ019 ,\n\r\t\x0b\x1c\x85\u2028{}"\\ß😀'), max_size=12)
BODIES = st.dictionaries(TEXTS, TEXTS | st.integers(-9, 9) | st.lists(TEXTS, max_size=2), max_size=3)


@given(st.lists(BODIES, min_size=1, max_size=8), st.data())
def test_documents_behind_their_action_lines_come_apart(bodies, data):
    items = [HEAD + encode(body) + b"\n" for body in [{"index": {"_index": "logs"}}, *bodies]]
    joined = JoinedItems(HEAD, [b"".join(items[:3]), b"".join(items[3:])], len(items))
    place = data.draw(st.integers(-len(items), len(items) - 1))
    assert joined[place] == items[place]
    assert list(joined) == items
    assert joined[1:] == items[1:]
    assert b"".join(texts_of(joined)) == b"".join(items)
    assert len(texts_of(joined)) == 2


def test_an_item_keeps_its_identity_once_it_was_asked_for():
    joined = JoinedItems(HEAD, [2 * (HEAD + b"{}\n")], 2)
    assert list(objects_of(joined)) == [joined]
    last = joined[1]
    assert [id(one) for one in objects_of(joined)] == [id(last)]
    assert [id(item) for item in joined] == [id(joined[0]), id(last)]


def test_there_is_no_item_behind_the_last():
    with pytest.raises(IndexError):
        JoinedItems(HEAD, [HEAD + b"{}\n"], 1)[1]


def test_a_plain_list_is_its_own_texts_and_objects():
    items = [b"a", b"b"]
    assert texts_of(items) is items
    assert objects_of(items) is items
