"""Waiting, in virtual time."""

import asyncio

import pytest

from penstock.core.errors import ConfigError
from penstock.core.handle import Handle
from penstock.sdk import Batch
from penstock.testing import build_processor
from penstock.testing.virtual import run_virtual


def test_batches_wait_while_others_go_on():
    async def scenario():
        loop = asyncio.get_running_loop()
        run = build_processor("delay", {"for": "PT1H"})
        batch, handle = Batch([{"n": 1}, {"n": 2}]), Handle()
        batch.promise(handle)
        waiting = asyncio.ensure_future(run(batch))
        await asyncio.sleep(3599)
        assert not waiting.done()
        await run(Batch([]))  # nothing to hold up
        assert loop.time() == 3599
        result = await waiting
        assert loop.time() == 3600
        assert result.bodies == [{"n": 1}, {"n": 2}]
        assert handle.pending == 3

    run_virtual(scenario())


def test_the_default_is_a_second():
    async def scenario():
        await build_processor("delay", {})(Batch([{}]))
        return asyncio.get_running_loop().time()

    assert run_virtual(scenario()) == 1


@pytest.mark.parametrize("span", ["-PT1S", "soon", 5])
def test_rules(span):
    with pytest.raises(ConfigError):
        build_processor("delay", {"for": span})
