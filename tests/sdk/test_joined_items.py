"""Items that are joined from the start come apart as they were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.json_text import encode
from penstock.sdk import JoinedItems, texts_of

LINE = b'{"index":{"_index":"logs"}}\n'
TEXTS = st.text(st.sampled_from('aZ019 ,\n\r\t\x0b\x1c\x85\u2028{}"\\ß😀'), max_size=12)
BODIES = st.dictionaries(TEXTS, TEXTS | st.integers(-9, 9) | st.lists(TEXTS, max_size=2), max_size=3)


@given(st.lists(BODIES, min_size=1, max_size=8))
def test_documents_behind_their_action_lines_come_apart(bodies):
    items = [LINE + encode(body) + b"\n" for body in [{"index": {"_index": "logs"}}, *bodies]]
    joined = JoinedItems.of_lines([b"".join(items[:3]), b"".join(items[3:])], len(items), 2)
    assert b"".join(texts_of(joined)) == b"".join(items)
    assert len(texts_of(joined)) == 2
    assert list(joined) == items
    assert joined[-1] == items[-1]
    assert texts_of(joined) == items


def test_an_item_keeps_its_identity_once_it_was_asked_for():
    joined = JoinedItems.of_lines([LINE + b"{}\n" + LINE + b"{}\n"], 2, 2)
    first = joined[0]
    assert [id(item) for item in joined] == [id(first), id(joined[1])]
    assert joined[0:1] == [first]


def test_a_plain_list_is_its_own_texts():
    items = [b"a", b"b"]
    assert texts_of(items) is items
