"""Items that are joined from the start come apart as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.json_text import encode
from penstock.sdk import JoinedItems, select, sent_before, texts_of

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
    chosen = sorted(data.draw(st.sets(st.integers(0, len(items) - 1))))
    some = select(joined, chosen)
    assert isinstance(some, JoinedItems)
    assert list(some) == [items[number] for number in chosen]
    assert (len(some), b"".join(texts_of(some))) == (len(chosen), b"".join(some))


def test_there_is_no_item_behind_the_last():
    with pytest.raises(IndexError):
        JoinedItems(HEAD, [HEAD + b"{}\n"], 1)[1]


def test_a_plain_list_is_its_own_texts():
    items = [b"a", b"b"]
    assert texts_of(items) is items
    assert select(items, [1]) == [b"b"]
    assert sent_before(items) is None
