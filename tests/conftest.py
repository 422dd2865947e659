"""Settings of every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from penstock.core import start

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _settings_of_the_process_stay() -> Iterator[None]:
    """A command that is tried in this process sets up logs and the way it starts for itself alone."""
    loggers = [logging.getLogger(), logging.getLogger("penstock")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    describe = start.describe_options
    yield
    start.describe_options = describe
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
