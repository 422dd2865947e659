"""Nothing happens."""

from hypothesis import given

from penstock.core.batch import Batch
from penstock.testing import build_processor
from penstock.testing.strategies import events


@given(events)
def test_the_batch_is_the_same(before):
    batch = Batch(before)
    assert build_processor("no-op", {})(batch) is batch
