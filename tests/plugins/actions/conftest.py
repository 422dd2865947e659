import pytest

from penstock.core.batch import Batch
from penstock.core.handle import Handle


@pytest.fixture
def batch_of():
    """Makes a batch under a promise; what becomes of it is added to the list given."""

    def make(heard, *bodies):
        batch = Batch(list(bodies))
        if bodies:
            handle = Handle(heard.append)
            batch.promise(handle)
            handle.seal()
        return batch

    return make
