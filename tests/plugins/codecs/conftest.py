from itertools import pairwise

import pytest

from penstock.core.batch import Batch, concat
from penstock.core.clock import ManualClock
from penstock.core.metrics import Registry
from penstock.sdk import Context, SinkOptions
from penstock.testing.plugins import checked


class Codecs:
    """Builds codecs and runs them piece by piece."""

    def __init__(self):
        self.registry = Registry()
        self.clock = ManualClock()

    def context(self, name, **options):
        return Context(
            "p", name, kind="codec", registry=self.registry, clock=self.clock, sink_options=SinkOptions(**options)
        )

    def decoder(self, name, **options):
        found, config = checked("input_codec", name, options)
        return found.module.build_decoder(config, self.context(name)).decoder()

    def read(self, name, data, cuts=(), **options):
        """The batch that comes out when `data` is fed in pieces that end at `cuts`."""
        decoder = self.decoder(name, **options)
        edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        batches = [decoder.feed(data[start:end]) for start, end in pairwise(edges)]
        return concat([*batches, decoder.finish()])

    def output(self, name, sink=None, **options):
        found, config = checked("output_codec", name, options)
        return found.module.build_encoder(config, self.context(name, **(sink or {})))

    def write(self, name, *batches, sink=None, **options):
        """The bytes of one object with these batches, or lists of bodies."""
        encoder = self.output(name, sink, **options).encoder()
        made = [batch if isinstance(batch, Batch) else Batch(list(batch)) for batch in batches]
        return b"".join([encoder.start(), *map(encoder.write, made), encoder.finish()])


@pytest.fixture(scope="module")
def codecs():
    return Codecs()
