"""Batches: metadata is made for those events that get some of their own."""

from __future__ import annotations

from penstock.core.batch import Batch, Meta


def test_tags_for_several_events_share_nothing() -> None:
    origin = Meta("TRACE", 7, {"headers": {"a": ["x"]}}, ["old"], 5)
    own = Meta(tags=["own"])
    batch = Batch([{}, {}, {}, {}], [None, own, None, None], origin=origin)
    batch.tag_each([0, 1, 3], ["new", "more"])
    assert batch.metas[1] is own
    assert own.tags == {"own", "new", "more"}
    assert batch.metas[2] is None
    first, last = batch.meta(0), batch.meta(3)
    for meta in (first, last):
        assert (meta.event_type, meta.received_ms, meta.origination_ms) == ("TRACE", 7, 5)
        assert meta.tags == {"old", "new", "more"}
        assert meta.attributes == origin.attributes
    first.tags.clear()
    first.attributes["headers"]["a"].append("y")
    assert last.tags == {"old", "new", "more"}
    assert last.attributes == origin.attributes == {"headers": {"a": ["x"]}}
    assert origin.tags == {"old"}
